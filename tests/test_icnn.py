"""The interlinked CNN against the original, in evaluation and training, values and gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Golden, random_variables
from flax import traverse_util

from jax_stn_icnn.compilation.inlining import NAME
from jax_stn_icnn.io import convert_torch
from jax_stn_icnn.models.icnn import CHANNELS, ICNN, INTERLINKS, max_pool
from jax_stn_icnn.train import losses

MODEL = ICNN(num_labels=9)


def original_names():
    """Returns path -> name in the original, for every array: numbers are converted in its place."""
    state = Golden("icnn").under("state")
    numbered = {name: np.full_like(state[name], i, np.float32) for i, name in enumerate(state)}
    converted = traverse_util.flatten_dict(convert_torch.convert_icnn(numbered, 9))
    names = list(state)
    return {path: names[int(array.flat[0])] for path, array in converted.items()}


def pixels_in_batch(path, batch=2, side=64):
    """Over how many pixels a BatchNorm takes its statistics."""
    row = re.search(r"(?:input_|row_|integrate_)(\d)", path[1])
    return batch * (side >> int(row[1] if row else 0)) ** 2


@pytest.fixture(scope="module")
def trained():
    """One training step's outputs, and the golden arrays, with the statistics from before it."""
    z = Golden("icnn")
    variables = convert_torch.convert_icnn(z.under("state"), 9)
    zero = jax.tree.map(np.zeros_like, variables["batch_stats"])

    def loss(params):
        logits, updated = MODEL.apply(
            {"params": params, "batch_stats": zero},
            jnp.array(z.nhwc("x")),
            train=True,
            mutable=["batch_stats"],
        )
        return losses.cross_entropy(logits, jnp.array(z["y_int64"])), (logits, updated)

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (logits, updated)), gradients = step(variables["params"])
    before, off_grid = {}, {"mean": 0.0, "var": 0.0}
    after, names = z.under("after"), original_names()
    for path, tenth in traverse_util.flatten_dict(updated).items():
        name, n = names[path], pixels_in_batch(path)
        if path[-1] == "var":  # the original keeps the unbiased variance
            tenth = tenth * (n / (n - 1))
        # after = 0.9 * before + 0.1 * batch, and the array's maker put `before` on a grid.
        grid = 80 if path[-1] == "mean" else 8
        raw = (np.float64(after[name]) - np.float64(tenth)) / 0.9
        before[path[1:]] = np.float32(np.round(raw * grid) / grid)
        off_grid[path[-1]] = max(
            off_grid[path[-1]],
            np.abs(0.9 * before[path[1:]] + tenth - after[name]).max(),
        )
    variables = {
        "params": variables["params"],
        "batch_stats": traverse_util.unflatten_dict(before),
    }
    return z, variables, value, logits, gradients, off_grid


@pytest.mark.parametrize(("x", "y"), [("x", "eval_64"), ("x81", "eval_81")])
def test_evaluation(trained, x, y):
    z, variables, *_ = trained
    logits = jax.jit(lambda v, x: MODEL.apply(v, x, train=False))(variables, z.nhwc(x))
    np.testing.assert_allclose(logits, z.nhwc(y), rtol=0, atol=1e-4)


def test_training_outputs_and_loss(trained):
    z, _, loss, logits, *_ = trained
    np.testing.assert_allclose(logits, z.nhwc("train_64"), rtol=0, atol=1e-4)
    np.testing.assert_allclose(loss, z["loss_train"], rtol=0, atol=1e-5)


def test_running_statistics(trained):
    *_, off_grid = trained
    assert off_grid["mean"] < 1e-5
    assert off_grid["var"] < 1e-5


def test_every_gradient_norm(trained):
    z, _, _, _, gradients, _ = trained
    expected, names = z.under("grad_norm"), original_names()
    seen = 0
    for path, gradient in traverse_util.flatten_dict({"params": gradients}).items():
        norm, name = np.linalg.norm(gradient), names[path]
        if name.endswith(".bias") and "bnm" not in name and "batchnorm" not in name:
            if not re.match(r"last_conv[23]", name):
                # BatchNorm takes a bias in front of it away: its gradient is zero but for rounding.
                assert norm < 1e-6 and expected[name] < 1e-6, name
                continue
        np.testing.assert_allclose(norm, expected[name], rtol=1e-3, err_msg=name)
        seen += 1
    assert seen == 34 + 2 * 32 + 2  # kernels, scale and bias of every norm, two biases


def test_first_and_last_gradient(trained):
    z, _, _, _, gradients, _ = trained
    for path, key in ((("input_0", "conv"), "grad_first"), (("head_3",), "grad_last")):
        own = traverse_util.flatten_dict(gradients)[(*path, "kernel")]
        np.testing.assert_allclose(own.transpose(3, 2, 0, 1), z[key], rtol=0, atol=1e-5)


def test_parameter_count():
    shapes = jax.eval_shape(
        lambda: MODEL.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 559_931


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_max_pool_halves_rounding_up_and_pads_by_one(size):
    x = np.asarray(jax.random.normal(jax.random.key(size), (1, 1, size, size))) - 5
    padded = np.pad(x[0, 0], 1, constant_values=-np.inf)
    half = (size + 1) // 2
    expected = [
        [padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max() for j in range(half)]
        for i in range(half)
    ]
    np.testing.assert_array_equal(max_pool(jnp.array(x))[0, 0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 21, 34)])
def test_any_size_and_bfloat16(shape):
    model = ICNN(num_labels=4, dtype=jnp.bfloat16)
    x = jnp.ones((*shape, 3))
    variables = random_variables(model, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits = jax.jit(lambda v: model.apply(v, x, train=False))(variables)
    assert logits.shape == (*shape, 4)
    assert logits.dtype == jnp.float32


def test_batch_statistics_over_two_devices_are_those_of_the_whole_batch():
    x = jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))
    alone = ICNN(num_labels=4, channels=(4, 4))
    variables = random_variables(alone, x)

    def apply(model):
        return lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"])

    whole, updated = jax.jit(apply(alone))(variables, x)
    synced = jax.vmap(apply(alone.clone(axis_name="batch")), in_axes=(None, 0), axis_name="batch")
    split, split_updated = jax.jit(synced)(variables, x.reshape(2, 2, 16, 16, 3))
    np.testing.assert_allclose(split.reshape(whole.shape), whole, atol=1e-4)
    for own, expected in zip(jax.tree.leaves(split_updated), jax.tree.leaves(updated), strict=True):
        np.testing.assert_allclose(own[0], expected, atol=1e-5)
        np.testing.assert_allclose(own[0], own[1])


def test_wrong_channels_are_named():
    with pytest.raises(ValueError, match=r"image has shape \(1, 8, 8, 4\).*height, width, 3"):
        MODEL.init(jax.random.key(0), jnp.zeros((1, 8, 8, 4)), train=False)
    assert CHANNELS == (8, 16, 24, 32)


@pytest.mark.slow
@pytest.mark.parametrize(("train", "count"), [(False, INTERLINKS), (True, 0)])
def test_interlinks_are_functions_but_not_in_training(train, count):
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), jnp.zeros(image.shape), False))

    def run(variables, image):
        return MODEL.apply(variables, image, train, mutable=["batch_stats"] if train else False)

    assert jax.jit(run).lower(variables, image).as_text().count(f"call @{NAME}") == count
