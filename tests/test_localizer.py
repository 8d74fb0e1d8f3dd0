import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_variables
from flax import linen as nn

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.anatomy import NINETEEN
from jax_stn_icnn.io import convert_torch
from jax_stn_icnn.models.localizer import LOCALIZERS, centroid_theta, localizer_input
from jax_stn_icnn.ops.platform import use_platform
from jax_stn_icnn.ops.pooling import max_pool_2x2

PROBS = jax.nn.softmax(jax.random.normal(jax.random.key(0), (2, 128, 128, 9)))


def test_small_equals_the_original(golden):
    z = golden("localizer_small")
    variables = convert_torch.convert_localizer(z.under("state"), "small")
    theta = LOCALIZERS["small"]().apply(variables, z.nhwc("mask"), train=False)
    np.testing.assert_allclose(theta, z["theta"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCALIZERS)
def test_thetas_scale_and_shift_only(name):
    model = LOCALIZERS[name]()
    variables = random_variables(model, PROBS)
    theta = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, PROBS)
    assert theta.shape == (2, 6, 2, 3)
    np.testing.assert_array_equal(theta[..., [0, 1], [1, 0]], 0)
    assert np.abs(theta[..., [0, 0, 1, 1], [0, 2, 1, 2]]).min() > 0


def tpu_products(function, *inputs):
    """Returns the lines of matrix products, and of convolutions, of a program lowered for a TPU."""
    with use_platform("tpu"):
        text = jax.jit(function).trace(*inputs).lower(lowering_platforms=("tpu",)).as_text()
    lines = text.splitlines()
    return [[line for line in lines if f"stablehlo.{op}" in line] for op in ("dot", "convolution")]


@pytest.mark.parametrize("name", LOCALIZERS)
def test_coordinates_have_full_precision_on_a_tpu(name):
    model = LOCALIZERS[name]()
    variables = random_variables(model, PROBS)
    products, convolutions = tpu_products(
        lambda v, x: model.apply(v, x, train=False), variables, PROBS
    )
    # Without matrix products, the last convolution returns the coordinates.
    for line in products or convolutions[-1:]:
        assert "precision = [HIGHEST, HIGHEST]" in line or line.count("precision HIGHEST") == 2


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda probs: localizer_input(probs, NINETEEN), [(2, 128, 128, 19)]),
        (geometry.compose_theta, [(2, 2, 3), (2, 2, 3)]),
        (
            lambda image, theta: ops.crop_bilinear(image, theta, (15, 15), axis_aligned=True),
            [(2, 64, 64, 3), (2, 2, 3)],
        ),
    ],
)
def test_coordinates_are_used_in_full_precision_on_a_tpu(function, shapes):
    products, _ = tpu_products(function, *map(jnp.zeros, shapes))
    assert products
    for line in products:
        assert "precision = [HIGHEST, HIGHEST]" in line


@pytest.mark.parametrize(
    ("name", "count"), [("small", 5_172), ("vgg9", 150_120), ("resnet18", 11_213_796)]
)
def test_parameter_counts(name, count):
    shapes = jax.eval_shape(
        lambda x: LOCALIZERS[name]().init(jax.random.key(0), x, train=False), PROBS
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count


@pytest.mark.parametrize("name", LOCALIZERS)
def test_wrong_inputs_are_named(name):
    with pytest.raises(ValueError, match="probs has shape"):
        LOCALIZERS[name]().init(jax.random.key(0), PROBS[..., :8], train=False)


class TestCentroid:
    frame, patch = (512, 512), (81, 81)

    def probs_of(self, label_map):
        return jax.nn.one_hot(label_map, 9)

    def test_windows_stand_on_the_parts_whole_pixels(self):
        label_map = jnp.zeros((1, 128, 128), jnp.int32).at[0, 60:63, 40:45].set(5)
        identity = jnp.broadcast_to(jnp.eye(2, 3), (1, 2, 3))
        theta = centroid_theta(self.probs_of(label_map), identity, self.frame, self.patch)
        box = geometry.windows_from_theta(theta, self.frame)[0, 4]
        x, y = round(42 * 511 / 127), round(61 * 511 / 127)
        np.testing.assert_allclose(box, [x - 40, y - 40, x + 40, y + 40], atol=1e-3)

    def test_region_moves_the_windows_into_the_frame(self):
        label_map = jnp.zeros((1, 128, 128), jnp.int32).at[0, 0, 0].set(5)
        region = geometry.theta_from_windows(jnp.array([[100.0, 60.0, 300.0, 400.0]]), self.frame)
        theta = centroid_theta(self.probs_of(label_map), region, self.frame, self.patch)
        box = geometry.windows_from_theta(theta, self.frame)[0, 4]
        np.testing.assert_allclose(box, [60, 20, 140, 100], atol=1e-3)

    def test_no_gradient(self):
        identity = jnp.broadcast_to(jnp.eye(2, 3), (2, 2, 3))

        def total(probs):
            return jnp.sum(centroid_theta(probs, identity, self.frame, self.patch))

        np.testing.assert_array_equal(jax.grad(total)(PROBS), jnp.zeros_like(PROBS))


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCALIZERS)
def test_gradients_compile_and_reach_every_kernel(name):
    model = LOCALIZERS[name]()
    variables = random_variables(model, PROBS)

    def total(params):
        theta, _ = model.apply(
            variables | {"params": params}, PROBS, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(theta**2)

    for path, gradient in jax.tree_util.tree_leaves_with_path(
        jax.jit(jax.grad(total))(variables["params"])
    ):
        assert np.isfinite(gradient).all(), path
        # A bias in front of a BatchNorm has none but rounding.
        assert path[-1].key == "bias" or np.abs(gradient).max() > 0, path


def test_max_pool_equals_flax():
    rng = np.random.default_rng(0)
    # Few different values, so that many of them tie.
    x = jnp.array(rng.integers(0, 3, (2, 8, 6, 3)), jnp.float32)
    cotangent = jnp.array(rng.normal(size=(2, 4, 3, 3)), jnp.float32)
    (ours, pull), (theirs, pull_theirs) = (
        jax.vjp(pool, x)
        for pool in (
            lambda x: max_pool_2x2(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
            lambda x: nn.max_pool(x, (2, 2), strides=(2, 2)),
        )
    )
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(pull(cotangent)[0], pull_theirs(cotangent)[0])
