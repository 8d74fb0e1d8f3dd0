"""The two views of a batch that the networks see: the frame as floats, and the coarse picture."""

import jax
import jax.numpy as jnp

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.checks import check_same_batch, check_shape
from jax_stn_icnn.geometry import COARSE_SIZE, Size


def to_float(frame: jax.Array) -> jax.Array:
    """Frames as floats.

    Args:
        frame: uint8 0..255, any shape.

    Returns:
        float32 0..1, of the same shape.

    Raises:
        ValueError: the frame is not uint8.
    """
    if frame.dtype != jnp.uint8:
        raise ValueError(f"frame must be uint8, not {frame.dtype}")
    return frame.astype(jnp.float32) / 255


def coarse_view(
    frame: jax.Array, label_map: jax.Array, region: jax.Array, size: Size = COARSE_SIZE
) -> tuple[jax.Array, jax.Array]:
    """The picture alone, without the padding, resized to what the coarse network takes.

    Args:
        frame: floats of shape (batch, height, width, 3).
        label_map: class ids, integers of shape (batch, height, width).
        region: thetas (batch, 2, 3) of the picture's rectangle, which falls on whole pixels.
        size: (height, width) of the result.

    Returns:
        The image, bilinear with align_corners, (batch, *size, 3), and its labels, (batch, *size) of
        the input's type: of 128 pixels, pixel i is the picture's pixel floor(i * length / 128).

    Raises:
        ValueError: shapes do not fit.
    """
    check_shape("frame", frame, ("batch", "height", "width", 3))
    check_shape("label_map", label_map, ("batch", *frame.shape[1:3]))
    check_shape("region", region, ("batch", 2, 3))
    check_same_batch(frame=frame, label_map=label_map, region=region)
    image = ops.crop_bilinear(frame, region, size, axis_aligned=True)
    windows = jnp.round(geometry.windows_from_theta(region, frame.shape[1:3])).astype(jnp.int32)
    left, top, right, bottom = windows.T

    def pixels(first: jax.Array, last: jax.Array, count: int) -> jax.Array:
        length = last - first + 1
        return first[:, None] + jnp.arange(count) * length[:, None] // count

    rows = pixels(top, bottom, size[0])
    columns = pixels(left, right, size[1])
    return image, ops.take_labels(label_map, rows, columns)
