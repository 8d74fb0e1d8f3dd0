"""Checks doubtful faces with the coarse network.

The network segments the face at twelve rotations. Where eyes, nose and mouth are most probable at
their places, their segmentation gives landmarks. These replace the landmarks of the detector if
the segmentation contradicts it. What is a face at no rotation is dropped.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from jax_stn_icnn import ops
from jax_stn_icnn.faces import framing, resample
from jax_stn_icnn.faces.yunet import Detection
from jax_stn_icnn.inference.programs import LazyProgram, ModelProgram
from jax_stn_icnn.models.pipeline import STNiCNN

_BATCH = 4
_ANGLES = np.arange(12) * np.pi / 6
_MOUTH = ("upper_lip", "inner_mouth", "lower_lip")
_PARTS = (("eye_1", "glasses"), ("eye_2", "glasses"), ("nose",), _MOUTH)
# (x, y) of the parts in sides of the frame, and the radius around them in which a part is searched
# for. A part with less probability is assumed to be there.
_PLACES = np.array([(0.38, 0.47), (0.62, 0.47), (0.5, 0.59), (0.5, 0.74)])
_RADIUS, _MIN_PROBABILITY = 0.13, 0.3
_MOUTH_HALF = 0.1  # of the width
# A part is predicted at a landmark if it is within this distance, in sides of the frame.
_TOLERANCE = 0.03
# Landmarks of the detector are kept if they agree by at most this less, mean probabilities, with
# the segmentation.
_MARGIN = 0.1
# Of the doubtful faces in wild.zip, the annotated ones agree by .98 at least, false ones mostly by
# less than the first of these. So do profiles, in which one eye is hidden: in 38 photos of
# Figaro-1k, 18 of 24 detections of profiles have the score and the second agreement, and 5 of 17
# detections of other things, most of them heads from behind.
_MIN_AGREEMENT, _PROFILE_SCORE, _PROFILE_AGREEMENT = 0.7, 0.8, 0.25


class RotationCheck:
    """Checks doubtful faces; the network is compiled for the first one. Threads may share it."""

    def __init__(self, model: STNiCNN, variables: Mapping[str, Any], frame_size: int):
        """Creates the check.

        Args:
            model: the networks; without classes of eyes, nose and lips, nothing is checked.
            variables: the variables of the model, on the device.
            frame_size: side of the frames.
        """
        self._variables, self._frame_size = variables, frame_size
        anatomy = model.config.anatomy
        parts = [[name for name in part if name in anatomy.classes] for part in _PARTS]
        self._ids = [anatomy.ids(part) for part in parts] if all(parts) else []
        frames = jax.ShapeDtypeStruct((_BATCH, frame_size, frame_size, 3), np.uint8)
        program = ModelProgram("coarse segmentation", _coarse_probs, model, variables, (frames,))
        self._program = LazyProgram(program.compile)

    def check(self, image: np.ndarray, face: Detection) -> Detection | None:
        """Returns a face with the landmarks that agree best with the coarse segmentation.

        Args:
            image: RGB, uint8 (height, width, 3).
            face: the face; a certain one is returned as it is.

        Returns:
            The face; None if it is none by the segmentation and the detector's score.
        """
        if face.is_certain or not self._ids:
            return face
        candidates = [face.landmarks, *self._segmented_landmarks(image, face)]
        frames = [framing.frame_from_landmarks(one, self._frame_size) for one in candidates]
        segmented = self._segment(image, frames)
        agreements = [
            self._agreement(probs, self._in_frame(matrix, landmarks))
            for probs, matrix, landmarks in zip(segmented, frames, candidates, strict=True)
        ]
        best = int(np.argmax(agreements))
        if agreements[best] < _MIN_AGREEMENT:
            # No rotation is certain, so a profile keeps the landmarks of the detector.
            is_profile = face.score >= _PROFILE_SCORE and agreements[best] >= _PROFILE_AGREEMENT
            return face if is_profile else None
        if agreements[0] >= agreements[best] - _MARGIN:
            return face
        # The landmarks in their own frame are more exact than those in a frame that is not upright.
        return face._replace(landmarks=self._landmarks(frames[best], segmented[best]))

    def _segmented_landmarks(self, image: np.ndarray, face: Detection) -> list[np.ndarray]:
        """Returns landmarks by the segmentation at the three best of the rotations."""
        size = self._frame_size
        frames = [_rotated_frame(face, angle, size) for angle in _ANGLES]
        segmented = self._segment(image, frames)
        order = np.argsort([-self._find_parts(probs)[0] for probs in segmented], kind="stable")
        return [self._landmarks(frames[i], segmented[i]) for i in order[: _BATCH - 1]]

    def _landmarks(self, matrix: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """Returns the landmarks in the photo, (5, 2), by the segmentation of a frame."""
        points = self._find_parts(probs)[1] * self._frame_size - 0.5
        return resample.transform_points(matrix, points)

    def _segment(self, image: np.ndarray, matrices: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the coarse segmentation of frames, a multiple of the batch."""
        size = (self._frame_size,) * 2
        probs: list[np.ndarray] = []
        for start in range(0, len(matrices), _BATCH):
            batch = matrices[start : start + _BATCH]
            frames = np.stack([resample.warp(image, matrix, size) for matrix in batch])
            probs.extend(np.asarray(self._program(self._variables, frames)))
        return probs

    def _in_frame(self, matrix: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Returns points of the photo in sides of a frame."""
        points = resample.transform_points(resample.invert_matrix(matrix), landmarks)
        return (points + 0.5) / self._frame_size

    def _find_parts(self, probs: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the mean probability of the parts near their places, and their landmarks.

        Args:
            probs: the coarse segmentation, (rows, columns, classes).

        Returns:
            The mean, and (x, y) in sides of the frame, (5, 2).
        """
        points = _pixel_centers(probs)
        scores, centers = [], _PLACES.copy()
        for i, ids in enumerate(self._ids):
            part = probs[..., list(ids)].sum(axis=-1)
            part = part * (np.linalg.norm(points - _PLACES[i], axis=-1) < _RADIUS)
            scores.append(part.max())
            if scores[-1] >= _MIN_PROBABILITY:
                weights = part * (part >= scores[-1] / 2)
                centers[i] = np.average(points.reshape(-1, 2), axis=0, weights=weights.ravel())
        ends = centers[3] + np.array([(-_MOUTH_HALF, 0), (_MOUTH_HALF, 0)])
        return float(np.mean(scores)), np.concatenate([centers[:3], ends])

    def _agreement(self, probs: np.ndarray, landmarks: np.ndarray) -> float:
        """Returns the mean probability of the parts at landmarks.

        Args:
            probs: the coarse segmentation, (rows, columns, classes).
            landmarks: (x, y) in sides of the frame, (5, 2).
        """
        points = _pixel_centers(probs)
        scores = []
        centers = [*landmarks[:3], landmarks[3:].mean(axis=0)]
        for center, ids in zip(centers, self._ids, strict=True):
            near = np.abs(points - center).max(axis=-1) <= _TOLERANCE
            scores.append(probs[near][:, list(ids)].sum(axis=-1).max(initial=0.0))
        return float(np.mean(scores))


@partial(jax.jit, static_argnames="model")
def _coarse_probs(model: STNiCNN, variables: Mapping[str, Any], frames: jax.Array) -> jax.Array:
    """Returns the coarse segmentation of frames, uint8 (batch, S, S, 3)."""
    image = ops.coarse_image(ops.to_float(frames), None, model.config.coarse_image_size)
    output: Any = model.apply(variables, image, method="coarse_stage")
    return jax.nn.softmax(output.logits)


def _rotated_frame(face: Detection, angle: float, frame_size: int) -> np.ndarray:
    """Returns the frame of the box of a face that is rotated by an angle, frame -> photo."""
    half = face.side / 2
    box = np.concatenate([face.center - half, face.center + half])
    upright = framing.frame_from_box(box, frame_size)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, -sin], [sin, cos]])
    origin = face.center + rotation @ (upright[:, 2] - face.center)
    return np.concatenate([rotation @ upright[:, :2], origin[:, None]], axis=1)


def _pixel_centers(probs: np.ndarray) -> np.ndarray:
    """Returns (x, y) of the pixels of a segmentation in sides of the frame, (rows, columns, 2)."""
    rows, columns = probs.shape[:2]
    y, x = np.indices((rows, columns)) + 0.5
    return np.stack([x / columns, y / rows], axis=-1)
