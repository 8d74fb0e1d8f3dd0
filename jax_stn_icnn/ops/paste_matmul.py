"""The inverse sampler by matrix multiplication, for TPUs.

A TPU slices and concatenates arrays of the frame's size slowly. Hence patches are padded to one
size and stacked, so that one product pastes the classes of all parts, one after the other; and the
global classes are enlarged to the frame among zeros for the part classes.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.geometry import Size, invert_theta
from jax_stn_icnn.ops import matmul
from jax_stn_icnn.ops.grid import axis_aligned_pixels


def with_part_classes(planes: jax.Array, ids: Sequence[int], num_classes: int) -> jax.Array:
    """Returns planes of some classes as planes of all classes, zero for the others.

    Args:
        planes: Channels first, (batch, some classes, height, width).
        ids: The classes' ids, in ascending order.
        num_classes: Number of all classes.

    Returns:
        (batch, classes, height, width), in the order of class ids.
    """
    shifts = np.subtract(ids, np.arange(len(ids)))
    found = jnp.zeros((), planes.dtype)
    for shift in sorted(set(shifts.tolist())):  # Classes with consecutive ids at once.
        padding = shift, num_classes - len(ids) - shift
        moved = np.isin(np.arange(num_classes), np.array(ids)[shifts == shift])
        padded = jnp.pad(planes, ((0, 0), padding, (0, 0), (0, 0)))
        found = jnp.where(moved[:, None, None], padded, found)
    return found


@partial(jax.jit, static_argnums=(2, 3))
def paste_by_matmul(
    scores: Sequence[jax.Array],
    theta: jax.Array,
    frame_size: Size,
    anatomy: Anatomy,
    global_probs: jax.Array | None,
) -> jax.Array:
    """Returns the scores that `paste` returns, for axis-aligned windows.

    Args:
        scores: As for `paste`.
        theta: As for `paste`; off-diagonal entries count as zero.
        frame_size: (height, width) of the frame.
        anatomy: The classes and parts.
        global_probs: Probabilities of the global classes as from `with_part_classes`, (batch,
            classes, *frame_size); None if background is the only one.

    Returns:
        Scores, float32 or wider, channels first, (batch, classes, *frame_size).
    """
    to_patch = invert_theta(jax.lax.stop_gradient(theta))
    sizes = [part.shape[1:3] for part in scores]
    pixels = [axis_aligned_pixels(to_patch[:, i], frame_size, size) for i, size in enumerate(sizes)]

    def in_frame(planes: list[jax.Array], parts: list[int]) -> jax.Array:
        columns, rows = (jnp.stack([pixels[i][axis] for i in parts], axis=1) for axis in (0, 1))
        take = jax.vmap(jax.vmap(matmul.take))
        return take(_stack(planes)[..., None], jnp.round(rows), jnp.round(columns))[..., 0]

    # One minus background: zero outside a window then means background.
    foreground = in_frame([1 - part[..., 0] for part in scores], list(range(len(scores))))
    background = jnp.prod(1 - foreground, axis=1)
    places = {c: (i, j) for i, ids in enumerate(anatomy.part_ids) for j, c in enumerate(ids)}
    parts, labels = zip(*(places[c] for c in anatomy.part_class_ids), strict=True)
    planes = [scores[i][..., 1 + label] for i, label in zip(parts, labels, strict=True)]
    of_parts = in_frame(planes, list(parts))
    of_parts = with_part_classes(of_parts, anatomy.part_class_ids, anatomy.num_classes)
    if global_probs is None:
        global_probs = jnp.eye(anatomy.num_classes, 1, dtype=background.dtype)[:, :, None]
    merged = of_parts + background[:, None] * global_probs
    return merged.astype(jnp.promote_types(merged.dtype, jnp.float32))


def _stack(planes: list[jax.Array]) -> jax.Array:
    """Returns planes (batch, height, width) of several sizes, padded, as one array."""
    sizes = np.array([plane.shape[1:] for plane in planes])
    padding = (sizes.max(axis=0) - sizes).tolist()
    padded = [
        jnp.pad(plane, ((0, 0), (0, rows), (0, columns)))
        for plane, (rows, columns) in zip(planes, padding, strict=True)
    ]
    return jnp.stack(padded, axis=1)
