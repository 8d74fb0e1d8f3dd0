"""Losses and scores of labels that are sets of classes, against their definition in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import NINE, NINETEEN
from jax_stn_icnn.evaluation import metrics
from jax_stn_icnn.label_sets import LabelSets
from jax_stn_icnn.train import consensus, losses

CLASSES = 5
SETS = LabelSets(CLASSES, ((0, 1), (1, 3, 4), (0, 1, 2, 3, 4)))
IGNORED = 7
SHAPE = (2, 6, 7)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def probabilities(logits):
    e = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def pixel_losses(logits, label_map):
    """Minus the logarithm of the probability that the class belongs to the label."""
    probs = probabilities(logits)
    return np.array(
        [
            -np.log(probs[pixel][list(SETS.sets[label])].sum())
            for pixel, label in np.ndenumerate(label_map)
        ]
    ).reshape(label_map.shape)


def make(rng, labels=SETS.num_labels):
    logits = 4 * rng.standard_normal((*SHAPE, CLASSES)).astype(np.float32)
    return logits, rng.integers(0, labels, SHAPE)


def test_cross_entropy_and_its_gradient_equal_the_definition(rng):
    logits, label_map = make(rng)
    loss, gradient = jax.value_and_grad(losses.cross_entropy)(logits, label_map, SETS)
    np.testing.assert_allclose(loss, pixel_losses(logits, label_map).mean(), rtol=1e-6)
    # p - q, with q the distribution given that the class belongs to the label.
    probs = probabilities(logits)
    given = probs * SETS.members[label_map]
    expected = (probs - given / given.sum(axis=-1, keepdims=True)) / label_map.size
    np.testing.assert_allclose(gradient, expected, atol=1e-8)


def test_single_classes_have_the_cross_entropy_to_the_bit(rng):
    logits, label_map = make(rng, CLASSES)
    by_sets = jax.jit(jax.value_and_grad(lambda x: losses.cross_entropy(x, label_map, SETS)))
    plain = jax.jit(jax.value_and_grad(lambda x: losses.cross_entropy(x, label_map)))
    for found, expected in zip(by_sets(logits), plain(logits), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("loss", [*losses.PIXEL_LOSSES.values(), losses.edge_cross_entropy])
def test_the_set_of_all_classes_has_no_loss_and_no_gradient(rng, loss):
    logits, _ = make(rng)
    label_map = np.full(SHAPE, IGNORED)
    value, gradient = jax.value_and_grad(loss)(logits, label_map, SETS)
    assert value == 0 and not np.any(gradient)


def test_ignored_pixels_leave_the_gradient_of_others_alone(rng):
    logits, label_map = make(rng)
    label_map[:, ::2] = IGNORED
    gradient = jax.grad(losses.balanced_cross_entropy)(logits, label_map, SETS)
    assert not np.any(gradient[:, ::2]) and np.all(np.any(gradient[:, 1::2], axis=-1).any(axis=1))


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
def test_extreme_logits_have_finite_gradients(value):
    logits = np.zeros((1, 1, 3, CLASSES), np.float32)
    logits[..., 2] = value
    label_map = np.array([[[5, 6, 7]]])
    gradient = jax.grad(losses.cross_entropy)(logits, label_map, SETS)
    assert np.all(np.isfinite(gradient))


def test_balanced_cross_entropy_weighs_labels_by_the_root_of_their_pixels(rng):
    logits, label_map = make(rng)
    per_image = []
    for pixels, labels in zip(pixel_losses(logits, label_map), label_map, strict=True):
        counts = np.bincount(labels.ravel(), minlength=SETS.num_labels)
        weight = (1 / np.sqrt(counts))[labels] * (labels != IGNORED)
        per_image.append((pixels * weight).sum() / weight.sum())
    found = losses.balanced_cross_entropy(logits, label_map, SETS)
    np.testing.assert_allclose(found, np.mean(per_image), rtol=1e-5)


def test_balanced_cross_entropy_of_single_classes(rng):
    logits, label_map = make(rng, CLASSES)
    found = losses.balanced_cross_entropy(logits, label_map, SETS)
    np.testing.assert_allclose(found, losses.balanced_cross_entropy(logits, label_map), rtol=1e-6)


def test_binary_cross_entropy_takes_the_classes_that_a_set_excludes(rng):
    logits, label_map = make(rng)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    total = 0.0
    for pixel, label in np.ndenumerate(label_map):
        members = SETS.sets[label]
        terms = [-np.log(1 - p[pixel][c]) for c in range(CLASSES) if c not in members]
        if len(members) == 1:
            terms.append(-np.log(p[pixel][members[0]]))
        total += sum(terms)
    found = losses.binary_cross_entropy(logits, label_map, SETS)
    np.testing.assert_allclose(found, total / logits.size, rtol=1e-5)


def test_bfloat16_logits_have_a_float32_loss(rng):
    logits, label_map = make(rng)
    half = jnp.asarray(logits, jnp.bfloat16)
    loss, gradient = jax.value_and_grad(losses.cross_entropy)(half, label_map, SETS)
    expected = losses.cross_entropy(half.astype(jnp.float32), label_map, SETS)
    assert (loss.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_global_cross_entropy_takes_the_global_classes_of_a_set(rng):
    global_ids = (0, 2, 4)
    logits = rng.standard_normal((*SHAPE[:1], 3, *SHAPE[1:])).astype(np.float32)
    label_map = rng.integers(0, SETS.num_labels, SHAPE)
    probs = probabilities(np.moveaxis(logits, 1, -1))
    per_image = []
    for image in range(SHAPE[0]):
        terms = []
        for pixel, label in np.ndenumerate(label_map[image]):
            own = [global_ids.index(c) for c in SETS.sets[label] if c in global_ids]
            if 0 < len(own) < 3:
                terms.append(-np.log(probs[image][pixel][own].sum()))
        per_image.append(np.mean(terms))
    found = losses.global_cross_entropy(logits, label_map, global_ids, SETS)
    np.testing.assert_allclose(found, np.mean(per_image), rtol=1e-5)


@pytest.mark.slow
def test_the_edge_task_ignores_the_surroundings_of_unions(rng):
    edge_logits = rng.standard_normal((1, 6, 8)).astype(np.float32)
    label_map = np.zeros((1, 6, 8), int)
    label_map[:, :, 2:] = 1
    label_map[:, :, 6:] = IGNORED
    gradient = jax.grad(losses.edge_task_loss)(edge_logits, label_map, SETS)
    assert not np.any(gradient[:, :, 5:]) and np.all(gradient[:, :, :5])
    found = losses.edge_task_loss(edge_logits, label_map, SETS)
    expected = losses.edge_task_loss(edge_logits[:, :, :5], label_map[:, :, :5])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("connected", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_consensus_takes_regions_of_single_classes_only(rng, connected):
    logits, _ = make(rng)
    label_map = np.zeros(SHAPE, int)
    label_map[:, 3:] = 2
    alone = consensus.mean_consensus_loss(logits[:, :3], label_map[:, :3], connected)
    label_map[:, 3:] = 5
    found = consensus.mean_consensus_loss(logits, label_map, connected, SETS)
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    label_map[:] = IGNORED
    assert consensus.mean_consensus_loss(logits, label_map, connected, SETS) == 0


def test_patch_labels_of_a_set_that_leaves_them_open():
    lips = NINE.ids(["upper_lip", "lower_lip"])
    sets = LabelSets(9, ((0, *lips), lips, NINE.ids(["brow_1", "nose"]), tuple(range(9))))
    label_map = jnp.array([[[0, 6, 9, 10, 11, 12]]])
    theta = jnp.tile(jnp.eye(2, 3), (1, 6, 1, 1))
    found = ops.crop_part_labels(label_map, theta, ((1, 6),) * 6, NINE, sets)
    brow, nose, mouth = (np.asarray(found[i])[0, 0].tolist() for i in (0, 4, 5))
    assert brow == [0, 0, 0, 0, 2, 2]
    assert nose == [0, 0, 0, 0, 2, 2]
    # Of 4 labels of the mouth, open is the fifth; either lip leaves it open which.
    assert mouth == [0, 1, 4, 4, 0, 4]


class TestScores:
    """Counts of a data set that labels hair, the face, and glasses on some faces."""

    names = ("background", "hair", "skin", "nose", "glasses")
    face = tuple(sorted(NINETEEN.ids(["skin", "nose", "glasses"])))
    every = tuple(range(19))
    sets = LabelSets(19, (face, every))

    def counts(self, *triples):
        counts = np.zeros((self.sets.num_labels, 19), np.int64)
        for label, predicted, number in triples:
            row = {"face": 19, "ignore": 20}.get(label) or NINETEEN.classes.index(label)
            counts[row, NINETEEN.classes.index(predicted)] += number
        return counts

    def f1(self, name, counts):
        classes = self.face if name == "face" else NINETEEN.ids([name])
        return metrics.label_f1(counts, self.sets)[self.sets.label(classes)]

    def test_a_prediction_in_the_set_is_correct(self):
        counts = self.counts(("face", "skin", 6), ("face", "nose", 3), ("face", "hair", 1))
        np.testing.assert_allclose(self.f1("face", counts), 18 / 19)
        assert self.f1("hair", counts) == 0  # One false positive.

    def test_a_class_within_a_set_is_only_wrong_where_the_label_excludes_it(self):
        counts = self.counts(
            ("glasses", "glasses", 4), ("glasses", "skin", 1), ("face", "glasses", 9),
            ("hair", "glasses", 2),
        )  # fmt: skip
        np.testing.assert_allclose(self.f1("glasses", counts), 8 / (8 + 1 + 2))

    def test_ignored_pixels_do_not_count(self):
        counts = self.counts(("hair", "hair", 5), ("ignore", "hair", 7), ("ignore", "nose", 7))
        assert self.f1("hair", counts) == 1
        scores = metrics.f1_scores(counts, NINETEEN, self.sets)
        assert scores["hair"] == 1 and np.isnan(scores["overall"])

    def test_disjoint_sets_are_classes_merged_before_counting(self):
        rng = np.random.default_rng(0)
        rest = tuple(c for c in range(19) if c not in self.face)
        sets = LabelSets(19, (self.face, rest))
        counts = np.zeros((21, 19), np.int64)
        counts[19:] = rng.integers(0, 100, (2, 19))
        inside = np.isin(np.arange(19), self.face)
        tp, fp = counts[19, inside].sum(), counts[20, inside].sum()
        fn = counts[19, ~inside].sum()
        found = metrics.label_f1(counts, sets)[19]
        np.testing.assert_allclose(found, 2 * tp / (2 * tp + fp + fn))

    def test_an_absent_class_has_no_score(self):
        sets = LabelSets(19, (self.face, self.every), absent=NINETEEN.ids(["nose"]))
        counts = self.counts(("hair", "nose", 5))
        assert np.isnan(metrics.label_f1(counts, sets)[NINETEEN.classes.index("nose")])

    def test_confusion_has_a_row_for_each_label(self):
        truth, prediction = jnp.array([[[19, 20, 1]]]), jnp.array([[[9, 2, 1]]])
        counts = metrics.confusion(truth, prediction, 19, 21)
        assert counts.shape == (21, 19)
        assert counts[19, 9] == counts[20, 2] == counts[1, 1] == 1 and counts.sum() == 3
