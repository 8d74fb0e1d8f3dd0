"""Ends a run between two steps, rather than in the middle of one, when a signal asks for it.

With several processes JAX's preemption service does this for SIGTERM, since they must agree on the
step; SIGINT ends each at once there.
"""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
from tqdm import tqdm


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT, to end the run between two steps; a second ends it at once."""
    seen: list[int] = []
    if jax.process_count() > 1:
        yield seen
        return

    def notice(number: int, frame: Any) -> None:
        del frame
        seen.append(number)
        signal.signal(number, earlier[number])
        name = signal.Signals(number).name
        tqdm.write(f"{name}: saving after this step, or after the validation where it is going on")

    earlier: dict[int, Any] = {
        number: signal.signal(number, notice) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield seen
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
