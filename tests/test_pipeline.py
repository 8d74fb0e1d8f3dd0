"""The whole model: the converted checkpoint against the original, and how stages fit together."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL, Golden, random_variables
from flax import nnx
from flax.nnx.bridge.variables import linen_vars_to_nnx_attrs

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.io import convert_torch
from jax_stn_icnn.models.fine import FineNetworks
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import losses

# 62 MB: too big for the repository, so it lies beside it.
CHECKPOINT = Path(__file__).parents[2] / "shared" / "golden" / "reference_checkpoint.pth.tar"
PATCH = (81, 81)


@pytest.mark.skipif(not CHECKPOINT.exists(), reason="the original's checkpoint is not at hand")
class TestGolden:
    @pytest.fixture(scope="class")
    @classmethod
    def parse(cls):
        pytest.importorskip("torch", reason="reading a .pth.tar takes the extra `torch`")
        z = Golden("pipeline")
        variables, cropper = convert_torch.convert(convert_torch.read_checkpoint(CHECKPOINT))
        model = STNiCNN(PATCH, cropper)
        frame = np.pad(
            z.nhwc("image_uint8") / np.float32(255), [(0, 0), (256, 256), (256, 256), (0, 0)]
        )
        parse = jax.jit(model.apply)(variables, z.nhwc("small_image"), frame)
        frame_labels = np.pad(z["labels9_uint8"], [(0, 0), (256, 256), (256, 256)])
        return z, parse, jnp.array(frame_labels)

    def test_intermediates(self, parse):
        z, parse, _ = parse
        np.testing.assert_allclose(parse.mask, z.nhwc("coarse"), rtol=0, atol=1e-4)
        np.testing.assert_allclose(parse.theta, z["theta"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(parse.patches, z.nhwc("parts"), rtol=0, atol=1e-4)
        for i, logits in enumerate(parse.fine_logits):
            np.testing.assert_allclose(logits, z.nhwc(f"fine_logits_{i}"), rtol=0, atol=1e-3)

    def test_final_labels(self, parse):
        z, parse, _ = parse
        assert np.mean(parse.labels == z["final_labels_uint8"]) >= 0.999

    def test_targets_and_losses(self, parse):
        z, parse, frame_labels = parse
        target, present = geometry.theta_target(frame_labels, PATCH)
        theta_loss = losses.smooth_l1(parse.theta, target, present)
        np.testing.assert_allclose(theta_loss, z["loss_theta"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(theta_loss, z["loss_theta"], rtol=1e-4)
        part_labels = ops.crop_part_labels(frame_labels, parse.theta, PATCH)
        np.testing.assert_array_equal(part_labels, z["part_labels_uint8"])
        fine = losses.fine_losses(parse.fine_logits, part_labels)
        np.testing.assert_allclose(fine, z["loss_fine"], rtol=0, atol=1e-4)
        coarse = losses.cross_entropy(parse.coarse_logits, jnp.array(z["small_labels_uint8"]))
        np.testing.assert_allclose(coarse, z["loss_coarse"][0], rtol=0, atol=1e-4)


COARSE = jax.random.uniform(jax.random.key(0), (1, 128, 128, 3))
FRAME = jax.random.uniform(jax.random.key(1), (1, 160, 144, 3))
SMALL_PATCH = (17, 17)


@pytest.fixture(scope="module")
def small():
    model = STNiCNN(SMALL_PATCH, "small", **SMALL)
    variables = random_variables(model, COARSE, FRAME)
    return model, variables, jax.jit(model.apply)(variables, COARSE, FRAME)


def test_every_intermediate_has_its_shape(small):
    _, _, parse = small
    assert parse.mask.shape == (1, 128, 128, 9)
    assert parse.theta.shape == (1, 6, 2, 3)
    assert parse.patches.shape == (1, 6, 17, 17, 3)
    assert [logits.shape[-1] for logits in parse.fine_logits] == [2, 2, 2, 2, 2, 4]
    assert parse.scores.shape == (1, 160, 144, 9)
    assert parse.labels.shape == (1, 160, 144) and parse.labels.dtype == jnp.uint8


@pytest.mark.slow
def test_stages_called_alone_give_the_same(small):
    model, variables, parse = small

    def stage(method, *args):
        return jax.jit(lambda v, *args: model.apply(v, *args, method=method))(variables, *args)

    np.testing.assert_allclose(stage("coarse_stage", COARSE)[0], parse.coarse_logits, atol=1e-5)
    np.testing.assert_allclose(stage("localize", parse.mask), parse.theta, atol=1e-6)
    patches, logits = stage("fine_stage", FRAME, parse.theta)
    np.testing.assert_allclose(patches, parse.patches, atol=1e-6)
    for own, expected in zip(logits, parse.fine_logits, strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-4)


@pytest.mark.slow
def test_side_2_goes_mirrored_through_the_network_of_side_1():
    model = FineNetworks(channels=(4, 4), interlinks=1)
    patches = jax.random.uniform(jax.random.key(3), (1, 6, 17, 17, 3))
    variables = random_variables(model, patches)
    apply = jax.jit(lambda p: model.apply(variables, p, train=False))
    logits = dict(zip([part.name for part in NINE.parts], apply(patches), strict=True))
    # Give side 1 the mirror image of side 2: its answer is the mirror image of side 2's.
    mirrored = patches.at[:, 0].set(patches[:, 1, :, ::-1]).at[:, 2].set(patches[:, 3, :, ::-1])
    swapped = dict(zip([part.name for part in NINE.parts], apply(mirrored), strict=True))
    for part in ("brow", "eye"):
        np.testing.assert_allclose(swapped[f"{part}_1"], logits[f"{part}_2"][:, :, ::-1], atol=1e-5)
        assert np.abs(logits[f"{part}_1"] - logits[f"{part}_2"]).max() > 1e-3


@pytest.mark.slow
def test_centroid_needs_no_localizer(small):
    _, variables, _ = small
    baseline = STNiCNN(SMALL_PATCH, "centroid", **SMALL)
    parse = jax.jit(baseline.apply)(variables, COARSE, FRAME)
    np.testing.assert_allclose(parse.theta[..., 0, 0], 16 / 143, rtol=1e-6)


@pytest.mark.slow
def test_runs_under_nnx_with_the_same_output(small):
    model, variables, parse = small
    bridge_output = nnx.bridge.ToNNX(model, rngs=nnx.Rngs(0))
    for name, value in linen_vars_to_nnx_attrs(variables).items():
        setattr(bridge_output, name, nnx.data(value))
    under_nnx = nnx.jit(lambda m, *args: m(*args))(bridge_output, COARSE, FRAME)
    chex.assert_trees_all_close(under_nnx, parse, atol=1e-5)


def test_bad_input_is_named():
    def init(model, *args):
        jax.eval_shape(lambda: model.init(jax.random.key(0), *args))

    with pytest.raises(ValueError, match="cropper is 'vgg16', but must be one of vgg9, small"):
        init(STNiCNN(SMALL_PATCH, "vgg16"), COARSE, FRAME)
    with pytest.raises(ValueError, match="coarse_image has shape"):
        init(STNiCNN(SMALL_PATCH, "small"), COARSE[:, :64], FRAME)
    with pytest.raises(ValueError, match="frame has shape"):
        init(STNiCNN(SMALL_PATCH, "small"), COARSE, FRAME[..., :1])
    with pytest.raises(ValueError, match="agree in their first axis"):
        init(STNiCNN(SMALL_PATCH, "small"), COARSE, jnp.concatenate([FRAME, FRAME]))
