"""Augmentation on the device: rotation, shift, scale and noise; and, apart, mirroring.

Five variants of an example: the k-th applies k of the four operations, picked at random. The
geometric ones become one matrix, by which image and labels are sampled alike. A key belongs to one
example, so what happens to it depends neither on its neighbours nor on the number of devices.

Outputs are not clipped: noise may carry a value out of 0..1, since clipping would give dark and
bright places a noise with a mean.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.checks import check_same_batch, check_shape
from jax_stn_icnn.data import keys as keys_of
from jax_stn_icnn.geometry import Size

OPERATIONS = ("rotation", "shift", "scale", "noise")
NUM_VARIANTS = len(OPERATIONS) + 1

MAX_ANGLE = 15.0  # degrees, either way
MAX_SHIFT, MAX_SHIFT_ALONE = 0.1, 0.3  # of the picture's width and height, either way
SCALES, SCALES_ALONE = (0.9, 1.2), (0.8, 1.5)
MAX_NOISE = 0.05  # standard deviation, of the range 0..1; the original's is not known


class Warp(NamedTuple):
    """What is done to the geometry of one example, or of a batch in a first axis.

    Attributes:
        angle: counterclockwise as seen, in degrees, ().
        shift: (x, y), right and down, as parts of the picture's width and height, (2,).
        scale: above 1 enlarges, ().
    """

    angle: jax.Array
    shift: jax.Array
    scale: jax.Array


class _Streams(NamedTuple):
    """One key for each thing that is drawn, so that none is used twice."""

    variant: jax.Array
    operations: jax.Array
    angle: jax.Array
    shift: jax.Array
    scale: jax.Array
    noise_level: jax.Array
    noise: jax.Array


def _streams(key: jax.Array) -> _Streams:
    return _Streams(*jax.random.split(key, len(_Streams._fields)))


def example_keys(seed: int | jax.Array, step: jax.Array, positions: jax.Array) -> jax.Array:
    """A key for each example of a global batch.

    Args:
        seed: the seed of the run.
        step: the number of the batch.
        positions: each example's place in the global batch, integers of shape (batch,).

    Returns:
        Keys of shape (batch,), the same however the batch is spread over devices and processes.
    """
    check_shape("positions", positions, ("batch",))
    of_step = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(of_step, positions)


def random_variants(keys: jax.Array) -> jax.Array:
    """Draws how many operations each example gets, 0..4 alike.

    Args:
        keys: one for each example, (batch,); the same may go to `augment`.

    Returns:
        int32 of shape (batch,).
    """
    return jax.vmap(lambda key: jax.random.randint(_streams(key).variant, (), 0, NUM_VARIANTS))(
        keys
    )


def choose_operations(key: jax.Array, variant: jax.Array) -> jax.Array:
    """Picks the operations of one example, `variant` of them without replacement.

    Args:
        key: the key of the example.
        variant: how many, 0..4, ().

    Returns:
        bool of shape (4,), in the order of OPERATIONS.
    """
    order = jax.random.permutation(_streams(key).operations, len(OPERATIONS))
    return order < variant


def random_warp(key: jax.Array, chosen: jax.Array) -> Warp:
    """Draws the geometry of one example.

    Args:
        key: the key of the example.
        chosen: its operations, bool (4,); shift and scale reach further when they are alone.

    Returns:
        A `Warp`, neutral in what is not chosen.
    """
    streams = _streams(key)
    alone = jnp.sum(chosen) == 1
    rotate, move, zoom, _ = chosen
    angle = jax.random.uniform(streams.angle, minval=-MAX_ANGLE, maxval=MAX_ANGLE)
    reach = jnp.where(alone, MAX_SHIFT_ALONE, MAX_SHIFT)
    shift = jax.random.uniform(streams.shift, (2,), minval=-reach, maxval=reach)
    lowest, highest = jnp.where(alone, jnp.array(SCALES_ALONE), jnp.array(SCALES))
    scale = jax.random.uniform(streams.scale, minval=lowest, maxval=highest)
    return Warp(
        jnp.where(rotate, angle, 0.0), jnp.where(move, shift, 0.0), jnp.where(zoom, scale, 1.0)
    )


def _widened(key: jax.Array, warp: Warp, turn: float, zoom: float) -> Warp:
    """A warp that turns and scales by more."""
    turned, zoomed, angle, scale = jax.random.split(jax.random.fold_in(key, keys_of.WIDEN), 4)
    angle = jax.random.uniform(angle, minval=-turn, maxval=turn)
    factor = jnp.exp(jax.random.uniform(scale, minval=-zoom, maxval=zoom))
    return warp._replace(
        angle=warp.angle + jnp.where(jax.random.bernoulli(turned), angle, 0.0),
        scale=warp.scale * jnp.where(jax.random.bernoulli(zoomed), factor, 1.0),
    )


def random_noise(key: jax.Array, chosen: jax.Array, size: Size) -> jax.Array:
    """Draws the noise of one example.

    Args:
        key: the key of the example.
        chosen: its operations, bool (4,).
        size: (height, width) of the frame.

    Returns:
        float32 (*size, 3), independent in every value, zero where noise is not chosen.
    """
    streams = _streams(key)
    level = jax.random.uniform(streams.noise_level, maxval=MAX_NOISE)
    return jnp.where(chosen[3], level, 0.0) * jax.random.normal(streams.noise, (*size, 3))


def warp_matrix(warp: Warp, region: jax.Array, frame_size: Size) -> jax.Array:
    """The matrix that warps frames about the centre of their picture.

    As all sampling pulls, it carries the pixels of the result to those of the input. Rotation and
    scale are about the picture's centre and isotropic in pixels; the shift comes last.

    Args:
        warp: the operations, shapes (...,), (..., 2) and (...,).
        region: thetas of the picture's rectangle in the frame, (..., 2, 3).
        frame_size: (height, width) of the frame.

    Returns:
        Thetas of shape (..., 2, 3), the identity to the bit for a neutral warp.
    """
    check_shape("region", region, (..., 2, 3))
    radians = jnp.deg2rad(warp.angle)
    cos, sin = jnp.cos(radians) / warp.scale, jnp.sin(radians) / warp.scale
    # A unit of x and one of y are not the same number of pixels unless the frame is square.
    height, width = frame_size
    aspect = (width - 1) / (height - 1)
    a, b, c, d = cos, -sin / aspect, sin * aspect, cos
    centre_x, centre_y = region[..., 0, 2], region[..., 1, 2]
    # The picture spans 2 * sx units: its width is the window's, of pixel centres.
    to_x = centre_x + 2 * region[..., 0, 0] * warp.shift[..., 0]
    to_y = centre_y + 2 * region[..., 1, 1] * warp.shift[..., 1]
    first = jnp.stack([a, b, centre_x - (a * to_x + b * to_y)], axis=-1)
    second = jnp.stack([c, d, centre_y - (c * to_x + d * to_y)], axis=-1)
    return jnp.stack([first, second], axis=-2)


def inside(region: jax.Array, size: Size) -> jax.Array:
    """Which pixels of the frame belong to the picture.

    Args:
        region: thetas (batch, 2, 3) of the picture's rectangle in the frame.
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
    turn: float = 0.0,
    zoom: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Augments a batch; compiles once for all variants.

    What leaves the picture's rectangle is lost and what enters it is black background, as if the
    padding were put around the picture afterwards: `region` stays true.

    Args:
        keys: one for each example, (batch,), from `example_keys`.
        frame: uint8 (batch, height, width, 3).
        label_map: class ids, integers of shape (batch, height, width).
        region: thetas (batch, 2, 3) of the picture's rectangle in the frame.
        variant: how many operations each example gets, integers 0..4 of shape (batch,).
        turn: degrees by which every second example is turned at most, either way, besides.
        zoom: logarithm of the factor by which every second one is scaled at most, besides.

    Returns:
        The frames, float32 in 0..1 but for the noise, and their labels, int32; variant 0 changes
        neither.

    Raises:
        ValueError: shapes do not fit, or the frame is not uint8.
    """
    check_shape("frame", frame, ("batch", "height", "width", 3))
    check_shape("label_map", label_map, ("batch", *frame.shape[1:3]))
    check_shape("region", region, ("batch", 2, 3))
    check_shape("variant", variant, ("batch",))
    check_same_batch(keys=keys, frame=frame, label_map=label_map, region=region, variant=variant)
    size = frame.shape[1:3]
    chosen = jax.vmap(choose_operations)(keys, variant)
    warp = jax.vmap(random_warp)(keys, chosen)
    if turn or zoom:
        warp = jax.vmap(lambda key, one: _widened(key, one, turn, zoom))(keys, warp)
    theta = warp_matrix(warp, region, size)
    image = ops.crop_bilinear(ops.to_float(frame), theta, size)
    image += jax.vmap(random_noise, in_axes=(0, 0, None))(keys, chosen, size)
    warped_labels = ops.crop_nearest(label_map[..., None], theta, size)[..., 0]
    within = inside(region, size)
    return (
        jnp.where(within[..., None], image, 0.0),
        jnp.where(within, warped_labels, 0).astype(jnp.int32),
    )


def mirror_some(
    keys: jax.Array,
    frame: jax.Array,
    label_map: jax.Array,
    region: jax.Array,
    anatomy: Anatomy,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mirrors every second example, at random, left to right, and exchanges the sides' classes.

    Args:
        keys: one for each example, (batch,).
        frame: any type, (batch, height, width, 3).
        label_map: class ids, integers of shape (batch, height, width).
        region: thetas (batch, 2, 3) of the picture's rectangle in the frame.
        anatomy: whose classes they are.

    Returns:
        Frames, labels and regions, of the same shapes and types.

    Raises:
        ValueError: shapes do not fit.
    """
    check_shape("frame", frame, ("batch", "height", "width", 3))
    check_shape("label_map", label_map, ("batch", *frame.shape[1:3]))
    check_shape("region", region, ("batch", 2, 3))
    check_same_batch(keys=keys, frame=frame, label_map=label_map, region=region)
    own = jax.vmap(jax.random.fold_in, (0, None))(keys, keys_of.MIRROR)
    chosen = jax.vmap(jax.random.bernoulli)(own)
    turned = label_map[:, :, ::-1]
    exchanged = turned
    for c, other in enumerate(anatomy.mirror_ids):
        if c != other:  # A comparison for each of few: less than looking every pixel up.
            exchanged = jnp.where(turned == c, jnp.asarray(other, label_map.dtype), exchanged)
    return (
        jnp.where(chosen[:, None, None, None], frame[:, :, ::-1], frame),
        jnp.where(chosen[:, None, None], exchanged, label_map),
        jnp.where(chosen[:, None, None], region.at[:, 0, 2].multiply(-1), region),
    )
