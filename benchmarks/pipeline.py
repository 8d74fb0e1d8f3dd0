"""The whole pipeline, from a uint8 frame on the host to a uint8 label map on the host."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax_stn_icnn.data.views import to_float

from benchmarks import work
from benchmarks.inputs import random_frames
from benchmarks.rows import Row, Settings, parser
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.geometry import COARSE_SIZE
from jax_stn_icnn.ops import resize_bilinear

# Batch, frame, patch.
SETTINGS = ((1, 1024, 81), (1, 512, 127), (16, 512, 127))


def rows(settings: Settings) -> Iterator[Row]:
    """HELEN's setting for one face; CelebAMask-HQ's for one and for a batch."""
    sizes = dict.fromkeys((settings.batch(batch), frame, patch) for batch, frame, patch in SETTINGS)
    for batch, frame, patch in sizes:
        for dtype in settings.dtypes:
            yield row(batch, frame, patch, dtype)


def row(batch: int, size: int, patch: int, dtype: str = "float32") -> Row:
    """The pipeline of one setting."""
    model, variables = parser(patch, size, dtype)
    frames = random_frames(batch, size)
    made = Row(
        f"pipeline, batch {batch}, frame {size}, P {patch}",
        {"ours": ours(model, variables, frames)},
        _work(model, variables, batch, size, patch),
        dtype,
        images=batch,
    )
    made.add_torch(lambda peer: _in_torch(peer, variables, frames, patch, dtype))
    return made


def ours(model: Any, variables: Any, frames: np.ndarray) -> Callable[[], np.ndarray]:
    """Parses frames by the compiled pipeline."""

    @jax.jit
    def parse(variables: Any, frames: jax.Array) -> jax.Array:
        pixels = to_float(frames)
        return model.apply(variables, resize_bilinear(pixels, COARSE_SIZE), pixels).labels

    variables = jax.device_put(variables)
    return lambda: np.asarray(parse(variables, frames))


def _in_torch(
    peer: ModuleType, variables: Any, frames: np.ndarray, patch: int, dtype: str
) -> Callable[[], np.ndarray]:
    model = peer.STNiCNN(patch)
    peer.load(model, variables)
    model.to(peer.DEVICE).eval()

    def call() -> np.ndarray:
        enabled = dtype == "bfloat16"
        with peer.torch.autocast(peer.DEVICE.type, peer.torch.bfloat16, enabled=enabled):
            return model.parse(frames)

    return call


def _work(model: Any, variables: Any, batch: int, size: int, patch: int) -> work.Work:
    """The networks' operations; frames in, label maps out, and the parameters."""
    bound = model.bind(variables)
    shapes = {
        "coarse": (batch, *COARSE_SIZE, 3),
        "localizer": (batch, *COARSE_SIZE, NINE.num_classes),
        "fine": (batch, NINE.num_parts, patch, patch, 3),
    }
    needed = work.Work(0, batch * size**2 * 4)
    for network, shape in shapes.items():
        module = getattr(bound, network).unbind()[0]
        macs = work.macs(module, jax.ShapeDtypeStruct(shape, np.float32), train=False)
        needed += work.network(macs, variables["params"][network], 0, training=False)
    return needed
