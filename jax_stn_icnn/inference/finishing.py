"""Finishes photos: resamples the networks' outputs to their pixels and merges the faces."""

from concurrent.futures import Future

import numpy as np

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.faces import framing
from jax_stn_icnn.faces.resample import OpenCVError
from jax_stn_icnn.inference.extension import Extension
from jax_stn_icnn.inference.merging import merge_faces
from jax_stn_icnn.inference.reading import ReadFace, ReadPhoto, named_error
from jax_stn_icnn.inference.results import FaceResult, PhotoResult


class PhotoFinisher:
    """Finishes photos; threads may share it."""

    def __init__(self, anatomy: Anatomy, extension: Extension, exact_scores: bool):
        """Stores the arguments.

        Args:
            anatomy: the classes and parts.
            extension: parses far frames, if there are wide frames.
            exact_scores: as in `FaceParser.load`.
        """
        self._anatomy, self._extension = anatomy, extension
        self._exact_scores = exact_scores

    def finish_face(
        self, face: ReadFace, fetched: Future[dict[str, np.ndarray]], row: int
    ) -> FaceResult:
        """Resamples the outputs for a face to its photo.

        Args:
            face: the face.
            fetched: the networks' outputs for a batch, as `parse_frames` returns them.
            row: the face's row in the batch.
        """
        # Copied from larger batches, so that a result does not keep other faces' outputs in memory.
        outputs = {
            name: values[row].copy() if len(values) > 1 else values[0]
            for name, values in fetched.result().items()
        }
        matrix = face.located.matrix
        outputs["scores"] = _smooth(face, 0, matrix, outputs["scores"])
        wide_scores: tuple[np.ndarray, ...] = ()
        if len(face.frames) > 1:
            frame, wide = face.frames
            wide_matrix = framing.wide_frame(matrix, len(frame), len(wide))
            scores = _smooth(face, 1, wide_matrix, outputs.pop("wide_scores"))
            wide_scores = self._extension(face.photo, wide_matrix, scores)
            if len(wide_scores) > 1:
                blended, scores = wide_scores
                far_matrix = framing.wide_frame(wide_matrix, len(wide))
                wide_scores = blended, _smooth(face, 2, far_matrix, scores)
        return FaceResult.from_frame(
            **outputs,
            **face.located._asdict(),
            wide_scores=wide_scores,
            anatomy=self._anatomy,
            photo_size=face.photo.shape[:2],
            exact_scores=self._exact_scores,
            track=None if face.track is None else face.track.number,
        )

    def finish_photo(self, photo: ReadPhoto) -> PhotoResult | OSError | ValueError:
        """Waits for the faces of a photo and merges their labels; returns errors of the photo."""
        if photo.error is not None:
            return photo.error
        try:
            faces = [face.result.result() for face in photo.faces if face.result is not None]
            pixels, faces = merge_faces(faces, photo.image, photo.neighbors)
        except OpenCVError as error:
            return named_error(photo.name, error)
        return PhotoResult(photo.image, faces, self._anatomy, pixels)


def _smooth(face: ReadFace, level: int, matrix: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns scores of a frame, of a face that is followed smoothed over time.

    Args:
        face: the face.
        level: 0 for the frame, 1 for the wide frame, 2 for the far frame.
        matrix: pixels of that frame -> pixels of the photo.
        scores: float32 (classes, side, side).
    """
    if face.track is None:
        return scores
    return face.track.smoothers[level](face.photo, matrix, scores)
