"""The compiled programs of the parser."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.compilation.cache import cached_program, is_cached, shapes_and_types
from jax_stn_icnn.compilation.compile import compile_program, compile_unoptimized
from jax_stn_icnn.compilation.inlining import prevent_inlining
from jax_stn_icnn.geometry import windows_from_theta
from jax_stn_icnn.models.image_by_image import map_images
from jax_stn_icnn.models.layers import fold_norms
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.models.prepared import prepare
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

    @property
    def is_ready(self) -> bool:
        """Whether a call does not compile the program."""
        return self._program is not None

    def prepare(self) -> Program:
        """Compiles the program, if that has not happened, and returns it."""
        with self._lock:
            if self._program is None:
                self._program = self._compile()
            return self._program

    def __call__(self, *inputs: Any) -> Any:
        """Runs the program."""
        return self.prepare()(*inputs)


class QuickStart:
    """Runs a program that is compiled in a fraction of the time until the optimized one is ready.

    That is compiled in the background from the second photo on, so that a process that parses one
    photo does not wait for it. Threads may share it.
    """

    def __init__(self, quick: Program, optimized: LazyProgram, is_cached: Callable[[], bool]):
        """Stores the two programs, and a function that tells whether the second is cached."""
        self._quick, self._optimized, self._is_cached = quick, optimized, is_cached
        self._num_photos = 0  # that have called it
        self._is_new_photo = self._use_optimized = False
        self._lock = threading.Lock()

    def start_photo(self) -> None:
        """Tells that the next call is for another photo than those before."""
        self._is_new_photo = True

    def __call__(self, *inputs: Any) -> Any:
        """Runs one of the programs."""
        with self._lock:
            if self._is_new_photo:
                self._is_new_photo = False
                self._choose()
        return (self._optimized if self._use_optimized else self._quick)(*inputs)

    def _choose(self) -> None:
        self._num_photos += 1
        is_first = self._num_photos == 1
        self._use_optimized = self._optimized.is_ready or (is_first and self._is_cached())
        if self._num_photos == 2 and not self._use_optimized:
            # Threads of a server may be daemons, and those that they start: one that is compiling
            # at the end of a process aborts it.
            threading.Thread(target=self._optimized.prepare, daemon=False).start()


class ModelProgram(NamedTuple):
    """A function of a model, to be compiled for a device.

    Attributes:
        name: Name of the program, for the cache and the log.
        function: A jitted function of `model`, which is static, of variables and of inputs.
        model: The networks.
        variables: The variables of the model, on the device.
        inputs: Shapes and types of the other arguments.
    """

    name: str
    function: Any
    model: STNiCNN
    variables: Mapping[str, Any]
    inputs: Sequence[jax.ShapeDtypeStruct]

    @property
    def device(self) -> jax.Device:
        """The device of the variables."""
        (device,) = jax.tree.leaves(self.variables)[0].devices()
        return device

    @property
    def platform(self) -> str:
        """The platform whose implementations are compiled."""
        platform = self.device.platform
        return platform if platform in IMPLEMENTATIONS else "gpu"

    def compile(self) -> Program:
        """Returns the program compiled, from the cache on disk if possible.

        A compilation is announced as a line of the log.
        """
        with use_platform(self.platform):
            prepared = self._prepared()

            def lower() -> jax.stages.Lowered:
                return prevent_inlining(prepared._lower(self.name), self.device.platform)

            # Scheduled for memory, the program is as fast, and compiling it takes a gigabyte less.
            compile = partial(compile_program, save_memory=True, platform=self.device.platform)
            program = cached_program(self.name, prepared._key(), lower, compile, [self.device])
        if prepared is self:
            return program
        return lambda _, *inputs: program(prepared.variables, *inputs)

    def compile_quickly(self) -> Program:
        """Returns a program for a CPU that is compiled in a third of the time, and is slower.

        It is cached and announced as that of `compile`.
        """
        folded = jax.device_put(fold_norms(jax.device_get(dict(self.variables))), self.device)
        quick = self._replace(variables=folded)
        with use_platform("cpu_quick"):
            program = cached_program(
                quick.name,
                quick._key(),
                partial(quick._lower, f"{quick.name}, quickly"),
                compile_unoptimized,
                [quick.device],
            )
        return lambda _, *inputs: program(folded, *inputs)

    def is_cached(self) -> bool:
        """Whether `compile` reads the program from the cache on disk."""
        with use_platform(self.platform):
            return is_cached(self.name, self._prepared()._key(), [self.device])

    def _prepared(self) -> "ModelProgram":
        """Returns this with the variables that the platform's program is compiled for."""
        if not current_implementations().space_to_depth:
            return self
        return self._replace(variables=prepare(self.model, self.variables))

    def _lower(self, description: str) -> jax.stages.Lowered:
        # A warning: Python prints nothing below unless the program configures its log.
        LOG.warning("Compiling the networks for %s (%s) ...", self.device.platform, description)
        return self.function.lower(self.model, self.variables, *self.inputs)

    def _key(self) -> tuple[Any, ...]:
        shapes = shapes_and_types((self.variables, tuple(self.inputs)))
        return self.model, current_implementations(), shapes


def parse_program(
    model: STNiCNN, variables: Mapping[str, Any], *shapes: tuple[int, ...]
) -> ModelProgram:
    """Returns `parse_frames` for frames of a shape, a function of variables and these.

    Args:
        model: the networks.
        variables: the variables of the model, on the device.
        *shapes: shape of the frames, (batch, S, S, 3), and of the wide frames if they are parsed.
    """
    frames = [jax.ShapeDtypeStruct(shape, np.uint8) for shape in shapes]
    return ModelProgram("parse of a batch", parse_frames, model, variables, frames)


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

    def parse(frames: jax.Array, wide_frames: jax.Array | None) -> dict[str, jax.Array]:
        output: Any = model.apply(variables, frames, wide_frame=wide_frames)
        outputs = {
            "scores": jnp.moveaxis(output.scores, -1, 1),
            "coarse_labels": jnp.argmax(output.coarse_probs, axis=-1).astype(jnp.uint8),
            "windows": windows_from_theta(output.theta, frames.shape[1:3]),
        }
        if output.wide_probs is not None:
            outputs["wide_scores"] = output.wide_probs
        return outputs

    return map_images(parse, frames, wide_frames)
