"""The convolution by matrix products against XLA's own, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jax_stn_icnn.models import conv

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


def assert_near(ours, theirs, atol, atol_of_gradients):
    """Of values, followed by gradients."""
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=atol)
    for own, other in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=atol_of_gradients)


def assert_products_equal_xla(x, kernel, gradient):
    @jax.jit
    def both():  # in one program, which compiles sooner than many
        ours = conv._by_products(x, kernel), *conv._gradients_by_products(x, kernel, gradient)
        return ours, (conv._by_xla(x, kernel), *conv._gradients_by_xla(x, kernel, gradient))

    assert_near(*both(), atol=2e-5, atol_of_gradients=5e-5)


@pytest.mark.parametrize("case", CASES)
def test_products_equal_xla(case):
    assert_products_equal_xla(*arrays(*case))


@pytest.mark.parametrize("images", [1, 2, 3, 6])
def test_images_may_share_a_product(images, monkeypatch):
    batch, height, width, side = 6, 7, 5, 3
    x, kernel, gradient = arrays(batch, height, width, 4, 2, side)
    monkeypatch.setattr(conv, "COLUMNS", images * side * 4 * height * width)
    assert conv._count(conv._groups(x, side * 4)[0]) == images
    assert_products_equal_xla(x, kernel, gradient)


def test_products_equal_a_sum_over_pixels():
    x, kernel, _ = arrays(1, 4, 5, 2, 3, 3)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.zeros((1, 3, 4, 5))
    for row, column, i, j in np.ndindex(4, 5, 3, 3):
        expected[0, :, row, column] += padded[0, :, row + i, column + j] @ np.asarray(kernel)[i, j]
    np.testing.assert_allclose(conv.convolve(x, kernel), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_type_of_values_and_gradients(dtype):
    x, kernel, gradient = arrays(2, 6, 6, 3, 4, 5, dtype)
    out, pull = jax.vjp(conv.convolve, x, kernel)
    assert out.dtype == dtype
    assert [g.dtype for g in pull(gradient)] == [dtype, dtype]


def test_under_jit_and_vmap():
    x, kernel, gradient = arrays(4, 6, 6, 3, 4, 5)

    def loss(x, kernel, gradient):
        return jnp.sum(conv.convolve(x, kernel) * gradient)

    whole = jax.jit(jax.grad(loss, argnums=(0, 1)))(x, kernel, gradient)
    each = jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(0, None, 0))(
        x[:, None], kernel, gradient[:, None]
    )
    np.testing.assert_allclose(each[0][:, 0], whole[0], atol=1e-4)
    np.testing.assert_allclose(jnp.sum(each[1], axis=0), whole[1], atol=1e-4)


def test_other_platforms_use_xla():
    x, kernel, _ = arrays(2, 6, 6, 3, 4, 5)
    lowered = jax.jit(conv.convolve).trace(x, kernel).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert "convolution" in text and "dot_general" not in text


def upsample(x, size):
    """Nearest: pixel i is floor(i * in / out)."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, x.shape[2:], strict=True))
    return x[:, :, rows[:, None], columns]


SIZES = [(1, 1), (2, 1), (3, 4), (6, 7), (13, 9), (16, 12), (41, 3)]


@pytest.mark.parametrize("side", [1, 3, 5, 9])
@pytest.mark.parametrize("size", SIZES)
def test_upsampled_equals_upsampling_first(size, side):
    x, kernel, _ = arrays(2, (size[0] + 1) // 2, (size[1] + 1) // 2, 3, 4, side)
    gradient = jnp.array(np.random.default_rng(1).normal(size=(2, 4, *size)), jnp.float32)

    @jax.jit
    def both():
        expected, pull = jax.vjp(lambda x, k: conv._by_xla(upsample(x, size), k), x, kernel)
        found, pull_ours = jax.vjp(lambda x, k: conv.convolve_upsampled(x, k, size), x, kernel)
        return (found, *pull_ours(gradient)), (expected, *pull(gradient))

    assert_near(*both(), atol=5e-5, atol_of_gradients=2e-4)


@pytest.mark.parametrize("size", [(8, 6), (7, 6), (9, 11), (10, 13)])
def test_below_counts_as_stacked_after_the_picture(size):
    rng = np.random.default_rng(0)
    half = [(n + 1) // 2 for n in size]
    x, below = (jnp.array(rng.normal(size=s), jnp.float32) for s in ((2, 3, *size), (2, 4, *half)))
    module = conv.Conv(5, 3)
    variables = module.init(jax.random.key(0), x, below)

    @jax.jit
    def both():
        stacked = jnp.concatenate([x, upsample(below, size)], axis=1)
        return module.apply(variables, x, below), module.apply(variables, stacked)

    np.testing.assert_allclose(*both(), rtol=1e-5, atol=1e-5)


def test_parameters_begin_as_those_of_flax():
    x = jnp.ones((1, 3, 8, 8))
    ours = conv.Conv(4, 5).init(jax.random.key(3), x)
    theirs = nn.Conv(4, (5, 5)).init(jax.random.key(3), x.transpose(0, 2, 3, 1))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_gradient_of_the_bias_is_summed_in_float32():
    layer = conv.Conv(features=2, kernel_size=1, dtype=jnp.bfloat16)
    x = jnp.zeros((4, 1, 64, 64))
    params = {"params": {"kernel": jnp.ones((1, 1, 1, 2)), "bias": jnp.zeros(2)}}
    # Terms and sum are numbers of bfloat16, but most of the sums on the way are not.
    grads = jax.jit(jax.grad(lambda p: jnp.sum(layer.apply(p, x).astype(jnp.float32) / 64)))(params)
    np.testing.assert_array_equal(grads["params"]["bias"], x.size / 64)
