"""The U-Net of the full face, and how its global classes are merged with the parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_variables, small_model
from jax.test_util import check_grads
from scipy import ndimage

from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import ELEVEN, NINE, NINETEEN, Anatomy
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.localizer import localizer_input
from jax_stn_icnn.models.unet import UNet
from jax_stn_icnn.ops.smoothing import smooth, smooth_blocks
from jax_stn_icnn.ops.space_to_depth import depth_to_space, space_to_depth

KEY = jax.random.key(0)
SIZES = ELEVEN.fitted_sizes(15)
# Two part classes among five, so that the global classes 0, 2 and 4 are not adjacent.
FIVE = Anatomy(
    name="five",
    classes=("background", "brow_1", "skin", "brow_2", "hair"),
    parts=tuple(part for part in NINE.parts if part.network == "brow"),
    pairs=(("brow_1", "brow_2"),),
    groups=(),
    colours=((0, 0, 0),) * 5,
)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_space_to_depth_gathers_blocks_and_depth_to_space_is_its_inverse(side):
    image = jax.random.normal(KEY, (2, 4 * side, 3 * side, 3))
    blocks = space_to_depth(image, side)
    assert blocks.shape == (2, 3 * side**2, 4, 3)
    block = image[1, 2 * side : 3 * side, side : 2 * side]
    np.testing.assert_array_equal(blocks[1, :, 2, 1], block.ravel())
    np.testing.assert_array_equal(jnp.moveaxis(depth_to_space(blocks, side), 1, -1), image)


def test_smoothing_equals_scipys():
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 9)).astype(np.float32)
    expected = x
    for axis in (2, 3):
        expected = ndimage.convolve1d(expected, np.array([1, 2, 1]) / 4, axis, mode="nearest")
    np.testing.assert_allclose(smooth(x), expected, atol=1e-6)
    check_grads(smooth, (x,), order=1, modes=["rev"], rtol=0.01)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_blocks_are_smoothed_as_pixels(side):
    blocks = jax.random.normal(KEY, (2, 3 * side**2, 4, 5))
    expected = smooth(depth_to_space(blocks, side))
    np.testing.assert_allclose(smooth_blocks(blocks, side), expected, atol=1e-6)


class TestUNet:
    config = ModelConfig(
        anatomy=FIVE, coarse_network="unet", coarse_channels=(4, 4, 4), coarse_stride=2
    )
    model = UNet(config)

    @pytest.fixture(scope="class")
    @classmethod
    def applied(cls):
        image = jax.random.uniform(KEY, (2, 24, 16, 3))
        variables = random_variables(cls.model, image)
        return jax.jit(lambda v, x: cls.model.apply(v, x, False)), variables, image

    def test_sizes_of_coarse_and_global_logits(self, applied):
        apply, variables, image = applied
        output = apply(variables, image)
        assert output.logits.shape == (2, 12, 8, 5)
        assert output.global_logits.shape == (2, 3, 24, 16)

    def test_without_the_finer_head_global_logits_are_the_coarse_ones_smoothed(self, applied):
        apply, variables, image = applied
        head = jax.tree.map(jnp.zeros_like, variables["params"]["finer"])
        params = variables["params"] | {"finer": head}
        output = apply(variables | {"params": params}, image)
        coarse = output.logits[..., np.array([0, 2, 4])]
        repeated = np.repeat(np.repeat(coarse, 2, axis=1), 2, axis=2)
        np.testing.assert_array_equal(output.global_logits, smooth(jnp.moveaxis(repeated, -1, 1)))

    def test_every_pixel_depends_on_the_mean_over_the_image(self, applied):
        """The far corner changes the first pixel, but not without the mean over the image."""
        apply, variables, _ = applied
        image = jax.random.uniform(KEY, (1, 192, 192, 3))
        other = image.at[:, -64:, -64:].set(9)

        def change(variables):
            (before, *_), (after, *_) = apply(variables, image), apply(variables, other)
            return np.abs(after - before)[0, 0, 0].max()

        assert change(variables) > 1e-5
        mean = jax.tree.map(jnp.zeros_like, variables["params"]["mean"])
        assert change(variables | {"params": variables["params"] | {"mean": mean}}) == 0

    @pytest.mark.slow
    def test_bfloat16_is_close_to_float32_and_trains(self, applied):
        apply, variables, image = applied
        half = UNet(self.config.replace(dtype="bfloat16"))

        def loss(params):
            coarse, fine, *_ = half.apply(variables | {"params": params}, image, False)
            return jnp.sum(coarse**2) + jnp.sum(fine**2), (coarse, fine)

        gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
        for got, expected in zip(logits, apply(variables, image)[:2], strict=True):
            assert got.dtype == jnp.float32
            spread = np.abs(expected).max()
            assert 0 < np.abs(got - expected).max() < 0.05 * spread
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
        assert np.any(gradient["down_0"]["conv"]["kernel"] != 0)

    def test_edges_are_predicted_only_with_an_edge_head(self, applied):
        apply, variables, image = applied
        assert apply(variables, image).edge_logits is None
        model = UNet(self.config.replace(edge_head=True))
        added = random_variables(model, image)
        params = variables["params"] | {"edges": added["params"]["edges"]}
        assert params.keys() == added["params"].keys()
        output = jax.jit(lambda: model.apply(variables | {"params": params}, image, False))()
        assert output.edge_logits.shape == (2, 12, 8)
        assert output.edge_logits.dtype == jnp.float32
        assert np.ptp(output.edge_logits) > 0
        for got, expected in zip(output[:2], apply(variables, image)[:2], strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-5)

    def test_a_size_that_is_not_divisible_is_named(self, applied):
        _, variables, image = applied
        with pytest.raises(ValueError, match="must be divisible by 4"):
            self.model.apply(variables, image[:, :22], False)


def test_localizer_input_sums_global_classes_into_background():
    probs = jax.nn.softmax(jax.random.normal(KEY, (1, 4, 5, 19)))
    found = localizer_input(probs, NINETEEN)
    np.testing.assert_array_equal(found[..., 1:], probs[..., 1:9])
    np.testing.assert_allclose(found[..., 0], probs[..., 0] + probs[..., 9:].sum(-1), rtol=1e-6)
    np.testing.assert_array_equal(localizer_input(probs[..., :9], NINE), probs[..., :9])


def part_scores(anatomy, sizes, batch=1):
    """Returns softmaxes of noise for each part."""
    keys = jax.random.split(KEY, anatomy.num_parts)
    return [
        jax.nn.softmax(jax.random.normal(key, (batch, *size, anatomy.networks[part.network])))
        for key, size, part in zip(keys, sizes, anatomy.parts, strict=True)
    ]


def windows_of(sizes, frame):
    """Returns thetas of windows of these sizes somewhere in a frame."""
    shift = jax.random.uniform(KEY, (1, len(sizes), 2), minval=-0.6, maxval=0.6)
    scale = (np.array(sizes) - 1) / (np.array(frame) - 1)
    zero = jnp.zeros((1, len(sizes)))
    rows = [
        jnp.stack([zero + scale[:, 1], zero, shift[..., 0]], -1),
        jnp.stack([zero, zero + scale[:, 0], shift[..., 1]], -1),
    ]
    return jnp.stack(rows, axis=-2)


@pytest.mark.slow
class TestMerging:
    frame = (40, 44)
    scores = part_scores(ELEVEN, SIZES)
    theta = windows_of(SIZES, frame)
    global_probs = jax.nn.softmax(jax.random.normal(jax.random.key(3), (1, *frame, 3)))

    def test_global_classes_share_the_background_of_the_parts(self):
        merged = ops.paste(self.scores, self.theta, self.frame, ELEVEN, self.global_probs)
        paper = ops.paste(self.scores, self.theta, self.frame, NINE)
        np.testing.assert_array_equal(merged[..., 1:9], paper[..., 1:])
        shared = paper[..., :1] * self.global_probs
        np.testing.assert_array_equal(merged[..., np.array([0, 9, 10])], shared)

    def test_with_background_alone_it_is_the_papers_to_the_bit(self):
        alone = jnp.ones((1, *self.frame, 1))
        merged = ops.paste(self.scores, self.theta, self.frame, NINE, alone)
        np.testing.assert_array_equal(merged, ops.paste(self.scores, self.theta, self.frame, NINE))

    @pytest.mark.slow
    def test_gradients_reach_scores_and_global_probs(self):
        def total(scores, global_probs):
            pasted = ops.paste(scores, self.theta, self.frame, ELEVEN, global_probs)
            return jnp.sum(pasted * jax.random.normal(jax.random.key(4), pasted.shape))

        arguments = self.scores, self.global_probs
        check_grads(total, arguments, order=1, modes=["rev"], rtol=2e-2, atol=2e-2)
        gradient = jax.grad(total, argnums=(0, 1))(*arguments)
        assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))

    def test_missing_or_wrong_global_probs_are_named(self):
        with pytest.raises(ValueError, match="global_probs is missing: .*'eleven' has 3 global"):
            ops.paste(self.scores, self.theta, self.frame, ELEVEN)
        with pytest.raises(ValueError, match="global_probs has shape"):
            ops.paste(self.scores, self.theta, self.frame, ELEVEN, self.global_probs[:, 1:])


@pytest.mark.slow
class TestPipeline:
    model = small_model(
        anatomy=ELEVEN, cropper="vgg9", windows="fitted", coarse_network="unet", coarse_stride=2
    )

    @pytest.fixture(scope="class")
    @classmethod
    def variables(cls):
        return random_variables(cls.model)

    def test_every_intermediate_has_its_shape(self, variables):
        output = jax.eval_shape(self.model.apply, variables, jnp.zeros((2, 48, 48, 3)))
        assert output.coarse_logits.shape == (2, 128, 128, 11)
        assert output.global_logits.shape == (2, 3, 256, 256)
        assert [patch.shape[1:3] for patch in output.patches] == list(SIZES)
        assert output.scores.shape == (2, 48, 48, 11)

    def test_a_picture_within_its_frame_is_merged_where_it_lies(self, variables):
        """Global logits appear where the picture is, and around it there is background."""
        size, (top, left, height, width) = 48, (8, 4, 31, 41)
        last = size - 1
        region = jnp.array(
            [
                [
                    [(width - 1) / last, 0, (2 * left + width - 1) / last - 1],
                    [0, (height - 1) / last, (2 * top + height - 1) / last - 1],
                ]
            ]
        )
        logits = jnp.zeros((1, 3, 256, 256)).at[:, 1, :, :128].set(9).at[:, 2, :, 128:].set(9)
        # Patches that are background everywhere.
        fine = [jnp.zeros((1, *n, 2)).at[..., 0].set(99) for n in SIZES[:5]]
        fine.append(jnp.zeros((1, *SIZES[5], 4)).at[..., 0].set(99))
        merge = jax.jit(
            lambda region: self.model.apply(
                variables,
                fine,
                windows_of(SIZES, (size,) * 2),
                logits,
                (size,) * 2,
                region,
                method="merge",
            )
        )
        labels = np.array(merge(region)[0].argmax(-1))
        expected = np.zeros((size, size), int)
        expected[top : top + height, left : left + 20] = 9
        expected[top : top + height, left + 21 : left + width] = 10
        middle = np.s_[:, left + 20]  # between the two
        labels[middle] = expected[middle]
        np.testing.assert_array_equal(labels, expected)
