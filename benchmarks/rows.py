"""A row of the table before it is measured, and the models and inputs that several rows share.

Each benchmark has a function `rows`, which returns a function for each of its rows; these build the
models. A process can thus build one row alone.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.inputs import drawn_labels, random_frames
from benchmarks.timing import Call
from benchmarks.work import Work
from jax_stn_icnn.data.examples import region_theta
from jax_stn_icnn.geometry import Sizes, theta_target
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN, init_variables


class Settings(NamedTuple):
    """Extent of the measurements.

    Attributes:
        quick: Whether batches are small and each call is timed once, to check that everything runs.
        dtypes: Types of the computation.
    """

    quick: bool
    dtypes: tuple[str, ...]

    def batch(self, size: int) -> int:
        """Returns the batch size to use instead of `size`."""
        return min(size, 2) if self.quick else size


@dataclasses.dataclass
class Row:
    """A row of the table before it is measured.

    Attributes:
        name: Name of the benchmark.
        calls: The call `ours` and those of the peers; each returns when its result is available.
        work: Minimum operations and bytes; None if they are not informative.
        dtype: Type of the computation.
        images: Number of images per call.
        unavailable: Peers that cannot run, and the reason.
    """

    name: str
    calls: dict[str, Call]
    work: Work | None
    dtype: str = "float32"
    images: int = 1
    unavailable: dict[str, str] = dataclasses.field(default_factory=dict)

    def add_peer(self, name: str, make: Callable[[], Call]) -> None:
        """Adds a peer and calls it once; if it cannot run, it is added to `unavailable`."""
        try:
            call = make()
            call()
        except Exception as error:  # Compilers raise errors of any type; all are reported.
            message = str(error).strip() or "no message"
            self.unavailable[name] = f"{type(error).__name__}: {message.splitlines()[0]}"
        else:
            self.calls[name] = call

    def add_torch(self, make: Callable[[ModuleType], Call], name: str = "torch") -> None:
        """Adds a PyTorch peer; `make` is given the module `torch_peer`."""
        try:
            peer = torch_peer()
        except ModuleNotFoundError as error:
            self.unavailable[name] = f"not installed: {error.name}"
            return
        backend = jax.default_backend()
        if {"cuda": "gpu"}.get(peer.DEVICE.type, peer.DEVICE.type) != backend:
            self.unavailable[name] = f"JAX runs on {backend}, this PyTorch on {peer.DEVICE.type}"
            return
        self.add_peer(name, lambda: make(peer))


# Builds a row: models, inputs and compiled calls.
MakeRow: TypeAlias = Callable[[], Row]


@functools.cache
def torch_peer() -> ModuleType:
    """Returns the module of the PyTorch peer, configured to use the full machine.

    Raises:
        ModuleNotFoundError: PyTorch is not installed.
    """
    peer = importlib.import_module("benchmarks.torch_peer")
    peer.use_full_machine()
    return peer


def blocking(function: Callable[..., Any], *args: Any) -> Call:
    """Returns a call of a JAX function that waits for its result."""
    return lambda: jax.block_until_ready(function(*args))


def synchronized(peer: ModuleType, function: Callable[..., Any], *args: Any) -> Call:
    """Returns a call of a PyTorch function that waits for its result."""

    def call() -> None:
        function(*args)
        peer.synchronize()

    return call


def true_theta(batch: int, frame_size: int, sizes: Sizes) -> jax.Array:
    """Returns the windows of `drawn_labels`, (batch, 6, 2, 3).

    Args:
        batch: Number of faces.
        frame_size: Side of the frame.
        sizes: (height, width) of all patches, or one for each part.
    """
    return theta_target(jnp.asarray(drawn_labels(batch, frame_size)), sizes)[0]


def training_batch(batch: int, size: int) -> dict[str, np.ndarray]:
    """Returns a batch as the loader returns it."""
    return {
        "frame": random_frames(batch, size),
        "labels": drawn_labels(batch, size),
        "region": np.tile(region_theta(0, 0, size, size, size), (batch, 1, 1)),
        "position": np.arange(batch, dtype=np.int32),
    }


def random_model(
    config: ModelConfig, frame_size: int, axis_name: str | None = None
) -> tuple[STNiCNN, dict[str, Any]]:
    """Returns a random model whose localizer predicts the windows of `drawn_labels`.

    The time of sampling depends on the windows, and those of random parameters may lie far outside
    the frame.

    Args:
        config: Options of the model; its localizer is `vgg9`.
        frame_size: Side of the frame.
        axis_name: Name of a mapped axis over which batch statistics are averaged.

    Returns:
        The model, and its variables.
    """
    model = STNiCNN(config, axis_name)
    variables = init_variables(model, 0)
    dense = variables["params"]["localizer"]["dense"]
    dense["kernel"] = np.zeros_like(dense["kernel"])
    dense["bias"] = localizer_bias(config, frame_size)
    return model, variables


def localizer_bias(config: ModelConfig, frame_size: int) -> np.ndarray:
    """Returns the bias of a localizer's dense layer that predicts the windows of `drawn_labels`."""
    theta = np.asarray(true_theta(1, frame_size, config.patch_sizes))[0]
    terms = [theta[:, 0, 0], theta[:, 1, 1], theta[:, 0, 2], theta[:, 1, 2]]
    return np.stack(terms, axis=-1).reshape(-1)
