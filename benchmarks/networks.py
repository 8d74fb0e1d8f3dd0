"""Each network, forward as in a parse and training (forward and gradients), against PyTorch."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import work
from benchmarks.rows import MakeRow, Row, Settings, blocking, random_model, synchronized
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.image_by_image import map_images

BATCH = 16
# Name, and side of the windows.
NETWORKS = (("coarse", 127), ("localizer", 127), ("fine", 81), ("fine", 127))


def rows(settings: Settings) -> list[MakeRow]:
    """Returns the rows of the coarse network, the localizer, and the fine networks at two sizes."""
    batch = settings.batch(BATCH)
    return [
        partial(_row, name, ModelConfig(patch_size=patch_size, dtype=dtype), batch, training)
        for name, patch_size in NETWORKS
        for dtype in settings.dtypes
        for training in (False, True)
    ]


def _row(name: str, config: ModelConfig, batch: int, training: bool) -> Row:
    model, all_variables = random_model(config, 256)
    module, variables = work.submodule(model, all_variables, name)
    inputs = work.input_shapes(config, batch)[name]
    outputs = jax.eval_shape(lambda v, x: module.apply(v, x, train=False), variables, inputs)
    in_out = sum(leaf.size * 4 for leaf in jax.tree.leaves((inputs, outputs)))
    needed = work.networks(model, all_variables, batch, [name], training=training)
    rng = np.random.default_rng(0)
    x = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), inputs)
    patches = f", P {config.patch_size}" if name == "fine" else ""
    row = Row(
        f"{name}, {'training' if training else 'forward'}, batch {batch}{patches}",
        {"ours": _ours(module, variables, x, training)},
        needed + work.Work(0, in_out),
        config.dtype,
        images=batch,
    )

    def in_torch(compiled: bool) -> Callable[[ModuleType], Callable[[], object]]:
        return lambda peer: _in_torch(peer, name, config, variables, x, training, compiled)

    row.add_torch(in_torch(compiled=False))
    row.add_torch(in_torch(compiled=True), "torch.compile")
    return row


def _ours(module: Any, variables: Any, x: Any, training: bool) -> Callable[[], object]:
    def loss(params: Any, batch_stats: Any, x: Any) -> tuple[jax.Array, Any]:
        out, updated = module.apply(
            {"params": params, "batch_stats": batch_stats}, x, train=True, mutable=["batch_stats"]
        )
        means = [jnp.mean(leaf**2) for leaf in jax.tree.leaves(out)]
        return sum(means, jnp.zeros(())), updated

    variables, x = jax.device_put((variables, x))
    if training:
        gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
        return blocking(gradient, variables["params"], variables["batch_stats"], x)

    def forward(variables: Any, x: Any) -> Any:
        return map_images(lambda image: module.apply(variables, image, train=False), x)

    return blocking(jax.jit(forward), variables, x)


def _in_torch(
    peer: ModuleType,
    name: str,
    config: ModelConfig,
    variables: Any,
    x: Any,
    training: bool,
    compiled: bool,
) -> Callable[[], object]:
    torch = peer.torch
    module = getattr(peer.STNiCNN(config), name)
    peer.load(module, variables)
    module.to(peer.DEVICE).train(training)
    run = torch.compile(module) if compiled else module
    array = np.moveaxis(np.stack(x, axis=1) if name == "fine" else x, -1, -3)
    pixels = torch.from_numpy(array.copy()).to(peer.DEVICE)
    enabled = config.dtype == "bfloat16"
    autocast = torch.autocast(peer.DEVICE.type, torch.bfloat16, enabled=enabled)

    def forward() -> Any:
        with torch.inference_mode(), autocast:
            return run(pixels)

    def train() -> None:
        module.zero_grad()
        with autocast:
            out = run(pixels)
        parts = out if isinstance(out, list) else [out]
        sum(part.float().square().mean() for part in parts).backward()

    return synchronized(peer, train if training else forward)
