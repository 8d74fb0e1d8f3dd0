"""Occlusion of parts by their surroundings, for evaluation (figure 5 of the paper).

A localizer that has learned how faces are built finds an occluded part from the other parts'
positions; the centroid of a coarse segmentation cannot. `evaluation` scores occluded and other
parts separately.
"""

import jax
import jax.numpy as jnp

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_same_batch, check_shape
from jax_stn_icnn.geometry import bounding_boxes

# Margin of the occlusion around the part's bounding box, as a share of the box's sides and, at
# least, in pixels: its border, which it is filled from, should lie on skin.
MARGIN = 0.2
MIN_MARGIN = 2
# Weight of a border pixel that belongs to a part, relative to that of another border pixel.
PART_ON_BORDER = 1e-3


def choose_parts(key: jax.Array, present: jax.Array, count: int) -> jax.Array:
    """Draws `count` of the parts that are present, or all of them if they are fewer.

    Args:
        key: A random key.
        present: Which parts a face has, bool (parts,).
        count: Number of parts.

    Returns:
        bool (parts,).
    """
    draw = jnp.where(present, jax.random.uniform(key, present.shape), -1.0)
    rank = jnp.argsort(jnp.argsort(-draw))
    return present & (rank < count)


def occlude_parts(
    keys: jax.Array,
    frame: jax.Array,
    label_map: jax.Array,
    count: int,
    anatomy: Anatomy = NINE,
) -> tuple[jax.Array, jax.Array]:
    """Occludes random parts of each face with skin from around them.

    Every pixel of a part's bounding box, widened by a margin, becomes the mean of the four border
    pixels in its row and column, weighted by the inverse of their distance. Pixels of other parts
    do not change, and have almost no weight.

    Args:
        keys: A key for each example, (batch,), which determines its parts.
        frame: Floats, (batch, height, width, 3).
        label_map: Class ids, integers (batch, height, width).
        count: Number of parts to occlude in each face, of those that are present.
        anatomy: The classes and parts.

    Returns:
        The frames, and which parts are occluded, bool (batch, parts).

    Raises:
        ValueError: Shapes do not match, or the anatomy has fewer parts.
    """
    check_shape("frame", frame, ("batch", "height", "width", 3))
    check_shape("label_map", label_map, frame.shape[:3])
    check_same_batch(keys=keys, frame=frame)
    if not 0 <= count <= anatomy.num_parts:
        raise ValueError(f"count is {count}, but must lie in 0..{anatomy.num_parts}")

    def occlude_face(
        key: jax.Array, frame: jax.Array, label_map: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        members = [jnp.isin(label_map, jnp.array(ids)) for ids in anatomy.part_ids]
        any_part = jnp.isin(label_map, jnp.array(anatomy.part_class_ids))
        present = jnp.stack([jnp.any(member) for member in members])
        occluded = choose_parts(key, present, count)
        for i, member in enumerate(members):
            filled, box = _fill_from_border(frame, any_part, _widened_box(member))
            replaced = occluded[i] & box & (member | ~any_part)
            frame = jnp.where(replaced[..., None], filled, frame)
        return frame, occluded

    return jax.vmap(occlude_face)(keys, frame, label_map)


def _widened_box(member: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the bounding box of a mask with its margin, (y0, y1, x0, x1), ends included."""
    x0, y0, x1, y1 = bounding_boxes(member)
    ends = []
    for first, last, length in zip((y0, x0), (y1, x1), member.shape, strict=True):
        margin = jnp.maximum(MIN_MARGIN, jnp.ceil(MARGIN * (last - first + 1)).astype(jnp.int32))
        ends += [jnp.maximum(first - margin, 0), jnp.minimum(last + margin, length - 1)]
    return tuple(ends)


def _fill_from_border(
    frame: jax.Array, any_part: jax.Array, box: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """Returns the frame as a box's border pixels fill it, and which pixels lie in the box."""
    y0, y1, x0, x1 = box
    y, x = jnp.arange(frame.shape[0])[:, None], jnp.arange(frame.shape[1])[None, :]
    trust = jnp.where(any_part, PART_ON_BORDER, 1.0)[..., None]
    total, weights = jnp.zeros_like(frame), jnp.zeros_like(frame[..., :1])
    sides = [(0, y0, y - y0), (0, y1, y1 - y), (1, x0, x - x0), (1, x1, x1 - x)]
    for axis, border, distance in sides:
        colour = jax.lax.dynamic_index_in_dim(frame, border, axis)
        # At least half a pixel, so that the weight of the border itself is finite.
        near = 1.0 / jnp.maximum(distance, 0.5)[..., None]
        weight = near * jax.lax.dynamic_index_in_dim(trust, border, axis)
        total, weights = total + weight * colour, weights + weight
    inside = (y >= y0) & (y <= y1) & (x >= x0) & (x <= x1)
    return total / weights, inside
