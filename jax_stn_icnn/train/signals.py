"""Handles SIGTERM and SIGINT: a run stops between two steps, with its state saved.

With several processes, JAX's preemption service handles SIGTERM instead, since all processes must
stop after the same step; SIGINT ends each of them at once. Python handles signals in the main
thread only: if training runs in another one, they have the effect that the program gives them.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
from tqdm import tqdm


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Yields a list that records SIGTERM and SIGINT; the same signal again has its usual effect."""
    received: list[int] = []
    is_main_thread = threading.current_thread() is threading.main_thread()
    if jax.process_count() > 1 or not is_main_thread:
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
