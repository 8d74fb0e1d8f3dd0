import numpy as np
import pytest

from jax_stn_icnn.faces import resample

IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels)[: 2 + (channels > 1)]
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def zoom(factor, x=0.0, y=0.0):
    """Pixel i of the result covers `factor` pixels from x + i * factor on."""
    return np.array([[factor, 0, x + factor / 2 - 0.5], [0, factor, y + factor / 2 - 0.5]])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_integer_shift_is_a_slice_padded_with_zeros(channels):
    image = noise(20, 30, channels)
    matrix = IDENTITY + [[0, 0, -3], [0, 0, 5]]
    expected = np.zeros((18, 40, *image.shape[2:]), np.uint8)
    expected[:15, 3:33] = image[5:]
    np.testing.assert_array_equal(resample.warp(image, matrix, (18, 40)), expected)


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_downscaling_averages_the_covered_pixels(factor):
    image = noise(10 * factor, 14 * factor)
    found = resample.warp(image, zoom(factor), (10, 14))
    mean = image.reshape(10, factor, 14, factor, 3).mean(axis=(1, 3))
    assert np.abs(found - mean).max() <= 0.5 + 1e-6
    # Cropping from a larger image gives the same result.
    larger = noise(10 * factor + 40, 14 * factor + 40, seed=1)
    larger[17 : 17 + 10 * factor, 19 : 19 + 14 * factor] = image
    np.testing.assert_array_equal(resample.warp(larger, zoom(factor, 19, 17), (10, 14)), found)


@pytest.mark.parametrize("side", [31, 40, 100, 169])
def test_downscaling_by_any_factor_weights_pixels_by_coverage(side):
    image = noise(220, 220)
    edges = np.arange(side + 1) * 220 / side
    # Row i: the fraction of each pixel between the edges i and i + 1.
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(220)
    share = np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, None) / (high - low)
    expected = share @ (share @ image.reshape(220, -1)).reshape(side, 220, 3)
    found = resample.warp(image, zoom(220 / side), (side, side))
    assert np.abs(found - expected).max() < 1


def test_rotation_by_90_degrees():
    image = noise(16, 16)
    matrix = np.array([[0.0, -1, 15], [1, 0, 0]])
    np.testing.assert_array_equal(resample.warp(image, matrix, (16, 16)), np.rot90(image))


def test_upscaling_is_bilinear_with_a_given_value_outside():
    image = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    found = resample.warp(image, zoom(0.25, -2, 0), (8, 16), outside=9.0)
    assert found.dtype == np.float32
    # Pixel centers are 1/2 and 3/2 from the edge, so row 3 at 7/8 mixes them 5 : 3.
    np.testing.assert_allclose(found[3, 10:14], 0.75 + np.array([0.125, 0.375, 0.625, 0.875]))
    assert np.all(found[:, :6] == 9)


def test_an_empty_result_and_a_result_outside_the_image():
    image = noise(8, 8)
    assert resample.warp(image, IDENTITY, (0, 5)).shape == (0, 5, 3)
    far = IDENTITY + [[0, 0, 1e6], [0, 0, -1e6]]
    assert not resample.warp(image, far, (4, 4)).any()


def test_footprint_and_shifted_origin():
    matrix = zoom(2, 10, -4)
    assert resample.footprint(matrix, (8, 8), (100, 20)) == (slice(0, 12), slice(10, 20))
    assert resample.footprint(matrix, (8, 8), (100, 5)) == (slice(0, 12), slice(5, 5))
    back = resample.shift_origin(resample.invert_matrix(matrix), slice(4, 9), slice(11, 15))
    np.testing.assert_allclose(resample.transform_points(back, np.zeros(2)), [0.25, 3.75])
