"""Each network forward and in training (forward and both gradients), against PyTorch."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import work
from benchmarks.rows import Row, Settings, blocking, parser, synchronised
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.geometry import COARSE_SIZE

BATCH = 16


class Network(NamedTuple):
    """A network of the parser, and what it takes."""

    name: str
    shape: tuple[int, ...]
    patch_size: int


def rows(settings: Settings) -> Iterator[Row]:
    """The coarse network, the localizer, and the fine networks at both patch sizes."""
    batch = settings.batch(BATCH)
    networks = [
        Network("coarse", (batch, *COARSE_SIZE, 3), 127),
        Network("localizer", (batch, *COARSE_SIZE, NINE.num_classes), 127),
        Network("fine", (batch, NINE.num_parts, 81, 81, 3), 81),
        Network("fine", (batch, NINE.num_parts, 127, 127, 3), 127),
    ]
    for network in networks:
        for dtype in settings.dtypes:
            for training in (False, True):
                yield _row(network, dtype, training)


def _row(network: Network, dtype: str, training: bool) -> Row:
    name, shape, patch_size = network
    model, everything = parser(patch_size, 256, dtype)
    variables = {kind: tree[name] for kind, tree in everything.items()}
    module = getattr(model.bind(everything), name).unbind()[0]
    x = np.random.default_rng(0).random(shape, np.float32)
    spec = jax.ShapeDtypeStruct(shape, jnp.float32)
    macs = work.macs(module, spec, train=False)
    outputs = jax.eval_shape(lambda v, x: module.apply(v, x, train=False), variables, spec)
    in_out = x.nbytes + sum(leaf.size * 4 for leaf in jax.tree.leaves(outputs))
    title = f"{name}, {'training' if training else 'forward'}, {'x'.join(map(str, shape))}"
    row = Row(
        title,
        {"ours": _ours(module, variables, x, training)},
        work.network(macs, variables["params"], in_out, training=training),
        dtype,
        images=shape[0],
    )

    def in_torch(compiled: bool) -> Callable[[ModuleType], Callable[[], object]]:
        return lambda peer: _in_torch(peer, network, variables, x, dtype, training, compiled)

    row.add_torch(in_torch(compiled=False))
    row.add_torch(in_torch(compiled=True), "torch.compile")
    return row


def _ours(module: Any, variables: Any, x: np.ndarray, training: bool) -> Callable[[], object]:
    def loss(params: Any, batch_stats: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        out, updated = module.apply(
            {"params": params, "batch_stats": batch_stats}, x, train=True, mutable=["batch_stats"]
        )
        means = [jnp.mean(leaf**2) for leaf in jax.tree.leaves(out)]
        return sum(means, jnp.zeros(())), updated

    variables, x = jax.device_put((variables, x))
    if training:
        gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
        return blocking(gradient, variables["params"], variables["batch_stats"], x)
    return blocking(jax.jit(lambda v, x: module.apply(v, x, train=False)), variables, x)


def _in_torch(
    peer: ModuleType,
    network: Network,
    variables: Any,
    x: np.ndarray,
    dtype: str,
    training: bool,
    compiled: bool,
) -> Callable[[], object]:
    torch = peer.torch
    module = getattr(peer.STNiCNN(network.patch_size), network.name)
    peer.load(module, variables)
    module.to(peer.DEVICE).train(training)
    run = torch.compile(module) if compiled else module
    pixels = torch.from_numpy(np.moveaxis(x, -1, -3).copy()).to(peer.DEVICE)
    autocast = torch.autocast(peer.DEVICE.type, torch.bfloat16, enabled=dtype == "bfloat16")

    def forward() -> Any:
        with torch.inference_mode(), autocast:
            return run(pixels)

    def train() -> None:
        module.zero_grad()
        with autocast:
            out = run(pixels)
        parts = out if isinstance(out, list) else [out]
        sum(part.float().square().mean() for part in parts).backward()

    return synchronised(peer, train if training else forward)
