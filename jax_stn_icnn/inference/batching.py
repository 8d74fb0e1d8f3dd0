"""Runs the networks on batches of faces, while other photos are read and finished."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jax_stn_icnn.inference.finishing import PhotoFinisher
from jax_stn_icnn.inference.reading import PhotoReader, ReadFace, ReadPhoto
from jax_stn_icnn.inference.threads import background_threads, run_ahead
from jax_stn_icnn.inference.tracking import FaceTracker

THREADS = 2  # number of threads that read photos, and of threads that resample labels
# Another photo is read only while the photos whose results have not been taken have fewer than
# MAX_PIXELS pixels and fewer than MAX_FACES faces, or than the faces of two batches. A photo
# without faces counts as one face. The scores of a face take 23 MB.
MAX_PIXELS = 32_000_000
MAX_FACES = 32
MAX_BATCHES = 2  # on the device: one that runs, and one that waits


class Batching:
    """Parses photos in batches of their faces."""

    def __init__(
        self,
        reader: PhotoReader,
        program: Callable[..., Any],
        finisher: PhotoFinisher,
        batch_size: int,
    ):
        """Stores the arguments.

        Args:
            reader: crops the frames.
            program: the networks, a function of a batch of frames, and of wide frames.
            finisher: resamples their outputs to the photos.
            batch_size: faces per call of the networks.
        """
        self._reader, self._program, self._finisher = reader, program, finisher
        self._batch_size = batch_size

    def results(
        self,
        reads: Iterable[Callable[[], ReadPhoto]],
        errors: str = "raise",
        tracker: FaceTracker | None = None,
    ) -> Iterator[Any]:
        """Yields the results of photos in order.

        Args:
            reads: calls of `PhotoReader.read`, requested only as results are taken.
            errors: as in `FaceParser.stream`.
            tracker: follows faces if the photos are the frames of a video.
        """
        photos: deque[ReadPhoto] = deque()  # read, but their results have not been taken
        batch: list[ReadFace] = []  # faces of these photos for the next call of the networks
        on_device: deque[Any] = deque()  # outputs of the last calls
        shapes = self._reader.frame_shapes(self._batch_size)
        # One thread finishes the faces of a video, since each depends on the frames before.
        num_finishers = THREADS if tracker is None else 1
        # Frames that wait are old when a camera's user sees them.
        max_faces = 2 * self._batch_size if tracker else max(MAX_FACES, 2 * self._batch_size)
        ahead = 0 if tracker and self._batch_size == 1 else THREADS

        def finish(photo: ReadPhoto) -> Any:
            result = self._finisher.finish_photo(photo)
            if isinstance(result, Exception) and errors == "raise":
                raise result
            return result

        with background_threads(THREADS) as readers, background_threads(num_finishers) as finishers:

            def run_networks() -> None:
                if len(on_device) == MAX_BATCHES:
                    jax.block_until_ready(on_device.popleft())
                frames = [np.zeros(shape, np.uint8) for shape in shapes]
                for row, face in enumerate(batch):
                    for array, frame in zip(frames, face.frames, strict=True):
                        array[row] = frame
                on_device.append(self._program(*frames))
                fetched = finishers.submit(jax.device_get, on_device[-1])
                for row, face in enumerate(batch):
                    face.result = finishers.submit(self._finisher.finish_face, face, fetched, row)
                batch.clear()

            for photo in run_ahead(readers, reads, ahead):
                if tracker is not None:
                    self._reader.follow(photo, tracker)
                photos.append(photo)
                for face in photo.faces:
                    batch.append(face)
                    if len(batch) == self._batch_size:
                        run_networks()
                while photos and (_is_done(photos[0]) or not _has_room(photos, max_faces)):
                    if any(face.result is None for face in photos[0].faces):
                        run_networks()  # No other photo may be read to fill the batch.
                    yield finish(photos.popleft())
            if batch:
                run_networks()
            while photos:
                yield finish(photos.popleft())


def _is_done(photo: ReadPhoto) -> bool:
    return all(face.result is not None and face.result.done() for face in photo.faces)


def _has_room(photos: Iterable[ReadPhoto], max_faces: int) -> bool:
    """Whether another photo may be read."""
    num_faces = sum(max(len(photo.faces), 1) for photo in photos)
    num_pixels = sum(photo.image[..., 0].size for photo in photos)
    return num_faces < max_faces and num_pixels < MAX_PIXELS
