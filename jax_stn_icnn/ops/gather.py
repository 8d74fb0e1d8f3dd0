"""Sampling of any window by gathering pixels.

Outside the image all values are zero. Bilinear sampling weights the pixels floor and floor + 1,
never floor and ceil, so that the gradient of theta does not vanish at whole pixels. Gradients are
written by hand, so that the compiled program omits the image's gradient, a scatter, where only
theta's is needed.
"""

import jax
import jax.numpy as jnp

from jax_stn_icnn.geometry import Size
from jax_stn_icnn.ops.grid import (
    Neighbours,
    coordinate_type,
    in_pixels,
    neighbours,
    patch_points,
    unit_axes,
)


def nearest(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Returns patches of one image, sampled by nearest neighbour.

    Args:
        image: (H, W, C), any type.
        theta: Matrices patch -> image, (..., 2, 3).
        size: (height, width) of a patch, (h, w).

    Returns:
        Patches (..., h, w, C) of the image's type, zero outside the image.
    """
    return nearest_at(image, *patch_points(theta, size))


def nearest_at(image: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the pixels of an image that are nearest to points.

    Args:
        image: (H, W, C), any type.
        x: Unit coordinates in the image, any shape.
        y: Unit coordinates of the same shape.

    Returns:
        (..., C) of the image's type, zero outside the image.
    """
    height, width, channels = image.shape
    x, y = (jnp.round(axis).astype(jnp.int32) for axis in in_pixels(x, y, (height, width)))
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    at = jnp.clip(y, 0, height - 1) * width + jnp.clip(x, 0, width - 1)
    return jnp.where(inside[..., None], _read(image.reshape(-1, channels), at), 0)


def _read(flat: jax.Array, at: jax.Array) -> jax.Array:
    """Returns flat[at]; all indices lie inside."""
    return flat.at[at].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _four_pixels(
    image: jax.Array, theta: jax.Array, size: Size
) -> tuple[jax.Array, Neighbours, Neighbours]:
    """Returns the flat index of the pixel up and left of each sample, and its neighbours."""
    height, width = image.shape[:2]
    pixel_x, pixel_y = in_pixels(*patch_points(theta, size), (height, width))
    x = neighbours(pixel_x, width)
    y = neighbours(pixel_y, height)
    return y.first * width + x.first, x, y


def bilinear(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Returns all patches of one image, sampled bilinearly.

    Args:
        image: floats (H, W, C).
        theta: Matrices patch -> image, (patches, 2, 3).
        size: (height, width) of a patch, (h, w).

    Returns:
        Patches (patches, h, w, C) of the image's type.
    """
    _, width, channels = image.shape
    at, x, y = _four_pixels(image, theta, size)
    pixels = image.reshape(-1, channels)

    def row(below: int) -> jax.Array:
        left, right = (_read(pixels, at + below * width + i) for i in (0, 1))
        return left * x.weights[0][..., None] + right * x.weights[1][..., None]

    upper, lower = row(0), row(1)
    value = upper * y.weights[0][..., None] + lower * y.weights[1][..., None]
    return value.astype(image.dtype)


def bilinear_gradients(
    image: jax.Array, theta: jax.Array, cotangent: jax.Array, size: Size
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of `bilinear` with respect to the image and theta.

    Args:
        image: As for `bilinear`.
        theta: As for `bilinear`.
        cotangent: Cotangent of the patches, (patches, h, w, C).
        size: (height, width) of a patch, (h, w).

    Returns:
        The gradients of the image, (H, W, C), summed over patches, and of theta, (patches, 2, 3),
        in their types.
    """
    at, x, y = _four_pixels(image, theta, size)
    cotangent = cotangent.astype(coordinate_type(theta))
    d_theta = _gradient_of_theta(image, at, x, y, cotangent)
    d_image = _gradient_of_image(image, at, x, y, cotangent)
    return d_image.astype(image.dtype), d_theta.astype(theta.dtype)


def _gradient_of_theta(
    image: jax.Array, at: jax.Array, x: Neighbours, y: Neighbours, cotangent: jax.Array
) -> jax.Array:
    height, width, channels = image.shape
    values = image.reshape(-1)

    def times_pixel(below: int, right: int) -> jax.Array:
        """Returns the cotangent times a neighbouring pixel, summed over channels."""
        first = (at + below * width + right) * channels
        products = (cotangent[..., c] * _read(values, first + c) for c in range(channels))
        return sum(products, jnp.zeros((), cotangent.dtype))

    corners = [(j, i, times_pixel(j, i)) for j in (0, 1) for i in (0, 1)]
    # Derivative with respect to the position of a sample, in pixels and then in unit coordinates.
    along_x = sum(pixel * y.weights[j] * x.slopes[i] for j, i, pixel in corners) * (width - 1) / 2
    along_y = sum(pixel * y.slopes[j] * x.weights[i] for j, i, pixel in corners) * (height - 1) / 2
    # As one complex number both are computed in one loop; for two arrays XLA would read the pixels
    # twice. The matrix product keeps the sums over x out of that loop, which they would prevent
    # from being vectorized.
    along = jax.lax.complex(along_x, along_y)
    unit_x, unit_y = (axis.reshape(-1) for axis in unit_axes(along.shape[1:], cotangent.dtype))
    factors = jnp.stack([unit_x, jnp.ones_like(unit_x)], axis=-1).astype(along.dtype)
    rows = jnp.einsum("phw,wk->phk", along, factors, precision=jax.lax.Precision.HIGHEST)
    along_width, plain = rows[..., 0], rows[..., 1]
    sums = jnp.stack([along_width, plain * unit_y, plain], axis=-1).sum(axis=1)
    return jnp.stack([sums.real, sums.imag], axis=-2)


def _gradient_of_image(
    image: jax.Array, at: jax.Array, x: Neighbours, y: Neighbours, cotangent: jax.Array
) -> jax.Array:
    height, width, channels = image.shape
    # The transpose of the gather: each sample adds to its four pixels. All patches add to one
    # image, since a copy for each of them would cost more than everything else.
    gradient = jnp.zeros((height * width, channels), cotangent.dtype)
    for j in (0, 1):
        for i in (0, 1):
            share = cotangent * (y.weights[j] * x.weights[i])[..., None]
            here = gradient.at[at + j * width + i]
            gradient = here.add(share, mode="promise_in_bounds", wrap_negative_indices=False)
    return gradient.reshape(image.shape)
