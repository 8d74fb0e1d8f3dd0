"""Thread pools whose threads have a lower priority than the networks' threads."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

NICENESS = 10  # added to the niceness of the process, on Linux

Result = TypeVar("Result")


@contextmanager
def background_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Starts a pool of low-priority threads; on exit, pending calls are cancelled.

    The networks run on several cores and wait for the slowest one, so threads that compete with
    them on equal terms slow them down.

    Args:
        count: number of threads.

    Yields:
        The pool.
    """
    pool = ThreadPoolExecutor(count, initializer=_lower_priority)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def run_ahead(
    pool: ThreadPoolExecutor, calls: Iterable[Callable[[], Result]], ahead: int
) -> Iterator[Result]:
    """Runs calls in a pool of threads, a few ahead of the consumer.

    Args:
        pool: the pool.
        calls: iterated lazily.
        ahead: how many calls after the one whose result is yielded may be submitted.

    Yields:
        The results, in the order of the calls.
    """
    futures: deque[Future[Result]] = deque()
    for call in calls:
        futures.append(pool.submit(call))
        if len(futures) > ahead:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


def _lower_priority() -> None:
    if sys.platform == "linux":  # Elsewhere niceness belongs to the process, not to the thread.
        own = os.PRIO_PROCESS, threading.get_native_id()
        os.setpriority(*own, min(os.getpriority(*own) + NICENESS, 19))
