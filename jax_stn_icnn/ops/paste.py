"""The inverse sampler: puts the parts' scores back into the frame."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.geometry import Size, invert, unit_to_pixel
from jax_stn_icnn.ops import gather, matmul
from jax_stn_icnn.ops.grid import affine, coordinate_type, unit_axes
from jax_stn_icnn.ops.platform import choose


def paste(
    scores: Sequence[jax.Array],
    theta: jax.Array,
    frame_size: Size,
    anatomy: Anatomy = NINE,
    whole: jax.Array | None = None,
    *,
    axis_aligned: bool = False,
) -> jax.Array:
    """The inverse sampler: puts the parts' scores back into the frame, over the whole face.

    A part's classes score what its patch says there, zero outside its window. Let b be the product
    over the parts of what each says of background, one outside its window: background scores b
    (section 2.3 of the paper), and where there are other classes without a window, all of them
    share b as `whole` says (ours). Reading is by nearest sampling; differentiable in the scores and
    in `whole`, not in theta.

    Args:
        scores: for each part the softmax of its patch, (batch, height, width, labels), label 0
            being background.
        theta: the matrices that cut the patches, (batch, parts, 2, 3).
        frame_size: (height, width) of the frame.
        anatomy: what the face consists of.
        whole: the distribution over the classes without a window, in the order of
            `anatomy.global_ids`, (batch, *frame_size, global_ids); needed unless background is the
            only one.
        axis_aligned: whether no window is turned or sheared, as the localizers' are: a TPU then pastes
            them faster, and off-diagonal entries of theta count as zero.

    Returns:
        Scores of the classes, (batch, *frame_size, classes); their argmax is the parse.

    Raises:
        ValueError: shapes do not fit, or `whole` is missing.
    """
    check_shape("theta", theta, ("batch", anatomy.num_parts, 2, 3))
    if len(scores) != anatomy.num_parts:
        raise ValueError(f"scores must hold {anatomy.num_parts} parts, not {len(scores)}")
    for part, part_scores in zip(anatomy.parts, scores, strict=True):
        num_labels = anatomy.networks[part.network]
        check_shape(f"scores of {part.name}", part_scores, ("batch", "h", "w", num_labels))
    num_windowless = len(anatomy.global_ids)
    if whole is not None:
        check_shape("whole", whole, (theta.shape[0], *frame_size, num_windowless))
    elif num_windowless > 1:
        raise ValueError(
            f"whole is missing: the classes {anatomy.name!r} have {num_windowless} without a window"
        )
    pasted = _paste(tuple(scores), theta, tuple(frame_size), axis_aligned)
    planes = _in_order_of_classes(pasted, whole, anatomy)
    return jnp.moveaxis(planes, 1, -1)


def _in_order_of_classes(pasted: jax.Array, whole: jax.Array | None, anatomy: Anatomy) -> jax.Array:
    """Background and the parts' classes, part after part, as scores of all classes by id."""
    pasted_ids = (0, *(i for ids in anatomy.part_ids for i in ids))
    if whole is None and pasted_ids == tuple(range(anatomy.num_classes)):
        return pasted
    plane = {c: pasted[:, i] for i, c in enumerate(pasted_ids)}
    if whole is not None:
        background = pasted[:, :1] * jnp.moveaxis(whole, -1, 1)
        plane |= {c: background[:, i] for i, c in enumerate(anatomy.global_ids)}
    return jnp.stack([plane[c] for c in range(anatomy.num_classes)], axis=1)


Scores = tuple[jax.Array, ...]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
@partial(jax.jit, static_argnums=(2, 3))
def _paste(scores: Scores, theta: jax.Array, frame_size: Size, axis_aligned: bool) -> jax.Array:
    """Background and the parts' classes, part after part: (batch, 1 + classes, *frame_size).

    Channels come first, so that a part's classes are written where it lies and nothing else is.
    """
    by_products = partial(_by_products, frame_size=frame_size)
    by_lookups = partial(_by_lookups, frame_size=frame_size)
    return choose(axis_aligned, by_products, by_lookups, scores, theta)


def _paste_forward(scores: Scores, theta: jax.Array, frame_size: Size, axis_aligned: bool):
    return _paste(scores, theta, frame_size, axis_aligned), (scores, theta)


@partial(jax.jit, static_argnums=(0, 1))
def _paste_backward(frame_size: Size, axis_aligned: bool, saved, cotangent: jax.Array):
    def transposed(way):
        def of_scores(scores: Scores, theta: jax.Array, cotangent: jax.Array) -> Scores:
            _, pull = jax.vjp(lambda scores: way(scores, theta, frame_size), scores)
            return pull(cotangent)[0]

        return of_scores

    ways = transposed(_by_products), transposed(_by_lookups)
    return choose(axis_aligned, *ways, *saved, cotangent), jnp.zeros_like(saved[1])


_paste.defvjp(_paste_forward, _paste_backward)


def _by_products(scores: Scores, theta: jax.Array, frame_size: Size) -> jax.Array:
    paste_face = partial(_paste_frame, matmul.nearest, frame_size)
    return jax.vmap(paste_face)(_lacking(scores), invert(theta))


def _by_lookups(scores: Scores, theta: jax.Array, frame_size: Size) -> jax.Array:
    to_patch = invert(theta)
    scores = _lacking(scores)
    # A window cut at the frame's own scale covers a block of a known size, and only there is
    # anything to look up. Windows that were enlarged are looked for in the whole frame.
    blocks = [
        tuple(min(n + 3 + n // 32, m) for n, m in zip(part.shape[1:3], frame_size, strict=True))
        for part in scores
    ]
    first, last = _covered(theta, [part.shape[1:3] for part in scores], frame_size)
    fit = jnp.all(last - first < jnp.array(blocks))
    return jax.lax.cond(
        fit,
        lambda: jax.vmap(partial(_paste_blocks, blocks, frame_size))(scores, to_patch, first),
        lambda: jax.vmap(partial(_paste_frame, gather.nearest, frame_size))(scores, to_patch),
    )


def _lacking(scores: Scores) -> Scores:
    """Background as what it lacks to one, so that zero outside a window reads as one."""
    return tuple(jnp.concatenate([1 - part[..., :1], part[..., 1:]], axis=-1) for part in scores)


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


def _paste_frame(
    nearest: Callable[..., jax.Array], frame_size: Size, scores: Scores, to_patch: jax.Array
) -> jax.Array:
    """The scores of one face's frame, each part sampled everywhere."""
    background = jnp.ones((), scores[0].dtype)
    foreground = []
    for part_scores, matrix in zip(scores, to_patch, strict=True):
        in_frame = nearest(part_scores, matrix, frame_size)
        background = background * (1 - in_frame[..., :1])
        foreground.append(in_frame[..., 1:])
    return jnp.moveaxis(jnp.concatenate([background, *foreground], axis=-1), -1, 0)


def _paste_blocks(
    blocks: Sequence[Size],
    frame_size: Size,
    scores: Scores,
    to_patch: jax.Array,
    first: jax.Array,
) -> jax.Array:
    """The same, each part looked up in the block that begins at `first`."""
    x, y = unit_axes(frame_size, coordinate_type(to_patch))
    num_classes = 1 + sum(part.shape[-1] - 1 for part in scores)
    # Background alone, spread over the frame as it runs: written out, it is in the program twice.
    alone = jnp.eye(1, num_classes, dtype=scores[0].dtype).reshape(-1, 1, 1)
    frame = jnp.broadcast_to(alone, (num_classes, *frame_size))
    first_class = 1
    for i, (part_scores, block) in enumerate(zip(scores, blocks, strict=True)):
        begin = jnp.clip(first[i], 0, jnp.array(frame_size) - jnp.array(block)).astype(jnp.int32)
        columns = jax.lax.dynamic_slice_in_dim(x, begin[1], block[1], axis=1)
        rows = jax.lax.dynamic_slice_in_dim(y, begin[0], block[0], axis=0)
        in_block = gather.nearest_at(part_scores, *affine(to_patch[i], columns, rows))
        in_block = jnp.moveaxis(in_block, -1, 0)
        held = jax.lax.dynamic_slice(frame, (0, *begin), (1, *block))
        background = held * (1 - in_block[:1])
        frame = jax.lax.dynamic_update_slice(frame, background, (0, *begin))
        frame = jax.lax.dynamic_update_slice(frame, in_block[1:], (first_class, *begin))
        first_class += part_scores.shape[-1] - 1
    return frame
