"""What the benchmarks share: a row of the table, its settings, and the inputs of many rows."""

import dataclasses
import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.inputs import drawn_labels, random_frames
from benchmarks.timing import Call
from benchmarks.work import Work
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.data.loader import region_theta
from jax_stn_icnn.geometry import Sizes, theta_target
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train.state import init_variables


class Settings(NamedTuple):
    """How much to measure.

    Attributes:
        quick: whether all is small and called once, to see that it runs.
        dtypes: of the computation.
    """

    quick: bool
    dtypes: tuple[str, ...]

    def batch(self, size: int) -> int:
        """The batch that stands for one of this size."""
        return min(size, 2) if self.quick else size


@dataclasses.dataclass
class Row:
    """A line of the table before it is measured.

    Attributes:
        name: what is done.
        calls: `ours` and its peers, each returning when its result is there.
        work: what it needs at the least; None where that says nothing.
        dtype: of the computation.
        images: in one call.
        absent: peers that cannot run, and why.
    """

    name: str
    calls: dict[str, Call]
    work: Work | None
    dtype: str = "float32"
    images: int = 1
    absent: dict[str, str] = dataclasses.field(default_factory=dict)

    def add_peer(self, name: str, make: Callable[[], Call]) -> None:
        """Adds a peer and calls it once; one that cannot run here goes to `absent`."""
        try:
            call = make()
            call()
        except Exception as error:  # Whatever a compiler may raise: it is reported, not hidden.
            message = str(error).strip() or "no message"
            self.absent[name] = f"{type(error).__name__}: {message.splitlines()[0]}"
        else:
            self.calls[name] = call

    def add_torch(self, make: Callable[[ModuleType], Call], name: str = "torch") -> None:
        """Adds a PyTorch peer, made from the module `torch_peer`."""
        try:
            peer = torch_peer()
        except ModuleNotFoundError as error:
            self.absent[name] = f"not installed: {error.name}"
            return
        backend = jax.default_backend()
        if {"cuda": "gpu"}.get(peer.DEVICE.type, peer.DEVICE.type) != backend:
            self.absent[name] = f"JAX runs on {backend}, this PyTorch on {peer.DEVICE.type}"
            return
        self.add_peer(name, lambda: make(peer))


@functools.cache
def torch_peer() -> ModuleType:
    """The PyTorch peer, told to use the whole machine.

    Raises:
        ModuleNotFoundError: PyTorch is not installed.
    """
    peer = importlib.import_module("benchmarks.torch_peer")
    peer.use_whole_machine()
    return peer


def blocking(function: Callable[..., Any], *args: Any) -> Call:
    """A call of a JAX function that waits for its result."""
    return lambda: jax.block_until_ready(function(*args))


def synchronised(peer: ModuleType, function: Callable[..., Any], *args: Any) -> Call:
    """A call of a PyTorch function that waits for its result."""

    def call() -> None:
        function(*args)
        peer.synchronise()

    return call


def true_theta(batch: int, size: int, patch_size: int | Sizes) -> jax.Array:
    """The windows of `drawn_labels`, (batch, 6, 2, 3)."""
    return theta_target(jnp.asarray(drawn_labels(batch, size)), _sizes(patch_size))[0]


def _sizes(patch_size: int | Sizes) -> Sizes:
    return (patch_size, patch_size) if isinstance(patch_size, int) else patch_size


def training_batch(batch: int, size: int) -> dict[str, np.ndarray]:
    """What the loader would give."""
    return {
        "frame": random_frames(batch, size),
        "labels": drawn_labels(batch, size),
        "region": np.tile(region_theta(0, 0, size, size, size), (batch, 1, 1)),
        "position": np.arange(batch, dtype=np.int32),
    }


def parser(
    patch_size: int | Sizes,
    frame_size: int,
    dtype: str = "float32",
    axis_name: str | None = None,
    **model_fields: Any,
) -> tuple[STNiCNN, dict[str, Any]]:
    """A parser with random parameters, whose localizer says the windows of `drawn_labels`.

    Random windows could be anything, also far outside the frame; the time of sampling depends on
    them.
    """
    model = STNiCNN(_sizes(patch_size), axis_name=axis_name, dtype=jnp.dtype(dtype), **model_fields)
    variables = init_variables(model, 0)
    theta = np.asarray(true_theta(1, frame_size, patch_size))[0]
    dense = variables["params"]["localizer"]["dense"]
    dense["kernel"] = np.zeros_like(dense["kernel"])
    dense["bias"] = np.stack(
        [theta[:, 0, 0], theta[:, 1, 1], theta[:, 0, 2], theta[:, 1, 2]], axis=-1
    ).reshape(NINE.num_parts * 4)
    return model, variables
