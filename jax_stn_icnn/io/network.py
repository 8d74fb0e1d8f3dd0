"""The function that is exported: frames to labels, scores and windows."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from jax_stn_icnn.io.weights import Weights
from jax_stn_icnn.wide_frame import WIDE_DOWN, WIDE_SIDE

DESCRIPTION = (
    "Face parsing by STN-iCNN: the class of each pixel of a face: skin, hair, brows, eyes, nose, "
    "lips. https://arxiv.org/abs/2002.04831"
)
VERSION = 1  # of inputs, outputs and metadata
FRAMES = "frames"
WIDE_FRAMES = "wide_frames"
BATCH = "batch"


def network(weights: Weights) -> Callable[..., tuple[jax.Array, ...]]:
    """Returns the model of weights as a function of the arrays that `inputs` describes.

    Args:
        weights: Weights as `load_weights` returns them.

    Returns:
        A function that returns labels, uint8 (batch, frame_size, frame_size); the scores of the
        classes, float32 (batch, frame_size, frame_size, classes); the windows as thetas, float32
        (batch, parts, 2, 3); and, with wide frames, the scores of the global classes in these,
        float32 (batch, global classes, *coarse_image_size).
    """

    def parse(frames: jax.Array, wide_frames: jax.Array | None = None) -> tuple[jax.Array, ...]:
        output: Any = weights.model.apply(weights.variables, frames, wide_frame=wide_frames)
        arrays = output.labels, output.scores.astype(jnp.float32), output.theta
        return arrays if wide_frames is None else (*arrays, output.wide_probs)

    return parse


def inputs(weights: Weights) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and type of each argument by name, with a symbol as the batch size.

    Args:
        weights: Weights as `load_weights` returns them.

    Returns:
        `frames`, uint8 (batch, frame_size, frame_size, 3), and, if the weights are trained for wide
        frames, `wide_frames`, uint8 (batch, *coarse_image_size, 3).
    """
    (batch,) = export.symbolic_shape(BATCH)
    config = weights.model.config
    sizes = {FRAMES: (weights.frame_size,) * 2}
    if config.wide:
        sizes[WIDE_FRAMES] = config.coarse_image_size
    return {
        name: jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8) for name, size in sizes.items()
    }


def outputs(weights: Weights) -> tuple[str, ...]:
    """Returns the names of the arrays that the function returns.

    Args:
        weights: Weights as `load_weights` returns them.
    """
    names = "labels", "scores", "windows"
    return (*names, "wide_scores") if weights.model.config.wide else names


def metadata(weights: Weights) -> Mapping[str, str]:
    """Returns what a program needs to know about the network, each value as JSON.

    Args:
        weights: Weights as `load_weights` returns them.

    Returns:
        `description`; `version` of inputs, outputs and metadata; `license` of the weights, if they
        have one; `classes`, the names in the order of their ids; `colours`, red, green and blue of
        each in 0..255; `frame_size` in pixels; `parts`, the names of the windows. If the weights
        are trained for wide frames, also `wide_frame`: its `size` in pixels, `side` and `down` as
        in `jax_stn_icnn.wide_frame`, and `classes`, the names of the global classes.
    """
    config = weights.model.config
    anatomy = config.anatomy
    values: dict[str, Any] = {
        "description": DESCRIPTION,
        "version": VERSION,
        "classes": list(anatomy.classes),
        "colours": [[int(value) for value in colour] for colour in anatomy.colours],
        "frame_size": weights.frame_size,
        "parts": [part.name for part in anatomy.parts],
    }
    if weights.license:
        values["license"] = weights.license
    if config.wide:
        values["wide_frame"] = {
            "size": config.coarse_image_size[0],
            "side": WIDE_SIDE,
            "down": WIDE_DOWN,
            "classes": [anatomy.classes[i] for i in anatomy.global_ids],
        }
    return {name: json.dumps(value) for name, value in values.items()}
