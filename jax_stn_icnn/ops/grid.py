"""The points that a patch samples, and the pixels of the image that they lie between.

Coordinates follow `geometry` (align_corners) and are float32 or wider whatever the image's type.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.geometry import Size, unit_to_pixel


def coordinate_type(array: jax.Array) -> jnp.dtype:
    """The type of coordinates made from an array: float32 or wider."""
    return jnp.promote_types(array.dtype, jnp.float32)


def unit_axes(size: Size, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """The axes x and y of a patch, both from -1 to 1.

    Args:
        size: (height, width) of the patch.
        dtype: of the coordinates.

    Returns:
        x, (1, width), and y, (height, 1); 0 along an axis of one pixel.
    """

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
    """Where each pixel of a patch lies in the frame, in unit coordinates.

    Args:
        theta: matrices patch -> frame, (..., 2, 3).
        size: (height, width) of the patch.

    Returns:
        x and y, each (..., height, width), float32 or wider.
    """
    theta = theta.astype(coordinate_type(theta))
    return affine(theta, *unit_axes(size, theta.dtype))


def affine(theta: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where theta carries the points of two axes.

    Args:
        theta: affine matrices, (..., 2, 3).
        x: of the points' columns, (1, width), in unit coordinates.
        y: of their rows, (height, 1), likewise.

    Returns:
        x and y, each (..., height, width), in unit coordinates of where theta leads.
    """
    # Spelled out rather than a product of matrices, which accelerators may round to bfloat16.
    rows = [theta[..., i, :, None, None] for i in (0, 1)]
    to_x, to_y = (row[..., 0, :, :] * x + row[..., 1, :, :] * y + row[..., 2, :, :] for row in rows)
    return to_x, to_y


def in_pixels(x: jax.Array, y: jax.Array, image_size: Size) -> tuple[jax.Array, jax.Array]:
    """The same points in pixels of the image, within int32 wherever theta points.

    Args:
        x: in unit coordinates of the image, of any shape.
        y: likewise, of the same shape.
        image_size: (height, width) of the image.

    Returns:
        x and y in pixels, whole numbers at their centres, of the same shape; what lies more than
        two pixels outside the image is put two pixels outside.
    """
    # One array behind a barrier: otherwise each use is fused with, and rounds, the coordinates in
    # its own way, and the backward pass could see other pixels than the forward one.
    x, y = jax.lax.optimization_barrier(jnp.stack([x, y]))

    return _in_pixels(x, image_size[1]), _in_pixels(y, image_size[0])


def _in_pixels(unit: jax.Array, length: int) -> jax.Array:
    return jnp.clip(unit_to_pixel(unit, length), -2.0, length + 1.0)


def axis_aligned_pixels(
    theta: jax.Array, size: Size, image_size: Size
) -> tuple[jax.Array, jax.Array]:
    """Where an upright window's columns and rows lie in the image.

    The same numbers as for each of its points; entries of theta off the diagonal are not looked at.

    Args:
        theta: matrices patch -> image, (..., 2, 3).
        size: (height, width) of the patch.
        image_size: (height, width) of the image.

    Returns:
        x of the columns, (..., width), and y of the rows, (..., height), as of `in_pixels`.
    """
    theta = theta.astype(coordinate_type(theta))
    axis_x, axis_y = unit_axes(size, theta.dtype)
    nowhere = jnp.zeros((1, 1), theta.dtype)
    x, y = affine(theta, axis_x, nowhere)[0][..., 0, :], affine(theta, nowhere, axis_y)[1][..., 0]
    x, y = jax.lax.optimization_barrier((x, y))
    return _in_pixels(x, image_size[1]), _in_pixels(y, image_size[0])


class Neighbours(NamedTuple):
    """The two pixels of an axis that each sample lies between.

    Both lie in the image: beyond an edge they are its last two, of which one may still count. Along
    an axis of one pixel there is no second, and it weighs nothing.

    Attributes:
        first: index of the first of the two.
        weights: what each of them weighs.
        slopes: how their weights change as the sample moves on by a pixel.
    """

    first: jax.Array
    weights: tuple[jax.Array, jax.Array]
    slopes: tuple[jax.Array, jax.Array]


def neighbours(pixel: jax.Array, length: int) -> Neighbours:
    """The neighbours of samples on an axis.

    Args:
        pixel: where the samples lie, in pixels, whole numbers at their centres; of any shape.
        length: pixels of the axis.

    Returns:
        The neighbours, their arrays of the same shape.
    """
    pixel = _whole_pixels(pixel, length)
    floor = jnp.floor(pixel)
    fraction = pixel - floor
    first = jnp.clip(floor, 0, max(length - 2, 0))
    between, before, after = floor == first, floor == first - 1, floor == first + 1
    nothing = 0 * fraction  # Not plain zero, which would hide a theta that is not a number.

    def choose(here: Any, at_edge: jax.Array, there: Any) -> jax.Array:
        return jnp.where(between, here, jnp.where(at_edge, there, nothing))

    weights = choose(1 - fraction, before, fraction), choose(fraction, after, 1 - fraction)
    slopes = choose(-1, before, 1), choose(1, after, -1)
    if length == 1:  # There is no second.
        weights, slopes = (weights[0], nothing), (slopes[0], nothing)
    return Neighbours(first.astype(jnp.int32), weights, slopes)


def _whole_pixels(pixel: jax.Array, length: int) -> jax.Array:
    """Coordinates closer to a whole pixel than rounding can tell become that pixel."""
    whole = jnp.round(pixel)
    rounding = length * jnp.finfo(pixel.dtype).eps
    return jnp.where(jnp.abs(pixel - whole) <= rounding, whole, pixel)
