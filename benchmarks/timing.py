"""Times calls alternately, and measures the peak performance of the machine."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

Call = Callable[[], object]


class Times(NamedTuple):
    """Duration of a call, or another measurement, over several rounds.

    Attributes:
        median: The median.
        low: The lower quartile.
        high: The upper quartile.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Times":
        """Returns the median and the quartiles of values."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


class Peak(NamedTuple):
    """Peak performance of the machine: operations and bytes per second."""

    operations: float
    bytes: float


def interleaved(calls: Mapping[str, Call], rounds: int, duration: float) -> dict[str, Times]:
    """Times calls alternately, so that a change of the machine's speed affects all of them.

    Args:
        calls: The calls by name; each returns when its result is available.
        rounds: Number of measurements of each call; each begins with a call that is not timed.
        duration: Approximate seconds of a measurement; a call that takes longer is made once.

    Returns:
        The times of each call, in seconds.
    """
    repeats = {}
    for name, call in calls.items():
        call()  # Compiles.
        repeats[name] = max(1, round(duration / _seconds(call, 1)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(0.02)  # Threads of the previous call still wait for work for a while.
            call()  # Restores caches and memory that the previous call released.
            seconds[name].append(_seconds(call, repeats[name]))
    return {name: Times.of(values) for name, values in seconds.items()}


def _seconds(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def measure_peak(dtype: str, rounds: int, side: int) -> Peak:
    """Measures a large matrix product and a large copy.

    Args:
        dtype: Type of the matrices.
        rounds: Number of measurements, of which the best counts.
        side: Side of the square matrices; the copied array has the size of 16 of them in float32.

    Returns:
        The peak; a copy counts its array twice, read and written.
    """
    matrix = jnp.ones((side, side), dtype)
    array = jnp.ones((16, side, side), jnp.float32)
    product = jax.jit(jnp.matmul)
    # An addition, because XLA may remove a plain copy.
    copy = jax.jit(lambda array: array + 1)
    calls: dict[str, Call] = {
        "product": lambda: product(matrix, matrix).block_until_ready(),
        "copy": lambda: copy(array).block_until_ready(),
    }
    best = {}
    for name, call in calls.items():
        call()
        best[name] = min(_seconds(call, 1) for _ in range(rounds))
    return Peak(2 * side**3 / best["product"], 2 * array.nbytes / best["copy"])
