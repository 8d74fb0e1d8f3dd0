"""What compiling costs in memory, and how that is released."""

import ctypes
import sys

import jax
from jax.stages import Compiled, Lowered


def compile_program(lowered: Lowered, *, save_memory: bool) -> Compiled:
    """Compiles a program, and releases the memory that compiling it took.

    On CPU XLA orders a program for concurrency, so that much is alive at once: a joint training
    step, whose parts could come one after the other, then takes more than half as much memory
    again. It is 3 to 4 % faster for it if the batch is large, 12 to 19 % if it is small
    (docs/performance_notebook.md).

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
    release_memory()
    return compiled


def release_memory() -> None:
    """Returns memory that was freed, but that glibc keeps to itself, to the system.

    The compiler leaves over a gigabyte in pieces, and each checkpoint some, in the arenas of the
    threads that wrote it.
    """
    if sys.platform == "linux":
        # Other C libraries lack the function and the habit.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
