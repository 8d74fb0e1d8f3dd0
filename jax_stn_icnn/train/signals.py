"""Ends a run between two steps, rather than in the middle of one, when a signal asks for it.

With several processes JAX's preemption service does this, since they must agree on the step.
"""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
from tqdm import tqdm


@contextlib.contextmanager
def noticing_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT, to end the run between two steps; a second ends it at once."""
    seen: list[int] = []
    if jax.process_count() > 1:
        yield seen
        return

    def notice(number: int, frame: Any) -> None:
        del frame
        seen.append(number)
        signal.signal(number, earlier[number])
        tqdm.write(f"{signal.Signals(number).name}: saving after this step")

    earlier: dict[int, Any] = {
        number: signal.signal(number, notice) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield seen
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
