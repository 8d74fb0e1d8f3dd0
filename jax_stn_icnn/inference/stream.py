"""Photos through the parser, one after another or many at once.

    reading and finding faces (threads) -> networks (device) -> labels in the photo (threads)

The three overlap. Faces of several photos go through the networks in one batch of fixed shape,
which is filled up at the end, so one compilation serves all. Results come in the order of the
photos, and no more photos are held than bounds on their pixels and faces allow.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

THREADS = 2  # for reading, and as many for finishing
NICER = 10  # than the networks' threads, on Linux
# Photos are taken in as long as those that are held have fewer pixels than this, and fewer faces
# (one without a face counts as one) than this or than two batches. A face's scores take 20 MB.
PIXELS = 32_000_000
FACES = 32
BATCHES = 2  # that may be on the device: one at work, and one behind it


class Prepared(NamedTuple):
    """A photo that was read, and its faces.

    Attributes:
        image: uint8 (height, width, 3).
        boxes: of the faces.
        matrices: pixels of a face's frame -> pixels of the photo.
        frames: uint8 (S, S, 3) each.
    """

    image: np.ndarray
    boxes: list[np.ndarray]
    matrices: list[np.ndarray]
    frames: list[np.ndarray]


class Steps(NamedTuple):
    """What is done to photos.

    Attributes:
        prepare: item -> what was read; its OSError or ValueError becomes the item's result.
        networks: frames, uint8 (batch, S, S, 3) -> arrays with as many rows, on the device.
        finish_face: what was read, the number of its face, that face's rows -> a face's result.
        finish: what was read, its faces' results -> the result.
    """

    prepare: Callable[[Any], Prepared]
    networks: Callable[[np.ndarray], dict[str, jax.Array]]
    finish_face: Callable[[Prepared, int, dict[str, np.ndarray]], Any]
    finish: Callable[[Prepared, list[Any]], Any]


def run(items: Iterable[Any], steps: Steps, batch_size: int) -> Iterator[Any]:
    """Takes items through all steps.

    Args:
        items: asked for only as fast as results are taken.
        steps: what is done to each.
        batch_size: how many faces go through the networks at once.

    Yields:
        For each item, in order, its result, or the error of reading it.
    """
    with threads(THREADS) as readers, threads(THREADS) as finishers:
        flow = _Flow(steps, batch_size, readers, finishers)
        try:
            yield from flow.results(iter(items))
        finally:
            readers.shutdown(cancel_futures=True)
            finishers.shutdown(cancel_futures=True)


def threads(count: int) -> ThreadPoolExecutor:
    """A pool of threads that give way to the networks.

    The networks run on several cores, and where one core is late the others wait: what goes on
    beside them is to fill such gaps, not to make them.
    """
    return ThreadPoolExecutor(count, initializer=_give_way)


def _give_way() -> None:
    if sys.platform == "linux":  # Elsewhere niceness is the whole process's.
        own = os.PRIO_PROCESS, threading.get_native_id()
        os.setpriority(*own, min(os.getpriority(*own) + NICER, 19))


class _Photo:
    """An item on its way."""

    def __init__(self, reading: Future):
        self.reading = reading
        self.num_pixels = self.num_faces = 0  # once it is read
        self.faces: list[Future] = []
        self.result: Future | None = None


class _Flow:
    """The state of a stream."""

    def __init__(
        self,
        steps: Steps,
        batch_size: int,
        readers: ThreadPoolExecutor,
        finishers: ThreadPoolExecutor,
    ):
        self.steps = steps
        self.batch_size = batch_size
        self.readers, self.finishers = readers, finishers
        self.coming: deque[_Photo] = deque()  # being read
        self.held: deque[_Photo] = deque()  # read, and not yet given out
        self.batch: list[tuple[_Photo, int]] = []  # photos and the numbers of their faces
        self.running: deque[Any] = deque()  # on the device

    def results(self, items: Iterator[Any]) -> Iterator[Any]:
        more = True
        while more or self.coming or self.held:
            while more and len(self.coming) < THREADS and self._has_room():
                item = next(items, _END)
                more = item is not _END
                if more:
                    self.coming.append(_Photo(self.readers.submit(self.steps.prepare, item)))
            if self.coming and self._has_room():
                self._take_in(self.coming.popleft())
            elif self.batch and self.held[0].result is None:
                self._run_batch()  # Nothing can be added that the first in line could wait for.
            elif self.held:
                yield self._first()
            while self.held and self.held[0].result is not None and self.held[0].result.done():
                yield self._first()

    def _has_room(self) -> bool:
        num_faces = sum(max(photo.num_faces, 1) for photo in self.held)
        num_pixels = sum(photo.num_pixels for photo in self.held)
        return num_faces < max(FACES, 2 * self.batch_size) and num_pixels < PIXELS

    def _first(self) -> Any:
        result = self.held.popleft().result
        assert result is not None
        return result.result()

    def _take_in(self, photo: _Photo) -> None:
        self.held.append(photo)
        try:
            prepared: Prepared = photo.reading.result()
        except (OSError, ValueError) as error:
            photo.result = Future()
            photo.result.set_result(error)
            return
        photo.num_pixels = prepared.image[..., 0].size
        photo.num_faces = len(prepared.frames)
        for number in range(photo.num_faces):
            self.batch.append((photo, number))
            if len(self.batch) == self.batch_size:
                self._run_batch()
        self._close(photo)

    def _run_batch(self) -> None:
        faces, self.batch = self.batch, []
        frames = [photo.reading.result().frames[number] for photo, number in faces]
        frames += [np.zeros_like(frames[0])] * (self.batch_size - len(frames))
        if len(self.running) == BATCHES:
            jax.block_until_ready(self.running.popleft())
        seen = self.steps.networks(np.stack(frames))
        self.running.append(seen)
        fetched = self.finishers.submit(jax.device_get, seen)
        for row, (photo, number) in enumerate(faces):
            photo.faces.append(
                self.finishers.submit(self._finish_face, photo, number, fetched, row)
            )
        for photo in dict.fromkeys(photo for photo, _ in faces):
            self._close(photo)

    def _close(self, photo: _Photo) -> None:
        """Has a photo finished, if all of its faces are on their way."""
        prepared = photo.reading.result()
        if photo.result is None and len(photo.faces) == len(prepared.frames):
            # The faces stand before it in the same queue, so waiting for them ends.
            photo.result = self.finishers.submit(
                lambda: self.steps.finish(prepared, [face.result() for face in photo.faces])
            )

    def _finish_face(self, photo: _Photo, number: int, fetched: Future, row: int) -> Any:
        rows = {name: values[row] for name, values in fetched.result().items()}
        if self.batch_size > 1:  # A face that is kept is not to keep its batch's others.
            rows = {name: values.copy() for name, values in rows.items()}
        return self.steps.finish_face(photo.reading.result(), number, rows)


_END = object()
