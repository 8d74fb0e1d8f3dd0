"""Times contestants against each other, and finds what the machine reaches at its best."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

Call = Callable[[], object]


class Times(NamedTuple):
    """Seconds for one call: the median over the rounds, and its quartiles."""

    median: float
    low: float
    high: float


class Peak(NamedTuple):
    """What the machine reaches: operations and bytes a second."""

    operations: float
    bytes: float


def interleaved(calls: Mapping[str, Call], rounds: int, turn: float) -> dict[str, Times]:
    """Times calls in turn, round after round, so that what slows the machine slows all alike.

    A turn begins with a call that does not count.

    Args:
        calls: by name; each returns when its result is there.
        rounds: how often each has its turn.
        turn: about how many seconds a turn lasts; a call that takes longer is made once.

    Returns:
        The times of each.
    """
    repeats = {}
    for name, call in calls.items():
        call()  # Compiles.
        repeats[name] = max(1, round(turn / _seconds(call, 1)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(0.02)  # The other's threads still look for work for a while.
            call()  # What the other left, such as memory to be fetched anew, is not its own cost.
            seconds[name].append(_seconds(call, repeats[name]))
    return {name: _times(values) for name, values in seconds.items()}


def _seconds(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _times(seconds: list[float]) -> Times:
    if len(seconds) == 1:
        return Times(seconds[0], seconds[0], seconds[0])
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Times(median, low, high)


def measure_peak(dtype: str, rounds: int, side: int) -> Peak:
    """What a large matrix product and a large copy reach here.

    Args:
        dtype: of the matrices.
        rounds: the best of these counts.
        side: of the square matrices; the copy moves 16 times a matrix of float32.

    Returns:
        The peak; of the copy both reading and writing count.
    """
    matrix = jnp.ones((side, side), dtype)
    array = jnp.ones((16, side, side), jnp.float32)
    product = jax.jit(jnp.matmul)
    # An addition, because XLA may leave a plain copy out.
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
