"""Sampling of upright windows by products of matrices, where arithmetic costs less than look-ups.

Without rotation and shear x depends on the column alone and y on the row, so that a patch is the
image between two matrices, which hold for each row and each column what the image's weigh. Values
and gradients are those of `lookup`: to rounding where they are bilinear; exactly where they are the
nearest, since the matrices then hold a one among zeroes.
"""

import jax
import jax.numpy as jnp

from jax_stn_icnn.geometry import Size
from jax_stn_icnn.ops.grid import (
    Neighbours,
    axis_aligned_pixels,
    coordinate_type,
    neighbours,
    unit_axes,
)

# Accelerators would round to bfloat16 what looking up keeps.
EXACT = jax.lax.Precision.HIGHEST


def nearest(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Patches of one image, by the nearest pixel.

    Args:
        image: (H, W, C), floats, or integers below 2**24.
        theta: matrices patch -> image, (..., 2, 3); entries off the diagonal count as zero.
        size: (height, width) of a patch, (h, w).

    Returns:
        Patches (..., h, w, C) of the image's type, zero outside the image.
    """
    x, y = axis_aligned_pixels(theta, size, image.shape[:2])
    return pick(image, jnp.round(y), jnp.round(x))


def pick(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Some rows and columns of an image.

    Args:
        image: (H, W, C), floats, or integers below 2**24.
        rows: their numbers, whole, of any type, (..., h).
        columns: likewise, (..., w).

    Returns:
        (..., h, w, C) of the image's type; zero where a number lies outside the image.
    """
    whole = not jnp.issubdtype(image.dtype, jnp.floating)
    dtype = jnp.float32 if whole else image.dtype
    down, across = (
        (at[..., None] == jnp.arange(length)).astype(dtype)
        for at, length in zip((rows, columns), image.shape, strict=False)
    )
    return _between(down, image.astype(dtype), across).astype(image.dtype)


def bilinear(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """All patches of one image.

    Args:
        image: floats (H, W, C).
        theta: matrices patch -> image, (patches, 2, 3); one that is not upright gives NaN.
        size: (height, width) of a patch, (h, w).

    Returns:
        Patches (patches, h, w, C) of the image's type.
    """
    x, y = _weighed(image, theta, size)
    down, across = _matrix(y, y.weights, image.shape[0]), _matrix(x, x.weights, image.shape[1])
    return _between(down, image, across).astype(image.dtype)


def bilinear_gradients(
    image: jax.Array, theta: jax.Array, cotangent: jax.Array, size: Size
) -> tuple[jax.Array, jax.Array]:
    """What a cotangent of `bilinear` gives to the image and to theta.

    Args:
        image: as for `bilinear`.
        theta: likewise.
        cotangent: of the patches, (patches, h, w, C).
        size: (height, width) of a patch, (h, w).

    Returns:
        The gradients of the image, (H, W, C), summed over patches, and of theta, (patches, 2, 3),
        in their types.
    """
    height, width, _ = image.shape
    cotangent = cotangent.astype(coordinate_type(theta))
    x, y = _weighed(image, theta, size)
    down, across = _matrix(y, y.weights, height), _matrix(x, x.weights, width)
    columns = jnp.einsum("pih,pijc->phjc", down, cotangent, precision=EXACT)
    d_image = jnp.einsum("phjc,pjw->hwc", columns, across, precision=EXACT)

    by_x = _between(down, image, _matrix(x, x.slopes, width)) * ((width - 1) / 2)
    by_y = _between(_matrix(y, y.slopes, height), image, across) * ((height - 1) / 2)
    along = jnp.sum(jnp.stack([by_x, by_y], axis=1) * cotangent[:, None], axis=-1)
    unit_x, unit_y = unit_axes(size, along.dtype)
    factors = unit_x, unit_y, jnp.ones((), along.dtype)
    d_theta = jnp.stack([jnp.sum(along * each, axis=(-2, -1)) for each in factors], axis=-1)
    return d_image.astype(image.dtype), d_theta.astype(theta.dtype)


def _weighed(image: jax.Array, theta: jax.Array, size: Size) -> tuple[Neighbours, Neighbours]:
    """The neighbours of a patch's columns and rows; of a window that is not axis_aligned, no numbers."""
    turned = ((theta[:, 0, 1] != 0) | (theta[:, 1, 0] != 0))[:, None]
    axes = axis_aligned_pixels(theta, size, image.shape[:2])
    x, y = (jnp.where(turned, jnp.nan, pixel) for pixel in axes)
    return neighbours(x, image.shape[1]), neighbours(y, image.shape[0])


def _matrix(axis: Neighbours, factors: tuple[jax.Array, jax.Array], length: int) -> jax.Array:
    """What each sample of an axis takes from each of its pixels: (..., samples, length)."""
    pixel, first = jnp.arange(length), axis.first[..., None]
    one, other = (factor[..., None] for factor in factors)
    return jnp.where(pixel == first, one, 0) + jnp.where(pixel == first + 1, other, 0)


def _between(down: jax.Array, image: jax.Array, across: jax.Array) -> jax.Array:
    """An image (H, W, C) between (..., h, H) and (..., w, W): (..., h, w, C)."""
    columns = jnp.einsum("hwc,...jw->...hjc", image, across, precision=EXACT)
    return jnp.einsum("...ih,...hjc->...ijc", down, columns, precision=EXACT)
