"""The inverse sampler: maps the parts' scores back into the frame."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.geometry import Size, invert_theta, unit_to_pixel
from jax_stn_icnn.ops import gather, matmul
from jax_stn_icnn.ops.grid import affine, coordinate_type, unit_axes
from jax_stn_icnn.ops.paste_matmul import paste_by_matmul, with_part_classes
from jax_stn_icnn.ops.platform import current_implementations

Scores = tuple[jax.Array, ...]


def paste(
    scores: Sequence[jax.Array],
    theta: jax.Array,
    frame_size: Size,
    anatomy: Anatomy = NINE,
    global_probs: jax.Array | None = None,
    *,
    axis_aligned: bool = False,
) -> jax.Array:
    """Returns the scores of all classes in the frame, merged from parts and global classes.

    A part class scores the softmax of its patch, and zero outside its window. Let b be the product
    over the parts of their background scores, one outside a window. Background scores b (section
    2.3 of the paper); if there are other global classes, each of them scores b times its
    probability in `global_probs` (ours). Sampling is nearest-neighbour. Differentiable with respect
    to `scores` and `global_probs`, not to `theta`.

    Args:
        scores: For each part the softmax of its patch, (batch, height, width, labels); label 0 is
            background.
        theta: The matrices that cropped the patches, (batch, parts, 2, 3).
        frame_size: (height, width) of the frame.
        anatomy: The classes and parts.
        global_probs: Probabilities of the global classes, in the order of `anatomy.global_ids`,
            (batch, *frame_size, global classes), or on a TPU those of all classes, zero for part
            classes, which are merged faster; required unless background is the only one.
        axis_aligned: Whether no window is rotated or sheared, as the localizers' are. A TPU pastes
            such windows faster; off-diagonal entries of theta then count as zero.

    Returns:
        Scores (batch, *frame_size, classes); their argmax is the label map.

    Raises:
        ValueError: Shapes do not match, or `global_probs` is missing.
    """
    check_shape("theta", theta, ("batch", anatomy.num_parts, 2, 3))
    if len(scores) != anatomy.num_parts:
        raise ValueError(f"scores must hold {anatomy.num_parts} parts, not {len(scores)}")
    for part, part_scores in zip(anatomy.parts, scores, strict=True):
        num_labels = anatomy.networks[part.network]
        check_shape(f"scores of {part.name}", part_scores, ("batch", "h", "w", num_labels))
    num_global, in_class_order = len(anatomy.global_ids), False
    on_tpu = axis_aligned and current_implementations().space_to_depth
    if global_probs is not None:
        in_class_order = on_tpu and global_probs.shape[-1] == anatomy.num_classes
        num_probs = anatomy.num_classes if in_class_order else num_global
        check_shape("global_probs", global_probs, (theta.shape[0], *frame_size, num_probs))
    elif num_global > 1:
        raise ValueError(
            f"global_probs is missing: the anatomy {anatomy.name!r} has {num_global} global classes"
        )
    if on_tpu:
        of_all = None if global_probs is None else jnp.moveaxis(global_probs, -1, 1)
        if of_all is not None and not in_class_order:
            of_all = with_part_classes(of_all, anatomy.global_ids, anatomy.num_classes)
        planes = paste_by_matmul(tuple(scores), theta, tuple(frame_size), anatomy, of_all)
        return jnp.moveaxis(planes, 1, -1)
    pasted = _paste(tuple(scores), theta, tuple(frame_size), axis_aligned)
    planes = _in_order_of_classes(pasted, global_probs, anatomy)
    return jnp.moveaxis(planes, 1, -1)


def _in_order_of_classes(
    pasted: jax.Array, global_probs: jax.Array | None, anatomy: Anatomy
) -> jax.Array:
    """Returns background and part classes, ordered part by part, as scores ordered by class id."""
    pasted_ids = (0, *(i for ids in anatomy.part_ids for i in ids))
    if global_probs is None and pasted_ids == tuple(range(anatomy.num_classes)):
        return pasted
    plane = {c: pasted[:, i] for i, c in enumerate(pasted_ids)}
    if global_probs is not None:
        background = pasted[:, :1] * jnp.moveaxis(global_probs, -1, 1)
        plane |= {c: background[:, i] for i, c in enumerate(anatomy.global_ids)}
    return jnp.stack([plane[c] for c in range(anatomy.num_classes)], axis=1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
@partial(jax.jit, static_argnums=(2, 3))
def _paste(scores: Scores, theta: jax.Array, frame_size: Size, axis_aligned: bool) -> jax.Array:
    """Returns background and the part classes, part by part, (batch, 1 + classes, *frame_size).

    Channels come first, so that a window's classes are written without touching others.
    """
    implementations = current_implementations()
    if axis_aligned and implementations.sampling == "matmul":
        return _paste_by_matmul(scores, theta, frame_size)
    # A loop over tiles writes the windows only, which is fast on CPUs; GPUs sample the whole frame.
    if implementations.convolution == "matmul":
        return _paste_tiles(scores, theta, frame_size)
    return _paste_by_gather(scores, theta, frame_size)


def _paste_forward(scores: Scores, theta: jax.Array, frame_size: Size, axis_aligned: bool):
    return _paste(scores, theta, frame_size, axis_aligned), (scores, theta)


@partial(jax.jit, static_argnums=(0, 1))
def _paste_backward(frame_size: Size, axis_aligned: bool, saved, cotangent: jax.Array):
    scores, theta = saved
    by_matmul = axis_aligned and current_implementations().sampling == "matmul"
    implementation = _paste_by_matmul if by_matmul else _paste_by_gather
    _, transpose = jax.vjp(lambda scores: implementation(scores, theta, frame_size), scores)
    return *transpose(cotangent), jnp.zeros_like(theta)


_paste.defvjp(_paste_forward, _paste_backward)


def _paste_by_matmul(scores: Scores, theta: jax.Array, frame_size: Size) -> jax.Array:
    paste_face = partial(_paste_frame, matmul.nearest, frame_size)
    return jax.vmap(paste_face)(_with_foreground(scores), invert_theta(theta))


def _paste_by_gather(scores: Scores, theta: jax.Array, frame_size: Size) -> jax.Array:
    paste_face = partial(_paste_frame, gather.nearest, frame_size)
    return jax.vmap(paste_face)(_with_foreground(scores), invert_theta(theta))


def _with_foreground(scores: Scores) -> Scores:
    """Replaces background by one minus it, so that zero outside a window means background."""
    return tuple(jnp.concatenate([1 - part[..., :1], part[..., 1:]], axis=-1) for part in scores)


def _paste_frame(
    nearest: Callable[..., jax.Array], frame_size: Size, scores: Scores, to_patch: jax.Array
) -> jax.Array:
    """Returns the scores of one face, each part sampled at every pixel of the frame."""
    background = jnp.ones((), scores[0].dtype)
    foreground = []
    for part_scores, matrix in zip(scores, to_patch, strict=True):
        in_frame = nearest(part_scores, matrix, frame_size)
        background = background * (1 - in_frame[..., :1])
        foreground.append(in_frame[..., 1:])
    return jnp.moveaxis(jnp.concatenate([background, *foreground], axis=-1), -1, 0)


def _paste_tiles(scores: Scores, theta: jax.Array, frame_size: Size) -> jax.Array:
    """Returns the same, each part sampled at the tiles of the frame that its window covers.

    A window cropped at the frame's own scale needs one tile; an enlarged one needs more.
    """
    to_patch = invert_theta(theta)
    first, last = _footprints(theta, [part.shape[1:3] for part in scores], frame_size)
    num_classes = 1 + sum(part.shape[-1] - 1 for part in scores)
    only_background = jnp.eye(1, num_classes, dtype=scores[0].dtype).reshape(1, -1, 1, 1)
    frames = jnp.broadcast_to(only_background, (theta.shape[0], num_classes, *frame_size))
    first_class = 1
    for i, part_scores in enumerate(_with_foreground(scores)):
        frames = _paste_part(
            frames, part_scores, to_patch[:, i], first[:, i], last[:, i], first_class
        )
        first_class += part_scores.shape[-1] - 1
    return frames


def _paste_part(
    frames: jax.Array,
    scores: jax.Array,
    to_patch: jax.Array,
    first: jax.Array,
    last: jax.Array,
    first_class: int,
) -> jax.Array:
    """Writes a part of all faces into their frames, tile by tile.

    Args:
        frames: Scores so far, (batch, classes, height, width).
        scores: Of the part, background replaced as `_with_foreground` does, (batch, h, w, labels).
        to_patch: Matrices frame -> patch, (batch, 2, 3).
        first: (row, column) of the first pixel that the windows cover, int32 (batch, 2).
        last: Those of the last one.
        first_class: Index of the part's first class in the frames.

    Returns:
        The frames with the part.
    """
    frame_size = frames.shape[2:]
    # One tile holds a window of the patch's own size, up to 3 % more and rounding.
    tile = tuple(
        min(n + 3 + n // 32, m) for n, m in zip(scores.shape[1:3], frame_size, strict=True)
    )
    x, y = unit_axes(frame_size, coordinate_type(to_patch))
    num_tiles = jnp.maximum(-(-(last - first + 1) // np.array(tile)), 0)
    ends = jnp.cumsum(num_tiles[:, 0] * num_tiles[:, 1])

    def paste_tile(number: jax.Array, frames: jax.Array) -> jax.Array:
        face = jnp.searchsorted(ends, number, side="right", method="compare_all")
        in_face = number - jnp.where(face > 0, ends[face - 1], 0)
        row, column = jnp.divmod(in_face, num_tiles[face, 1])
        start = first[face] + jnp.stack([row, column]) * np.array(tile)
        top, left = jnp.minimum(start, np.array(frame_size) - np.array(tile))
        columns = lax.dynamic_slice_in_dim(x, left, tile[1], axis=1)
        rows = lax.dynamic_slice_in_dim(y, top, tile[0], axis=0)
        sampled = gather.nearest_at(scores[face], *affine(to_patch[face], columns, rows))
        sampled = jnp.moveaxis(sampled, -1, 0)
        # A tile that is moved into the frame overlaps the one before, whose background is done.
        is_new = (top + jnp.arange(tile[0]) >= start[0])[:, None]
        is_new &= left + jnp.arange(tile[1]) >= start[1]
        before = lax.dynamic_slice(frames, (face, 0, top, left), (1, 1, *tile))
        background = before * jnp.where(is_new, 1 - sampled[0], 1)
        frames = lax.dynamic_update_slice(frames, background, (face, 0, top, left))
        return lax.dynamic_update_slice(frames, sampled[None, 1:], (face, first_class, top, left))

    return lax.fori_loop(0, ends[-1], paste_tile, frames)


def _footprints(
    theta: jax.Array, patch_sizes: Sequence[Size], frame_size: Size
) -> tuple[jax.Array, jax.Array]:
    """Returns the first and the last (row, column) that windows may cover, int32 (batch, parts, 2).

    Both lie in the frame, except that a window outside of it ends before it starts.
    """
    theta = theta.astype(coordinate_type(theta))
    # Nearest sampling reaches half a pixel of the patch beyond the window's edge; a patch of one
    # pixel covers the whole frame.
    steps = np.array(patch_sizes)[:, ::-1] - 1
    reach = np.where(steps > 0, 1 + 1 / np.maximum(steps, 1), np.inf)
    half = jnp.sum(jnp.abs(theta[..., :2]) * reach[:, None, :], axis=-1)
    low, high = (
        jnp.stack(
            [
                unit_to_pixel(theta[..., i, 2] + side * half[..., i], frame_size[1 - i])
                for i in (1, 0)
            ],
            axis=-1,
        )
        for side in (-1, 1)
    )
    size = np.array(frame_size)
    first = jnp.clip(jnp.floor(low), 0, size).astype(jnp.int32)
    last = jnp.clip(jnp.ceil(high), -1, size - 1).astype(jnp.int32)
    return first, last
