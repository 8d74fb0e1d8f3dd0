"""Compilation: programs stay on disk, so the second start is fast; large ones in little memory."""

import ctypes
import sys
from pathlib import Path

import jax
from jax.stages import Compiled, Lowered

DIRECTORY = "~/.cache/jax_stn_icnn"
HELP = (
    "Directory of compiled programs; empty for none. By default JAX_COMPILATION_CACHE_DIR, else "
    f"{DIRECTORY}."
)


def keep_compiled(directory: str | None = None) -> None:
    """Keeps compiled programs in a directory, and takes them from there.

    JAX finds a program by what it does, for what machine and by which version; one that changed is
    compiled anew. What `programs` keeps whole lies there too. The directory only grows, and may be
    removed at any time.

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


def compile_program(lowered: Lowered, *, save_memory: bool) -> Compiled:
    """Compiles a program, and gives back what compiling it took.

    On CPU XLA orders a program for concurrency, so that much is alive at once: a joint training
    step, whose parts could come one after the other, then takes more than half as much memory
    again. It is 3 to 4 % faster for it if the batch is large, 12 to 19 % if it is small
    (docs/performance.md).

    Args:
        lowered: the program, as `jax.jit(...).lower(...)` gives it.
        save_memory: whether it is ordered for memory instead; on CPU only.

    Returns:
        The compiled program.
    """
    options: dict[str, str | bool] = {}
    if save_memory and jax.default_backend() == "cpu":
        options["xla_cpu_scheduler_type"] = "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
    compiled = lowered.compile(options)
    give_back_memory()
    return compiled


def give_back_memory() -> None:
    """Gives memory that was freed, but that glibc keeps to itself, back to the system.

    The compiler leaves over a gigabyte in pieces, and each checkpoint some, in the arenas of the
    threads that wrote it.
    """
    if sys.platform == "linux":
        # Other C libraries lack the function and the habit.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
