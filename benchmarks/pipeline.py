"""The full pipeline, from uint8 frames on the host to uint8 label maps on the host."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
import numpy as np

from benchmarks import work
from benchmarks.inputs import random_frames
from benchmarks.rows import MakeRow, Row, Settings, random_model
from jax_stn_icnn.compilation.compile import compile_program
from jax_stn_icnn.compilation.inlining import prevent_inlining
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.image_by_image import map_images

# Batch, side of the frame, side of the windows.
SETTINGS = ((1, 1024, 81), (1, 512, 127), (16, 512, 127))


def rows(settings: Settings) -> list[MakeRow]:
    """Returns HELEN's setting for one face, and CelebAMask-HQ's for one and for a batch."""
    sizes = dict.fromkeys((settings.batch(batch), frame, patch) for batch, frame, patch in SETTINGS)
    return [
        partial(row, batch, frame, ModelConfig(patch_size=patch, dtype=dtype))
        for batch, frame, patch in sizes
        for dtype in settings.dtypes
    ]


def row(batch: int, frame_size: int, config: ModelConfig) -> Row:
    """Returns the row of one setting."""
    model, variables = random_model(config, frame_size)
    frames = random_frames(batch, frame_size)
    networks = work.networks(
        model, variables, batch, ("coarse", "localizer", "fine"), training=False
    )
    made = Row(
        f"pipeline, batch {batch}, frame {frame_size}, P {config.patch_size}",
        {"ours": _ours(model, variables, frames)},
        networks + work.Work(0, batch * frame_size**2 * 4),  # frames and label maps
        config.dtype,
        images=batch,
    )
    made.add_torch(lambda peer: _in_torch(peer, config, variables, frames, compiled=False))
    made.add_torch(
        lambda peer: _in_torch(peer, config, variables, frames, compiled=True), "torch.compile"
    )
    return made


def _ours(model: Any, variables: Any, frames: np.ndarray) -> Callable[[], np.ndarray]:
    def parse(variables: Any, frames: jax.Array) -> jax.Array:
        return map_images(lambda image: model.apply(variables, image).labels, frames)

    variables = jax.device_put(variables)
    # Compiled as by `FaceParser`.
    lowered = prevent_inlining(jax.jit(parse).lower(variables, frames))
    program = compile_program(lowered, save_memory=True)
    return lambda: np.asarray(program(variables, frames))


def _in_torch(
    peer: ModuleType, config: ModelConfig, variables: Any, frames: np.ndarray, compiled: bool
) -> Callable[[], np.ndarray]:
    model = peer.STNiCNN(config)
    peer.load(model, variables)
    model.to(peer.DEVICE).eval()
    if compiled:
        model.labels = peer.torch.compile(model.labels)

    def call() -> np.ndarray:
        enabled = config.dtype == "bfloat16"
        with peer.torch.autocast(peer.DEVICE.type, peer.torch.bfloat16, enabled=enabled):
            return model.parse(frames)

    return call
