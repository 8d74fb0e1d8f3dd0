"""Geometric augmentation on the device: rotation, shift, scale (and noise), and mirroring.

An example has five variants: the k-th applies k of four operations, chosen at random. The geometric
operations are composed to one matrix, by which image and labels are sampled alike.

Outputs are not clipped: clipping noise to 0..1 would give it a mean in dark and in bright places.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.checks import check_same_batch, check_shape
from jax_stn_icnn.data import keys as keys_of
from jax_stn_icnn.geometry import Size

OPERATIONS = ("rotation", "shift", "scale", "noise")
NUM_VARIANTS = len(OPERATIONS) + 1

MAX_ANGLE = 15.0  # degrees, either way
# Of the picture's width and height, either way; further if no other operation is applied.
MAX_SHIFT, MAX_SHIFT_ALONE = 0.1, 0.3
SCALES, SCALES_ALONE = (0.9, 1.2), (0.8, 1.5)
MAX_NOISE = 0.05  # standard deviation, of the range 0..1; the original's is not known


class Warp(NamedTuple):
    """The geometric operations of an example, or of a batch in a first axis.

    Attributes:
        angle: Counterclockwise as seen, in degrees, ().
        shift: (x, y), right and down, as shares of the picture's width and height, (2,).
        scale: Above 1 enlarges, ().
    """

    angle: jax.Array
    shift: jax.Array
    scale: jax.Array


class _Streams(NamedTuple):
    """One key for each value that is drawn, so that no key is used twice."""

    variant: jax.Array
    operations: jax.Array
    angle: jax.Array
    shift: jax.Array
    scale: jax.Array
    noise_level: jax.Array
    noise: jax.Array


def _streams(key: jax.Array) -> _Streams:
    return _Streams(*jax.random.split(key, len(_Streams._fields)))


def random_variants(keys: jax.Array) -> jax.Array:
    """Draws the number of operations of each example, uniformly in 0..4.

    Args:
        keys: A key for each example, (batch,); `augment` may be given the same.

    Returns:
        int32 (batch,).
    """
    return jax.vmap(lambda key: jax.random.randint(_streams(key).variant, (), 0, NUM_VARIANTS))(
        keys
    )


def choose_operations(key: jax.Array, variant: jax.Array) -> jax.Array:
    """Draws the operations of an example, without replacement.

    Args:
        key: The example's key.
        variant: Their number, 0..4, ().

    Returns:
        bool (4,), in the order of OPERATIONS.
    """
    order = jax.random.permutation(_streams(key).operations, len(OPERATIONS))
    return order < variant


def random_warp(key: jax.Array, chosen: jax.Array) -> Warp:
    """Draws the geometric operations of an example.

    Args:
        key: The example's key.
        chosen: Its operations, bool (4,); shift and scale have larger ranges if they are alone.

    Returns:
        A `Warp`, neutral in what is not chosen.
    """
    streams = _streams(key)
    alone = jnp.sum(chosen) == 1
    rotated, shifted, scaled, _ = chosen
    angle = jax.random.uniform(streams.angle, minval=-MAX_ANGLE, maxval=MAX_ANGLE)
    reach = jnp.where(alone, MAX_SHIFT_ALONE, MAX_SHIFT)
    shift = jax.random.uniform(streams.shift, (2,), minval=-reach, maxval=reach)
    lowest, highest = jnp.where(alone, jnp.array(SCALES_ALONE), jnp.array(SCALES))
    scale = jax.random.uniform(streams.scale, minval=lowest, maxval=highest)
    return Warp(
        jnp.where(rotated, angle, 0.0),
        jnp.where(shifted, shift, 0.0),
        jnp.where(scaled, scale, 1.0),
    )


def _widen_warp(key: jax.Array, warp: Warp, rotation: float, zoom: float) -> Warp:
    """Returns a warp with a further rotation and a further scale, each with probability 1/2."""
    keys = jax.random.split(jax.random.fold_in(key, keys_of.WIDEN), 4)
    rotated, scaled = jax.random.bernoulli(keys[0]), jax.random.bernoulli(keys[1])
    angle = jax.random.uniform(keys[2], minval=-rotation, maxval=rotation)
    factor = jnp.exp(jax.random.uniform(keys[3], minval=-zoom, maxval=zoom))
    return warp._replace(
        angle=warp.angle + jnp.where(rotated, angle, 0.0),
        scale=warp.scale * jnp.where(scaled, factor, 1.0),
    )


def random_noise(key: jax.Array, chosen: jax.Array, size: Size) -> jax.Array:
    """Draws the noise of an example.

    Args:
        key: The example's key.
        chosen: Its operations, bool (4,).
        size: (height, width) of the frame.

    Returns:
        float32 (*size, 3), independent in every value; zero if noise is not chosen.
    """
    streams = _streams(key)
    level = jax.random.uniform(streams.noise_level, maxval=MAX_NOISE)
    return jnp.where(chosen[3], level, 0.0) * jax.random.normal(streams.noise, (*size, 3))


def warp_matrix(warp: Warp, region: jax.Array, frame_size: Size) -> jax.Array:
    """Returns the matrix of a warp about the picture's centre.

    As all sampling is backward, it maps pixels of the output to those of the input. Rotation and
    scale are isotropic in pixels; the shift comes last.

    Args:
        warp: The operations, shapes (...,), (..., 2) and (...,).
        region: Thetas of the picture's rectangle in the frame, (..., 2, 3).
        frame_size: (height, width) of the frame.

    Returns:
        Thetas (..., 2, 3), the identity to the bit for a neutral warp.
    """
    check_shape("region", region, (..., 2, 3))
    radians = jnp.deg2rad(warp.angle)
    cos, sin = jnp.cos(radians) / warp.scale, jnp.sin(radians) / warp.scale
    # A unit of x and one of y are different numbers of pixels unless the frame is square.
    height, width = frame_size
    aspect = (width - 1) / (height - 1)
    a, b, c, d = cos, -sin / aspect, sin * aspect, cos
    centre_x, centre_y = region[..., 0, 2], region[..., 1, 2]
    # The picture is 2 * sx units wide, from the centre of its first pixel to that of its last.
    to_x = centre_x + 2 * region[..., 0, 0] * warp.shift[..., 0]
    to_y = centre_y + 2 * region[..., 1, 1] * warp.shift[..., 1]
    first = jnp.stack([a, b, centre_x - (a * to_x + b * to_y)], axis=-1)
    second = jnp.stack([c, d, centre_y - (c * to_x + d * to_y)], axis=-1)
    return jnp.stack([first, second], axis=-2)


def picture_mask(region: jax.Array, size: Size) -> jax.Array:
    """Returns which pixels of the frame belong to the picture, not to its padding.

    Args:
        region: Thetas (batch, 2, 3) of the picture's rectangle in the frame.
        size: (height, width) of the frame.

    Returns:
        bool (batch, *size).
    """
    windows = jnp.round(geometry.windows_from_theta(region, size)).astype(jnp.int32)
    left, top, right, bottom = windows.T[..., None]
    rows, columns = (jnp.arange(length) for length in size)
    in_rows = (rows >= top) & (rows <= bottom)
    in_columns = (columns >= left) & (columns <= right)
    return in_rows[:, :, None] & in_columns[:, None, :]


def augment(
    keys: jax.Array,
    frame: jax.Array,
    label_map: jax.Array,
    region: jax.Array,
    variant: jax.Array,
    rotation: float = 0.0,
    zoom: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Augments a batch; one program serves all variants.

    Pixels that leave the picture's rectangle are lost, those that enter it are black background,
    and the padding around it stays, so that `region` remains true.

    Args:
        keys: A key for each example, (batch,), from `keys.example_keys`.
        frame: uint8, or floats in 0..1, (batch, height, width, 3).
        label_map: Class ids, integers (batch, height, width).
        region: Thetas (batch, 2, 3) of the picture's rectangle in the frame.
        variant: Number of operations of each example, integers 0..4, (batch,).
        rotation: Largest further rotation in degrees, as in `AugmentConfig`.
        zoom: Largest logarithm of a further scale, as in `AugmentConfig`.

    Returns:
        The frames, float32 in 0..1 except for the noise, and their labels, int32. Variant 0
        changes neither.

    Raises:
        ValueError: Shapes do not match.
    """
    check_shape("frame", frame, ("batch", "height", "width", 3))
    check_shape("label_map", label_map, ("batch", *frame.shape[1:3]))
    check_shape("region", region, ("batch", 2, 3))
    check_shape("variant", variant, ("batch",))
    check_same_batch(keys=keys, frame=frame, label_map=label_map, region=region, variant=variant)
    size = frame.shape[1:3]
    chosen = jax.vmap(choose_operations)(keys, variant)
    warp = jax.vmap(random_warp)(keys, chosen)
    if rotation or zoom:
        warp = jax.vmap(lambda key, warp: _widen_warp(key, warp, rotation, zoom))(keys, warp)
    theta = warp_matrix(warp, region, size)
    image = ops.crop_bilinear(ops.to_float(frame), theta, size)
    image += jax.vmap(random_noise, in_axes=(0, 0, None))(keys, chosen, size)
    warped_labels = ops.crop_nearest(label_map[..., None], theta, size)[..., 0]
    mask = picture_mask(region, size)
    return (
        jnp.where(mask[..., None], image, 0.0),
        jnp.where(mask, warped_labels, 0).astype(jnp.int32),
    )


def random_mirror(
    keys: jax.Array,
    frame: jax.Array,
    label_map: jax.Array,
    region: jax.Array,
    mirror_ids: Sequence[int],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mirrors a random half of the examples, left to right, and swaps the labels of the two sides.

    Args:
        keys: A key for each example, (batch,).
        frame: Any type, (batch, height, width, 3).
        label_map: Labels, integers (batch, height, width).
        region: Thetas (batch, 2, 3) of the picture's rectangle in the frame.
        mirror_ids: Label that each label has in the mirror image, such as `Anatomy.mirror_ids`.

    Returns:
        Frames, labels and regions, of the same shapes and types.

    Raises:
        ValueError: Shapes do not match.
    """
    check_shape("frame", frame, ("batch", "height", "width", 3))
    check_shape("label_map", label_map, ("batch", *frame.shape[1:3]))
    check_shape("region", region, ("batch", 2, 3))
    check_same_batch(keys=keys, frame=frame, label_map=label_map, region=region)
    mirror_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, keys_of.MIRROR)
    chosen = jax.vmap(jax.random.bernoulli)(mirror_keys)
    mirrored = label_map[:, :, ::-1]
    swapped = mirrored
    for i, other in enumerate(mirror_ids):
        if i != other:  # A few comparisons are faster than a gather.
            swapped = jnp.where(mirrored == i, jnp.asarray(other, label_map.dtype), swapped)
    return (
        jnp.where(chosen[:, None, None, None], frame[:, :, ::-1], frame),
        jnp.where(chosen[:, None, None], swapped, label_map),
        jnp.where(chosen[:, None, None], region.at[:, 0, 2].multiply(-1), region),
    )
