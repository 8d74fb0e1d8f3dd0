import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import BROWS, random_variables, small_model
from test_step import make_batch

from jax_stn_icnn.data.config import AugmentConfig
from jax_stn_icnn.data.examples import region_theta
from jax_stn_icnn.data.inputs import make_inputs
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import losses, objective, step
from jax_stn_icnn.train.stages import DISTILLED, Consensus, Edges, Stage
from jax_stn_icnn.train.state import enter_stage, new_state, update_average

SIZE, BATCH = 48, 4
MODEL = small_model(
    anatomy=BROWS,
    cropper="vgg9",
    windows="fitted",
    coarse_network="unet",
    coarse_size=32,
    coarse_stride=2,
    bridge=True,
)
WEIGHTS = {"coarse": 1.0, "localizer": 2.0, "fine": 1.0}
WEIGHTS |= {name + DISTILLED: weight for name, weight in WEIGHTS.items()}
AUGMENTATION = AugmentConfig(
    mirror=True,
    grayscale=0.5,
    occlusion=0.3,
    resolution=1.0,
    noise=0.1,
    jpeg=1.0,
    rotation=20.0,
)


def make_stage(*networks):
    rates = dict.fromkeys(networks, 1e-3)
    return Stage("distill", 1, rates, WEIGHTS, ema_decay=0.9)


def with_unlabelled(seed):
    batch = make_batch(seed, BATCH, SIZE, num_classes=4)
    rng = np.random.default_rng(100 + seed)
    unlabelled = {
        "unlabelled": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8),
        "unlabelled_region": np.tile(region_theta(0, 0, SIZE, SIZE, SIZE), (BATCH, 1, 1)),
    }
    return batch | unlabelled


class TestLoss:
    rng = np.random.default_rng(0)
    logits, teacher = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5))

    def test_is_the_mean_divergence_of_pixels(self):
        p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (self.teacher, self.logits))
        expected = np.mean(np.sum(p * np.log(p / q), axis=-1))
        loss = losses.distillation_loss(jnp.float32(self.logits), jnp.float32(self.teacher))
        np.testing.assert_allclose(loss, expected, rtol=1e-5)

    def test_has_no_gradient_for_the_teacher(self):
        logits, teacher = jnp.float32(self.logits), jnp.float32(self.teacher)
        gradients = jax.grad(losses.distillation_loss, argnums=(0, 1))(logits, teacher)
        assert np.any(gradients[0] != 0) and not np.any(gradients[1])
        assert losses.distillation_loss(teacher, teacher) == pytest.approx(0, abs=1e-6)

    def test_shapes_are_checked(self):
        with pytest.raises(ValueError, match="teacher_logits has shape"):
            losses.distillation_loss(jnp.zeros((1, 2, 3)), jnp.zeros((1, 2, 4)))


def test_the_average_has_its_decay():
    average = {"w": jnp.array([1.0])}
    for value in (2.0, 4.0):
        average = update_average(average, {"w": jnp.array([value])}, 0.75)
    np.testing.assert_allclose(average["w"], (1 * 0.75 + 2 * 0.25) * 0.75 + 4 * 0.25)


def test_a_stage_starts_from_the_average_of_the_one_before():
    first = {"params": {"w": jnp.array([1.0])}, "batch_stats": {"m": jnp.array([2.0])}}
    state = enter_stage(new_state(first), optax.sgd(1.0), has_average=True)
    jax.tree.map(np.testing.assert_array_equal, state.ema_variables, first)
    average = update_average(state.ema_variables, jax.tree.map(lambda x: x + 1, first), 0.5)
    state = dataclasses.replace(state, params={"w": jnp.array([9.0])}, ema_variables=average)
    for has_average in (True, False):
        later = enter_stage(state, optax.sgd(1.0), has_average)
        found = {"params": later.params, "batch_stats": later.batch_stats}
        jax.tree.map(np.testing.assert_array_equal, found, average)
        assert bool(later.ema_variables) == has_average


@pytest.fixture(scope="module")
def found():
    """Returns the mean and size of each term of a stage that trains nothing: of labelled images and
    of all with the same teacher, and of all with another teacher.
    """
    keys = jax.random.split(jax.random.key(0), 2)
    batch = {name: value[:2] for name, value in with_unlabelled(0).items()}
    variables = random_variables(MODEL)

    @jax.jit
    def terms(batch, teacher):
        inputs = make_inputs(batch, keys, MODEL.config, with_teacher=True)
        args = inputs, keys, make_stage(), 1.0, teacher
        terms, _ = MODEL.apply(
            variables, *args, method=objective.loss_terms, mutable=["batch_stats"]
        )
        return {name: (term.mean, term.size) for name, term in terms.items()}

    labelled = {name: value for name, value in batch.items() if "unlabelled" not in name}
    return (
        terms(labelled, variables),
        terms(batch, variables),
        terms(batch, random_variables(MODEL, seed=1)),
    )


@pytest.mark.slow
def test_the_teacher_has_no_photometric_augmentation():
    batch = with_unlabelled(0)
    keys = jax.random.split(jax.random.key(0), BATCH)

    @jax.jit
    def inputs_of(batch):
        augmentation = AugmentConfig(grayscale=1.0)
        return make_inputs(batch, keys, MODEL.config, augmentation, with_teacher=True)

    inputs = inputs_of(batch)
    assert inputs.num_labelled == BATCH
    image, frame = inputs.teacher
    expected = np.concatenate([batch["frame"], batch["unlabelled"]]) / np.float32(255)
    np.testing.assert_allclose(frame, expected, atol=1e-6)
    assert image.shape == inputs.coarse_image.shape
    assert np.ptp(image, axis=-1).max() > 0.1 > 1e-5 > np.ptp(inputs.coarse_image, axis=-1).max()
    assert not np.any(inputs.labels[BATCH:]) and not np.any(inputs.present[BATCH:])


@pytest.mark.slow
def test_unlabelled_images_are_in_the_terms_that_need_no_labels(found):
    labelled, both, _ = found
    for name in ("coarse", "localizer", "fine"):
        np.testing.assert_allclose(both[name][0], labelled[name][0], rtol=1e-4)
        assert both[name][1] == labelled[name][1]
        assert both[name + DISTILLED][1] == 2 * labelled[name + DISTILLED][1] == 4


@pytest.mark.slow
def test_the_distance_from_an_equal_teacher_is_0(found):
    _, same, other = found
    for name in ("coarse", "localizer", "fine"):
        assert same[name + DISTILLED][0] == pytest.approx(0, abs=1e-5)
        assert other[name + DISTILLED][0] > 1e-4


@pytest.mark.slow
def test_one_device_equals_four_with_every_option(monkeypatch):
    config = MODEL.config.replace(
        cropper="centroid", coarse_channels=(4, 16), attention=1, edge_head=True
    )
    model = STNiCNN(config, step.AXIS)
    variables = random_variables(model)
    tx = optax.sgd(1e-3)
    monkeypatch.setattr(step, "make_optimizer", lambda *_: tx)
    stage = dataclasses.replace(
        make_stage("coarse"), consensus=Consensus(coarse=0.1), edges=Edges(coarse=0.1, task=0.1)
    )
    states, losses_found = {}, {}
    for count in (1, 4):
        state = jax.tree.map(np.array, enter_stage(new_state(variables), tx, has_average=True))
        take_step = step.compile_train_step(
            model,
            stage,
            1,
            1,
            jax.eval_shape(lambda state: state, state),
            with_unlabelled(0),
            seed=1,
            augmentation=AUGMENTATION,
            devices=jax.devices()[:count],
        )
        losses_found[count] = []
        for i in range(2):
            state, metrics = take_step(state, with_unlabelled(i))
            losses_found[count].append(float(metrics["loss"][0]))
        states[count] = jax.device_get(state)
    np.testing.assert_allclose(losses_found[4], losses_found[1], rtol=1e-4)
    one, four = states[1], states[4]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4),
        (one.params, one.ema_variables),
        (four.params, four.ema_variables),
    )
    # The fine networks are frozen, so that their average differs by rounding only.
    for collection, trees in (("params", four.params), ("batch_stats", four.batch_stats)):
        initial, average = variables[collection]["fine"], four.ema_variables[collection]["fine"]
        jax.tree.map(np.testing.assert_array_equal, trees["fine"], initial)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), average, initial
        )
    trained, average, initial = (
        tree["coarse"]["down_0"]["conv"]["kernel"]
        for tree in (four.params, four.ema_variables["params"], variables["params"])
    )
    assert np.any(trained != initial)
    assert 0 < np.abs(average - initial).max() < np.abs(trained - initial).max()
