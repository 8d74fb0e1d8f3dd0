"""Flip testing against two calls of the same network."""

import jax
import numpy as np
import pytest
from conftest import BROWS, random_variables, small_model
from test_step import make_batch

from jax_stn_icnn.anatomy import NINETEEN
from jax_stn_icnn.train import step
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.stages import Stage
from jax_stn_icnn.train.state import TrainState

MODELS = {
    "icnn": small_model(anatomy=NINETEEN),
    "unet": small_model(
        anatomy=NINETEEN, coarse_network="unet", coarse_stride=2, edge_head=True, bridge=True
    ),
}


def with_flip_test(model, flip_test=True, **fields):
    return model.clone(config=model.config.replace(flip_test=flip_test), **fields)


@pytest.fixture(scope="module", params=MODELS)
def outputs(request):
    """A model's output without and with flip testing, for images and for their mirror images."""
    model = MODELS[request.param]
    variables = random_variables(model)
    shape = (2, *model.config.coarse_image_size, 3)
    images = np.random.default_rng(0).random(shape, np.float32)

    @jax.jit
    def apply(images):
        models = model, with_flip_test(model)
        return [m.apply(variables, images, method="coarse_stage") for m in models]

    return apply(images), apply(images[:, :, ::-1])


def mirrored(global_logits):
    """Returns global logits of the mirror image, the sides swapped by the names of the classes."""
    other = {a: b for pair in NINETEEN.pairs for a, b in (pair, pair[::-1])}
    names = [NINETEEN.classes[i] for i in NINETEEN.global_ids]
    swap = [names.index(other.get(name, name)) for name in names]
    return np.asarray(global_logits)[:, swap, :, ::-1]


@pytest.mark.slow
def test_global_logits_are_the_mean_of_both_passes(outputs):
    (own, found), (other, _) = outputs
    second = mirrored(other.global_logits)
    expected = (np.asarray(own.global_logits) + second) / 2
    np.testing.assert_allclose(found.global_logits, expected, rtol=0, atol=1e-4)
    assert np.abs(own.global_logits - second).max() > 1e-2


def test_a_mirror_image_has_the_mirrored_output(outputs):
    (_, found), (_, of_mirror_image) = outputs
    expected = mirrored(of_mirror_image.global_logits)
    np.testing.assert_allclose(found.global_logits, expected, rtol=0, atol=1e-4)


def test_everything_else_is_the_output_for_the_image(outputs):
    (own, found), _ = outputs
    own, found = (output._replace(global_logits=None) for output in (own, found))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), found, own)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coarse", "localizer"])
def test_training_is_the_same_program(name):
    stage = Stage(name, 1, {name: 1e-3}, {name: 1.0})
    texts = []
    for flip_test in (False, True):
        model = small_model(anatomy=BROWS, cropper="vgg9", coarse_size=32)
        model = with_flip_test(model, flip_test, axis_name=step.AXIS)
        variables = random_variables(model)
        moments = make_optimizer(stage, 1, 1).init(variables["params"])
        state = TrainState(np.int32(0), variables["params"], variables["batch_stats"], moments)
        train = step.map_train_step(model, stage, 1, 1, devices=jax.devices()[:1])
        texts.append(
            train.lower(state, step.shard(make_batch(0, num_classes=4), 1), np.uint32(0)).as_text()
        )
    assert texts[0] == texts[1]
