"""The source of this package as this process imported it, for the keys of cached programs."""

import functools
import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def _file_states() -> dict[Path, tuple[int, ...]]:
    """Returns what changes about each source file when it is edited or replaced."""
    states: dict[Path, tuple[int, ...]] = {}
    for path in PACKAGE.rglob("*.py"):
        stat = path.stat()
        states[path] = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return states


# The package's `__init__` imports this module first: nothing else of it is imported yet.
_AT_IMPORT = _file_states()


def source_hash() -> str | None:
    """Returns the hash of the source that this process imported, or imports later.

    Returns:
        SHA-256 of all files, hexadecimal; None if a file has changed since the package was
        imported, because then nobody knows which source a loaded module has.
    """
    try:
        digest = _hash_files()
        return digest if _file_states() == _AT_IMPORT else None
    except FileNotFoundError:  # A file was removed meanwhile.
        return None


@functools.cache
def _hash_files() -> str:
    found = hashlib.sha256()
    for path in sorted(_AT_IMPORT):
        found.update(f"{path.relative_to(PACKAGE)}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()
