import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_model

from jax_stn_icnn.models.pipeline import variable_shapes
from jax_stn_icnn.train.optim import learning_rate, make_optimizer
from jax_stn_icnn.train.stages import NETWORKS, Stage

PARAMS = {
    "coarse": {"conv": {"kernel": np.ones((2, 2), np.float32)}},
    "localizer": {"dense": {"bias": np.ones(3, np.float32)}},
    "fine": {"brow": {"conv": {"kernel": np.ones(2, np.float32)}}},
}
# For a constant gradient, Adam's update is minus the rate up to a factor of 1 / (1 + 1e-8), so each
# row is the schedule: 2 steps per epoch, halved every 2 epochs.
TABLES = {
    "coarse": (
        Stage("coarse", 3, {"coarse": 0.8}, {"coarse": 1.0}),
        {"coarse": [0.8] * 4 + [0.4] * 2, "localizer": [0.0] * 6, "fine": [0.0] * 6},
    ),
    "joint": (
        Stage(
            "joint",
            3,
            {"coarse": 0.2, "localizer": 0.4, "fine": 0.8},
            {"fine": 1.0},
            warmup_epochs=2,
        ),
        {
            "coarse": [0.05, 0.1, 0.15, 0.2, 0.1, 0.1],
            "localizer": [0.1, 0.2, 0.3, 0.4, 0.2, 0.2],
            "fine": [0.8] * 4 + [0.4] * 2,
        },
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_updates_equal_the_table(name):
    stage, table = TABLES[name]
    tx = make_optimizer(stage, steps_per_epoch=2, halve_every_epochs=2)
    opt_state = tx.init(PARAMS)
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    for step in range(6):
        updates, opt_state = tx.update(gradients, opt_state, PARAMS)
        for network in NETWORKS:
            for leaf in jax.tree.leaves(updates[network]):
                # Adam corrects its bias in float32: 1 - 0.999 has four digits there.
                np.testing.assert_allclose(leaf, -table[network][step], rtol=1e-4)


@pytest.mark.parametrize(("warmup", "first"), [(0, 1.0), (1, 1.0), (4, 0.25)])
def test_learning_rate_at_the_first_step(warmup, first):
    assert float(learning_rate(1.0, 100, warmup)(0)) == pytest.approx(first)


def test_the_encoder_has_a_rate_of_its_own():
    params = PARAMS | {"coarse": {"encoder": np.ones(2), "head": np.ones(3)}}
    rates = {"coarse": 0.8, "fine": 0.4}
    stage = Stage("joint", 1, rates, {"fine": 1.0}, encoder_lr_factor=0.25)
    tx = make_optimizer(stage, steps_per_epoch=2, halve_every_epochs=2)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["coarse"]["encoder"], -0.2, rtol=1e-4)
    np.testing.assert_allclose(updates["coarse"]["head"], -0.8, rtol=1e-4)
    np.testing.assert_allclose(updates["fine"]["brow"]["conv"]["kernel"], -0.4, rtol=1e-4)
    np.testing.assert_array_equal(updates["localizer"]["dense"]["bias"], 0)


@pytest.mark.parametrize("network", NETWORKS)
def test_frozen_networks_have_no_state(network):
    tx = make_optimizer(Stage(network, 1, {network: 0.1}, {network: 1.0}), 1, 5)
    inner = tx.init(PARAMS).inner_states
    for other in NETWORKS:
        arrays = [leaf for leaf in jax.tree.leaves(inner[other]) if jnp.ndim(leaf) > 0]
        expected = 2 * len(jax.tree.leaves(PARAMS[other])) if other == network else 0
        assert len(arrays) == expected


@pytest.mark.parametrize("cropper", ["vgg9", "small", "resnet18", "centroid"])
def test_every_parameter_is_in_exactly_one_group(cropper):
    model = small_model(cropper=cropper)
    params = variable_shapes(model)["params"]
    assert params.keys() <= set(NETWORKS)
    stage = Stage("joint", 1, dict.fromkeys(NETWORKS, 0.1), {"fine": 1.0})
    state = jax.eval_shape(make_optimizer(stage, 1, 5).init, params)
    moments = [
        jax.tree.leaves(optax.tree_utils.tree_get(inner, "mu"))
        for inner in state.inner_states.values()
    ]
    assert sum(map(len, moments)) == len(jax.tree.leaves(params))
    sizes = sum(leaf.size for group in moments for leaf in group)
    assert sizes == sum(leaf.size for leaf in jax.tree.leaves(params))
