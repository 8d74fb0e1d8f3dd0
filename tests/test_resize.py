from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.ops.platform import use_platform


def test_to_float():
    frame = np.arange(256, dtype=np.uint8)
    floats = ops.to_float(jnp.asarray(frame))
    assert floats.dtype == jnp.float32
    # Compilers may divide by multiplying: a last bit.
    np.testing.assert_array_max_ulp(floats, np.float32(frame) / np.float32(255), maxulp=1)
    np.testing.assert_array_equal(ops.to_float(floats), floats)
    with pytest.raises(ValueError, match="uint8 or floating point"):
        ops.to_float(jnp.ones(3, jnp.int32))


SIZE = (128, 128)


class TestGolden:
    def test_coarse_image_and_labels(self, golden):
        z = golden("pipeline")
        frame = jnp.array(z.nhwc("image_uint8"), jnp.float32) / 255
        label_map = jnp.array(z["labels9_uint8"])
        region = jnp.tile(jnp.array(ops.IDENTITY), (len(frame), 1, 1))
        for given in (None, region):
            image = ops.coarse_image(frame, given, SIZE)
            # A coordinate is a float32 number of up to 512 pixels; four of its steps.
            atol = 4 * 512 * 2**-24
            np.testing.assert_allclose(image, z.nhwc("small_image"), rtol=0, atol=atol)
        coarse_labels = ops.coarse_labels(label_map, region, SIZE)
        np.testing.assert_array_equal(coarse_labels, z["small_labels_uint8"])


# (height, width) of the picture, its corner (top, left), side of the frame.
PLACES = [
    ((300, 257), (11, 40), 352),
    ((128, 128), (64, 64), 256),
    ((90, 200), (80, 25), 250),
    ((256, 256), (0, 0), 256),
    ((683, 1000), (170, 12), 1024),
]


@pytest.mark.parametrize("shape, corner, side", PLACES)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_coarse_image_is_the_resized_picture(shape, corner, side, wrap):
    (height, width), (top, left) = shape, corner
    rng = np.random.default_rng(0)
    picture = rng.random((1, height, width, 3), dtype=np.float32)
    picture_labels = rng.integers(0, 9, (1, height, width), dtype=np.int32)
    margins = ((0, 0), (top, side - height - top), (left, side - width - left))
    frame = np.pad(picture, (*margins, (0, 0)))
    label_map = np.pad(picture_labels, margins)
    window = jnp.array([[left, top, left + width - 1, top + height - 1]])
    region = geometry.theta_from_windows(window, (side, side))
    image = wrap(partial(ops.coarse_image, size=SIZE))(frame, region)
    coarse_labels = wrap(partial(ops.coarse_labels, size=SIZE))(label_map, region)
    assert image.shape == (1, 128, 128, 3) and coarse_labels.shape == (1, 128, 128)
    # Coordinates are float32 numbers of the frame: up to 1024 * 2**-24 of a pixel, a few times.
    np.testing.assert_allclose(image, ops.resize_bilinear(picture, (128, 128)), atol=3e-4)
    rows, columns = (np.arange(128) * length // 128 for length in (height, width))
    np.testing.assert_array_equal(coarse_labels, picture_labels[:, rows][:, :, columns])


def test_each_picture_has_its_own_region():
    side = 160
    frame = np.zeros((2, side, side, 3), np.float32)
    label_map = np.zeros((2, side, side), np.uint8)
    windows = np.array([[0, 0, 159, 159], [20, 10, 149, 139]])
    for i, (left, top, right, bottom) in enumerate(windows):
        label_map[i, top : bottom + 1, left : right + 1] = i + 1
        frame[i, top : bottom + 1, left : right + 1] = (i + 1) / 2
    region = geometry.theta_from_windows(jnp.array(windows), (side, side))
    image = ops.coarse_image(frame, region, SIZE)
    coarse_labels = ops.coarse_labels(label_map, region, SIZE)
    np.testing.assert_array_equal(coarse_labels[0], 1)
    np.testing.assert_array_equal(coarse_labels[1], 2)
    np.testing.assert_allclose(image[1], 1.0, atol=3e-4)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_upsampling_equals_resizing(platform):
    image = np.random.default_rng(0).random((2, 16, 12, 5), np.float32)
    with use_platform(platform):
        found = ops.upsample_bilinear(image, (45, 33))
    np.testing.assert_allclose(found, ops.resize_bilinear(image, (45, 33)), atol=1e-6)
    assert ops.upsample_bilinear(image, (16, 12)) is image


def test_wrong_shapes():
    frame, region = np.zeros((1, 40, 40, 3), np.float32), np.zeros((1, 2, 3), np.float32)
    with pytest.raises(ValueError, match="frame has shape"):
        ops.coarse_image(frame[..., :1], region, SIZE)
    with pytest.raises(ValueError, match="agree in their first axis"):
        ops.coarse_image(np.concatenate([frame, frame]), region, SIZE)
    with pytest.raises(ValueError, match="label_map"):
        ops.coarse_labels(frame, region, SIZE)
