"""Chooses the rotation of a doubtful face by the coarse segmentation.

For few faces the detector returns landmarks at several rotations. Those are chosen whose eyes, nose
and mouth the coarse network predicts at the same positions in their frame.
"""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from jax_stn_icnn import ops
from jax_stn_icnn.compilation.cache import cached_program, shapes_and_types
from jax_stn_icnn.compilation.compile import compile_program
from jax_stn_icnn.compilation.inlining import prevent_inlining
from jax_stn_icnn.faces import framing, resample
from jax_stn_icnn.faces.detectors import Detector
from jax_stn_icnn.faces.search import FaceSearch
from jax_stn_icnn.faces.yunet import Detection, largest_first
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.ops.platform import current_implementations

MAX_ROTATIONS = 4
# The classes at each landmark.
_MOUTH = ("upper_lip", "inner_mouth", "lower_lip")
_CLASSES = (("eye_1",), ("eye_2",), ("nose",), _MOUTH, _MOUTH)
# Classes are searched for within this distance of a landmark, a fraction of the frame's side.
_RADIUS = 0.03


class RotationCheck:
    """Detects faces, and checks the rotation of doubtful ones with the coarse network.

    The network is compiled for the first doubtful face. Calls must not overlap.
    """

    def __init__(self, model: STNiCNN, variables: Mapping[str, Any], frame_size: int):
        """Creates the check.

        Args:
            model: the networks; without classes of eyes, nose and lips, nothing is checked.
            variables: the variables of the model, on the device.
            frame_size: side of the frames.
        """
        self._model, self._variables, self._frame_size = model, variables, frame_size
        anatomy = model.config.anatomy
        names = {name for names in _CLASSES for name in names}
        self._ids = [anatomy.ids(each) for each in _CLASSES if names <= set(anatomy.classes)]

    def detect(self, detector: Detector, image: np.ndarray) -> Any:
        """Returns the output of a detector, with the checked landmarks of doubtful faces.

        Args:
            detector: the detector; only faces of a `FaceSearch` are checked.
            image: RGB, uint8 (height, width, 3).

        Returns:
            Boxes (faces, 4) or landmarks (faces, 5, 2).
        """
        if not isinstance(detector, FaceSearch):
            return detector(image)
        return largest_first([self.choose(image, face) for face in detector.detect(image)])

    def choose(self, image: np.ndarray, face: Detection) -> Detection:
        """Returns the rotation of a face that agrees best with the coarse segmentation.

        Args:
            image: RGB, uint8 (height, width, 3).
            face: the face with its alternatives, of which the best are compared.

        Returns:
            The face, or one of its alternatives.
        """
        if not face.alternatives or not self._ids:
            return face
        rotations = [face, *face.alternatives][:MAX_ROTATIONS]
        size = self._frame_size
        matrices = [framing.frame_from_landmarks(one.landmarks, size) for one in rotations]
        frames = np.zeros((MAX_ROTATIONS, size, size, 3), np.uint8)
        for i, matrix in enumerate(matrices):
            frames[i] = resample.warp(image, matrix, (size, size))
        probs = np.asarray(self._program(self._variables, frames))
        in_frame = [
            resample.transform_points(resample.invert_matrix(matrix), one.landmarks) / size
            for matrix, one in zip(matrices, rotations, strict=True)
        ]
        scores = [self._agreement(*one) for one in zip(probs, in_frame, strict=False)]
        return rotations[int(np.argmax(scores))]

    def _agreement(self, probs: np.ndarray, landmarks: np.ndarray) -> float:
        """Returns the mean probability of the classes at the landmarks.

        Args:
            probs: the coarse segmentation, (rows, columns, classes).
            landmarks: (x, y) in sides of the frame, (5, 2).
        """
        size = np.array(probs.shape[1::-1])
        scores = []
        for point, ids in zip(landmarks, self._ids, strict=True):
            low = np.clip(((point - _RADIUS) * size).astype(int), 0, size - 1)
            high = np.clip(((point + _RADIUS) * size).astype(int), low, size - 1)
            near = probs[low[1] : high[1] + 1, low[0] : high[0] + 1, list(ids)]
            scores.append(near.sum(axis=-1).max())
        return float(np.mean(scores))

    @cached_property
    def _program(self) -> Any:
        """The compiled coarse network."""
        frames = jax.ShapeDtypeStruct((MAX_ROTATIONS, *(self._frame_size,) * 2, 3), np.uint8)
        return cached_program(
            "coarse segmentation",
            (self._model, current_implementations(), shapes_and_types((self._variables, frames))),
            lambda: prevent_inlining(_coarse_probs.lower(self._model, self._variables, frames)),
            partial(compile_program, save_memory=True),
            list(jax.tree.leaves(self._variables)[0].devices()),
        )


@partial(jax.jit, static_argnames="model")
def _coarse_probs(model: STNiCNN, variables: Mapping[str, Any], frames: jax.Array) -> jax.Array:
    """Returns the coarse segmentation of frames, uint8 (batch, S, S, 3)."""
    image = ops.coarse_image(ops.to_float(frames), None, model.config.coarse_image_size)
    output: Any = model.apply(variables, image, method="coarse_stage")
    return jax.nn.softmax(output.logits)
