"""The inverse sampler: puts the parts' scores back into the frame."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn import anatomy
from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.geometry import Size, invert, unit_to_pixel
from jax_stn_icnn.sampling.grid import affine, coordinate_type, patch_points, unit_axes
from jax_stn_icnn.sampling.lookup import nearest


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
    check_shape("theta", theta, ("batch", anatomy.NUM_PARTS, 2, 3))
    if len(scores) != anatomy.NUM_PARTS:
        raise ValueError(f"scores must hold {anatomy.NUM_PARTS} parts, not {len(scores)}")
    for part, part_scores in zip(anatomy.PARTS, scores, strict=True):
        num_labels = anatomy.NETWORKS[part.network]
        check_shape(f"scores of {part.name}", part_scores, ("batch", "h", "w", num_labels))
    return _paste(tuple(scores), theta, tuple(frame_size))


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
    frame = jnp.zeros((*frame_size, anatomy.NUM_CLASSES), dtype).at[..., 0].set(1)
    for i, (part_scores, block) in enumerate(zip(scores, blocks, strict=True)):
        begin = jnp.clip(first[i], 0, jnp.array(frame_size) - jnp.array(block)).astype(jnp.int32)
        columns = jax.lax.dynamic_slice_in_dim(x, begin[1], block[1], axis=1)
        rows = jax.lax.dynamic_slice_in_dim(y, begin[0], block[0], axis=0)
        in_block = nearest(part_scores, *affine(to_patch[i], columns, rows))
        start = (begin[0], begin[1], 0)
        held = jax.lax.dynamic_slice(frame, start, (*block, anatomy.NUM_CLASSES))
        classes = anatomy.PARTS[i].classes
        background = held[..., :1] * (1 - in_block[..., :1])
        before, after = held[..., 1 : classes[0]], held[..., classes[-1] + 1 :]
        held = jnp.concatenate([background, before, in_block[..., 1:], after], axis=-1)
        frame = jax.lax.dynamic_update_slice(frame, held, start)
    return frame
