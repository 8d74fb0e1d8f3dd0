"""The differentiable sampler: cuts patches from a frame by theta, and pastes them back.

All sampling pulls: an output pixel looks up where in the input it comes from. Coordinates follow
`geometry` (align_corners) and are float32 or wider whatever the image's type; outside the image
there is zero. Bilinear sampling weighs the pixels floor and floor + 1, never floor and ceil, so
that the gradient of theta does not vanish at whole pixels. Its gradients are written by hand, so
that the image's, a scatter, disappears from the compiled program when only theta's is wanted.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn import labels
from jax_stn_icnn.checks import check_labels, check_same_batch, check_shape
from jax_stn_icnn.geometry import Size, invert, unit_to_pixel

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def affine_grid(theta: jax.Array, size: Size) -> jax.Array:
    """Where each pixel of a patch lies in the frame (eq. 14 of the paper).

    Args:
        theta: matrices patch -> frame, shape (..., 2, 3).
        size: (height, width) of the patch.

    Returns:
        (x, y) in unit coordinates of the frame, shape (..., height, width, 2).

    Raises:
        ValueError: theta does not end in (2, 3).
    """
    check_shape("theta", theta, (..., 2, 3))
    theta = theta.astype(_coordinate_type(theta))
    return _affine(theta, *_unit_axes(size, theta.dtype))


def crop_bilinear(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Cuts patches by bilinear sampling; differentiable in the image and in theta.

    A coordinate closer to a whole pixel than float rounding can tell counts as that pixel, so a
    patch that falls on whole pixels equals the slice of the image to the bit.

    Args:
        image: floats of shape (batch, height, width, channels).
        theta: matrices patch -> image, (batch, 2, 3) or, for several patches of one image,
            (batch, patches, 2, 3).
        size: (height, width) of a patch.

    Returns:
        Patches of the image's type, (batch, [patches,] *size, channels).

    Raises:
        ValueError: shapes do not fit, or the image is not floating point.
    """
    _check_crop(image, theta)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image must be floating point, not {image.dtype}: convert it to 0..1")
    return _crop(_bilinear, image, theta, tuple(size))


def crop_nearest(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Cuts patches by nearest sampling, halves rounded to even: for labels and the inverse.

    Args:
        image: any type, shape (batch, height, width, channels).
        theta: matrices patch -> image, (batch, 2, 3) or (batch, patches, 2, 3); gets no gradient.
        size: (height, width) of a patch.

    Returns:
        Patches of the image's type, (batch, [patches,] *size, channels), zero outside the image.

    Raises:
        ValueError: shapes do not fit.
    """
    _check_crop(image, theta)
    return _crop(_nearest_patches, image, jax.lax.stop_gradient(theta), tuple(size))


def crop_part_labels(label_map: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Cuts each part's labels from a frame's label map.

    Args:
        label_map: class ids 0..8, integers of shape (batch, height, width).
        theta: the six parts' matrices, (batch, 6, 2, 3).
        size: (height, width) of a patch.

    Returns:
        int32 (batch, 6, *size): 0 background and other parts, 1, 2, ... the part's own classes.

    Raises:
        ValueError: shapes do not fit, or a label is outside 0..8.
    """
    check_shape("theta", theta, ("batch", labels.NUM_PARTS, 2, 3))
    check_shape("label_map", label_map, ("batch", "height", "width"))
    check_labels("label_map", label_map, labels.NUM_CLASSES)
    own_labels = jnp.array(
        [
            [
                1 + part.classes.index(c) if c in part.classes else 0
                for c, _ in enumerate(labels.CLASSES)
            ]
            for part in labels.PARTS
        ],
        jnp.int32,
    )
    patches = crop_nearest(label_map[..., None], theta, size)[..., 0].astype(jnp.int32)
    return jax.vmap(lambda own, patch: own[patch], in_axes=(0, 1), out_axes=1)(own_labels, patches)


def paste(scores: Sequence[jax.Array], theta: jax.Array, frame_size: Size) -> jax.Array:
    """The inverse sampler: puts the parts' scores back into the frame.

    A part's classes score what its patch says there, zero outside its window; background scores
    the product over the parts of what each says of background, one outside its window. Reading is
    by nearest sampling; differentiable in the scores, not in theta.

    Args:
        scores: for each of the six parts the softmax of its patch, (batch, height, width, labels),
            label 0 being background.
        theta: the matrices that cut the patches, (batch, 6, 2, 3).
        frame_size: (height, width) of the frame.

    Returns:
        Scores of the nine classes, (batch, *frame_size, 9); their argmax is the parse.

    Raises:
        ValueError: shapes do not fit.
    """
    check_shape("theta", theta, ("batch", labels.NUM_PARTS, 2, 3))
    if len(scores) != labels.NUM_PARTS:
        raise ValueError(f"scores must hold {labels.NUM_PARTS} parts, not {len(scores)}")
    for part, part_scores in zip(labels.PARTS, scores, strict=True):
        num_labels = labels.NETWORKS[part.network]
        check_shape(f"scores of {part.name}", part_scores, ("batch", "h", "w", num_labels))
    return _paste(tuple(scores), theta, tuple(frame_size))


def resize_bilinear(image: jax.Array, size: Size) -> jax.Array:
    """Resizes by bilinear sampling with align_corners: what makes the coarse image.

    Args:
        image: floats of shape (batch, height, width, channels).
        size: (height, width) of the result.

    Returns:
        Images of shape (batch, *size, channels), of the image's type.
    """
    check_shape("image", image, ("batch", "height", "width", "channels"))
    theta = jnp.broadcast_to(jnp.array(IDENTITY, jnp.float32), (image.shape[0], 2, 3))
    return crop_bilinear(image, theta, size)


def resize_labels(label_map: jax.Array, size: Size) -> jax.Array:
    """Resizes labels by nearest: pixel i reads floor(i * old / new).

    Args:
        label_map: class ids of shape (batch, height, width).
        size: (height, width) of the result.

    Returns:
        Label maps of shape (batch, *size), of the input's type.
    """
    check_shape("label_map", label_map, ("batch", "height", "width"))
    rows, columns = (
        jnp.arange(new) * old // new for new, old in zip(size, label_map.shape[1:], strict=True)
    )
    return label_map[:, rows[:, None], columns]


def _check_crop(image: jax.Array, theta: jax.Array) -> None:
    check_shape("image", image, ("batch", "height", "width", "channels"))
    check_shape("theta", theta, (..., 2, 3))
    if theta.ndim not in (3, 4):
        raise ValueError(f"theta has shape {theta.shape}, but must be (batch, [patches,] 2, 3)")
    check_same_batch(image=image, theta=theta)


@partial(jax.jit, static_argnums=(0, 3))
def _crop(sample, image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """Samples every patch of every image."""
    several = theta.ndim == 4
    patches = jax.vmap(lambda image, theta: sample(image, theta, size))(
        image, theta if several else theta[:, None]
    )
    return patches if several else patches[:, 0]


def _coordinate_type(array: jax.Array) -> jnp.dtype:
    return jnp.promote_types(array.dtype, jnp.float32)


def _unit_axes(size: Size, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
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


def _affine(theta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Where theta (..., 2, 3) carries the points of two axes, (1, w) and (h, 1): (..., h, w, 2)."""
    # Spelled out rather than a product of matrices, which accelerators may round to bfloat16.
    rows = [theta[..., i, :, None, None] for i in (0, 1)]
    along = [row[..., 0, :, :] * x + row[..., 1, :, :] * y + row[..., 2, :, :] for row in rows]
    return jnp.stack(along, axis=-1)


def _in_pixels(grid: jax.Array, image_size: Size) -> tuple[jax.Array, jax.Array]:
    """Both coordinates in pixels of the image, finite and within int32 whatever theta is."""
    # Without the barrier each use is fused with, and rounds, the coordinates in its own way: the
    # backward pass could then see other pixels than the forward one.
    grid = jax.lax.optimization_barrier(grid)

    def pixels(unit: jax.Array, length: int) -> jax.Array:
        pixel = unit_to_pixel(unit, length)
        return jnp.clip(pixel, -2.0, length + 1.0)

    return pixels(grid[..., 0], image_size[1]), pixels(grid[..., 1], image_size[0])


def _corners(pixel: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """The pixel below as an index, and the fraction of the way to the next one."""
    whole = jnp.round(pixel)
    rounding = length * jnp.finfo(pixel.dtype).eps
    pixel = jnp.where(jnp.abs(pixel - whole) <= rounding, whole, pixel)
    floor = jnp.floor(pixel)
    return floor.astype(jnp.int32), pixel - floor


def _look_up(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """image[y, x], zero outside."""
    height, width = image.shape[:2]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    value = image[jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)]
    return jnp.where(inside[..., None], value, 0)


def _four_pixels(image: jax.Array, theta: jax.Array, size: Size):
    """The four neighbours of each sample, and the fractions between them."""
    x, y = _in_pixels(affine_grid(theta, size), image.shape[:2])
    x, fx = _corners(x, image.shape[1])
    y, fy = _corners(y, image.shape[0])
    pixels = [_look_up(image, y + j, x + i).astype(fx.dtype) for j in (0, 1) for i in (0, 1)]
    return pixels, fx[..., None], fy[..., None], x, y


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _bilinear(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """All patches of one image: (H, W, C), (patches, 2, 3) -> (patches, h, w, C)."""
    (p00, p01, p10, p11), fx, fy, _, _ = _four_pixels(image, theta, size)
    upper = p00 * (1 - fx) + p01 * fx
    lower = p10 * (1 - fx) + p11 * fx
    return (upper * (1 - fy) + lower * fy).astype(image.dtype)


def _bilinear_forward(image: jax.Array, theta: jax.Array, size: Size):
    return _bilinear(image, theta, size), (image, theta)


def _bilinear_backward(size: Size, saved, cotangent: jax.Array):
    image, theta = saved
    (p00, p01, p10, p11), fx, fy, x, y = _four_pixels(image, theta, size)
    cotangent = cotangent.astype(fx.dtype)
    # d value / d pixel coordinate: the slope of the bilinear patch to the right and downwards.
    slope_x = (p01 - p00) * (1 - fy) + (p11 - p10) * fy
    slope_y = (p10 - p00) * (1 - fx) + (p11 - p01) * fx
    unit_x, unit_y = _unit_axes(size, fx.dtype)

    def row_of_theta(slope: jax.Array, length: int) -> jax.Array:
        along = jnp.sum(cotangent * slope, axis=-1) * ((length - 1) / 2)
        sums = [jnp.sum(a, axis=(-2, -1)) for a in (along * unit_x, along * unit_y, along)]
        return jnp.stack(sums, axis=-1)

    height, width, channels = image.shape
    d_theta = jnp.stack([row_of_theta(slope_x, width), row_of_theta(slope_y, height)], axis=-2)
    # The transpose of the look-up: each sample gives its four pixels their share. A border of
    # one pixel takes what falls outside, so no index needs a mask. All patches add to the one
    # image: a copy for each would cost more than the rest.
    d_image = jnp.zeros((height + 2, width + 2, channels), fx.dtype)
    for j, weight_y in ((0, 1 - fy), (1, fy)):
        for i, weight_x in ((0, 1 - fx), (1, fx)):
            rows = jnp.clip(y + j + 1, 0, height + 1)
            columns = jnp.clip(x + i + 1, 0, width + 1)
            d_image = d_image.at[rows, columns].add(cotangent * weight_y * weight_x)
    return d_image[1:-1, 1:-1].astype(image.dtype), d_theta.astype(theta.dtype)


_bilinear.defvjp(_bilinear_forward, _bilinear_backward)


def _nearest_patches(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """All patches of one image: (H, W, C), (patches, 2, 3) -> (patches, h, w, C)."""
    return _nearest(image, affine_grid(theta, size))


def _nearest(image: jax.Array, grid: jax.Array) -> jax.Array:
    """What an image (H, W, C) holds at the points (..., 2) of a grid."""
    x, y = _in_pixels(grid, image.shape[:2])
    return _look_up(image, jnp.round(y).astype(jnp.int32), jnp.round(x).astype(jnp.int32))


@partial(jax.jit, static_argnums=2)
def _paste(scores: tuple[jax.Array, ...], theta: jax.Array, frame_size: Size) -> jax.Array:
    to_patch = invert(theta)
    # Background goes in as what it lacks to one, so that zero outside reads as one.
    scores = tuple(part.at[..., 0].set(1 - part[..., 0]) for part in scores)
    # A window cut at the frame's own scale covers a block of a known size, and only there is
    # anything to look up. Windows that were enlarged are looked for in the whole frame.
    blocks = [
        (min(part.shape[1] + 3, frame_size[0]), min(part.shape[2] + 3, frame_size[1]))
        for part in scores
    ]
    first, last = _covered(theta, [part.shape[1:3] for part in scores], frame_size)
    fit = jnp.all(last - first < jnp.array(blocks))
    return jax.lax.cond(
        fit,
        lambda: jax.vmap(partial(_paste_blocks, blocks, frame_size))(scores, to_patch, first),
        lambda: jax.vmap(partial(_paste_frame, frame_size))(scores, to_patch),
    )


def _covered(
    theta: jax.Array, patch_sizes: Sequence[Size], frame_size: Size
) -> tuple[jax.Array, jax.Array]:
    """The first and last (row, column) that each window may cover, floats (batch, 6, 2)."""
    theta = theta.astype(_coordinate_type(theta))
    # Nearest sampling reaches half a pixel of the patch beyond the window's edge; a patch of one
    # pixel reaches everywhere.
    steps = np.array(patch_sizes)[:, ::-1] - 1
    reach = np.where(steps > 0, 1 + 1 / np.maximum(steps, 1), np.inf)
    half = jnp.sum(jnp.abs(theta[..., :2]) * reach[:, None, :], axis=-1)
    edges = [
        unit_to_pixel(theta[..., i, 2] + side * half[..., i], frame_size[1 - i])
        for side in (-1, 1)
        for i in (1, 0)
    ]
    top, left, bottom, right = edges
    return (
        jnp.floor(jnp.stack([top, left], axis=-1)),
        jnp.ceil(jnp.stack([bottom, right], axis=-1)),
    )


def _paste_frame(frame_size: Size, scores: tuple[jax.Array, ...], to_patch: jax.Array) -> jax.Array:
    """The scores of one face's frame, each part looked up everywhere."""
    background = jnp.ones((), scores[0].dtype)
    foreground = []
    for part_scores, matrix in zip(scores, to_patch, strict=True):
        in_frame = _nearest(part_scores, affine_grid(matrix, frame_size))
        background = background * (1 - in_frame[..., :1])
        foreground.append(in_frame[..., 1:])
    return jnp.concatenate([background, *foreground], axis=-1)


def _paste_blocks(
    blocks: Sequence[Size],
    frame_size: Size,
    scores: tuple[jax.Array, ...],
    to_patch: jax.Array,
    first: jax.Array,
) -> jax.Array:
    """The same, each part looked up in the block that begins at `first`."""
    dtype = scores[0].dtype
    x, y = _unit_axes(frame_size, _coordinate_type(to_patch))
    frame = jnp.zeros((*frame_size, labels.NUM_CLASSES), dtype).at[..., 0].set(1)
    for i, (part_scores, block) in enumerate(zip(scores, blocks, strict=True)):
        begin = jnp.clip(first[i], 0, jnp.array(frame_size) - jnp.array(block)).astype(jnp.int32)
        columns = jax.lax.dynamic_slice_in_dim(x, begin[1], block[1], axis=1)
        rows = jax.lax.dynamic_slice_in_dim(y, begin[0], block[0], axis=0)
        in_block = _nearest(part_scores, _affine(to_patch[i], columns, rows))
        start = (begin[0], begin[1], 0)
        held = jax.lax.dynamic_slice(frame, start, (*block, labels.NUM_CLASSES))
        classes = labels.PARTS[i].classes
        background = held[..., :1] * (1 - in_block[..., :1])
        before, after = held[..., 1 : classes[0]], held[..., classes[-1] + 1 :]
        held = jnp.concatenate([background, before, in_block[..., 1:], after], axis=-1)
        frame = jax.lax.dynamic_update_slice(frame, held, start)
    return frame
