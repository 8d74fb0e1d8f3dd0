import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_variables
from test_unet import FIVE

from jax_stn_icnn.models.attention import SelfAttention
from jax_stn_icnn.models.config import ATTENTION_HEADS as HEADS
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.unet import UNet

X = jax.random.normal(jax.random.key(0), (2, 32, 3, 5))


@pytest.fixture(scope="module")
def variables():
    params = SelfAttention().init(jax.random.key(2), X)["params"]
    return {"params": params | {"share": np.full(1, 0.7, np.float32)}}


def by_a_loop(x, params):
    """Returns the attention of one image (channels, pixels), in float64."""
    query, key, value = (
        params[name]["kernel"][0, 0].T @ x + params[name]["bias"][:, None]
        for name in ("query", "key", "value")
    )
    mean = np.empty_like(x)
    for head in range(HEADS):
        q, k, v = (np.split(rows, HEADS)[head] for rows in (query, key, value))
        for pixel in range(x.shape[1]):
            weights = np.exp(k.T @ q[:, pixel] / np.sqrt(len(q)))
            mean[head * len(v) : (head + 1) * len(v), pixel] = v @ weights / weights.sum()
    return x + params["share"] * mean


def test_equals_a_loop(variables):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    found = SelfAttention().apply(variables, X)
    expected = [by_a_loop(np.float64(x).reshape(32, -1), params) for x in X]
    np.testing.assert_allclose(found.reshape(2, 32, -1), expected, atol=1e-5)


@pytest.mark.slow
def test_without_a_share_nothing_changes_but_the_share_can_learn(variables):
    params = variables["params"] | {"share": np.zeros(1, np.float32)}

    def loss(params):
        out = SelfAttention().apply({"params": params}, X)
        return jnp.sum(jnp.sin(out)), out

    gradient, out = jax.grad(loss, has_aux=True)(params)
    np.testing.assert_array_equal(out, X)
    assert gradient["share"] != 0
    assert SelfAttention().init(jax.random.key(0), X)["params"]["share"] == 0


def test_bfloat16_stays_near_float32(variables):
    exact = SelfAttention().apply(variables, X)
    half = SelfAttention(jnp.bfloat16).apply(variables, X.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert 0 < np.abs(half - exact).max() < 0.1


def test_channels_must_be_a_multiple():
    with pytest.raises(ValueError, match="24 channels, but must have a multiple of 16"):
        SelfAttention().init(jax.random.key(0), jnp.zeros((1, 24, 2, 2)))


@pytest.mark.slow
def test_a_unet_attends_in_its_lowest_rows_only():
    config = ModelConfig(anatomy=FIVE, coarse_network="unet", coarse_channels=(4, 16, 16))
    plain, attending = UNet(config), UNet(config.replace(attention=2))
    image = jax.random.uniform(jax.random.key(1), (1, 16, 16, 3))
    variables, extended = random_variables(plain, image), random_variables(attending, image)
    added = {name for name in extended["params"] if name.startswith("attention_")}
    assert added == {"attention_1", "attention_2"}
    params = {
        name: variables["params"].get(name, module) for name, module in extended["params"].items()
    }

    @jax.jit
    def logits(share):
        given = {
            name: module | {"share": jnp.full(1, share)} if name in added else module
            for name, module in params.items()
        }
        return attending.apply(variables | {"params": given}, image, False).logits

    before = jax.jit(lambda: plain.apply(variables, image, False))().logits
    np.testing.assert_allclose(logits(0.0), before, atol=1e-5)
    assert np.abs(logits(1.0) - before).max() > 1e-3
