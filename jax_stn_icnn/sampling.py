"""The differentiable sampler: cuts patches from a frame by theta, and pastes them back.

All sampling pulls: an output pixel looks up where in the input it comes from; outside the image
there is zero.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn import labels
from jax_stn_icnn.checks import check_labels, check_same_batch, check_shape
from jax_stn_icnn.geometry import Size, invert, unit_to_pixel
from jax_stn_icnn.grid import affine, coordinate_type, patch_points, unit_axes
from jax_stn_icnn.lookup import bilinear, nearest

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
    return jnp.stack(patch_points(theta, size), axis=-1)


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
    return _crop(bilinear, image, theta, tuple(size))


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


def _nearest_patches(image: jax.Array, theta: jax.Array, size: Size) -> jax.Array:
    """All patches of one image: (H, W, C), (patches, 2, 3) -> (patches, h, w, C)."""
    return nearest(image, *patch_points(theta, size))


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
    theta = theta.astype(coordinate_type(theta))
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
        in_frame = nearest(part_scores, *patch_points(matrix, frame_size))
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
    x, y = unit_axes(frame_size, coordinate_type(to_patch))
    frame = jnp.zeros((*frame_size, labels.NUM_CLASSES), dtype).at[..., 0].set(1)
    for i, (part_scores, block) in enumerate(zip(scores, blocks, strict=True)):
        begin = jnp.clip(first[i], 0, jnp.array(frame_size) - jnp.array(block)).astype(jnp.int32)
        columns = jax.lax.dynamic_slice_in_dim(x, begin[1], block[1], axis=1)
        rows = jax.lax.dynamic_slice_in_dim(y, begin[0], block[0], axis=0)
        in_block = nearest(part_scores, *affine(to_patch[i], columns, rows))
        start = (begin[0], begin[1], 0)
        held = jax.lax.dynamic_slice(frame, start, (*block, labels.NUM_CLASSES))
        classes = labels.PARTS[i].classes
        background = held[..., :1] * (1 - in_block[..., :1])
        before, after = held[..., 1 : classes[0]], held[..., classes[-1] + 1 :]
        held = jnp.concatenate([background, before, in_block[..., 1:], after], axis=-1)
        frame = jax.lax.dynamic_update_slice(frame, held, start)
    return frame
