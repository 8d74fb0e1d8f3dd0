"""The model: the converted checkpoint against the original, its stages, its variables."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Golden, random_variables, small_model
from flax import nnx, traverse_util
from flax.nnx.bridge.variables import linen_vars_to_nnx_attrs

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.data.examples import region_theta
from jax_stn_icnn.io import convert_torch
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.fine import FineNetworks
from jax_stn_icnn.models.icnn import ICNN
from jax_stn_icnn.models.pipeline import STNiCNN, init_variables, variable_shapes
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
        model = STNiCNN(ModelConfig(cropper=cropper, patch_size=81))
        frame = np.pad(
            z.nhwc("image_uint8") / np.float32(255), [(0, 0), (256, 256), (256, 256), (0, 0)]
        )
        # The picture without its padding, as the coarse network of the original sees it.
        region = jnp.array(region_theta(256, 256, 512, 512, 1024))[None]
        parse = jax.jit(model.apply)(variables, frame, jnp.tile(region, (len(frame), 1, 1)))
        frame_labels = np.pad(z["labels9_uint8"], [(0, 0), (256, 256), (256, 256)])
        return z, parse, jnp.array(frame_labels)

    def test_intermediates(self, parse):
        z, parse, _ = parse
        np.testing.assert_allclose(parse.coarse_probs, z.nhwc("coarse"), rtol=0, atol=1e-4)
        np.testing.assert_allclose(parse.theta, z["theta"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.stack(parse.patches, 1), z.nhwc("parts"), rtol=0, atol=1e-4)
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
        np.testing.assert_array_equal(np.stack(part_labels, 1), z["part_labels_uint8"])
        fine = np.stack(list(map(losses.cross_entropy, parse.fine_logits, part_labels)))
        np.testing.assert_allclose(fine, z["loss_fine"], rtol=0, atol=1e-4)
        coarse = losses.cross_entropy(parse.coarse_logits, jnp.array(z["small_labels_uint8"]))
        np.testing.assert_allclose(coarse, z["loss_coarse"][0], rtol=0, atol=1e-4)


FRAME = jax.random.uniform(jax.random.key(1), (1, 160, 144, 3))


@pytest.fixture(scope="module")
def small():
    model = small_model(patch_size=17)
    variables = random_variables(model)
    return model, variables, jax.jit(model.apply)(variables, FRAME)


@pytest.mark.slow
def test_every_intermediate_has_its_shape(small):
    _, _, output = small
    assert output.coarse_probs.shape == (1, 128, 128, 9)
    assert output.theta.shape == (1, 6, 2, 3)
    assert [patch.shape for patch in output.patches] == [(1, 17, 17, 3)] * 6
    assert [logits.shape[-1] for logits in output.fine_logits] == [2, 2, 2, 2, 2, 4]
    assert output.scores.shape == (1, 160, 144, 9)
    assert output.labels.shape == (1, 160, 144) and output.labels.dtype == jnp.uint8


def test_bytes_are_parsed_as_floats_in_0_to_1(small):
    model, variables, _ = small
    pixels = jnp.round(FRAME * 255).astype(jnp.uint8)
    shape = jax.eval_shape(model.apply, variables, pixels)
    assert shape.scores.dtype == jnp.float32
    found, expected = (
        jax.jit(lambda frame: ops.coarse_image(ops.to_float(frame), None, (128, 128)))(frame)
        for frame in (pixels, pixels.astype(jnp.float32) / 255)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_stages_called_alone_give_the_same(small):
    model, variables, output = small

    def stage(method, *args, static=()):
        apply = lambda v, *args: model.apply(v, *args, *static, method=method)  # noqa: E731
        return jax.jit(apply)(variables, *args)

    image = ops.coarse_image(FRAME, None, (128, 128))
    logits = stage("coarse_stage", image).logits
    np.testing.assert_allclose(logits, output.coarse_logits, atol=1e-5)
    theta = stage("localize", output.coarse_probs, static=((160, 144),))
    np.testing.assert_allclose(theta, output.theta, atol=1e-6)
    patches, logits = stage("fine_stage", FRAME, output.theta)
    for own, expected in zip(patches, output.patches, strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-6)
    for own, expected in zip(logits, output.fine_logits, strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-4)


@pytest.mark.slow
def test_side_2_goes_mirrored_through_the_network_of_side_1():
    model = FineNetworks(small_model().config)
    patches = list(jax.random.uniform(jax.random.key(3), (6, 1, 17, 17, 3)))
    variables = random_variables(model, patches)
    apply = jax.jit(lambda p: model.apply(variables, p, train=False))
    logits = dict(zip([part.name for part in NINE.parts], apply(patches), strict=True))
    # If side 1 is the mirror image of side 2, its logits are the mirror image of side 2's.
    mirrored = [*patches]
    mirrored[0], mirrored[2] = patches[1][:, :, ::-1], patches[3][:, :, ::-1]
    swapped = dict(zip([part.name for part in NINE.parts], apply(mirrored), strict=True))
    for part in ("brow", "eye"):
        np.testing.assert_allclose(swapped[f"{part}_1"], logits[f"{part}_2"][:, :, ::-1], atol=1e-5)
        assert np.abs(logits[f"{part}_1"] - logits[f"{part}_2"]).max() > 1e-3


@pytest.mark.slow
def test_centroid_needs_no_localizer(small):
    _, variables, _ = small
    baseline = small_model(cropper="centroid", patch_size=17)
    output = jax.jit(baseline.apply)(variables, FRAME)
    np.testing.assert_allclose(output.theta[..., 0, 0], 16 / 143, rtol=1e-6)


@pytest.mark.slow
def test_runs_under_nnx_with_the_same_output(small):
    model, variables, output = small
    bridged = nnx.bridge.ToNNX(model, rngs=nnx.Rngs(0))
    for name, value in linen_vars_to_nnx_attrs(variables).items():
        setattr(bridged, name, nnx.data(value))
    under_nnx = nnx.jit(lambda m, *args: m(*args))(bridged, FRAME)
    chex.assert_trees_all_close(under_nnx, output, atol=1e-5)


def test_bad_input_is_named(small):
    model, variables, _ = small

    def apply(*args, **options):
        jax.eval_shape(lambda: model.apply(variables, *args, **options))

    with pytest.raises(ValueError, match="frame has shape"):
        apply(FRAME[..., :1])
    with pytest.raises(ValueError, match="agree in their first axis"):
        apply(FRAME, jnp.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match="image must be uint8 or floating point"):
        apply(FRAME.astype(jnp.int32))
    with pytest.raises(ValueError, match="coarse_image has shape"):
        apply(FRAME, method="coarse_stage")


@pytest.mark.slow
class TestVariables:
    model = small_model(cropper="centroid")

    @pytest.fixture(scope="class")
    @classmethod
    def variables(cls):
        return init_variables(cls.model, 0)

    def test_parameters_are_drawn_by_flax(self, variables):
        alone = ICNN(9, (4, 4), interlinks=1)
        shapes = jax.eval_shape(
            lambda: alone.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
        )
        assert jax.tree.map(jnp.shape, variables["params"]["coarse"]) == jax.tree.map(
            jnp.shape, shapes["params"]
        )
        flat = traverse_util.flatten_dict(variables)
        kernels = [leaf for path, leaf in flat.items() if path[-1] == "kernel"]
        largest = max(kernels, key=lambda kernel: kernel.size)
        expected = jax.nn.initializers.lecun_normal()(jax.random.key(0), largest.shape)
        assert largest.std() == pytest.approx(float(expected.std()), rel=0.05)
        neutral = {"bias": 0, "scale": 1, "mean": 0, "var": 1}
        for path, leaf in flat.items():
            if path[-1] != "kernel":
                np.testing.assert_array_equal(leaf, neutral[path[-1]])

    @pytest.mark.slow
    def test_they_depend_on_the_seed_only(self, variables):
        jax.tree.map(np.testing.assert_array_equal, variables, init_variables(self.model, 0))
        other = init_variables(self.model, 1)["params"]["coarse"]["head_2"]["kernel"]
        assert np.any(other != variables["params"]["coarse"]["head_2"]["kernel"])

    def test_their_shapes_are_those_of_a_parse(self):
        shapes = jax.eval_shape(self.model.init, jax.random.key(0), FRAME)
        assert variable_shapes(self.model) == dict(shapes)
