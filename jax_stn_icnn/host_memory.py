"""Keeps the process's memory: on CPU a step needs the same gigabytes again and again."""

import ctypes
import platform

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_memory() -> None:
    """Tells the C library not to hand freed memory back to the system.

    It would do so after each step, and every page of the next one would have to be fetched and
    cleared anew: a tenth to a third of a training step (docs/performance.md). For commands, at their
    start; a library has no business with the whole process. Elsewhere than on glibc it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_ARENA_MAX, 1)  # Other threads' arenas cannot hold as much as a step needs.
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
