"""Sampling grids: the points that a patch samples, and the pixels between which they lie.

Coordinates follow `geometry` (align_corners) and are float32 or wider whatever the image's type.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.geometry import Size, unit_to_pixel


def coordinate_type(array: jax.Array) -> jnp.dtype:
    """Returns the type of coordinates computed from an array: float32 or wider."""
    return jnp.promote_types(array.dtype, jnp.float32)


def unit_axes(size: Size, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Returns the axes x and y of a patch, both from -1 to 1.

    Args:
        size: (height, width) of the patch.
        dtype: Type of the coordinates.

    Returns:
        x, (1, width), and y, (height, 1); 0 along an axis of one pixel.
    """

    def axis(length: int) -> jax.Array:
        if length == 1:  # A patch of one pixel samples the window's centre.
            return jnp.zeros(1, dtype)
        # As in the original code, each half counts from its own end, with a step in the precision
        # of the coordinates: symmetric, and equal to it to the bit.
        step = np.float64(np.asarray(2, dtype) / np.asarray(length - 1, dtype))
        steps = np.arange(length)
        from_left, from_right = -1 + step * steps, 1 - step * steps[::-1]
        return jnp.asarray(np.where(steps < length // 2, from_left, from_right), dtype)

    return axis(size[1])[None, :], axis(size[0])[:, None]


def patch_points(theta: jax.Array, size: Size) -> tuple[jax.Array, jax.Array]:
    """Returns the position of each pixel of a patch in the frame, in unit coordinates.

    Args:
        theta: Matrices patch -> frame, (..., 2, 3).
        size: (height, width) of the patch.

    Returns:
        x and y, each (..., height, width), float32 or wider.
    """
    theta = theta.astype(coordinate_type(theta))
    return affine(theta, *unit_axes(size, theta.dtype))


def affine(theta: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the points of two axes, mapped by theta.

    Args:
        theta: Affine matrices, (..., 2, 3).
        x: Unit coordinates of the columns, (1, width).
        y: Unit coordinates of the rows, (height, 1).

    Returns:
        x and y, each (..., height, width), in unit coordinates of the target.
    """
    # Not a matrix product, which accelerators may round to bfloat16.
    rows = [theta[..., i, :, None, None] for i in (0, 1)]
    to_x, to_y = (row[..., 0, :, :] * x + row[..., 1, :, :] * y + row[..., 2, :, :] for row in rows)
    return to_x, to_y


def in_pixels(x: jax.Array, y: jax.Array, image_size: Size) -> tuple[jax.Array, jax.Array]:
    """Converts points to pixels of the image, clipped so that they fit int32.

    Args:
        x: Unit coordinates in the image, any shape.
        y: Unit coordinates of the same shape.
        image_size: (height, width) of the image.

    Returns:
        x and y in pixels of the same shape; whole numbers are pixel centres. Points more than two
        pixels outside the image are moved to two pixels outside.
    """
    # One array behind a barrier: otherwise XLA fuses the coordinates with each use and rounds them
    # differently, so that the backward pass could sample other pixels than the forward pass.
    x, y = jax.lax.optimization_barrier(jnp.stack([x, y]))

    return _in_pixels(x, image_size[1]), _in_pixels(y, image_size[0])


def _in_pixels(unit: jax.Array, length: int) -> jax.Array:
    return jnp.clip(unit_to_pixel(unit, length), -2.0, length + 1.0)


def axis_aligned_pixels(
    theta: jax.Array, size: Size, image_size: Size
) -> tuple[jax.Array, jax.Array]:
    """Returns the positions of an axis-aligned window's columns and rows in the image.

    They equal those of its points; off-diagonal entries of theta are ignored.

    Args:
        theta: Matrices patch -> image, (..., 2, 3).
        size: (height, width) of the patch.
        image_size: (height, width) of the image.

    Returns:
        x of the columns, (..., width), and y of the rows, (..., height), as from `in_pixels`.
    """
    theta = theta.astype(coordinate_type(theta))
    axis_x, axis_y = unit_axes(size, theta.dtype)
    origin = jnp.zeros((1, 1), theta.dtype)
    x, y = affine(theta, axis_x, origin)[0][..., 0, :], affine(theta, origin, axis_y)[1][..., 0]
    x, y = jax.lax.optimization_barrier((x, y))
    return _in_pixels(x, image_size[1]), _in_pixels(y, image_size[0])


class Neighbours(NamedTuple):
    """The two pixels of an axis between which each sample lies.

    Both lie in the image: for a sample outside of it they are the last two, one of which may have a
    weight. On an axis of one pixel, the second has no weight.

    Attributes:
        first: Index of the first of the two.
        weights: Weight of each of them.
        slopes: Derivative of each weight with respect to the sample's position in pixels.
    """

    first: jax.Array
    weights: tuple[jax.Array, jax.Array]
    slopes: tuple[jax.Array, jax.Array]


def neighbours(pixel: jax.Array, length: int) -> Neighbours:
    """Returns the neighbours of samples on an axis.

    Args:
        pixel: Positions of the samples in pixels, any shape; whole numbers are pixel centres.
        length: Number of pixels of the axis.

    Returns:
        The neighbours, as arrays of the same shape.
    """
    pixel = _whole_pixels(pixel, length)
    floor = jnp.floor(pixel)
    fraction = pixel - floor
    first = jnp.clip(floor, 0, max(length - 2, 0))
    between, before, after = floor == first, floor == first - 1, floor == first + 1
    zero = 0 * fraction  # NaN stays NaN.

    def select(here: Any, at_edge: jax.Array, there: Any) -> jax.Array:
        return jnp.where(between, here, jnp.where(at_edge, there, zero))

    weights = select(1 - fraction, before, fraction), select(fraction, after, 1 - fraction)
    slopes = select(-1, before, 1), select(1, after, -1)
    if length == 1:
        weights, slopes = (weights[0], zero), (slopes[0], zero)
    return Neighbours(first.astype(jnp.int32), weights, slopes)


def _whole_pixels(pixel: jax.Array, length: int) -> jax.Array:
    """Rounds coordinates that differ from a whole pixel by no more than float rounding."""
    whole = jnp.round(pixel)
    rounding = length * jnp.finfo(pixel.dtype).eps
    return jnp.where(jnp.abs(pixel - whole) <= rounding, whole, pixel)
