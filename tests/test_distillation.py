import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import BROWS, random_variables, small_model
from test_step import make_batch

from jax_stn_icnn.data.inputs import make_inputs
from jax_stn_icnn.data.loader import region_theta
from jax_stn_icnn.data.photometric import Strengths
from jax_stn_icnn.models.pipeline import STNiCNN, init_variables
from jax_stn_icnn.train import losses, objective, step
from jax_stn_icnn.train.distillation import update_teacher
from jax_stn_icnn.train.stages import DISTILLED, Consensus, Distillation, Edges, Stage
from jax_stn_icnn.train.state import TrainState

SIZE, BATCH = 48, 4
MODEL = small_model(
    anatomy=BROWS, windows="fitted", coarse_network="unet", coarse_stride=2, bridge=True
)
WEIGHTS = {"coarse": 1.0, "localizer": 2.0, "fine": 1.0}
WEIGHTS |= {name + DISTILLED: weight for name, weight in WEIGHTS.items()}
PHOTO = Strengths(grayscale=0.5, occlusion=0.3, resolution=1.0, noise=0.1, jpeg=1.0, rotation=20.0)


def make_stage(*networks):
    rates = {network: 1e-3 for network in networks}
    return Stage(
        "distill", 1, rates, WEIGHTS, part_weights=(1, 1), distillation=Distillation(1.0, 0.9)
    )


def with_unlabelled(seed):
    batch = make_batch(seed, BATCH, SIZE, num_classes=4)
    rng = np.random.default_rng(100 + seed)
    more = {
        "unlabelled": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8),
        "unlabelled_region": np.tile(region_theta(0, 0, SIZE, SIZE, SIZE), (BATCH, 1, 1)),
    }
    return batch | more


class TestLoss:
    rng = np.random.default_rng(0)
    logits, answers = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5))

    def test_is_the_mean_divergence_of_pixels(self):
        p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (self.answers, self.logits))
        expected = np.mean(np.sum(p * np.log(p / q), axis=-1))
        found = losses.distillation_loss(jnp.float32(self.logits), jnp.float32(self.answers))
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_leads_to_the_answers_and_does_not_move_them(self):
        given = jnp.float32(self.logits), jnp.float32(self.answers)
        toward, moved = jax.grad(losses.distillation_loss, argnums=(0, 1))(*given)
        assert np.any(toward != 0) and not np.any(moved)
        assert losses.distillation_loss(given[1], given[1]) == pytest.approx(0, abs=1e-6)

    def test_shapes_are_checked(self):
        with pytest.raises(ValueError, match="answers has shape"):
            losses.distillation_loss(jnp.zeros((1, 2, 3)), jnp.zeros((1, 2, 4)))


def test_the_average_forgets_at_its_rate():
    kept = {"w": jnp.array([1.0])}
    for value in (2.0, 4.0):
        kept = update_teacher(kept, {"w": jnp.array([value])}, Distillation(1.0, 0.75))
    np.testing.assert_allclose(kept["w"], (1 * 0.75 + 2 * 0.25) * 0.75 + 4 * 0.25)


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL)


@pytest.fixture(scope="module")
def found(variables):
    """The terms of a stage in which nothing learns: of labelled pictures and of both, with an
    average that says the same; and of both with another one.
    """
    keys = jax.random.split(jax.random.key(0), 2)
    batch = {name: value[:2] for name, value in with_unlabelled(0).items()}

    @jax.jit
    def terms(batch, ema_variables):
        inputs = make_inputs(batch, keys, MODEL.config, False, False, with_teacher=True)
        given = inputs, keys, make_stage(), 1.0, ema_variables
        terms, _ = MODEL.apply(
            variables, *given, method=objective.loss_terms, mutable=["batch_stats"]
        )
        return {name: (term.mean, term.count) for name, term in terms.items()}

    labelled = {name: value for name, value in batch.items() if "unlabelled" not in name}
    other = init_variables(MODEL, 1)
    return (
        terms(labelled, variables),
        terms(batch, variables),
        terms(batch, other),
    )


def test_the_average_sees_faces_as_they_are():
    batch = with_unlabelled(0)
    keys = jax.random.split(jax.random.key(0), BATCH)
    grey = Strengths(grayscale=1.0)
    inputs = jax.jit(
        lambda b: make_inputs(b, keys, MODEL.config, False, False, grey, with_teacher=True)
    )(batch)
    assert inputs.num_labelled == BATCH
    image, frame = inputs.teacher
    expected = np.concatenate([batch["frame"], batch["unlabelled"]]) / np.float32(255)
    np.testing.assert_allclose(frame, expected, atol=1e-6)
    assert image.shape == inputs.coarse_image.shape
    assert np.ptp(image, axis=-1).max() > 0.1 > 1e-5 > np.ptp(inputs.coarse_image, axis=-1).max()
    assert not np.any(inputs.labels[BATCH:]) and not np.any(inputs.present[BATCH:])


@pytest.mark.slow
def test_pictures_without_labels_take_part_in_what_needs_none(found):
    labelled, both, *_ = found
    for name in ("coarse", "localizer", "fine"):
        np.testing.assert_allclose(both[name][0], labelled[name][0], rtol=1e-4)
        assert both[name][1] == labelled[name][1]
        assert both[name + DISTILLED][1] == 2 * labelled[name + DISTILLED][1] == 4


@pytest.mark.slow
def test_nothing_is_to_be_learnt_from_an_average_that_says_the_same(found):
    _, same, other = found
    for name in ("coarse", "localizer", "fine"):
        assert same[name + DISTILLED][0] == pytest.approx(0, abs=1e-5)
        assert other[name + DISTILLED][0] > 1e-4


@pytest.mark.slow
def test_one_device_and_four_agree_with_every_switch_on(monkeypatch):
    config = MODEL.config.replace(
        cropper="centroid", coarse_channels=(4, 16), coarse_size=32, attention=1, edge_head=True
    )
    model = STNiCNN(config, step.AXIS)
    variables = init_variables(model, 0)
    tx = optax.sgd(1e-3)
    monkeypatch.setattr(step, "make_optimizer", lambda *_: tx)
    stage = dataclasses.replace(
        make_stage("coarse"),
        consensus=Consensus(coarse=0.1, regions="connected"),
        edges=Edges(coarse=0.1, task=0.1),
    )
    states, losses_found = {}, {}
    for count in (1, 4):
        params, batch_stats = variables["params"], variables["batch_stats"]
        ema_variables = jax.tree.map(np.array, variables)
        state = TrainState(np.int32(0), params, batch_stats, tx.init(params), ema_variables)
        shapes = jax.eval_shape(lambda state: state, state)
        take_step = step.compile_train_step(
            model, stage, 1, 1, shapes, with_unlabelled(0), seed=1, augmented=False, mirrored=True,
            photo=PHOTO, devices=jax.devices()[:count],
        )  # fmt: skip
        losses_found[count] = []
        for i in range(3):
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
    # Fine networks were to learn nothing, so their average stays as well, but for rounding.
    begun = variables["params"]["fine"]
    jax.tree.map(np.testing.assert_array_equal, four.params["fine"], begun)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        four.ema_variables["params"]["fine"],
        begun,
    )
    moved, kept, begun = (
        tree["coarse"]["down_0"]["conv"]["kernel"]
        for tree in (four.params, four.ema_variables["params"], variables["params"])
    )
    assert np.any(moved != begun)
    assert 0 < np.abs(kept - begun).max() < np.abs(moved - begun).max()
