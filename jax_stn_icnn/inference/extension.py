"""Extends the parse of a face to its far frame, if hair or clothes leave the wide frame."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from jax_stn_icnn import ops
from jax_stn_icnn.faces import framing, resample
from jax_stn_icnn.inference.programs import ModelProgram, Program
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.models.wide import blend

# Number of pixels along the edges of the wide frame from which classes leave it.
_REACHING = 4


class Extension:
    """Parses far frames; threads may share it."""

    def __init__(self, program: Program, variables: Mapping[str, Any]):
        """Stores the arguments.

        Args:
            program: that of `far_program`.
            variables: the variables of the model, on the device.
        """
        self._program, self._variables = program, variables

    def __call__(
        self, photo: np.ndarray, wide_matrix: np.ndarray, wide_scores: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Returns the scores of the wide frame, and of the far frame if it is needed.

        Args:
            photo: RGB, uint8 (height, width, 3).
            wide_matrix: pixels of the wide frame -> pixels of the photo.
            wide_scores: scores of the global classes in the wide frame, float32 (classes, rows,
                columns).

        Returns:
            `wide_scores` alone if no class but background reaches an edge of the wide frame within
            the photo; otherwise the scores blended along the edges with those of the far frame, and
            those, of the same shape.
        """
        if not _reaches_edge(wide_scores, wide_matrix, photo.shape):
            return (wide_scores,)
        side = wide_scores.shape[-1]
        frame = resample.warp(photo, framing.wide_frame(wide_matrix, side), (side, side))
        outputs = self._program(self._variables, wide_scores[None], frame[None])
        blended, far_scores = jax.device_get(outputs)
        return blended[0], far_scores[0]


def far_program(model: STNiCNN, variables: Mapping[str, Any]) -> ModelProgram:
    """Returns the program of an `Extension`.

    Args:
        model: the networks, trained on wide and far frames.
        variables: the variables of the model, on the device.
    """
    size = model.config.coarse_image_size
    scores = (1, len(model.config.anatomy.global_ids), *size)
    inputs = (
        jax.ShapeDtypeStruct(scores, np.float32),
        jax.ShapeDtypeStruct((1, *size, 3), np.uint8),
    )
    return ModelProgram("far frame", _extend, model, variables, inputs)


class FarFromParse:
    """The program of an `Extension` by a program that parses frames, instead of its own one."""

    def __init__(self, parse: Program, frame_shape: tuple[int, ...]):
        """Stores the arguments.

        Args:
            parse: the program of `parse_frames` for one frame and its wide frame.
            frame_shape: shape of the frames, (1, S, S, 3).
        """
        self._parse, self._frame = parse, np.zeros(frame_shape, np.uint8)

    def __call__(self, variables: Mapping[str, Any], wide_probs: Any, far_frame: Any) -> Any:
        """Returns `STNiCNN.extend` of frames, uint8, parsed as if they were wide frames."""
        far_probs = self._parse(variables, self._frame, far_frame)["wide_scores"]
        return _blend(wide_probs, far_probs), far_probs


@jax.jit
def _blend(wide_probs: jax.Array, far_probs: jax.Array) -> jax.Array:
    return blend(wide_probs, far_probs, wide_probs.shape[2:])


@partial(jax.jit, static_argnames="model")
def _extend(
    model: STNiCNN, variables: Mapping[str, Any], wide_probs: jax.Array, far_frame: jax.Array
) -> Any:
    """Returns `STNiCNN.extend` of frames, uint8."""
    return model.apply(variables, wide_probs, ops.to_float(far_frame), method="extend")


def _reaches_edge(scores: np.ndarray, matrix: np.ndarray, photo_size: tuple[int, ...]) -> bool:
    """Whether classes other than background reach an edge of a frame within a photo."""
    side = scores.shape[-1]
    first, last = np.arange(side), np.full(side, side - 1)
    pixels = np.concatenate(
        [
            np.stack(pair, axis=1)
            for pair in ((first, 0 * first), (first, last), (0 * first, first), (last, first))
        ]
    )
    points = resample.transform_points(matrix, pixels.astype(np.float64))
    inside = np.all((points >= 0) & (points <= np.array(photo_size[1::-1]) - 1), axis=1)
    columns, rows = pixels[inside].T
    return int(np.count_nonzero(scores[:, rows, columns].argmax(axis=0))) >= _REACHING
