"""Flip testing, against two calls of the same network."""

import dataclasses

import jax
import numpy as np
import pytest
from conftest import SMALL, random_variables
from test_step import make_batch

from jax_stn_icnn.anatomy import NINETEEN
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import step
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.stages import Stage
from jax_stn_icnn.train.state import TrainState

UNET = {"coarse_network": "unet", "coarse_stride": 2, "edges": True, "bridge": True}
MODELS = {
    "icnn": STNiCNN((15, 15), "small", NINETEEN, **SMALL),
    "unet": STNiCNN((15, 15), "small", NINETEEN, **UNET, **SMALL),
}
SIDES = {"icnn": 128, "unet": 256}


def variables_of(model, side):
    inputs = np.zeros((1, side, side, 3), np.float32), np.zeros((1, 32, 32, 3), np.float32)
    return random_variables(model, *inputs)


@pytest.fixture(scope="module", params=MODELS)
def answers(request):
    """What a model says without and with flip testing: of pictures, then of their mirror images."""
    model, side = MODELS[request.param], SIDES[request.param]
    variables = variables_of(model, side)
    images = np.random.default_rng(0).random((2, side, side, 3), np.float32)

    @jax.jit
    def ask(images):
        flipped = dataclasses.replace(model, flip_test=True)
        return [m.apply(variables, images, method="coarse_stage") for m in (model, flipped)]

    return ask(images), ask(images[:, :, ::-1])


def mirrored(whole):
    """Logits of what has no window, of the mirror image, exchanged by the names of the classes."""
    other = {a: b for pair in NINETEEN.pairs for a, b in (pair, pair[::-1])}
    names = [NINETEEN.classes[i] for i in NINETEEN.global_ids]
    return np.asarray(whole)[:, [names.index(other.get(name, name)) for name in names], :, ::-1]


def test_what_has_no_window_gets_the_mean_of_both_answers(answers):
    (own, found), (other, _) = answers
    back = mirrored(other.whole)
    expected = (np.asarray(own.whole) + back) / 2
    np.testing.assert_allclose(found.whole, expected, rtol=0, atol=1e-4)
    assert np.abs(own.whole - back).max() > 1e-2


def test_a_mirror_image_has_the_mirrored_answer(answers):
    (_, found), (_, of_mirror_image) = answers
    back = mirrored(of_mirror_image.whole)
    np.testing.assert_allclose(found.whole, back, rtol=0, atol=1e-4)


def test_all_else_is_said_of_the_picture_itself(answers):
    (own, found), _ = answers
    own, found = (answer._replace(whole=None) for answer in (own, found))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), found, own)


@pytest.mark.parametrize("name", ["coarse", "localizer"])
def test_training_is_the_same_program(name):
    stage = Stage(name, 1, {name: 1e-3}, {name: 1.0})
    texts = []
    for flip_test in (False, True):
        model = dataclasses.replace(MODELS["icnn"], flip_test=flip_test, axis_name=step.AXIS)
        variables = variables_of(model, SIDES["icnn"])
        moments = make_optimizer(stage, 1, 1).init(variables["params"])
        state = TrainState(np.int32(0), variables["params"], variables["batch_stats"], moments)
        train = step.map_train_step(model, stage, 1, 1, augmented=False, devices=jax.devices()[:1])
        texts.append(train.lower(state, step.shard(make_batch(0), 1), np.uint32(0)).as_text())
    assert texts[0] == texts[1]
