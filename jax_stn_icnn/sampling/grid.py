"""The points that a patch samples, in unit coordinates and in pixels of the image.

Coordinates follow `geometry` (align_corners) and are float32 or wider whatever the image's type.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.geometry import Size, unit_to_pixel


def coordinate_type(array: jax.Array) -> jnp.dtype:
    """The type of coordinates made from an array: float32 or wider."""
    return jnp.promote_types(array.dtype, jnp.float32)


def unit_axes(size: Size, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """The axes x, (1, width), and y, (height, 1), of a patch, both from -1 to 1."""

    def axis(length: int) -> jax.Array:
        if length == 1:  # A patch of one pixel samples the window's centre.
            return jnp.zeros(1, dtype)
        # Each half counts from its own end with a step of the coordinates' own precision, as the
        # original does: symmetric, and equal to it to the bit.
        step = np.float64(np.asarray(2, dtype) / np.asarray(length - 1, dtype))
        steps = np.arange(length)
        from_left, from_right = -1 + step * steps, 1 - step * steps[::-1]
        return jnp.asarray(np.where(steps < length // 2, from_left, from_right), dtype)

    return axis(size[1])[None, :], axis(size[0])[:, None]


def patch_points(theta: jax.Array, size: Size) -> tuple[jax.Array, jax.Array]:
    """Where each pixel of a patch lies in the frame, in unit coordinates: x and y, (..., h, w)."""
    theta = theta.astype(coordinate_type(theta))
    return affine(theta, *unit_axes(size, theta.dtype))


def affine(theta: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where theta (..., 2, 3) carries the points of two axes, (1, w) and (h, 1): x and y."""
    # Spelled out rather than a product of matrices, which accelerators may round to bfloat16.
    rows = [theta[..., i, :, None, None] for i in (0, 1)]
    to_x, to_y = (row[..., 0, :, :] * x + row[..., 1, :, :] * y + row[..., 2, :, :] for row in rows)
    return to_x, to_y


def in_pixels(x: jax.Array, y: jax.Array, image_size: Size) -> tuple[jax.Array, jax.Array]:
    """The same points in pixels of the image, within int32 wherever theta points."""
    # One array behind a barrier: otherwise each use is fused with, and rounds, the coordinates in
    # its own way, and the backward pass could see other pixels than the forward one.
    x, y = jax.lax.optimization_barrier(jnp.stack([x, y]))

    def pixels(unit: jax.Array, length: int) -> jax.Array:
        pixel = unit_to_pixel(unit, length)
        return jnp.clip(pixel, -2.0, length + 1.0)

    return pixels(x, image_size[1]), pixels(y, image_size[0])
