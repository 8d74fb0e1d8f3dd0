"""Handles SIGTERM and SIGINT: a run stops between two steps, with its state saved.

With several processes, JAX's preemption service handles SIGTERM instead, since all processes must
stop after the same step; SIGINT ends each of them at once.
"""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
from tqdm import tqdm


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Yields a list that records SIGTERM and SIGINT; the same signal again has its usual effect."""
    received: list[int] = []
    if jax.process_count() > 1:
        yield received
        return

    def record(number: int, frame: Any) -> None:
        del frame
        received.append(number)
        signal.signal(number, handlers[number])
        name = signal.Signals(number).name
        tqdm.write(f"{name}: saving after this step, or after the validation if one is running")

    handlers: dict[int, Any] = {
        number: signal.signal(number, record) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
