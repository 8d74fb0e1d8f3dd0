"""Sampling of axis-aligned windows by matrix multiplication, for TPUs.

Without rotation and shear, x depends on the column alone and y on the row. A patch is then the
image between two matrices, which hold the weight of each row and each column of the image. Values
and gradients are those of `gather`: to rounding for bilinear sampling, exactly for nearest
neighbours, whose matrices hold ones and zeros.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.geometry import Size
from jax_stn_icnn.ops.grid import (
    Neighbours,
    axis_aligned_pixels,
    coordinate_type,
    neighbours,
    unit_axes,
)

# Accelerators would round the products to bfloat16.
EXACT = jax.lax.Precision.HIGHEST


def nearest(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Returns patches of one image, sampled by nearest neighbour.

    Args:
        image: (H, W, C), floats, or integers below 2**24.
        theta: Matrices patch -> image, (..., 2, 3); off-diagonal entries count as zero.
        size: (height, width) of a patch, (h, w).

    Returns:
        Patches (..., h, w, C) of the image's type, zero outside the image.
    """
    x, y = axis_aligned_pixels(theta, size, image.shape[:2])
    return take(image, jnp.round(y), jnp.round(x))


def take(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Returns some rows and columns of an image.

    Args:
        image: (H, W, C), floats, or integers below 2**24.
        rows: Row indices, whole numbers of any type, (..., h).
        columns: Column indices, (..., w).

    Returns:
        (..., h, w, C) of the image's type; zero where an index lies outside the image.
    """
    integers = not jnp.issubdtype(image.dtype, jnp.floating)
    dtype = jnp.float32 if integers else image.dtype
    down, across = (
        (at[..., None] == jnp.arange(length)).astype(dtype)
        for at, length in zip((rows, columns), image.shape, strict=False)
    )
    return _between(down, image.astype(dtype), across).astype(image.dtype)


def resample(image: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """Returns images sampled bilinearly, all at the same positions.

    Args:
        image: Floats, channels first, (batch, C, H, W).
        rows: Positions in pixels within the image, (h,).
        columns: Likewise, (w,).

    Returns:
        (batch, C, h, w) of the image's type.
    """
    down, across = (
        jnp.asarray(np.maximum(1 - np.abs(at[:, None] - np.arange(length)), 0), image.dtype)
        for at, length in zip((rows, columns), image.shape[2:], strict=True)
    )
    return jnp.einsum("yh,bchw,xw->bcyx", down, image, across, precision=EXACT)


def bilinear(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Returns all patches of one image, sampled bilinearly.

    Args:
        image: floats (H, W, C).
        theta: Matrices patch -> image, (patches, 2, 3); NaN is returned for a window that is
            rotated or sheared.
        size: (height, width) of a patch, (h, w).

    Returns:
        Patches (patches, h, w, C) of the image's type.
    """
    x, y = _axis_neighbours(image, theta, size)
    down, across = (
        _matrix(axis, axis.weights, length).astype(image.dtype)
        for axis, length in zip((y, x), image.shape, strict=False)
    )
    return _between(down, image, across)


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
    height, width, _ = image.shape
    cotangent = cotangent.astype(coordinate_type(theta))
    x, y = _axis_neighbours(image, theta, size)
    down, across = _matrix(y, y.weights, height), _matrix(x, x.weights, width)
    columns = jnp.einsum("pih,pijc->phjc", down, cotangent, precision=EXACT)
    d_image = jnp.einsum("phjc,pjw->hwc", columns, across, precision=EXACT)

    along_x = _between(down, image, _matrix(x, x.slopes, width)) * ((width - 1) / 2)
    along_y = _between(_matrix(y, y.slopes, height), image, across) * ((height - 1) / 2)
    along = jnp.sum(jnp.stack([along_x, along_y], axis=1) * cotangent[:, None], axis=-1)
    unit_x, unit_y = unit_axes(size, along.dtype)
    factors = unit_x, unit_y, jnp.ones((), along.dtype)
    d_theta = jnp.stack([jnp.sum(along * each, axis=(-2, -1)) for each in factors], axis=-1)
    return d_image.astype(image.dtype), d_theta.astype(theta.dtype)


def _axis_neighbours(
    image: jax.Array, theta: jax.Array, size: Size
) -> tuple[Neighbours, Neighbours]:
    """Returns the neighbours of a patch's columns and rows; NaN for windows not axis-aligned."""
    is_rotated = ((theta[:, 0, 1] != 0) | (theta[:, 1, 0] != 0))[:, None]
    axes = axis_aligned_pixels(theta, size, image.shape[:2])
    x, y = (jnp.where(is_rotated, jnp.nan, pixel) for pixel in axes)
    return neighbours(x, image.shape[1]), neighbours(y, image.shape[0])


def _matrix(axis: Neighbours, factors: tuple[jax.Array, jax.Array], length: int) -> jax.Array:
    """Returns the weight of each pixel of an axis in each sample, (..., samples, length)."""
    pixel, first = jnp.arange(length), axis.first[..., None]
    one, other = (factor[..., None] for factor in factors)
    return jnp.where(pixel == first, one, 0) + jnp.where(pixel == first + 1, other, 0)


def _between(down: jax.Array, image: jax.Array, across: jax.Array) -> jax.Array:
    """Returns (..., h, w, C): an image (H, W, C) between matrices (..., h, H) and (..., w, W)."""
    columns = jnp.einsum("hwc,...jw->...hjc", image, across, precision=EXACT)
    return jnp.einsum("...ih,...hjc->...ijc", down, columns, precision=EXACT)
