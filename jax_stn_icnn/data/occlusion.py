"""Covers parts of faces with what surrounds them (figure 5 of the paper).

A localizer that knows how faces are built still finds a covered part from the other parts' places;
the centroid of a rough mask cannot. `evaluation` scores covered and uncovered parts apart.
"""

import jax
import jax.numpy as jnp

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_same_batch, check_shape
from jax_stn_icnn.geometry import bounding_boxes

# How far the cover reaches beyond the part's bounding box, as a share of the box's sides and, at
# least, in pixels: far enough that the border it is filled from shows skin and no soft edge of
# the part.
MARGIN = 0.2
MIN_MARGIN = 2
# Weight of a border pixel that belongs to a part, against one of an ordinary border pixel.
PART_ON_BORDER = 1e-3


def choose_parts(key: jax.Array, present: jax.Array, count: int) -> jax.Array:
    """Picks `count` of the parts that are there, all of them if they are fewer.

    Args:
        key: a random key.
        present: which parts one face has, bool (6,).
        count: how many to pick.

    Returns:
        bool (6,).
    """
    draw = jnp.where(present, jax.random.uniform(key, present.shape), -1.0)
    rank = jnp.argsort(jnp.argsort(-draw))
    return present & (rank < count)


def occlude(
    keys: jax.Array,
    frame: jax.Array,
    label_map: jax.Array,
    count: int,
    anatomy: Anatomy = NINE,
) -> tuple[jax.Array, jax.Array]:
    """Covers random parts of each face with skin taken from around them.

    Every pixel of a part's bounding box, widened by a margin, becomes the mean of the four border
    pixels in its row and column, the nearer the heavier. Pixels of other parts stay as they are,
    and lend no colour.

    Args:
        keys: one random key an image, shape (batch,); the same key covers the same parts.
        frame: floats, (batch, height, width, 3).
        label_map: class ids, integers (batch, height, width).
        count: how many parts to cover; only parts that are present can be.
        anatomy: what the face consists of.

    Returns:
        The covered frames, and which parts are covered, bool (batch, parts).

    Raises:
        ValueError: shapes do not fit, or there are not so many parts.
    """
    check_shape("frame", frame, ("batch", "height", "width", 3))
    check_shape("label_map", label_map, frame.shape[:3])
    check_same_batch(keys=keys, frame=frame)
    if not 0 <= count <= anatomy.num_parts:
        raise ValueError(f"count is {count}, but must lie in 0..{anatomy.num_parts}")

    def one_face(
        key: jax.Array, frame: jax.Array, label_map: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        members = [jnp.isin(label_map, jnp.array(ids)) for ids in anatomy.part_ids]
        occupied = jnp.isin(label_map, jnp.array(anatomy.part_class_ids))
        present = jnp.stack([jnp.any(member) for member in members])
        covered = choose_parts(key, present, count)
        for index, member in enumerate(members):
            filled, box = _fill_from_border(frame, occupied, _widened_box(member))
            cover = covered[index] & box & (member | ~occupied)
            frame = jnp.where(cover[..., None], filled, frame)
        return frame, covered

    return jax.vmap(one_face)(keys, frame, label_map)


def _widened_box(member: jax.Array) -> tuple[jax.Array, ...]:
    """(y0, y1, x0, x1) of the widened bounding box of a mask, whole pixels, both ends inside."""
    x0, y0, x1, y1 = bounding_boxes(member)
    ends = []
    for first, last, length in zip((y0, x0), (y1, x1), member.shape, strict=True):
        margin = jnp.maximum(MIN_MARGIN, jnp.ceil(MARGIN * (last - first + 1)).astype(jnp.int32))
        ends += [jnp.maximum(first - margin, 0), jnp.minimum(last + margin, length - 1)]
    return tuple(ends)


def _fill_from_border(
    frame: jax.Array, occupied: jax.Array, box: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """The frame as the box's border pixels would fill it, and which pixels lie in the box."""
    y0, y1, x0, x1 = box
    y, x = jnp.arange(frame.shape[0])[:, None], jnp.arange(frame.shape[1])[None, :]
    trust = jnp.where(occupied, PART_ON_BORDER, 1.0)[..., None]
    total, weights = jnp.zeros_like(frame), jnp.zeros_like(frame[..., :1])
    sides = [(0, y0, y - y0), (0, y1, y1 - y), (1, x0, x - x0), (1, x1, x1 - x)]
    for axis, border, distance in sides:
        colour = jax.lax.dynamic_index_in_dim(frame, border, axis)
        # At least half a pixel away, so that the border itself keeps a finite weight.
        near = 1.0 / jnp.maximum(distance, 0.5)[..., None]
        weight = near * jax.lax.dynamic_index_in_dim(trust, border, axis)
        total, weights = total + weight * colour, weights + weight
    inside = (y >= y0) & (y <= y1) & (x >= x0) & (x <= x1)
    return total / weights, inside
