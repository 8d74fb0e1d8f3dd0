"""`ModelConfig`: its validation, its dict form, and that the model uses it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from conftest import BROWS, small_model

from jax_stn_icnn.anatomy import ELEVEN, NINE, NINETEEN
from jax_stn_icnn.models.config import CENTROID, CROPPERS, ModelConfig
from jax_stn_icnn.models.localizer import LOCALIZERS
from jax_stn_icnn.models.pipeline import STNiCNN

UNET = {"coarse_network": "unet"}
ENCODER = {"coarse_network": "efficientnet_lite0", "anatomy": ELEVEN, "coarse_stride": 2}
EVERY_OPTION = ModelConfig(
    anatomy=dataclasses.replace(BROWS, name="never_registered", groups=(("brow", ("brow_2",)),)),
    cropper="resnet18",
    patch_size=31,
    windows="fitted",
    coarse_network="unet",
    coarse_channels=(4, 4, 16),
    coarse_size=64,
    coarse_stride=2,
    attention=1,
    edge_head=True,
    bridge=True,
    flip_test=True,
    wide=True,
    fine_channels=(4, 4),
    interlinks=2,
    dtype="bfloat16",
)


def test_every_option_differs_from_its_default():
    for field in dataclasses.fields(ModelConfig):
        assert getattr(EVERY_OPTION, field.name) != field.default, field.name


@pytest.mark.parametrize("config", [ModelConfig(), EVERY_OPTION], ids=["default", "other"])
def test_dict_and_json_restore_the_config(config):
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert hash(ModelConfig.from_dict(config.to_dict())) == hash(config)


def test_an_anatomy_may_be_named_and_missing_options_have_their_defaults():
    config = ModelConfig.from_dict({"anatomy": "eleven", "coarse_channels": [4, 4]})
    assert config == ModelConfig(anatomy=ELEVEN, coarse_channels=(4, 4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch_sise": 81}, "'patch_sise' is no option of the model: the options are anatomy"),
        ({"anatomy": "twelve"}, "there is no anatomy 'twelve', only nine"),
        ({"anatomy": {"name": "nine"}}, "anatomy must hold name, classes, parts"),
        ({"anatomy": NINE.__dict__ | {"classes": ["background"]}}, "there is no class 'brow_1'"),
    ],
)
def test_a_wrong_dict_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("anatomy", "nine"),
        ("cropper", "vgg16"),
        ("patch_size", 80),
        ("patch_size", 1),
        ("patch_size", 81.0),
        ("patch_size", 2**31 - 1),
        ("interlinks", 10**9),
        ("fine_channels", (8, 2**63)),
        ("windows", "round"),
        ("coarse_network", "resnet"),
        ("coarse_channels", (8,)),
        ("coarse_channels", [8, 16]),
        ("coarse_size", 72),
        ("coarse_stride", 0),
        ("attention", -1),
        ("bridge", 1),
        ("fine_channels", (8, 0)),
        ("interlinks", True),
        ("dtype", "float16"),
    ],
)
def test_an_impossible_option_is_named(option, value):
    with pytest.raises(ValueError, match=f"{option} is .*, but must be"):
        ModelConfig(**{option: value})


def test_all_problems_are_listed():
    with pytest.raises(ValueError, match=r"(?s)cropper is 'a'.*patch_size is 2.*dtype is 'b'"):
        ModelConfig(cropper="a", patch_size=2, dtype="b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coarse_stride": 2}, "coarse_stride is 2, but must be 1: background is the only global"),
        ({"flip_test": True}, "flip_test is True, but must be False: background is the only"),
        ({"coarse_stride": 2, "anatomy": ELEVEN}, "coarse_stride is 2, which needs .*'unet'"),
        ({"edge_head": True}, "edge_head is True, which needs coarse_network='unet'"),
        ({"bridge": True}, "bridge is True, which needs coarse_network='unet'"),
        ({"attention": 1}, "attention is 1, which needs coarse_network='unet'"),
        (ENCODER | {"coarse_stride": 1}, "coarse_stride is 1, .*'efficientnet_lite0' needs 2"),
        (ENCODER | {"attention": 1}, "attention is 1, which needs coarse_network='unet'"),
        ({"attention": 5, **UNET}, "attention is 5, but coarse_channels has only 4 rows"),
        (
            {"attention": 1, "coarse_channels": (32, 64, 96, 120), **UNET},
            "a row of 120 channels with self-attention .* must be a multiple of 16",
        ),
        ({"cropper": "small", "coarse_size": 64}, "coarse_size is 64, but cropper='small' needs"),
        (
            {"bridge": True, "patch_size": 31, "fine_channels": (8,) * 6, **UNET},
            "fine_channels has 6 rows, .* but the smallest window has 31 pixels",
        ),
    ],
)
def test_contradictions_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**options)


def test_windows_are_squares_or_fit_their_parts():
    assert ModelConfig(patch_size=127).patch_sizes == ((127, 127),) * 6
    fitted = ModelConfig(patch_size=127, windows="fitted", anatomy=NINETEEN)
    assert fitted.patch_sizes == NINETEEN.fitted_sizes(127)
    assert fitted.coarse_image_size == (128, 128)
    assert EVERY_OPTION.coarse_image_size == (128, 128)


def test_croppers_are_the_localizers_and_centroid():
    assert {*LOCALIZERS, CENTROID} == set(CROPPERS)


@pytest.mark.slow
def test_the_config_alone_decides_the_output():
    """Two models of equal configs are one to JAX; options change the shapes that they should."""
    frame = jnp.zeros((1, 64, 64, 3))

    def shapes(config):
        model = STNiCNN(config)
        variables = jax.eval_shape(model.init, jax.random.key(0), frame)
        return jax.eval_shape(model.apply, variables, frame)

    assert STNiCNN(ModelConfig()) == STNiCNN(ModelConfig.from_dict(ModelConfig().to_dict()))
    small = small_model(cropper="vgg9").config
    output = shapes(small.replace(anatomy=ELEVEN, coarse_size=64, windows="fitted"))
    assert output.coarse_logits.shape == (1, 64, 64, 11)
    assert [patch.shape[1:3] for patch in output.patches] == list(ELEVEN.fitted_sizes(15))
