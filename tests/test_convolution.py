"""Convolution by matrix products against XLA's, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jax_stn_icnn.models.layers import Conv
from jax_stn_icnn.ops.convolution import convolve, convolve_upsampled
from jax_stn_icnn.ops.platform import use_platform

CASES = [  # batch, height, width, inputs, outputs, side of the kernel
    (1, 1, 1, 1, 1, 3),
    (2, 7, 12, 3, 8, 5),
    (3, 16, 5, 26, 9, 5),
    (1, 9, 9, 9, 9, 9),
    (2, 3, 4, 2, 5, 9),
]


def arrays(batch, height, width, inputs, outputs, side, dtype=np.float32):
    rng = np.random.default_rng(0)
    return tuple(
        jnp.array(rng.normal(size=shape), dtype)
        for shape in (
            (batch, inputs, height, width),
            (side, side, inputs, outputs),
            (batch, outputs, height, width),
        )
    )


def assert_close(ours, theirs, atol, atol_of_gradients):
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=atol)
    for own, other in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=atol_of_gradients)


def value_and_gradients(x, kernel, gradient, platform):
    @jax.jit
    def compute(x, kernel, gradient):
        out, transpose = jax.vjp(convolve, x, kernel)
        return out, *transpose(gradient)

    with use_platform(platform):
        return compute(x, kernel, gradient)


@pytest.mark.parametrize("case", CASES)
def test_matmul_equals_xla(case):
    ours, theirs = (value_and_gradients(*arrays(*case), platform) for platform in ("cpu", "gpu"))
    assert_close(ours, theirs, atol=2e-5, atol_of_gradients=5e-5)


# Images whose columns fill one product alone, two of them, three, and all six.
@pytest.mark.parametrize("size", [(400, 400), (128, 140), (100, 110), (7, 5)])
def test_images_may_share_a_product(size):
    given = arrays(6, *size, 4, 2, 3)
    together = value_and_gradients(*given, "cpu")
    for i in range(6):
        x, kernel, gradient = given[0][i : i + 1], given[1], given[2][i : i + 1]
        alone = value_and_gradients(x, kernel, gradient, "cpu")
        np.testing.assert_allclose(together[0][i], alone[0][0], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(together[1][i], alone[1][0], rtol=1e-5, atol=1e-4)


def test_convolution_equals_a_sum_over_pixels():
    x, kernel, _ = arrays(1, 4, 5, 2, 3, 3)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.zeros((1, 3, 4, 5))
    for row, column, i, j in np.ndindex(4, 5, 3, 3):
        expected[0, :, row, column] += padded[0, :, row + i, column + j] @ np.asarray(kernel)[i, j]
    np.testing.assert_allclose(convolve(x, kernel), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_type_of_values_and_gradients(dtype):
    x, kernel, gradient = arrays(2, 6, 6, 3, 4, 5, dtype)
    out, pull = jax.vjp(convolve, x, kernel)
    assert out.dtype == dtype
    assert [g.dtype for g in pull(gradient)] == [dtype, dtype]


def test_under_jit_and_vmap():
    x, kernel, gradient = arrays(4, 6, 6, 3, 4, 5)

    def loss(x, kernel, gradient):
        return jnp.sum(convolve(x, kernel) * gradient)

    whole = jax.jit(jax.grad(loss, argnums=(0, 1)))(x, kernel, gradient)
    each = jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(0, None, 0))(
        x[:, None], kernel, gradient[:, None]
    )
    np.testing.assert_allclose(each[0][:, 0], whole[0], atol=1e-4)
    np.testing.assert_allclose(jnp.sum(each[1], axis=0), whole[1], atol=1e-4)


@pytest.mark.parametrize("platform", ["gpu", "tpu", "onnx"])
def test_other_platforms_use_xla(platform):
    x, kernel, _ = arrays(2, 6, 6, 3, 4, 5)
    with use_platform(platform):
        text = jax.jit(convolve).lower(x, kernel).as_text()
    assert "convolution" in text and "dot_general" not in text


def upsample(x, size):
    """Returns the nearest-neighbour upsampling: pixel i is floor(i * in / out)."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, x.shape[2:], strict=True))
    return x[:, :, rows[:, None], columns]


def by_xla(x, kernel):
    dimensions = ("NCHW", "HWIO", "NCHW")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)


SIZES = [(1, 1), (2, 1), (3, 4), (6, 7), (13, 9), (16, 12), (41, 3)]


@pytest.mark.parametrize("side", [1, 3, 5, 9])
@pytest.mark.parametrize("size", SIZES)
def test_upsampled_equals_upsampling_first(size, side):
    x, kernel, _ = arrays(2, (size[0] + 1) // 2, (size[1] + 1) // 2, 3, 4, side)
    gradient = jnp.array(np.random.default_rng(1).normal(size=(2, 4, *size)), jnp.float32)

    @jax.jit
    def both():
        expected, pull = jax.vjp(lambda x, k: by_xla(upsample(x, size), k), x, kernel)
        found, pull_ours = jax.vjp(lambda x, k: convolve_upsampled(x, k, size), x, kernel)
        return (found, *pull_ours(gradient)), (expected, *pull(gradient))

    assert_close(*both(), atol=5e-5, atol_of_gradients=2e-4)


@pytest.mark.parametrize("size", [(8, 6), (7, 6), (9, 11), (10, 13)])
def test_below_is_upsampled_and_concatenated(size):
    rng = np.random.default_rng(0)
    half = [(n + 1) // 2 for n in size]
    x, below = (jnp.array(rng.normal(size=s), jnp.float32) for s in ((2, 3, *size), (2, 4, *half)))
    module = Conv(5, 3)
    variables = module.init(jax.random.key(0), x, below)

    @jax.jit
    def both():
        stacked = jnp.concatenate([x, upsample(below, size)], axis=1)
        return module.apply(variables, x, below), module.apply(variables, stacked)

    np.testing.assert_allclose(*both(), rtol=1e-5, atol=1e-5)


def test_parameters_begin_as_those_of_flax():
    x = jnp.ones((1, 3, 8, 8))
    ours = Conv(4, 5).init(jax.random.key(3), x)
    theirs = nn.Conv(4, (5, 5)).init(jax.random.key(3), x.transpose(0, 2, 3, 1))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_gradient_of_the_bias_is_summed_in_float32():
    layer = Conv(features=2, kernel_size=1, dtype=jnp.bfloat16)
    x = jnp.zeros((4, 1, 64, 64))
    params = {"params": {"kernel": jnp.ones((1, 1, 1, 2)), "bias": jnp.zeros(2)}}
    # Terms and sum are numbers of bfloat16, but most of the sums on the way are not.
    grads = jax.jit(jax.grad(lambda p: jnp.sum(layer.apply(p, x).astype(jnp.float32) / 64)))(params)
    np.testing.assert_array_equal(grads["params"]["bias"], x.size / 64)
