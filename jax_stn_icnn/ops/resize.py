"""Resizing: the coarse network's input and its labels, and the global classes' probabilities."""

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.checks import check_same_batch, check_shape
from jax_stn_icnn.geometry import Size, windows_from_theta
from jax_stn_icnn.ops import matmul
from jax_stn_icnn.ops.crop import IDENTITY, crop_bilinear
from jax_stn_icnn.ops.platform import current_implementations


def to_float(image: jax.Array) -> jax.Array:
    """Returns images as float32 in 0..1.

    Args:
        image: uint8, or floats, which are returned as they are; any shape.

    Returns:
        Floats of the same shape.

    Raises:
        ValueError: The image has another type.
    """
    if jnp.issubdtype(image.dtype, jnp.floating):
        return image
    if image.dtype != jnp.uint8:
        raise ValueError(f"image must be uint8 or floating point, not {image.dtype}")
    return image.astype(jnp.float32) / 255


def resize_bilinear(image: jax.Array, size: Size) -> jax.Array:
    """Returns images resized by bilinear sampling with align_corners.

    Args:
        image: Floats (batch, height, width, channels).
        size: (height, width) of the result.

    Returns:
        Images (batch, *size, channels) of the image's type.

    Raises:
        ValueError: The image is not a batch of images.
    """
    check_shape("image", image, ("batch", "height", "width", "channels"))
    if image.shape[1:3] == tuple(size):
        return image
    if current_implementations().space_to_depth:
        positions = (
            np.linspace(0, old - 1, new) if new > 1 else np.full(1, (old - 1) / 2)
            for old, new in zip(image.shape[1:3], size, strict=True)
        )
        return jnp.moveaxis(matmul.resample(jnp.moveaxis(image, -1, 1), *positions), 1, -1)
    theta = jnp.broadcast_to(jnp.array(IDENTITY, jnp.float32), (image.shape[0], 2, 3))
    return crop_bilinear(image, theta, size, axis_aligned=True)


def upsample_bilinear(image: jax.Array, size: Size) -> jax.Array:
    """Returns the same as `resize_bilinear`, to rounding, for an image that is enlarged.

    One axis after the other takes a third of the time of `resize_bilinear` for many channels on a
    CPU, where XLA fuses the gather of all four pixels into each operation that reads the result.

    Args:
        image: Floats (batch, height, width, channels), two pixels a side or more.
        size: (height, width) of the result, two or more.

    Returns:
        Images (batch, *size, channels) of the image's type.

    Raises:
        ValueError: The image is not a batch of images.
    """
    check_shape("image", image, ("batch", "height", "width", "channels"))
    if image.shape[1:3] == tuple(size):
        return image
    if current_implementations().sampling == "matmul":
        return resize_bilinear(image, size)
    for axis, new in zip((1, 2), size, strict=True):
        old = image.shape[axis]
        pixel = np.arange(new) * (old - 1) / (new - 1)
        first = np.minimum(pixel.astype(int), old - 2)
        fraction = (pixel - first).reshape([-1 if i == axis else 1 for i in range(4)])
        weight = jnp.asarray(fraction, image.dtype)
        before, after = (jnp.take(image, first + i, axis=axis) for i in (0, 1))
        image = before * (1 - weight) + after * weight
    return image


def coarse_image(frame: jax.Array, region: jax.Array | None, size: Size) -> jax.Array:
    """Returns the coarse network's input: the picture, without its padding, resized.

    Args:
        frame: Floats (batch, height, width, 3).
        region: Thetas (batch, 2, 3) of the picture's rectangle in the frame; None if the picture
            fills the frame.
        size: (height, width) of the result.

    Returns:
        Images (batch, *size, 3), sampled bilinearly with align_corners.

    Raises:
        ValueError: Shapes do not match.
    """
    check_shape("frame", frame, ("batch", "height", "width", 3))
    if region is None:
        return resize_bilinear(frame, size)
    check_shape("region", region, ("batch", 2, 3))
    check_same_batch(frame=frame, region=region)
    return crop_bilinear(frame, region, size, axis_aligned=True)


def coarse_labels(label_map: jax.Array, region: jax.Array, size: Size) -> jax.Array:
    """Returns the labels of the coarse segmentation.

    Args:
        label_map: Class ids, integers (batch, height, width).
        region: Thetas (batch, 2, 3) of the picture's rectangle, which falls on whole pixels.
        size: (height, width) of the result.

    Returns:
        Class ids (batch, *size) of the input's type: of 128 pixels, pixel i is the picture's pixel
        floor(i * length / 128), as in the original code.

    Raises:
        ValueError: Shapes do not match.
    """
    check_shape("label_map", label_map, ("batch", "height", "width"))
    check_shape("region", region, ("batch", 2, 3))
    windows = jnp.round(windows_from_theta(region, label_map.shape[1:3])).astype(jnp.int32)
    left, top, right, bottom = windows.T

    def pixels(first: jax.Array, last: jax.Array, count: int) -> jax.Array:
        length = last - first + 1
        return first[:, None] + jnp.arange(count) * length[:, None] // count

    rows, columns = pixels(top, bottom, size[0]), pixels(left, right, size[1])
    return take_labels(label_map, rows, columns)


def take_labels(label_map: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Returns some rows and columns of label maps.

    Args:
        label_map: Class ids (batch, height, width).
        rows: Row indices, integers (batch, new height), all within the map.
        columns: Column indices, (batch, new width).

    Returns:
        Label maps (batch, new height, new width) of the input's type.

    Raises:
        ValueError: Shapes do not match.
    """
    check_shape("label_map", label_map, ("batch", "height", "width"))
    check_same_batch(label_map=label_map, rows=rows, columns=columns)
    if current_implementations().sampling == "matmul":
        return jax.vmap(matmul.take)(label_map[..., None], rows, columns)[..., 0]
    batch = jnp.arange(label_map.shape[0])
    return label_map[batch[:, None, None], rows[:, :, None], columns[:, None, :]]
