import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import BROWS, random_variables
from flax import traverse_util

from jax_stn_icnn import ops
from jax_stn_icnn.data.examples import region_theta
from jax_stn_icnn.geometry import compose_theta, theta_from_windows
from jax_stn_icnn.models.bridge import (
    Bridge,
    BridgeOutput,
    Context,
    apply_bridge,
    bridge_row,
    context_size,
)
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.fine import FineNetworks
from jax_stn_icnn.models.pipeline import STNiCNN, init_variables

KEY = jax.random.key(0)
CONTEXT = Context(
    jax.random.normal(jax.random.fold_in(KEY, 1), (2, 5, 4, 3)),
    jax.random.normal(jax.random.fold_in(KEY, 2), (2, 5)),
)
SIDE = 40
CONFIG = ModelConfig(
    anatomy=BROWS,
    cropper="centroid",
    patch_size=15,
    windows="fitted",
    coarse_network="unet",
    coarse_channels=(4, 4),
    fine_channels=(4, 4, 4),
    interlinks=1,
    bridge=True,
)
MODEL = STNiCNN(CONFIG)
WITHOUT = STNiCNN(CONFIG.replace(bridge=False))


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL)


def by_a_loop(window, face, params):
    """Returns weight and features of one patch, in float64."""
    channels, height, width = window.shape
    padded = np.pad(window, ((0, 0), (1, 1), (1, 1)))
    weight, features = np.empty((height, width)), []
    for y, x in np.ndindex(height, width):
        around = padded[:, y : y + 3, x : x + 3]
        hidden = np.einsum("cij,ijco->o", around, params["window"]["kernel"])
        hidden += params["window"]["bias"]
        hidden += face @ params["face"]["kernel"] + params["face"]["bias"]
        out = np.maximum(hidden, 0) @ params["share"] + params["bias"]
        weight[y, x] = 2 / (1 + np.exp(-out[0]))
        features.append(out[1:])
    return weight, np.array(features).T.reshape(-1, height, width)


def test_equals_a_loop():
    given = random_variables_of(Bridge(6))
    found = Bridge(6).apply(given, CONTEXT)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), given["params"])
    for i in range(2):
        one = (np.asarray(part[i], np.float64) for part in CONTEXT)
        weight, features = by_a_loop(*one, params)
        np.testing.assert_allclose(found.weight[i], weight, atol=1e-5)
        np.testing.assert_allclose(found.features[i], features, atol=1e-5)


def random_variables_of(bridge):
    shapes = jax.eval_shape(lambda: bridge.init(KEY, CONTEXT))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)


@pytest.mark.slow
def test_rows_are_weighted_at_the_position_of_their_pixels():
    sizes = [(16, 12), (8, 6), (4, 3), (2, 2)]
    rows = [jnp.ones((1, 2, *size)) for size in sizes]
    ramp = jnp.linspace(0, 2, 4)[None, :, None] * jnp.ones((1, 1, 3))
    weighted = apply_bridge(rows, BridgeOutput(ramp, jnp.full((1, 2, 4, 3), 10.0)))
    for r, (row, (height, _)) in enumerate(zip(weighted, sizes, strict=True)):
        expected = np.linspace(0, 2, height) + (10 if r == bridge_row(4) else 0)
        np.testing.assert_allclose(row[0, 0], np.tile(expected[:, None], row.shape[3]), atol=1e-6)


@pytest.mark.parametrize(("rows", "size"), [(4, (32, 9)), (3, (32, 9)), (2, (64, 17))])
def test_the_context_has_the_size_of_its_row(rows, size):
    assert context_size((127, 33), rows) == size


def test_bfloat16_stays_near_float32():
    given = random_variables_of(Bridge(6))
    given["params"]["share"] *= 0.1
    exact, half = (Bridge(6, dtype).apply(given, CONTEXT) for dtype in (jnp.float32, jnp.bfloat16))
    assert half.features.dtype == jnp.bfloat16
    assert 0 < np.abs(half.features - exact.features).max() < 0.1


def random_frames(seed=0):
    return jax.random.uniform(jax.random.key(seed), (2, SIDE, SIDE, 3))


def coarse_output(variables, frame):
    image = ops.resize_bilinear(frame, CONFIG.coarse_image_size)
    return MODEL.apply(variables, image, method="coarse_stage")


@pytest.mark.slow
def test_adding_a_bridge_does_not_change_the_output(variables):
    flat = traverse_util.flatten_dict(variables)
    before = {
        path: value
        for path, value in flat.items()
        if not any(name.startswith("bridge") for name in path)
    }

    @functools.partial(jax.jit, static_argnums=0)
    def fine_logits(model, given):
        return jnp.concatenate([x.ravel() for x in model.apply(given, random_frames()).fine_logits])

    fresh = traverse_util.flatten_dict(init_variables(MODEL, 0))
    extended = traverse_util.unflatten_dict({path: before.get(path, fresh[path]) for path in flat})
    expected = fine_logits(WITHOUT, traverse_util.unflatten_dict(before))
    np.testing.assert_allclose(fine_logits(MODEL, extended), expected, atol=1e-6)
    assert np.abs(fine_logits(MODEL, variables) - expected).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("bridge", [True, False])
def test_the_fine_loss_reaches_the_coarse_network_without_theta(variables, bridge):
    model = MODEL if bridge else WITHOUT
    theta = jnp.tile(jnp.array([[0.5, 0, 0.1], [0, 0.5, -0.1]]), (2, 2, 1, 1))

    def fine_loss(params):
        given = {"params": variables["params"] | {"coarse": params}}
        given["batch_stats"] = variables["batch_stats"]
        frame = random_frames()
        coarse = coarse_output(given, frame)
        # A fixed theta: no gradient reaches the coarse network through it.
        _, logits = model.apply(given, frame, theta, coarse, method="fine_stage")
        return sum(jnp.sum(jnp.sin(one)) for one in logits)

    gradient = jax.jit(jax.grad(fine_loss))(variables["params"]["coarse"])
    assert np.any(gradient["down_0"]["conv"]["kernel"] != 0) == bridge
    assert np.any(gradient["bridge"]["kernel"] != 0) == bridge


@pytest.mark.slow
def test_sides_of_a_mirrored_face_are_parsed_alike(variables):
    """Brow 2 of a mirrored face is what brow 1 was."""
    frame = random_frames()
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.standard_normal((2, 128, 128, 4)), jnp.float32)
    features = jnp.asarray(rng.standard_normal((2, 8, 128, 128)), jnp.float32)
    theta = jnp.array([[0.4, 0, -0.3], [0, 0.4, 0.2]]) * jnp.ones((2, 2, 1, 1))
    mirrored = theta * jnp.array([[1, 1, -1], [1, 1, 1]])

    @jax.jit
    def parse(frame, logits, features, theta):
        coarse = coarse_output(variables, random_frames())
        coarse = coarse._replace(logits=logits, features=features)
        return MODEL.apply(variables, frame, theta, coarse, method="fine_stage")[1]

    one = parse(frame, logits, features, theta)
    other = parse(
        frame[:, :, ::-1],
        logits[:, :, ::-1][..., jnp.array(BROWS.mirror_ids)],
        features[..., ::-1],
        mirrored,
    )
    np.testing.assert_allclose(other[1], one[0][:, :, ::-1], atol=1e-4)
    np.testing.assert_allclose(other[0], one[1][:, :, ::-1], atol=1e-4)


@pytest.mark.slow
def test_a_picture_within_its_frame_has_the_context_it_has_alone(variables):
    picture = random_frames()
    size, (top, left) = 64, (10, 4)
    around = jnp.zeros((2, size, size, 3))
    around = around.at[:, top : top + SIDE, left : left + SIDE].set(picture)
    region = jnp.tile(region_theta(top, left, SIDE, SIDE, size), (2, 1, 1))
    window = jnp.array([8.0, 10, 22, 24]) * jnp.ones((2, 2, 1))  # whole pixels, well within
    alone = theta_from_windows(window, (SIDE, SIDE))

    @jax.jit
    def parse(frame, theta, region=None):
        coarse = coarse_output(variables, picture)
        return MODEL.apply(variables, frame, theta, coarse, region, method="fine_stage")[1]

    found = parse(around, compose_theta(region[:, None], alone), region)
    for one, other in zip(found, parse(picture, alone), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_missing_inputs_are_named(variables):
    theta = jnp.zeros((2, 2, 2, 3))
    with pytest.raises(ValueError, match="coarse is None, but a model with a bridge needs it"):
        MODEL.apply(variables, random_frames(), theta, method="fine_stage")
    patches = [jnp.zeros((1, 15, 15, 3))] * 2
    with pytest.raises(ValueError, match="bridge is True, but contexts are missing"):
        FineNetworks(CONFIG).init(KEY, patches, False)
