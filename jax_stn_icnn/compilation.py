"""The compilation cache: programs compiled once stay on disk, so the second start is fast."""

from pathlib import Path

import jax

DIRECTORY = "~/.cache/jax_stn_icnn"
HELP = (
    "Directory of compiled programs; empty for none. By default JAX_COMPILATION_CACHE_DIR, else "
    f"{DIRECTORY}."
)


def keep_compiled(directory: str | None) -> None:
    """Keeps compiled programs in a directory, and takes them from there.

    JAX finds a program by what it does, for what machine and by which version; one that changed is
    compiled anew. The directory only grows, and may be removed at any time.

    Args:
        directory: where; created if missing. Empty: nowhere. None: where JAX is told to by
            `JAX_COMPILATION_CACHE_DIR`, else DIRECTORY.
    """
    if directory is None:
        directory = jax.config.values["jax_compilation_cache_dir"] or DIRECTORY
    path = str(Path(directory).expanduser()) if directory else None
    jax.config.update("jax_compilation_cache_dir", path)
    # By default only what took a second: the many small programs of a start take longer together.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
