"""Reads photos for the parser: locates the faces and crops their frames."""

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np

from jax_stn_icnn.faces import framing, resample
from jax_stn_icnn.faces.detectors import Detector
from jax_stn_icnn.inference.locating import FaceLocator, LocatedFace, Selection
from jax_stn_icnn.inference.results import FaceResult
from jax_stn_icnn.inference.tracking import FaceTracker, Track
from jax_stn_icnn.photos.reading import PhotoError, to_rgb


@dataclasses.dataclass
class ReadFace:
    """A face of a photo that has been read."""

    located: LocatedFace
    frames: tuple[np.ndarray, ...]  # the frame, uint8 (S, S, 3); possibly the wide frame
    photo: np.ndarray  # uint8 (height, width, 3)
    result: Future[FaceResult] | None = None  # None until its batch is on the device
    track: Track | None = None  # None in photos


@dataclasses.dataclass
class ReadPhoto:
    """A photo that has been read, or the error of reading it."""

    name: str
    image: np.ndarray  # uint8 (height, width, 3)
    faces: list[ReadFace]
    neighbors: list[np.ndarray]  # frames -> photo of people that are not parsed
    error: OSError | ValueError | None = None


class PhotoReader:
    """Reads photos; threads may share it."""

    def __init__(self, locator: FaceLocator, frame_size: int, wide_size: int | None):
        """Stores the arguments.

        Args:
            locator: locates the faces.
            frame_size: side of the frames.
            wide_size: side of the wide frames; None for parsers without them.
        """
        self._locator, self._frame_size, self._wide_size = locator, frame_size, wide_size

    def frame_shapes(self, batch_size: int) -> list[tuple[int, ...]]:
        """Returns the shapes of batches of frames, and of wide frames if there are any."""
        sides = [self._frame_size] + ([] if self._wide_size is None else [self._wide_size])
        return [(batch_size, side, side, 3) for side in sides]

    def request(
        self, photo: Any, name: str, detector: Detector, selection: Selection
    ) -> Callable[[], ReadPhoto]:
        """Returns a function that reads a photo.

        A photo in memory is copied now: a generator may reuse the memory for its next photo.

        Args:
            photo: as in `FaceParser.__call__`.
            name: name of a photo without a path in error messages.
            detector: the detector.
            selection: which faces are parsed.

        Returns:
            The function; it returns errors of the photo instead of raising them.
        """
        try:
            copy = photo if _is_path(photo) else np.array(to_rgb(photo, name))
        except (OSError, ValueError) as error:
            return partial(_failed, name, error)
        return partial(self.read, copy, name, detector, selection)

    def read(self, photo: Any, name: str, detector: Detector, selection: Selection) -> ReadPhoto:
        """Reads a photo; the arguments are those of `request`."""
        name = str(photo) if _is_path(photo) else name
        try:
            image = to_rgb(photo, name)
            located = self._locator.locate(image, detector, selection)
            faces = [
                ReadFace(face, self._crop(image, face.matrix), image) for face in located.selected
            ]
        except (OSError, PhotoError) as error:
            return _failed(name, error)
        except (ValueError, resample.OpenCVError) as error:
            return _failed(name, named_error(name, error))
        return ReadPhoto(name, image, faces, located.neighbors)

    def follow(self, photo: ReadPhoto, tracker: FaceTracker) -> None:
        """Gives the faces of a video's next picture their tracks and their steady frames."""
        tracks = tracker.follow([face.located for face in photo.faces])
        for face, track in zip(photo.faces, tracks, strict=True):
            face.track = track
            if track.matrix is not face.located.matrix:
                face.located = face.located._replace(matrix=track.matrix)
                face.frames = self._crop(photo.image, track.matrix)

    def _crop(self, image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns a face's frame, and its wide frame at the size of the coarse image."""
        side = self._frame_size
        frame = resample.warp(image, matrix, (side, side))
        if self._wide_size is None:
            return (frame,)
        wide_matrix = framing.wide_frame(matrix, side, self._wide_size)
        return frame, resample.warp(image, wide_matrix, (self._wide_size, self._wide_size))


def _is_path(photo: Any) -> bool:
    return isinstance(photo, str | os.PathLike)


def named_error(name: str, error: Exception) -> ValueError:
    """Returns an error of a photo whose message names the photo."""
    named = ValueError(f"{name}: {str(error).strip()}")
    named.__cause__ = error
    return named


def _failed(name: str, error: OSError | ValueError) -> ReadPhoto:
    return ReadPhoto(name, np.empty((0, 0, 3), np.uint8), [], [], error)
