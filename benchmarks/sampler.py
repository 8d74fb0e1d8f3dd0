"""The sampler and its inverse, against map_coordinates, dm_pix and grid_sample."""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from benchmarks.rows import MakeRow, Row, Settings, blocking, synchronized, true_theta
from benchmarks.timing import Call
from benchmarks.work import BILINEAR, SCATTER, SLOPES, Work
from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.geometry import Size, invert_theta, unit_to_pixel

# Batch, side of the frame, side of the windows: HELEN's setting and CelebAMask-HQ's.
SETTINGS = ((1, 1024, 81), (16, 512, 127))
CHANNELS = 3
# Name of a computation -> the argument of its gradient; None is the function itself.
CROPS = {"forward": None, "gradient of theta": 1, "gradient of the image": 0}
PASTES = {"forward": None, "gradient of the scores": 0}

Function = Callable[..., jax.Array]


def rows(settings: Settings) -> list[MakeRow]:
    """Returns the crop and its two gradients, and the paste and its gradient."""
    return [
        partial(make, name, settings.batch(batch), size, patch)
        for batch, size, patch in SETTINGS
        for make, names in ((_crop_row, CROPS), (_paste_row, PASTES))
        for name in names
    ]


def make_call(function: Function, arguments: Sequence[Any], argument: int | None) -> Call:
    """Returns a compiled call of a function, or of a gradient of the sum of its output.

    Args:
        function: The function.
        arguments: Its arguments.
        argument: Index of the argument of the gradient; None for the function itself.
    """

    def total(*arguments: Any) -> jax.Array:
        return jnp.sum(function(*arguments))

    computed = function if argument is None else jax.grad(total, argnums=argument)
    return blocking(jax.jit(computed), *jax.device_put(tuple(arguments)))


def _make_torch_call(
    peer: Any, function: Callable[..., Any], arguments: Sequence[Any], argument: int | None
) -> Call:
    """Returns the same in PyTorch, of NumPy arrays or lists of these."""
    torch = peer.torch
    tensors = jax.tree.map(lambda array: torch.from_numpy(array.copy()).to(peer.DEVICE), arguments)
    if argument is not None:
        wanted = jax.tree.leaves(tensors[argument])
        for tensor in wanted:
            tensor.requires_grad_()
        return synchronized(peer, lambda: torch.autograd.grad(function(*tensors).sum(), wanted))

    def forward() -> Any:
        with torch.inference_mode():
            return function(*tensors)

    return synchronized(peer, forward)


def _crop_row(name: str, batch: int, size: int, patch: int) -> Row:
    image = jax.random.uniform(jax.random.key(0), (batch, size, size, CHANNELS))
    arguments = image, true_theta(batch, size, (patch, patch))

    def call(crop: Function) -> Call:
        return make_call(partial(crop, size=(patch, patch)), arguments, CROPS[name])

    row = Row(
        f"crop, {name}, batch {batch}, frame {size}, P {patch}",
        {"ours": call(ops.crop_bilinear)},
        _crop_work(name, batch, size, patch),
        images=batch,
    )
    row.add_peer("map_coordinates", lambda: call(crop_by_map_coordinates))
    row.add_peer("dm_pix", lambda: call(crop_by_dm_pix))
    row.add_torch(
        lambda peer: _make_torch_call(
            peer,
            partial(peer.crop, size=patch),
            [np.moveaxis(np.asarray(image), -1, 1), np.asarray(arguments[1])],
            CROPS[name],
        )
    )
    return row


def _crop_work(name: str, batch: int, size: int, patch: int) -> Work:
    values = batch * NINE.num_parts * patch**2 * CHANNELS
    if name == "forward":
        return Work(BILINEAR * values, 2 * 4 * values)
    if name == "gradient of theta":
        return Work(SLOPES * values, 2 * 4 * values)
    return Work(SCATTER * values, 4 * values + 4 * batch * size**2 * CHANNELS)


def random_scores(batch: int, patch: int) -> list[np.ndarray]:
    """Returns probabilities for each part, float32 (batch, patch, patch, labels)."""
    rng = np.random.default_rng(0)
    return [
        rng.dirichlet(np.ones(NINE.networks[part.network]), (batch, patch, patch)).astype("f4")
        for part in NINE.parts
    ]


def _paste_row(name: str, batch: int, size: int, patch: int) -> Row:
    theta = true_theta(batch, size, (patch, patch))
    scores = random_scores(batch, patch)

    def call(paste: Function) -> Call:
        return make_call(partial(paste, frame_size=(size, size)), (scores, theta), PASTES[name])

    scores_bytes = sum(part.nbytes for part in scores)
    # The gradient needs only those pixels of the frame that are in the windows.
    frame_bytes = 4 * batch * size**2 * NINE.num_classes if name == "forward" else scores_bytes
    row = Row(
        f"paste, {name}, batch {batch}, frame {size}, P {patch}",
        {"ours": call(ops.paste)},
        Work(scores_bytes / 4, scores_bytes + frame_bytes),
        images=batch,
    )
    row.add_peer("map_coordinates", lambda: call(paste_by_map_coordinates))
    row.add_torch(
        lambda peer: _make_torch_call(
            peer,
            partial(peer.paste, size=size),
            [[np.moveaxis(part, -1, 1) for part in scores], np.asarray(theta)],
            PASTES[name],
        )
    )
    return row


def crop_by_map_coordinates(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Returns what `ops.crop_bilinear` returns, computed by `map_coordinates`."""
    return _crop_channels(partial(_map_coordinates, order=1), image, theta, size)


def crop_by_dm_pix(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Returns what `ops.crop_bilinear` returns, computed by dm_pix."""
    pix = importlib.import_module("dm_pix")
    return _crop_channels(pix.flat_nd_linear_interpolate_constant, image, theta, size)


def paste_by_map_coordinates(
    scores: Sequence[Any], theta: jax.Array, frame_size: Size
) -> jax.Array:
    """Returns what `ops.paste` returns, computed by `map_coordinates`."""
    to_patch = invert_theta(theta)
    sample = partial(_map_coordinates, order=0)
    background, foreground = jnp.ones(()), []
    for i, part in enumerate(scores):
        part = jnp.asarray(part).at[..., 0].set(1 - part[..., 0])
        in_frame = _crop_channels(sample, part, to_patch[:, i, None], frame_size)[:, 0]
        background = background * (1 - in_frame[..., :1])
        foreground.append(in_frame[..., 1:])
    return jnp.concatenate([background, *foreground], axis=-1)


def _map_coordinates(channel: jax.Array, positions: jax.Array, order: int) -> jax.Array:
    return map_coordinates(channel, list(positions), order=order, mode="constant")


def _crop_channels(sample: Function, image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Crops windows with a function that samples one channel at (row, column) positions."""

    def one(image: jax.Array, theta: jax.Array) -> jax.Array:
        grid = ops.affine_grid(theta, size)
        height, width = image.shape[:2]
        positions = jnp.stack(
            [unit_to_pixel(grid[..., 1], height), unit_to_pixel(grid[..., 0], width)]
        )
        return jax.vmap(sample, in_axes=(2, None), out_axes=2)(image, positions)

    return jax.vmap(jax.vmap(one, in_axes=(None, 0)))(image, theta)
