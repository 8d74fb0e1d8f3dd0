"""The whole face: the U-Net, how parts are put over it, its loss, mirrored faces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL, random_variables
from jax.test_util import check_grads
from scipy import ndimage

from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import ELEVEN, NINE, NINETEEN
from jax_stn_icnn.data.augment import mirror_some
from jax_stn_icnn.models.pipeline import STNiCNN, localizer_input
from jax_stn_icnn.models.unet import UNet, fold, smooth, smooth_by_products, unfold
from jax_stn_icnn.train import losses

KEY = jax.random.key(0)
SIZES = ELEVEN.fitted_sizes(15)


@pytest.mark.parametrize("coarse_stride", [1, 2, 4])
def test_fold_gathers_blocks_and_unfold_undoes_it(coarse_stride):
    image = jax.random.normal(KEY, (2, 4 * coarse_stride, 3 * coarse_stride, 3))
    folded = fold(image, coarse_stride)
    assert folded.shape == (2, 3 * coarse_stride**2, 4, 3)
    block = image[1, 2 * coarse_stride : 3 * coarse_stride, coarse_stride : 2 * coarse_stride]
    np.testing.assert_array_equal(folded[1, :, 2, 1], block.ravel())
    np.testing.assert_array_equal(jnp.moveaxis(unfold(folded, coarse_stride), 1, -1), image)


def test_smoothing_is_that_of_scipy():
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 9)).astype(np.float32)
    expected = x
    for axis in (2, 3):
        expected = ndimage.convolve1d(expected, np.array([1, 2, 1]) / 4, axis, mode="nearest")
    np.testing.assert_allclose(smooth(x), expected, atol=1e-6)
    np.testing.assert_allclose(smooth_by_products(x), expected, atol=1e-6)
    check_grads(smooth, (x,), order=1, modes=["rev"], rtol=0.01)


class TestUNet:
    model = UNet(5, (0, 2, 4), (4, 4, 4), coarse_stride=2)

    @pytest.fixture(scope="class")
    @classmethod
    def found(cls):
        image = jax.random.uniform(KEY, (2, 24, 16, 3))
        variables = random_variables(cls.model, image)
        return jax.jit(lambda v, x: cls.model.apply(v, x, False)), variables, image

    def test_scores_coarsely_and_finely(self, found):
        apply, variables, image = found
        coarse, fine, *_ = apply(variables, image)
        assert coarse.shape == (2, 12, 8, 5) and fine.shape == (2, 3, 24, 16)

    def test_fine_scores_are_the_coarse_ones_where_the_fine_head_says_nothing(self, found):
        apply, variables, image = found
        head = jax.tree.map(jnp.zeros_like, variables["params"]["finer"])
        params = variables["params"] | {"finer": head}
        coarse, fine, *_ = apply(variables | {"params": params}, image)
        repeated = np.repeat(np.repeat(coarse[..., np.array([0, 2, 4])], 2, axis=1), 2, axis=2)
        np.testing.assert_array_equal(fine, smooth(jnp.moveaxis(repeated, -1, 1)))

    def test_every_pixel_sees_the_whole_picture(self, found):
        """The far corner tells on the first pixel, but not with the mean of the picture cut."""
        apply, variables, _ = found
        image = jax.random.uniform(KEY, (1, 192, 192, 3))
        other = image.at[:, -64:, -64:].set(9)

        def change(variables):
            (before, *_), (after, *_) = apply(variables, image), apply(variables, other)
            return np.abs(after - before)[0, 0, 0].max()

        assert change(variables) > 1e-5
        mean = jax.tree.map(jnp.zeros_like, variables["params"]["mean"])
        assert change(variables | {"params": variables["params"] | {"mean": mean}}) == 0

    @pytest.mark.slow
    def test_bfloat16_stays_near_float32_and_can_be_trained(self, found):
        apply, variables, image = found
        half = self.model.clone(dtype=jnp.bfloat16)

        def loss(params):
            coarse, fine, *_ = half.apply(variables | {"params": params}, image, False)
            return jnp.sum(coarse**2) + jnp.sum(fine**2), (coarse, fine)

        gradient, scores = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
        for got, expected in zip(scores, apply(variables, image)[:2], strict=True):
            assert got.dtype == jnp.float32
            spread = np.abs(expected).max()
            assert 0 < np.abs(got - expected).max() < 0.05 * spread
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
        assert np.any(gradient["down_0"]["conv"]["kernel"] != 0)

    def test_says_where_edges_are_only_if_asked(self, found):
        apply, variables, image = found
        assert apply(variables, image)[2] is None
        telling = self.model.clone(edges=True)
        more = random_variables(telling, image)
        given = variables["params"] | {"edges": more["params"]["edges"]}
        assert given.keys() == more["params"].keys()
        scores = jax.jit(lambda: telling.apply(variables | {"params": given}, image, False))()
        assert scores[2].shape == (2, 12, 8) and scores[2].dtype == jnp.float32
        assert np.ptp(scores[2]) > 0
        for got, expected in zip(scores[:2], apply(variables, image)[:2], strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-5)

    def test_a_size_that_does_not_divide_is_named(self, found):
        _, variables, image = found
        with pytest.raises(ValueError, match="must divide by 4"):
            self.model.apply(variables, image[:, :22], False)


def test_a_localizer_sees_the_parts_and_one_background():
    mask = jax.nn.softmax(jax.random.normal(KEY, (1, 4, 5, 19)))
    seen = localizer_input(mask, NINETEEN)
    np.testing.assert_array_equal(seen[..., 1:], mask[..., 1:9])
    np.testing.assert_allclose(seen[..., 0], mask[..., 0] + mask[..., 9:].sum(-1), rtol=1e-6)
    np.testing.assert_array_equal(localizer_input(mask[..., :9], NINE), mask[..., :9])


def part_scores(anatomy, sizes, batch=1):
    """Softmaxes of noise for each part."""
    keys = jax.random.split(KEY, anatomy.num_parts)
    return [
        jax.nn.softmax(jax.random.normal(key, (batch, *size, anatomy.networks[part.network])))
        for key, size, part in zip(keys, sizes, anatomy.parts, strict=True)
    ]


def windows_of(sizes, frame):
    """Thetas that cut patches of these sizes somewhere in a frame."""
    shift = jax.random.uniform(KEY, (1, len(sizes), 2), minval=-0.6, maxval=0.6)
    scale = (np.array(sizes) - 1) / (np.array(frame) - 1)
    zero = jnp.zeros((1, len(sizes)))
    rows = [
        jnp.stack([zero + scale[:, 1], zero, shift[..., 0]], -1),
        jnp.stack([zero, zero + scale[:, 0], shift[..., 1]], -1),
    ]
    return jnp.stack(rows, axis=-2)


class TestJoining:
    frame = (40, 44)
    scores = part_scores(ELEVEN, SIZES)
    theta = windows_of(SIZES, frame)
    whole = jax.nn.softmax(jax.random.normal(jax.random.key(3), (1, *frame, 3)))

    def test_what_parts_leave_is_shared_by_the_classes_without_a_window(self):
        joined = ops.paste(self.scores, self.theta, self.frame, ELEVEN, self.whole)
        paper = ops.paste(self.scores, self.theta, self.frame, NINE)
        np.testing.assert_array_equal(joined[..., 1:9], paper[..., 1:])
        shared = paper[..., :1] * self.whole
        np.testing.assert_array_equal(joined[..., np.array([0, 9, 10])], shared)

    def test_with_background_alone_it_is_the_papers_to_the_bit(self):
        alone = jnp.ones((1, *self.frame, 1))
        joined = ops.paste(self.scores, self.theta, self.frame, NINE, alone)
        np.testing.assert_array_equal(joined, ops.paste(self.scores, self.theta, self.frame, NINE))

    @pytest.mark.slow
    def test_gradients_reach_scores_and_whole(self):
        def total(scores, whole):
            pasted = ops.paste(scores, self.theta, self.frame, ELEVEN, whole)
            return jnp.sum(pasted * jax.random.normal(jax.random.key(4), pasted.shape))

        given = self.scores, self.whole
        check_grads(total, given, order=1, modes=["rev"], rtol=2e-2, atol=2e-2)
        gradient = jax.grad(total, argnums=(0, 1))(*given)
        assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))

    def test_a_missing_or_wrong_whole_is_named(self):
        with pytest.raises(ValueError, match="whole is missing: .*'eleven' have 3 without"):
            ops.paste(self.scores, self.theta, self.frame, ELEVEN)
        with pytest.raises(ValueError, match="whole has shape"):
            ops.paste(self.scores, self.theta, self.frame, ELEVEN, self.whole[:, 1:])


class TestPipeline:
    model = STNiCNN(
        SIZES,
        "vgg9",
        ELEVEN,
        coarse_network="unet",
        **SMALL,
        coarse_stride=2,
    )

    @pytest.fixture(scope="class")
    @classmethod
    def variables(cls):
        inputs = jnp.zeros((1, 256, 256, 3)), jnp.zeros((1, 48, 48, 3))
        return random_variables(cls.model, *inputs)

    def test_every_intermediate_has_its_shape(self, variables):
        shapes = jnp.zeros((2, 256, 256, 3)), jnp.zeros((2, 48, 48, 3))
        parse = jax.eval_shape(self.model.apply, variables, *shapes)
        assert parse.coarse_logits.shape == (2, 128, 128, 11)
        assert parse.global_logits.shape == (2, 3, 256, 256)
        assert [patch.shape[1:3] for patch in parse.patches] == list(SIZES)
        assert parse.scores.shape == (2, 48, 48, 11)

    def test_a_picture_within_its_frame_is_joined_where_it_lies(self, variables):
        """The whole's logits end up where the picture is, and around it there is background."""
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
        # Parts that say background everywhere.
        fine = [jnp.zeros((1, *n, 2)).at[..., 0].set(99) for n in SIZES[:5]]
        fine.append(jnp.zeros((1, *SIZES[5], 4)).at[..., 0].set(99))
        join = jax.jit(
            lambda region: self.model.apply(
                variables,
                fine,
                windows_of(SIZES, (size,) * 2),
                logits,
                (size,) * 2,
                region,
                method="join",
            )
        )
        labels = np.array(join(region)[0].argmax(-1))
        expected = np.zeros((size, size), int)
        expected[top : top + height, left : left + 20] = 9
        expected[top : top + height, left + 21 : left + width] = 10
        middle = np.s_[:, left + 20]  # between the two
        labels[middle] = expected[middle]
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("anatomy", [ELEVEN, NINETEEN], ids=lambda a: a.name)
def test_windowless_cross_entropy_equals_its_definition(anatomy):
    rng = np.random.default_rng(0)
    global_ids = anatomy.global_ids
    logits = rng.standard_normal((3, len(global_ids), 6, 7)).astype(np.float32)
    label_map = rng.integers(0, anatomy.num_classes, (3, 6, 7))
    label_map[2] = 5  # nothing but nose
    per_image = []
    for scores, truth in zip(np.moveaxis(logits, 1, -1), label_map, strict=True):
        terms = [
            np.log(np.exp(scores[at]).sum()) - scores[at][global_ids.index(c)]
            for at, c in np.ndenumerate(truth)
            if c in global_ids
        ]
        per_image.append(np.mean(terms) if terms else 0)
    given = jnp.array(label_map), global_ids, anatomy.num_classes
    found = losses.global_cross_entropy(jnp.array(logits), *given)
    np.testing.assert_allclose(found, np.mean(per_image), rtol=1e-5)
    gradient = jax.grad(losses.global_cross_entropy)(jnp.array(logits), *given)
    assert np.all(np.isfinite(gradient)) and not np.any(gradient[2])
    outside = np.isin(label_map, anatomy.part_class_ids)
    assert not np.any(np.moveaxis(gradient, 1, -1)[outside])


def test_every_second_face_is_mirrored_with_its_classes_and_place():
    batch, size = 64, 8
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
    label_map = rng.integers(0, 19, (batch, size, size), np.uint8)
    region = jnp.tile(jnp.array([[[0.5, 0, 0.25], [0, 1, 0]]], jnp.float32), (batch, 1, 1))
    keys = jax.random.split(KEY, batch)
    got = mirror_some(keys, jnp.array(frame), jnp.array(label_map), region, NINETEEN)
    turned = np.asarray(got[2])[:, 0, 2] < 0
    assert 20 < turned.sum() < 44
    swap = np.array(NINETEEN.mirror_ids)
    for i in range(batch):
        step = -1 if turned[i] else 1
        np.testing.assert_array_equal(got[0][i], frame[i, :, ::step])
        expected = swap[label_map[i]] if turned[i] else label_map[i]
        np.testing.assert_array_equal(got[1][i], expected[:, ::step])
    assert got[0].dtype == np.uint8 and got[1].dtype == np.uint8
    again = mirror_some(keys[5:6], frame[5:6], jnp.array(label_map[5:6]), region[:1], NINETEEN)
    np.testing.assert_array_equal(again[0][0], got[0][5])  # whatever its neighbours are
