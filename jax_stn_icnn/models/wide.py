"""Wide frames in the model: global classes around the frame, and the transition to those inside.

Ours, not the paper's, which proposes "appropriate preprocessing" for hair. The coarse network also
runs on a wide frame of the face (`faces.framing.wide_frame`). Its global classes apply outside the
frame; inside, they take over smoothly towards the edge, where a network that sees no more than the
frame has the least context.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.geometry import Size
from jax_stn_icnn.ops import matmul
from jax_stn_icnn.ops.platform import current_implementations
from jax_stn_icnn.wide_frame import WIDE_DOWN, WIDE_SIDE

BORDER = 0.12  # width of the transition along the frame's edges, as a share of the frame's side


def blend(global_probs: jax.Array, wide_probs: jax.Array, frame_size: Size) -> jax.Array:
    """Returns the probabilities of the global classes in the frame, blended with the wide frame's.

    Args:
        global_probs: Those predicted in the frame, channels first, (batch, global classes, height,
            width).
        wide_probs: Those predicted in the wide frame, (batch, global classes, rows, columns).
        frame_size: (height, width) of the frame in pixels; its outermost pixels coincide with those
            of `global_probs`.

    Returns:
        Shape of `global_probs`: those of the wide frame along the edges, and those of the frame
        from `BORDER` inwards.
    """
    check_shape("global_probs", global_probs, ("batch", "classes", "height", "width"))
    check_shape("wide_probs", wide_probs, (*global_probs.shape[:2], "rows", "columns"))
    size = global_probs.shape[2:]
    wide_size = wide_probs.shape[2:]
    rows, columns = (
        _positions(size[axis], frame_size[axis], wide_size[axis], down)
        for axis, down in enumerate((WIDE_DOWN, 0.0))
    )
    if current_implementations().space_to_depth:
        sampled = matmul.resample(wide_probs, rows, columns)
    else:
        sampled = _sample(_sample(wide_probs, rows, axis=2), columns, axis=3)
    weight = jnp.asarray(_weight(size), global_probs.dtype)
    return global_probs * (1 - weight) + sampled * weight


def _positions(count: int, frame_side: int, wide_side: int, down: float) -> np.ndarray:
    """Returns where pixels of the frame lie in the wide frame, along one axis.

    Args:
        count: Number of pixels from the first to the last one of the frame.
        frame_side: The frame's side in its own pixels.
        wide_side: The wide frame's side in its own pixels.
        down: Shift of the wide frame's center along the axis, in sides of the frame.

    Returns:
        Coordinates in pixels of the wide frame, (count,).
    """
    pixels = np.linspace(0, frame_side - 1, count)
    from_center = (pixels + 0.5) / frame_side - 0.5 - down  # in sides of the frame
    return (from_center / WIDE_SIDE + 0.5) * wide_side - 0.5


def _sample(image: jax.Array, positions: np.ndarray, axis: int) -> jax.Array:
    """Returns an image sampled linearly at positions of an axis, all inside."""
    first = np.clip(np.floor(positions).astype(int), 0, image.shape[axis] - 2)
    shape = [-1 if i == axis else 1 for i in range(image.ndim)]
    weight = jnp.asarray((positions - first).reshape(shape), image.dtype)
    before, after = map(partial(jnp.take, image, axis=axis), (first, first + 1))
    return before * (1 - weight) + after * weight


def _weight(size: Size) -> np.ndarray:
    """Returns the weight of the wide frame, float32 (height, width), 1 at the edge."""
    inward = [np.minimum(np.arange(n), np.arange(n)[::-1]) / (n - 1) for n in size]
    distance = np.minimum(inward[0][:, None], inward[1])
    return np.clip(1 - distance / BORDER, 0, 1).astype(np.float32)
