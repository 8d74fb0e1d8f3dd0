"""Sampling by products, as a TPU does it, gives what looking pixels up gives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_stn_icnn.data.views import coarse_view

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.anatomy import NINE, NINETEEN
from jax_stn_icnn.models.pipeline import STNiCNN, variable_shapes
from jax_stn_icnn.ops import gather, matmul
from jax_stn_icnn.ops.paste import _by_lookups, _by_products

# Of no use without a TPU; CI runs them.
pytestmark = pytest.mark.slow

PATCH = (9, 11)


def upright_theta(key, shape, shift=1.0):
    scale, centre = (jax.random.uniform(k, (*shape, 2), minval=-1.0) for k in jax.random.split(key))
    scale, centre = 0.5 + 0.4 * scale, shift * centre
    return geometry.make_theta(scale[..., 0], scale[..., 1], centre[..., 0], centre[..., 1])


@pytest.mark.parametrize("frame", [(17, 23), (32, 32), (2, 2), (1, 9), (9, 1)])
@pytest.mark.parametrize("shift", [0.3, 1.5])
def test_bilinear_in_value_and_gradients(x64, frame, shift):
    keys = jax.random.split(jax.random.key(0), 3)
    image = jax.random.normal(keys[0], (*frame, 3), jnp.float64)
    theta = upright_theta(keys[1], (4,), shift).astype(jnp.float64)
    cotangent = jax.random.normal(keys[2], (4, *PATCH, 3), jnp.float64)
    for name, given in (("bilinear", ()), ("bilinear_gradients", (cotangent,))):
        ours, expected = (
            jax.jit(partial(getattr(way, name), size=PATCH))(image, theta, *given)
            for way in (matmul, gather)
        )
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_bilinear_at_whole_pixels_to_the_bit_and_with_the_same_gradient():
    side, patch = 64, (13, 13)
    image = jax.random.uniform(jax.random.key(0), (side, side, 2))
    centres = [(6, 6), (20, 41), (57, 57), (61, 3)]
    theta = geometry.theta_from_centres(jnp.array(centres, jnp.float32), (side, side), patch)
    cotangent = jax.random.normal(jax.random.key(1), (4, *patch, 2))
    np.testing.assert_array_equal(
        matmul.bilinear(image, theta, patch), gather.bilinear(image, theta, patch)
    )
    ours, expected = (
        way.bilinear_gradients(image, theta, cotangent, patch)[1] for way in (matmul, gather)
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.float32, jnp.bfloat16])
def test_nearest_to_the_bit(dtype):
    image = jax.random.uniform(jax.random.key(0), (21, 30, 2), maxval=256.0).astype(dtype)
    theta = upright_theta(jax.random.key(1), (3, 2), 1.5)
    # Every second of this one's pixels falls between two.
    halves = geometry.make_theta(*jnp.array([1.0, 1.0, 0.0, 0.0]))
    for matrices, size in ((theta, PATCH), (halves, (41, 59))):
        found = matmul.nearest(image, matrices, size)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, gather.nearest(image, matrices, size))


@pytest.mark.parametrize("largest", [10 / 59, 0.9])
def test_paste_in_value_and_gradient(largest):
    keys = jax.random.split(jax.random.key(0), NINE.num_parts + 1)
    # Windows as small as their patches, and such as fill the frame: looked up in either way.
    theta = upright_theta(keys[-1], (3, NINE.num_parts)) * jnp.array([largest, 1.0, 1.0])
    scores = tuple(
        jax.nn.softmax(jax.random.normal(key, (3, *PATCH, NINE.networks[part.network])))
        for key, part in zip(keys, NINE.parts, strict=False)
    )
    found = []
    for way in (_by_products, _by_lookups):
        value, pull = jax.vjp(lambda scores, way=way: way(scores, theta, (45, 60)), scores)
        found.append((value, pull(jnp.sin(jnp.arange(value.size)).reshape(value.shape))[0]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    for ours, expected in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_pick_is_indexing():
    image = jax.random.randint(jax.random.key(0), (8, 9, 1), 0, 19)
    rows, columns = jnp.array([0, 3, 3, 7]), jnp.array([8, 0, 5])
    picked = matmul.pick(image, rows, columns)
    np.testing.assert_array_equal(picked, image[rows[:, None], columns])


def test_a_turned_window_gives_no_numbers():
    theta = upright_theta(jax.random.key(0), (2,)).at[1, 0, 1].set(0.1)
    patches = matmul.bilinear(jnp.ones((16, 16, 1)), theta, PATCH)
    assert jnp.isfinite(patches[0]).all() and jnp.isnan(patches[1]).all()


def program(function, *given, platform):
    """What is given to the platform's compiler."""
    return jax.jit(function).trace(*given).lower(lowering_platforms=(platform,)).as_text()


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def resize_and_parse(variables, frame, model):
    coarse_image = ops.resize_bilinear(frame, model.coarse_image_size)
    return model.apply(variables, coarse_image, frame).labels


def labels_of_parts(label_map, theta):
    return ops.crop_part_labels(label_map, theta, PATCH, NINETEEN, axis_aligned=True)


def gradients_of_crop(image, theta):
    def total(image, theta):
        return jnp.sum(ops.crop_parts(image, theta, PATCH, axis_aligned=True) ** 2)

    return jax.grad(total, argnums=(0, 1))(image, theta)


LABELS, THETA = shape(2, 48, 48, dtype=jnp.int32), shape(2, NINE.num_parts, 2, 3)


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (labels_of_parts, (LABELS, THETA)),
        (gradients_of_crop, (shape(2, 48, 48, 3), THETA)),
        (coarse_view, (shape(2, 48, 48, 3), LABELS, shape(2, 2, 3))),
        (partial(ops.enlarge, size=(48, 48)), (shape(2, 16, 16, 11),)),
    ],
)
def test_on_a_tpu_nothing_is_looked_up(function, given):
    assert "gather" in program(function, *given, platform="cpu")
    on_tpu = program(function, *given, platform="tpu")
    assert all(word not in on_tpu for word in ("gather", "scatter", "while"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        STNiCNN(PATCH),
        STNiCNN(
            NINETEEN.fitted_sizes(15),
            anatomy=NINETEEN,
            coarse_network="unet",
            coarse_stride=2,
            bridge=True,
            following=True,
        ),
    ],
    ids=["nine", "whole"],
)
def test_on_a_tpu_parsing_looks_nothing_up(model):
    given = variable_shapes(model), shape(2, 48, 48, 3)
    on_tpu = program(partial(resize_and_parse, model=model), *given, platform="tpu")
    assert "convolution" in on_tpu
    assert all(word not in on_tpu for word in ("gather", "while"))
