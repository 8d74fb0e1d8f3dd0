"""The depthwise convolution and its gradients, against XLA's grouped convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_stn_icnn.ops.depthwise import convolve_depthwise
from jax_stn_icnn.ops.platform import use_platform
from jax_stn_icnn.ops.strided import convolve_halved

SIZES = [(16, 12), (7, 9), (34, 5)]  # of several parts of the gradient, odd, and more than its most


def arrays(size, side, stride, dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = (
        (2, 3, *size),
        (side, side, 3),
        (2, 3, *(-(-length // stride) for length in size)),
    )
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def grouped(x, kernel, stride):
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=("NCHW", "HWIO", "NCHW"),
        feature_group_count=x.shape[1],
    )


def value_and_gradients(convolve, x, kernel, cotangent, stride):
    def run(x, kernel, cotangent):
        out, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, stride), x, kernel)
        return out, *pull(cotangent)

    return jax.jit(run)(x, kernel, cotangent)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_value_and_gradients_equal_those_of_the_grouped_convolution(size, side, stride, platform):
    given = arrays(size, side, stride)
    expected = value_and_gradients(grouped, *given, stride)
    with use_platform(platform):
        found = value_and_gradients(convolve_depthwise, *given, stride)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_bfloat16_is_computed_in_float32(stride):
    x, kernel, cotangent = arrays(SIZES[0], 5, stride, jnp.bfloat16)
    expected = value_and_gradients(
        grouped, *(a.astype(jnp.float32) for a in (x, kernel, cotangent)), stride
    )
    found = value_and_gradients(convolve_depthwise, x, kernel, cotangent, stride)
    for ours, exact in zip(found, expected, strict=True):
        assert ours.dtype == jnp.bfloat16
        # Rounded once, at the end: the last of eight bits is uncertain.
        np.testing.assert_allclose(ours.astype(jnp.float32), exact, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("size", [(6, 8), (2, 4)])
def test_convolution_of_stride_two_is_padded_as_tensorflow_pads_it(size, platform):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, *size)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 3, 4)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))
    with use_platform(platform):
        found = convolve_halved(x, kernel)
    assert found.shape == (2, 4, size[0] // 2, size[1] // 2)
    for row in range(size[0] // 2):
        for column in range(size[1] // 2):
            window = padded[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            expected = np.einsum("bcij,ijco->bo", window, kernel)
            np.testing.assert_allclose(found[:, :, row, column], expected, rtol=1e-4, atol=1e-5)
