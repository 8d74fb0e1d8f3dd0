"""The function that is exported: frames to labels, scores and windows."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from jax_stn_icnn.io.weights import Weights

INPUT = "frames"
OUTPUTS = ("labels", "scores", "windows")
BATCH = "batch"

Network = Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


def network(weights: Weights) -> Network:
    """Returns the model of weights as a function of frames.

    Args:
        weights: Weights as `load_weights` returns them.

    Returns:
        A function from frames, uint8 (batch, frame_size, frame_size, 3), to labels, uint8 (batch,
        frame_size, frame_size); the scores of the classes, float32 (batch, frame_size, frame_size,
        classes); and the windows as thetas, float32 (batch, parts, 2, 3).
    """

    def parse(frames: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        output: Any = weights.model.apply(weights.variables, frames)
        return output.labels, output.scores.astype(jnp.float32), output.theta

    return parse


def frames_of_any_batch(weights: Weights) -> jax.ShapeDtypeStruct:
    """Returns shape and type of the frames, with a symbol as the batch size."""
    (batch,) = export.symbolic_shape(BATCH)
    side = weights.frame_size
    return jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8)


def metadata(weights: Weights) -> Mapping[str, str]:
    """Returns what a program needs to know about the network, each value as JSON.

    Args:
        weights: Weights as `load_weights` returns them.

    Returns:
        `classes`, the names in the order of their ids; `colours`, red, green and blue of each in
        0..255; `frame_size` in pixels; `parts`, the names of the windows.
    """
    anatomy = weights.model.config.anatomy
    values: dict[str, Any] = {
        "classes": list(anatomy.classes),
        "colours": [[int(value) for value in colour] for colour in anatomy.colours],
        "frame_size": weights.frame_size,
        "parts": [part.name for part in anatomy.parts],
    }
    return {name: json.dumps(value) for name, value in values.items()}
