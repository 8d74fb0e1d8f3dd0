"""Where things are: pixels, unit coordinates, thetas, windows and part centres.

One convention everywhere, PyTorch's `align_corners=True`: an axis of S pixels runs from -1 at the
centre of its first pixel to 1 at the centre of its last, so `pixel = (unit + 1) / 2 * (S - 1)`.
A theta is a 2 x 3 matrix that carries (x, y, 1) of a patch into (x, y) of the frame.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_labels, check_shape

Size = tuple[int, ...]  # (height, width), in pixels

# One size for all parts, or one for each.
Sizes = Size | tuple[Size, ...]

COARSE_SIZE: Size = (128, 128)  # of the coarse image and the rough mask

# Of a window that follows its part, as shares of the patch's height and width in frame pixels: the
# room that it leaves around the part, half of it on either side, and the least that it measures.
ROOM = 1 / 4
LEAST = 1 / 2


def part_sizes(sizes: Sizes, num_parts: int) -> tuple[Size, ...]:
    """The size of each part's patch.

    Args:
        sizes: one (height, width) for all parts, or one for each.
        num_parts: how many parts there are.

    Returns:
        `num_parts` sizes.

    Raises:
        ValueError: there are sizes, but not one for each part.
    """
    # mypy does not see from `is_single_size` which of the two it is.
    if is_single_size(sizes):
        return (tuple(sizes),) * num_parts  # type: ignore[return-value]
    if len(sizes) != num_parts:
        raise ValueError(f"patch sizes are for {len(sizes)} parts, but there are {num_parts}")
    return tuple(tuple(size) for size in sizes)  # type: ignore[arg-type]


def is_single_size(sizes: Sizes) -> bool:
    """Whether it is one (height, width) for all parts."""
    return all(isinstance(length, int) for length in sizes)


def unit_to_pixel(unit: jax.Array, size: int) -> jax.Array:
    """Unit coordinates in [-1, 1] to pixels in [0, size - 1], along one axis.

    Args:
        unit: floats of any shape; beyond [-1, 1] they lie beyond the axis.
        size: pixels of the axis.

    Returns:
        Pixels, whole numbers at their centres, of the same shape.
    """
    return (unit + 1.0) / 2.0 * (size - 1)


def pixel_to_unit(pixel: jax.Array, size: int) -> jax.Array:
    """Pixels in [0, size - 1] to unit coordinates in [-1, 1], along one axis.

    Args:
        pixel: numbers of any shape, whole ones at the centres of pixels.
        size: pixels of the axis, two or more.

    Returns:
        Unit coordinates, of the same shape.
    """
    return pixel * (2.0 / (size - 1)) - 1.0


def make_theta(sx: jax.Array, sy: jax.Array, tx: jax.Array, ty: jax.Array) -> jax.Array:
    """Builds [[sx, 0, tx], [0, sy, ty]] (eq. 15 of the paper).

    Args:
        sx: width of the window over that of the frame; any shape, as the other three.
        sy: height of the window over that of the frame.
        tx: x of the window's centre, unit coordinates of the frame.
        ty: y of the window's centre, likewise.

    Returns:
        Thetas of shape (..., 2, 3).
    """
    zero = jnp.zeros_like(sx)
    rows = [jnp.stack([sx, zero, tx], axis=-1), jnp.stack([zero, sy, ty], axis=-1)]
    return jnp.stack(rows, axis=-2)


def invert(theta: jax.Array) -> jax.Array:
    """Inverts thetas of shape (..., 2, 3); a degenerate one gives no finite numbers.

    Args:
        theta: any affine matrices, rotation and shear included.

    Returns:
        The matrices that carry the frame into the patch, of the same shape.
    """
    check_shape("theta", theta, (..., 2, 3))
    (a, b, tx), (c, d, ty) = (jnp.moveaxis(theta[..., row, :], -1, 0) for row in (0, 1))
    det = a * d - b * c
    a, b, c, d = d / det, -b / det, -c / det, a / det
    first = jnp.stack([a, b, -(a * tx + b * ty)], axis=-1)
    second = jnp.stack([c, d, -(c * tx + d * ty)], axis=-1)
    return jnp.stack([first, second], axis=-2)


def compose(outer: jax.Array, inner: jax.Array) -> jax.Array:
    """The matrix that does `inner` first, then `outer`.

    Args:
        outer: affine matrices, (..., 2, 3).
        inner: likewise; leading axes broadcast.

    Returns:
        Affine matrices, (..., 2, 3).

    Raises:
        ValueError: one of the two does not end in (2, 3).
    """
    check_shape("outer", outer, (..., 2, 3))
    check_shape("inner", inner, (..., 2, 3))
    linear, shift = outer[..., :2], outer[..., 2:]
    # Highest precision: on accelerators a plain product of matrices may round to bfloat16, which
    # is pixels off in a frame of 1024.
    return jnp.matmul(linear, inner, precision="highest") + jnp.pad(
        shift, [(0, 0)] * (shift.ndim - 1) + [(2, 0)]
    )


def windows_from_theta(theta: jax.Array, frame_size: Size) -> jax.Array:
    """The windows that thetas cut, as boxes of pixels.

    Args:
        theta: shape (..., 2, 3), its off-diagonal entries zero.
        frame_size: (height, width) of the frame.

    Returns:
        Boxes (x0, y0, x1, y1) of shape (..., 4): centres of the corner pixels, in frame pixels.
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
    """The inverse of `windows_from_theta`.

    Args:
        windows: boxes (x0, y0, x1, y1) of shape (..., 4), in frame pixels.
        frame_size: (height, width) of the frame.

    Returns:
        Thetas of shape (..., 2, 3).
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


def theta_from_centres(centres: jax.Array, frame_size: Size, patch_size: Sizes) -> jax.Array:
    """Thetas of windows as large as the patch around given pixels.

    Args:
        centres: (y, x) in frame pixels, shape (..., 2).
        frame_size: (height, width) of the frame.
        patch_size: (height, width) of the patch, or one for each of the centres' last axis but
            one; odd sizes fall on whole pixels.

    Returns:
        Thetas of shape (..., 2, 3).
    """
    check_shape("centres", centres, (..., 2))
    centre_y, centre_x = jnp.moveaxis(jnp.asarray(centres, jnp.float32), -1, 0)
    patches = np.array(patch_size)
    scale_x = (patches[..., 1] - 1) / (frame_size[1] - 1)
    scale_y = (patches[..., 0] - 1) / (frame_size[0] - 1)
    return make_theta(
        jnp.broadcast_to(jnp.asarray(scale_x, centre_x.dtype), centre_x.shape),
        jnp.broadcast_to(jnp.asarray(scale_y, centre_y.dtype), centre_y.shape),
        pixel_to_unit(centre_x, frame_size[1]),
        pixel_to_unit(centre_y, frame_size[0]),
    )


class Centres(NamedTuple):
    """Centres of parts, or of classes.

    Attributes:
        yx: (y, x) in pixels, float32 of shape (batch, parts, 2); the middle of the picture
            where the part is absent.
        present: bool of shape (batch, parts).
    """

    yx: jax.Array
    present: jax.Array


def class_centres(label_map: jax.Array, num_classes: int = NINE.num_classes) -> Centres:
    """The mean pixel of each class, rounded down.

    The sums are whole numbers, taken from the middle of the picture so that they stay below 2**31
    up to 2048 x 2048, however the classes lie.

    Args:
        label_map: class ids, integers of shape (batch, height, width).
        num_classes: how many classes to look for, from 0 on.

    Returns:
        Centres of the classes, shapes (batch, num_classes, 2) and (batch, num_classes).
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
    """The centre of each part: that of its class, or the mean of its present classes' centres.

    Args:
        label_map: class ids, integers of shape (batch, height, width).
        anatomy: what the face consists of.

    Returns:
        Centres of the parts, rounded down to whole pixels.

    Raises:
        ValueError: the shape does not fit, or a label is no class.
    """
    check_labels("label_map", label_map, anatomy.num_classes)
    # Classes without a part lie behind the others in all of ours, and take no part in it.
    classes = class_centres(label_map, max(anatomy.part_class_ids) + 1)
    height, width = label_map.shape[1:]
    middle = jnp.array([height // 2, width // 2], jnp.float32)
    yx, present = [], []
    for part_ids in anatomy.part_ids:
        # Slices: indexed by an array, a TPU would look the classes up.
        there = jnp.stack([classes.present[:, i] for i in part_ids], axis=1)
        centres = jnp.stack([classes.yx[:, i] for i in part_ids], axis=1)
        weight = there.astype(jnp.float32)[..., None]
        count = jnp.sum(weight, axis=1)
        mean = jnp.floor(jnp.sum(centres * weight, axis=1) / jnp.maximum(count, 1))
        yx.append(jnp.where(count > 0, mean, middle))
        present.append(count[:, 0] > 0)
    return Centres(jnp.stack(yx, axis=1), jnp.stack(present, axis=1))


def boxes(member: jax.Array) -> jax.Array:
    """The boxes around what masks hold.

    Args:
        member: bool of shape (..., height, width).

    Returns:
        (x0, y0, x1, y1), int32 of shape (..., 4): its first and last columns and rows; the whole
        mask where it holds nothing.
    """
    firsts, lasts = [], []
    for axis in (-2, -1):
        there = jnp.any(member, axis=axis)
        firsts.append(jnp.argmax(there, axis=-1))
        lasts.append(there.shape[-1] - 1 - jnp.argmax(there[..., ::-1], axis=-1))
    return jnp.stack([*firsts, *lasts], axis=-1).astype(jnp.int32)


def theta_target(
    label_map: jax.Array, patch_size: Sizes, anatomy: Anatomy = NINE, following: bool = False
) -> tuple[jax.Array, jax.Array]:
    """What the localizer should say for a frame.

    By default the paper's: windows as large as the patch around the parts' centres. Those that
    follow their parts (ours) are as large as the part is in this picture.

    Args:
        label_map: class ids of the frame, integers of shape (batch, height, width).
        patch_size: (height, width) of the patches, or one for each part.
        anatomy: what the face consists of.
        following: whether windows follow their parts.

    Returns:
        Thetas (batch, parts, 2, 3), and which parts are present (batch, parts). Absent parts have
        windows as large as the patch, in the middle of the picture.
    """
    centres = part_centres(label_map, anatomy)
    sizes = part_sizes(patch_size, anatomy.num_parts)
    theta = theta_from_centres(centres.yx, label_map.shape[1:], sizes)
    if following:
        windows = _following_windows(label_map, sizes, anatomy)
        followed = theta_from_windows(windows, label_map.shape[1:])
        theta = jnp.where(centres.present[..., None, None], followed, theta)
    return theta, centres.present


def _following_windows(
    label_map: jax.Array, sizes: tuple[Size, ...], anatomy: Anatomy
) -> jax.Array:
    """Windows (x0, y0, x1, y1) with the patch's shape that hold a part's box and room around it.

    One factor for height and width, so that the fine network sees no part stretched. The room is a
    share of the patch, not of the box: how far off a localizer is does not shrink with a narrow
    eye. Around the middle of the box, not the mean pixel, around which a window that holds the box
    must be larger; rounded down to a whole pixel as there, so that a window as large as its patch
    falls on whole pixels. Nothing holds a window within the frame, as for the others.
    """
    members = [jnp.isin(label_map, jnp.array(ids)) for ids in anatomy.part_ids]
    box = boxes(jnp.stack(members, axis=1))
    first, last = box[..., :2], box[..., 2:]
    span = np.array(sizes)[:, ::-1] - 1  # (x, y), from the first pixel to the last
    scale = jnp.max((last - first) / span, axis=-1, keepdims=True) + ROOM
    middle, half = (first + last) // 2, jnp.maximum(scale, LEAST) * span / 2
    return jnp.concatenate([middle - half, middle + half], axis=-1)
