"""The compiled programs of the parser."""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.compilation.cache import cached_program, shapes_and_types
from jax_stn_icnn.compilation.compile import compile_program
from jax_stn_icnn.compilation.inlining import prevent_inlining
from jax_stn_icnn.geometry import windows_from_theta
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.ops.platform import IMPLEMENTATIONS, current_implementations, use_platform

LOG = logging.getLogger(__name__)

Program = Callable[..., Any]


class LazyProgram:
    """A program that is compiled at its first call; threads may share it."""

    def __init__(self, compile: Callable[[], Program]):
        """Stores the function that returns the compiled program."""
        self._compile = compile
        self._program: Program | None = None
        self._lock = threading.Lock()

    def __call__(self, *inputs: Any) -> Any:
        """Runs the program."""
        with self._lock:
            if self._program is None:
                self._program = self._compile()
        return self._program(*inputs)


def make_program(
    name: str, function: Any, model: STNiCNN, variables: Mapping[str, Any], *inputs: Any
) -> Program:
    """Returns a function of a model compiled for inputs, from the cache on disk if possible.

    A compilation is announced as a line of the log.

    Args:
        name: name of the program, for the cache and the log.
        function: a jitted function of `model`, which is static, of variables and of inputs.
        model: the networks.
        variables: the variables of the model, on the device.
        *inputs: shapes and types of the other arguments.

    Returns:
        The compiled function of variables and inputs.
    """
    (device,) = jax.tree.leaves(variables)[0].devices()

    def lower() -> jax.stages.Lowered:
        # A warning, because Python prints nothing below unless the program configures its log.
        LOG.warning("Compiling the networks for %s (%s) ...", device.platform, name)
        return prevent_inlining(function.lower(model, variables, *inputs), device.platform)

    platform = device.platform if device.platform in IMPLEMENTATIONS else "gpu"
    with use_platform(platform):
        return cached_program(
            name,
            (model, current_implementations(), shapes_and_types((variables, inputs))),
            lower,
            # Scheduled for memory, the program is as fast, and compiling it takes a gigabyte less.
            partial(compile_program, save_memory=True, platform=device.platform),
            [device],
        )


def compile_networks(
    model: STNiCNN, variables: Mapping[str, Any], *shapes: tuple[int, ...]
) -> Program:
    """Returns `parse_frames` compiled for frames of a shape, from the cache on disk if possible.

    Args:
        model: the networks.
        variables: the variables of the model, on the device.
        *shapes: shape of the frames, (batch, S, S, 3), and of the wide frames if they are parsed.

    Returns:
        A function of variables and frames, and of wide frames.
    """
    frames = [jax.ShapeDtypeStruct(shape, np.uint8) for shape in shapes]
    return make_program("parse of a batch", parse_frames, model, variables, *frames)


@partial(jax.jit, static_argnames="model")
def parse_frames(
    model: STNiCNN,
    variables: Mapping[str, Any],
    frames: jax.Array,
    wide_frames: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Computes the outputs of the networks that `FaceResult.from_frame` takes.

    Args:
        model: the networks.
        variables: the variables of the model.
        frames: uint8 (batch, S, S, 3).
        wide_frames: uint8 (batch, *coarse_image_size, 3); None to parse the frames alone.

    Returns:
        `scores` of the classes, (batch, classes, S, S); `coarse_labels`, class ids of the coarse
        segmentation, uint8 (batch, rows, columns); `windows` in pixels of the frame, (batch, parts,
        4); with wide frames `wide_scores` of the global classes, (batch, global classes, rows,
        columns).
    """
    output: Any = model.apply(variables, frames, wide_frame=wide_frames)
    outputs = {
        "scores": jnp.moveaxis(output.scores, -1, 1),
        "coarse_labels": jnp.argmax(output.coarse_probs, axis=-1).astype(jnp.uint8),
        "windows": windows_from_theta(output.theta, frames.shape[1:3]),
    }
    if output.wide_probs is not None:
        outputs["wide_scores"] = output.wide_probs
    return outputs
