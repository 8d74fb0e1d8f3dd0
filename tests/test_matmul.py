"""Sampling by matrix multiplication, as on a TPU, equals sampling by gathering pixels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.anatomy import NINE, NINETEEN
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN, variable_shapes
from jax_stn_icnn.ops import gather, matmul
from jax_stn_icnn.ops.platform import use_platform

# Needed on a TPU only; CI runs them.
pytestmark = pytest.mark.slow

PATCH = (9, 11)


def axis_aligned_theta(key, shape, shift=1.0):
    scale, centre = (jax.random.uniform(k, (*shape, 2), minval=-1.0) for k in jax.random.split(key))
    scale, centre = 0.5 + 0.4 * scale, shift * centre
    return geometry.make_theta(scale[..., 0], scale[..., 1], centre[..., 0], centre[..., 1])


@pytest.mark.parametrize("frame", [(17, 23), (32, 32), (2, 2), (1, 9), (9, 1)])
@pytest.mark.parametrize("shift", [0.3, 1.5])
def test_bilinear_in_value_and_gradients(x64, frame, shift):
    keys = jax.random.split(jax.random.key(0), 3)
    image = jax.random.normal(keys[0], (*frame, 3), jnp.float64)
    theta = axis_aligned_theta(keys[1], (4,), shift).astype(jnp.float64)
    cotangent = jax.random.normal(keys[2], (4, *PATCH, 3), jnp.float64)
    for name, given in (("bilinear", ()), ("bilinear_gradients", (cotangent,))):
        ours, expected = (
            jax.jit(partial(getattr(module, name), size=PATCH))(image, theta, *given)
            for module in (matmul, gather)
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
        module.bilinear_gradients(image, theta, cotangent, patch)[1] for module in (matmul, gather)
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.float32, jnp.bfloat16])
def test_nearest_to_the_bit(dtype):
    image = jax.random.uniform(jax.random.key(0), (21, 30, 2), maxval=256.0).astype(dtype)
    theta = axis_aligned_theta(jax.random.key(1), (3, 2), 1.5)
    # Every second of this one's pixels falls between two.
    halves = geometry.make_theta(*jnp.array([1.0, 1.0, 0.0, 0.0]))
    for matrices, size in ((theta, PATCH), (halves, (41, 59))):
        found = matmul.nearest(image, matrices, size)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, gather.nearest(image, matrices, size))


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
@pytest.mark.parametrize("largest", [10 / 59, 0.9])
def test_paste_in_value_and_gradient(largest, platform):
    keys = jax.random.split(jax.random.key(0), NINE.num_parts + 1)
    # Windows as small as their patches, and windows as large as the frame.
    theta = axis_aligned_theta(keys[-1], (3, NINE.num_parts)) * jnp.array([largest, 1.0, 1.0])
    scores = tuple(
        jax.nn.softmax(jax.random.normal(key, (3, *PATCH, NINE.networks[part.network])))
        for key, part in zip(keys, NINE.parts, strict=False)
    )

    def value_and_gradient(platform):
        with use_platform(platform):
            value, transpose = jax.vjp(
                lambda scores: ops.paste(scores, theta, (45, 60), axis_aligned=True), scores
            )
            return value, transpose(jnp.sin(jnp.arange(value.size)).reshape(value.shape))[0]

    (value, gradient), (expected, expected_gradient) = map(value_and_gradient, (platform, "cpu"))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for ours, theirs in zip(gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_take_is_indexing():
    image = jax.random.randint(jax.random.key(0), (8, 9, 1), 0, 19)
    rows, columns = jnp.array([0, 3, 3, 7]), jnp.array([8, 0, 5])
    taken = matmul.take(image, rows, columns)
    np.testing.assert_array_equal(taken, image[rows[:, None], columns])


def test_a_rotated_window_gives_nan():
    theta = axis_aligned_theta(jax.random.key(0), (2,)).at[1, 0, 1].set(0.1)
    patches = matmul.bilinear(jnp.ones((16, 16, 1)), theta, PATCH)
    assert jnp.isfinite(patches[0]).all() and jnp.isnan(patches[1]).all()


def program(function, *arguments, platform):
    """Returns the program that the platform's compiler is given."""
    with use_platform(platform):
        traced = jax.jit(function).trace(*arguments)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def part_labels(label_map, theta):
    return ops.crop_part_labels(label_map, theta, PATCH, NINETEEN, axis_aligned=True)


def gradients_of_crop(image, theta):
    def total(image, theta):
        patches = ops.crop_parts(image, theta, PATCH, axis_aligned=True)
        return sum(jnp.sum(patch**2) for patch in patches)

    return jax.grad(total, argnums=(0, 1))(image, theta)


LABELS, THETA = shape(2, 48, 48, dtype=jnp.int32), shape(2, NINE.num_parts, 2, 3)
REGION = shape(2, 2, 3)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (part_labels, (LABELS, THETA)),
        (gradients_of_crop, (shape(2, 48, 48, 3), THETA)),
        (partial(ops.coarse_image, size=(128, 128)), (shape(2, 48, 48, 3), REGION)),
        (partial(ops.coarse_labels, size=(128, 128)), (LABELS, REGION)),
        (partial(ops.upsample_bilinear, size=(48, 48)), (shape(2, 16, 16, 11),)),
    ],
)
def test_a_tpu_gathers_nothing(function, arguments):
    assert "gather" in program(function, *arguments, platform="cpu")
    on_tpu = program(function, *arguments, platform="tpu")
    assert all(word not in on_tpu for word in ("gather", "scatter", "while"))


def test_images_are_sampled_at_positions():
    image = jax.random.uniform(jax.random.key(0), (2, 3, 9, 7))
    rows, columns = np.linspace(0, 8, 20), np.array([0.25, 3.0, 5.9])
    expected = image
    for axis, positions in ((2, rows), (3, columns)):
        expected = np.apply_along_axis(
            lambda x, at: np.interp(at, np.arange(len(x)), x), axis, expected, positions
        )
    np.testing.assert_allclose(matmul.resample(image, rows, columns), expected, atol=1e-6)


FULL = ModelConfig(
    anatomy=NINETEEN,
    patch_size=15,
    windows="fitted",
    coarse_network="unet",
    coarse_stride=2,
    bridge=True,
    wide=True,
)


@pytest.mark.parametrize("config", [ModelConfig(patch_size=9), FULL], ids=["nine", "full face"])
def test_a_tpu_gathers_nothing_in_a_parse(config):
    model = STNiCNN(config)

    def labels(variables, frame, wide_frame=None):
        return model.apply(variables, frame, wide_frame=wide_frame).labels

    frames = [shape(2, 48, 48, 3), shape(2, *config.coarse_image_size, 3)][: 1 + config.wide]
    on_tpu = program(labels, variable_shapes(model), *frames, platform="tpu")
    assert "convolution" in on_tpu
    assert all(word not in on_tpu for word in ("gather", "while", "stablehlo.case"))


@pytest.mark.parametrize("platform", ["cpu", "gpu", "onnx"])
def test_a_parse_contains_no_choice_of_an_implementation(platform):
    model = STNiCNN(ModelConfig(patch_size=9))
    lowering = {"gpu": "cuda", "onnx": "cpu"}.get(platform, platform)
    with use_platform(platform):
        traced = jax.jit(model.apply).trace(variable_shapes(model), shape(1, 48, 48, 3))
    text = traced.lower(lowering_platforms=(lowering,)).as_text()
    assert "stablehlo.case" not in text and "platform_index" not in text
