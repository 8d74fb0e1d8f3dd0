"""What is exported: from a batch of frames to labels, scores and windows, in one function."""

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


def network(loaded: Weights) -> Network:
    """The parser of weights, as a function of frames alone.

    Args:
        loaded: of `load_weights`.

    Returns:
        Frames, uint8 (batch, frame_size, frame_size, 3) -> labels, uint8 (batch, frame_size,
        frame_size); the classes' scores, float32 (batch, frame_size, frame_size, classes); and the
        windows as thetas, float32 (batch, parts, 2, 3).
    """

    def parse(frames: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        found: Any = loaded.model.apply(loaded.variables, frames)
        return found.labels, found.scores.astype(jnp.float32), found.theta

    return parse


def frames_of_any_batch(loaded: Weights) -> jax.ShapeDtypeStruct:
    """The shape of the frames, with a symbol for how many there are."""
    (batch,) = export.symbolic_shape(BATCH)
    side = loaded.frame_size
    return jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8)


def metadata(loaded: Weights) -> Mapping[str, str]:
    """What a program has to know of the network, each as JSON.

    Args:
        loaded: of `load_weights`.

    Returns:
        `classes`, names by id; `colours`, red, green and blue of each in 0..255; `frame_size` in
        pixels; `parts`, the names of the windows.
    """
    anatomy = loaded.model.config.anatomy
    said: dict[str, Any] = {
        "classes": list(anatomy.classes),
        "colours": [[int(value) for value in colour] for colour in anatomy.colours],
        "frame_size": loaded.frame_size,
        "parts": [part.name for part in anatomy.parts],
    }
    return {name: json.dumps(value) for name, value in said.items()}
