"""The sampler and its inverse, against map_coordinates, dm_pix and grid_sample."""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from benchmarks.rows import Row, Settings, blocking, synchronised, true_theta
from benchmarks.work import BILINEAR, SCATTER, SLOPES, Work
from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.geometry import invert

# Batch, frame, patch: HELEN's setting and CelebAMask-HQ's.
SETTINGS = ((1, 1024, 81), (16, 512, 127))
COLOURS = 3
NAMES = ("forward", "gradient of theta", "gradient of the image")


def rows(settings: Settings) -> Iterator[Row]:
    """The crop forward and its two gradients, the paste forward and its gradient."""
    for batch, size, patch in SETTINGS:
        batch = settings.batch(batch)
        where = f"batch {batch}, frame {size}, P {patch}"
        for name in NAMES:
            yield _crop_row(f"crop, {name}, {where}", name, batch, size, patch)
        for name in ("forward", "gradient of the scores"):
            yield _paste_row(f"paste, {name}, {where}", name, batch, size, patch)


def _crop_row(title: str, name: str, batch: int, size: int, patch: int) -> Row:
    image = jax.random.uniform(jax.random.key(0), (batch, size, size, COLOURS))
    theta = true_theta(batch, size, patch)
    row = Row(title, {}, _crop_work(name, batch, size, patch), images=batch)
    row.calls["ours"] = _crop_call(ops.crop_bilinear, name, image, theta, patch)
    row.add_peer(
        "map_coordinates", lambda: _crop_call(_by_map_coordinates, name, image, theta, patch)
    )
    row.add_peer("dm_pix", lambda: _crop_call(_by_dm_pix(), name, image, theta, patch))

    def in_torch(peer: Any) -> Callable[[], object]:
        torch = peer.torch
        pixels = torch.from_numpy(np.moveaxis(np.asarray(image), -1, 1).copy()).to(peer.DEVICE)
        windows = torch.from_numpy(np.array(theta)).to(peer.DEVICE)
        if name == "forward":

            def forward() -> Any:
                with torch.inference_mode():
                    return peer.crop(pixels, windows, patch)

            return synchronised(peer, forward)
        wanted = windows if "theta" in name else pixels
        wanted.requires_grad_()
        return synchronised(
            peer, lambda: torch.autograd.grad(peer.crop(pixels, windows, patch).sum(), wanted)
        )

    row.add_torch(in_torch)
    return row


def _crop_call(
    crop: Callable[..., jax.Array], name: str, image: jax.Array, theta: jax.Array, patch: int
) -> Callable[[], object]:
    forward = functools.partial(crop, size=(patch, patch))
    if name == "forward":
        return blocking(jax.jit(forward), image, theta)
    wanted = 1 if "theta" in name else 0

    def total(image: jax.Array, theta: jax.Array) -> jax.Array:
        return jnp.sum(forward(image, theta))

    return blocking(jax.jit(jax.grad(total, argnums=wanted)), image, theta)


def _crop_work(name: str, batch: int, size: int, patch: int) -> Work:
    values = batch * NINE.num_parts * patch**2 * COLOURS
    if name == "forward":
        return Work(BILINEAR * values, 2 * 4 * values)
    if "theta" in name:
        return Work(SLOPES * values, 2 * 4 * values)
    return Work(SCATTER * values, 4 * values + 4 * batch * size**2 * COLOURS)


def random_scores(batch: int, patch: int) -> list[np.ndarray]:
    """Each part's probabilities, float32 (batch, patch, patch, labels)."""
    rng = np.random.default_rng(0)
    return [
        rng.dirichlet(np.ones(NINE.networks[part.network]), (batch, patch, patch)).astype("f4")
        for part in NINE.parts
    ]


def _paste_row(title: str, name: str, batch: int, size: int, patch: int) -> Row:
    theta = true_theta(batch, size, patch)
    scores = random_scores(batch, patch)
    held = 4 * sum(part.size for part in scores)
    frame = 4 * batch * size**2 * NINE.num_classes
    # The gradient needs of the frame only what lies in the windows.
    work = Work(held / 4, held + (frame if name == "forward" else held))
    row = Row(title, {}, work, images=batch)
    row.calls["ours"] = _paste_call(ops.paste, name, scores, theta, size)
    row.add_peer(
        "map_coordinates", lambda: _paste_call(_paste_by_map_coordinates, name, scores, theta, size)
    )

    def in_torch(peer: Any) -> Callable[[], object]:
        torch = peer.torch
        parts = [
            torch.from_numpy(np.moveaxis(part, -1, 1).copy()).to(peer.DEVICE) for part in scores
        ]
        windows = torch.from_numpy(np.array(theta)).to(peer.DEVICE)
        if name == "forward":

            def forward() -> Any:
                with torch.inference_mode():
                    return peer.paste(parts, windows, size)

            return synchronised(peer, forward)
        for part in parts:
            part.requires_grad_()
        return synchronised(
            peer, lambda: torch.autograd.grad(peer.paste(parts, windows, size).sum(), parts)
        )

    row.add_torch(in_torch)
    return row


def _paste_call(
    paste: Callable[..., jax.Array], name: str, scores: list, theta: jax.Array, size: int
) -> Callable[[], object]:
    forward = functools.partial(paste, frame_size=(size, size))
    scores = jax.device_put(scores)
    if name == "forward":
        return blocking(jax.jit(forward), scores, theta)

    def total(scores: list, theta: jax.Array) -> jax.Array:
        return jnp.sum(forward(scores, theta))

    return blocking(jax.jit(jax.grad(total)), scores, theta)


def _pixels(theta: jax.Array, image: jax.Array, size: Any) -> jax.Array:
    """Rows and columns that a window reads, (2, height, width)."""
    grid = ops.affine_grid(theta, size)
    height, width = image.shape[:2]
    return jnp.stack([(grid[..., 1] + 1) / 2 * (height - 1), (grid[..., 0] + 1) / 2 * (width - 1)])


def _by_map_coordinates(image: jax.Array, theta: jax.Array, size: Any, order: int = 1) -> jax.Array:
    def of_channel(channel: jax.Array, where: jax.Array) -> jax.Array:
        return map_coordinates(channel, list(where), order=order, mode="constant")

    def one(image: jax.Array, theta: jax.Array) -> jax.Array:
        where = _pixels(theta, image, size)
        return jax.vmap(of_channel, in_axes=(2, None), out_axes=2)(image, where)

    return jax.vmap(jax.vmap(one, in_axes=(None, 0)))(image, theta)


def _by_dm_pix() -> Callable[..., jax.Array]:
    pix = importlib.import_module("dm_pix")

    def crop(image: jax.Array, theta: jax.Array, size: Any) -> jax.Array:
        def of_channel(channel: jax.Array, where: jax.Array) -> jax.Array:
            return pix.flat_nd_linear_interpolate_constant(channel, where)

        def one(image: jax.Array, theta: jax.Array) -> jax.Array:
            where = _pixels(theta, image, size)
            return jax.vmap(of_channel, in_axes=(2, None), out_axes=2)(image, where)

        return jax.vmap(jax.vmap(one, in_axes=(None, 0)))(image, theta)

    return crop


def _paste_by_map_coordinates(scores: list, theta: jax.Array, frame_size: Any) -> jax.Array:
    to_patch = invert(theta)
    background, foreground = jnp.ones(()), []
    for i, part in enumerate(scores):
        part = jnp.asarray(part).at[..., 0].set(1 - part[..., 0])
        in_frame = _by_map_coordinates(part, to_patch[:, i, None], frame_size, order=0)[:, 0]
        background = background * (1 - in_frame[..., :1])
        foreground.append(in_frame[..., 1:])
    return jnp.concatenate([background, *foreground], axis=-1)
