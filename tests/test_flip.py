"""Flip testing, against two calls of the same network and its own mirror image."""

import dataclasses

import jax
import numpy as np
import pytest
from conftest import SMALL, random_variables

from jax_stn_icnn.anatomy import NINE, NINETEEN
from jax_stn_icnn.models.pipeline import STNiCNN

UNET = {"coarse_network": "unet", "detail": 2, "edges": True, "bridge": True}
MODELS = {
    "icnn": STNiCNN((15, 15), "small", NINE, **SMALL),
    "unet": STNiCNN((15, 15), "small", NINETEEN, **UNET, **SMALL),
}
SIDES = {"icnn": 128, "unet": 256}


def variables_of(model, side):
    inputs = np.zeros((1, side, side, 3), np.float32), np.zeros((1, 32, 32, 3), np.float32)
    return random_variables(model, *inputs)


@pytest.fixture(scope="module", params=MODELS)
def answers(request):
    """A model, and by name of the picture what it says without and with flip testing."""
    model, side = MODELS[request.param], SIDES[request.param]
    variables = variables_of(model, side)
    images = np.random.default_rng(0).random((2, side, side, 3), np.float32)

    @jax.jit
    def ask(images):
        flipped = model.clone(flip_test=True)
        return [m.apply(variables, images, method="coarse_stage") for m in (model, flipped)]

    return model, {"as it is": ask(images), "mirrored": ask(images[:, :, ::-1])}


def mirrored(name, logits, anatomy):
    """Logits of the mirror image, exchanged by the names of the classes."""
    other = {a: b for pair in anatomy.pairs for a, b in (pair, pair[::-1])}

    def order(classes):
        return [classes.index(other.get(c, c)) for c in classes]

    logits = np.asarray(logits)
    if name == "all":
        return logits[:, :, ::-1, order(anatomy.classes)]
    if name == "whole":
        return logits[:, order([anatomy.classes[i] for i in anatomy.windowless]), :, ::-1]
    return logits[:, :, ::-1]


def test_it_is_the_mean_of_both_answers(answers):
    model, said = answers
    (own, found), (other, _) = said["as it is"], said["mirrored"]
    for name in ("all", "whole", "edges"):
        if getattr(own, name) is None:
            assert getattr(found, name) is None
            continue
        back = mirrored(name, getattr(other, name), model.anatomy)
        expected = (np.asarray(getattr(own, name)) + back) / 2
        np.testing.assert_allclose(getattr(found, name), expected, rtol=0, atol=1e-4)
        assert np.abs(getattr(own, name) - back).max() > 1e-2


def test_a_mirror_image_has_the_mirrored_answer(answers):
    model, said = answers
    (_, found), (_, of_mirror) = said["as it is"], said["mirrored"]
    for name in ("all", "whole", "edges"):
        if getattr(found, name) is not None:
            back = mirrored(name, getattr(of_mirror, name), model.anatomy)
            np.testing.assert_allclose(getattr(found, name), back, rtol=0, atol=1e-4)


def test_features_are_those_of_the_picture_itself(answers):
    _, said = answers
    own, found = said["as it is"]
    if own.features is not None:
        np.testing.assert_allclose(found.features, own.features, rtol=0, atol=1e-4)


def test_training_is_the_same_program():
    texts = []
    for flip_test in (False, True):
        model = dataclasses.replace(MODELS["icnn"], flip_test=flip_test)
        variables = variables_of(model, SIDES["icnn"])
        image = np.zeros((1, 128, 128, 3), np.float32)

        def train(variables, image, model=model):
            return model.apply(
                variables, image, train=True, method="coarse_stage", mutable=["batch_stats"]
            )

        texts.append(jax.jit(train).lower(variables, image).as_text())
    assert texts[0] == texts[1]
