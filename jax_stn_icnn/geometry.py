"""Pixels, unit coordinates, thetas, windows and part centres.

One convention everywhere, PyTorch's `align_corners=True`: an axis of S pixels spans -1, the centre
of its first pixel, to 1, the centre of its last, so `pixel = (unit + 1) / 2 * (S - 1)`. A theta is
a 2 x 3 matrix that maps (x, y, 1) of a patch to (x, y) of the frame.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_labels, check_shape

Size = tuple[int, ...]  # (height, width), in pixels

# One size for all parts, or one for each.
Sizes = Size | Sequence[Size]

COARSE_SIZE: Size = (128, 128)  # of the paper's coarse image and coarse segmentation


def part_sizes(sizes: Sizes, num_parts: int) -> tuple[Size, ...]:
    """Returns the size of each part's patch.

    Args:
        sizes: One (height, width) for all parts, or one for each.
        num_parts: Number of parts.

    Returns:
        `num_parts` sizes.

    Raises:
        ValueError: There are several sizes, but not one for each part.
    """
    each = np.array(sizes).tolist()
    if np.ndim(sizes) == 1:
        return (tuple(each),) * num_parts
    if len(each) != num_parts:
        raise ValueError(f"patch sizes are for {len(each)} parts, but there are {num_parts}")
    return tuple(map(tuple, each))


def unit_to_pixel(unit: jax.Array, size: int) -> jax.Array:
    """Converts unit coordinates in [-1, 1] to pixels in [0, size - 1], along one axis.

    Args:
        unit: Floats of any shape; values beyond [-1, 1] lie outside the axis.
        size: Number of pixels of the axis.

    Returns:
        Pixel coordinates of the same shape; whole numbers are pixel centres.
    """
    return (unit + 1.0) / 2.0 * (size - 1)


def pixel_to_unit(pixel: jax.Array, size: int) -> jax.Array:
    """Converts pixels in [0, size - 1] to unit coordinates in [-1, 1], along one axis.

    Args:
        pixel: Numbers of any shape; whole numbers are pixel centres.
        size: Number of pixels of the axis, two or more.

    Returns:
        Unit coordinates of the same shape.
    """
    return pixel * (2.0 / (size - 1)) - 1.0


def make_theta(sx: jax.Array, sy: jax.Array, tx: jax.Array, ty: jax.Array) -> jax.Array:
    """Returns the thetas [[sx, 0, tx], [0, sy, ty]] (eq. 15 of the paper).

    Args:
        sx: Width of the window over that of the frame; any shape, the same for all arguments.
        sy: Height of the window over that of the frame.
        tx: x of the window's centre in unit coordinates of the frame.
        ty: y of the window's centre.

    Returns:
        Thetas (..., 2, 3).
    """
    zero = jnp.zeros_like(sx)
    rows = [jnp.stack([sx, zero, tx], axis=-1), jnp.stack([zero, sy, ty], axis=-1)]
    return jnp.stack(rows, axis=-2)


def invert_theta(theta: jax.Array) -> jax.Array:
    """Returns the inverse of affine matrices.

    Args:
        theta: Matrices patch -> frame, (..., 2, 3), possibly with rotation and shear.

    Returns:
        Matrices frame -> patch, (..., 2, 3); not finite where a matrix is singular.
    """
    check_shape("theta", theta, (..., 2, 3))
    (a, b, tx), (c, d, ty) = (jnp.moveaxis(theta[..., row, :], -1, 0) for row in (0, 1))
    det = a * d - b * c
    a, b, c, d = d / det, -b / det, -c / det, a / det
    first = jnp.stack([a, b, -(a * tx + b * ty)], axis=-1)
    second = jnp.stack([c, d, -(c * tx + d * ty)], axis=-1)
    return jnp.stack([first, second], axis=-2)


def compose_theta(outer: jax.Array, inner: jax.Array) -> jax.Array:
    """Returns the matrix that applies `inner` first, then `outer`.

    Args:
        outer: Affine matrices, (..., 2, 3).
        inner: Affine matrices, (..., 2, 3); leading axes broadcast.

    Returns:
        Affine matrices, (..., 2, 3).

    Raises:
        ValueError: One of them does not end in (2, 3).
    """
    check_shape("outer", outer, (..., 2, 3))
    check_shape("inner", inner, (..., 2, 3))
    linear, shift = outer[..., :2], outer[..., 2:]
    # Accelerators may round a product of matrices to bfloat16, an error of several pixels in a
    # frame of 1024.
    return jnp.matmul(linear, inner, precision="highest") + jnp.pad(
        shift, [(0, 0)] * (shift.ndim - 1) + [(2, 0)]
    )


def windows_from_theta(theta: jax.Array, frame_size: Size) -> jax.Array:
    """Returns the windows of thetas as boxes in pixels.

    Args:
        theta: Thetas (..., 2, 3) whose off-diagonal entries are zero.
        frame_size: (height, width) of the frame.

    Returns:
        Boxes (x0, y0, x1, y1), (..., 4): centres of the corner pixels, in frame pixels.
    """
    check_shape("theta", theta, (..., 2, 3))
    height, width = frame_size
    sx, tx, sy, ty = theta[..., 0, 0], theta[..., 0, 2], theta[..., 1, 1], theta[..., 1, 2]
    corners = [
        unit_to_pixel(tx - sx, width),
        unit_to_pixel(ty - sy, height),
        unit_to_pixel(tx + sx, width),
        unit_to_pixel(ty + sy, height),
    ]
    return jnp.stack(corners, axis=-1)


def theta_from_windows(windows: jax.Array, frame_size: Size) -> jax.Array:
    """Returns the thetas of windows; the inverse of `windows_from_theta`.

    Args:
        windows: Boxes (x0, y0, x1, y1), (..., 4), in frame pixels.
        frame_size: (height, width) of the frame.

    Returns:
        Thetas (..., 2, 3).
    """
    check_shape("windows", windows, (..., 4))
    height, width = frame_size
    x0, y0, x1, y1 = jnp.moveaxis(jnp.asarray(windows, jnp.float32), -1, 0)
    return make_theta(
        (x1 - x0) / (width - 1),
        (y1 - y0) / (height - 1),
        pixel_to_unit((x0 + x1) / 2, width),
        pixel_to_unit((y0 + y1) / 2, height),
    )


def theta_from_centres(centres: jax.Array, frame_size: Size, sizes: Sizes) -> jax.Array:
    """Returns the thetas of windows of the patch's size around given pixels.

    Args:
        centres: (y, x) in frame pixels, (..., 2).
        frame_size: (height, width) of the frame.
        sizes: (height, width) of the patch, or one for each entry of the second-to-last axis of
            `centres`; windows of odd sizes fall on whole pixels.

    Returns:
        Thetas (..., 2, 3).
    """
    check_shape("centres", centres, (..., 2))
    centre_y, centre_x = jnp.moveaxis(jnp.asarray(centres, jnp.float32), -1, 0)
    patches = np.array(sizes)
    scale_x = (patches[..., 1] - 1) / (frame_size[1] - 1)
    scale_y = (patches[..., 0] - 1) / (frame_size[0] - 1)
    return make_theta(
        jnp.broadcast_to(jnp.asarray(scale_x, centre_x.dtype), centre_x.shape),
        jnp.broadcast_to(jnp.asarray(scale_y, centre_y.dtype), centre_y.shape),
        pixel_to_unit(centre_x, frame_size[1]),
        pixel_to_unit(centre_y, frame_size[0]),
    )


class Centres(NamedTuple):
    """Centers of parts or of classes.

    Attributes:
        yx: (y, x) in pixels, float32 (batch, parts, 2); the middle of the image where the part is
            absent.
        present: bool (batch, parts).
    """

    yx: jax.Array
    present: jax.Array


def class_centres(label_map: jax.Array, num_classes: int = NINE.num_classes) -> Centres:
    """Returns the mean pixel of each class, rounded down.

    The sums are integers relative to the middle of the image, which stay below 2**31 for images up
    to 2048 x 2048.

    Args:
        label_map: Class ids, integers (batch, height, width).
        num_classes: Number of classes; ids are 0..num_classes - 1.

    Returns:
        Centers of the classes, (batch, num_classes, 2) and (batch, num_classes).
    """
    check_shape("label_map", label_map, ("batch", "height", "width"))
    height, width = label_map.shape[1:]
    ids = jnp.arange(num_classes, dtype=label_map.dtype)
    member = label_map[:, None] == ids[:, None, None]
    in_row = jnp.sum(member, axis=3, dtype=jnp.int32)
    in_column = jnp.sum(member, axis=2, dtype=jnp.int32)
    count = jnp.sum(in_row, axis=2)
    some = jnp.maximum(count, 1)
    sum_y = jnp.sum(in_row * (jnp.arange(height) - height // 2), axis=2)
    sum_x = jnp.sum(in_column * (jnp.arange(width) - width // 2), axis=2)
    yx = jnp.stack([sum_y // some + height // 2, sum_x // some + width // 2], axis=-1)
    return Centres(yx.astype(jnp.float32), count > 0)


def part_centres(label_map: jax.Array, anatomy: Anatomy = NINE) -> Centres:
    """Returns the centre of each part: the mean of the centres of its classes that are present.

    Args:
        label_map: Class ids, integers (batch, height, width).
        anatomy: The classes and parts.

    Returns:
        Centers of the parts, rounded down to whole pixels.

    Raises:
        ValueError: The shape does not match, or a label is not a class id.
    """
    check_labels("label_map", label_map, anatomy.num_classes)
    # Global classes follow the part classes in all anatomies here, and need no centre.
    classes = class_centres(label_map, max(anatomy.part_class_ids) + 1)
    height, width = label_map.shape[1:]
    middle = jnp.array([height // 2, width // 2], jnp.float32)
    yx, present = [], []
    for part_ids in anatomy.part_ids:
        # Slices: an index array would be a gather, which is slow on a TPU.
        there = jnp.stack([classes.present[:, i] for i in part_ids], axis=1)
        centres = jnp.stack([classes.yx[:, i] for i in part_ids], axis=1)
        weight = there.astype(jnp.float32)[..., None]
        count = jnp.sum(weight, axis=1)
        mean = jnp.floor(jnp.sum(centres * weight, axis=1) / jnp.maximum(count, 1))
        yx.append(jnp.where(count > 0, mean, middle))
        present.append(count[:, 0] > 0)
    return Centres(jnp.stack(yx, axis=1), jnp.stack(present, axis=1))


def bounding_boxes(mask: jax.Array) -> jax.Array:
    """Returns the bounding boxes of masks.

    Args:
        mask: bool (..., height, width).

    Returns:
        (x0, y0, x1, y1), int32 (..., 4): the first and last column and row; those of the whole
        array where a mask is empty.
    """
    firsts, lasts = [], []
    for axis in (-2, -1):
        occupied = jnp.any(mask, axis=axis)
        firsts.append(jnp.argmax(occupied, axis=-1))
        lasts.append(occupied.shape[-1] - 1 - jnp.argmax(occupied[..., ::-1], axis=-1))
    return jnp.stack([*firsts, *lasts], axis=-1).astype(jnp.int32)


def theta_target(
    label_map: jax.Array, sizes: Sizes, anatomy: Anatomy = NINE
) -> tuple[jax.Array, jax.Array]:
    """Returns the localizer's targets: windows of the patches' size around the parts' centres.

    Args:
        label_map: Class ids of the frame, integers (batch, height, width).
        sizes: (height, width) of all patches, or one for each part.
        anatomy: The classes and parts.

    Returns:
        Thetas (batch, parts, 2, 3), and which parts are present, bool (batch, parts). The window of
        an absent part lies in the middle of the frame.
    """
    centres = part_centres(label_map, anatomy)
    sizes = part_sizes(sizes, anatomy.num_parts)
    return theta_from_centres(centres.yx, label_map.shape[1:], sizes), centres.present
