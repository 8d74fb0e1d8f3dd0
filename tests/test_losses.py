import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from jax_stn_icnn.anatomy import ELEVEN, NINETEEN
from jax_stn_icnn.label_sets import LabelSets
from jax_stn_icnn.train import consensus, losses

consensus_and_gradient = jax.jit(
    jax.value_and_grad(consensus.mean_consensus_loss), static_argnames="connected"
)


@pytest.mark.parametrize(("alpha", "beta"), [(10, 5), (1, 0), (0, 1)])
def test_consensus_equals_the_original(golden, alpha, beta):
    z = golden("consensus")
    target = jnp.array(z["target_int64"].astype(np.int32))
    loss, gradient = jax.jit(
        jax.value_and_grad(lambda x: consensus.consensus_loss(x, target, None, alpha, beta))
    )(z.nhwc("logits"))
    np.testing.assert_allclose(loss, z[f"loss_a{alpha}_b{beta}"], rtol=1e-5)
    expected = z.nhwc(f"grad_a{alpha}_b{beta}")
    error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
    assert error < 1e-5


def consensus_by_a_loop(probs, label_map, connected):
    """Returns the loss of one image in float64; probabilities (height, width, labels)."""
    terms = []
    for c in np.unique(label_map):
        numbered, count = scipy.ndimage.label(label_map == c)
        if not connected:
            numbered, count = np.minimum(numbered, 1), 1
        for k in range(1, count + 1):
            p = probs[numbered == k]
            mean = p.mean(axis=0)
            kl = (mean * (np.log(mean) - np.log(p))).mean()  # over pixels and labels
            terms.append(10 * -np.log(mean[c]) + 5 * kl)
    return np.mean(terms)


@pytest.mark.slow
@pytest.mark.parametrize("connected", [True, False])
def test_mean_consensus_equals_a_loop(connected):
    logits = jax.random.normal(jax.random.key(0), (2, 12, 10, 4))
    label_map = np.array(jax.random.randint(jax.random.key(1), (2, 12, 10), 0, 3))
    label_map[1] = np.minimum(label_map[1], 1)  # has fewer labels than the other
    probs = np.asarray(jax.nn.softmax(logits), np.float64)
    each = [consensus_by_a_loop(probs[i], label_map[i], connected) for i in range(2)]
    loss, gradient = consensus_and_gradient(logits, jnp.array(label_map), connected=connected)
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-5)
    chex.assert_tree_all_finite(gradient)
    assert (np.abs(gradient).sum(axis=(1, 2)) > 0).all()


def test_consensus_is_finite_if_a_probability_underflows():
    # The true label is 120 below the others in its whole region: exp(-120) underflows in float32.
    logits = jnp.zeros((1, 4, 4, 3)).at[..., 1].set(-120.0)
    label_map = jnp.ones((1, 4, 4), jnp.int32)
    loss, gradient = consensus_and_gradient(logits, label_map)
    np.testing.assert_allclose(loss, 10 * (120 + np.log(2)), rtol=1e-6)
    # As for cross entropy: softmax minus one-hot, divided by the number of pixels.
    np.testing.assert_allclose(gradient[0, 0, 0], [10 / 32, -10 / 16, 10 / 32], rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_connected_regions_equal_scipys(seed):
    rng = np.random.default_rng(seed)
    label_map = rng.integers(0, 2 + seed, (2, 19, 23))
    if seed == 0:  # a spiral: the longest path possible
        label_map[0] = 0
        for i in range(0, 9, 2):
            label_map[0, i : 19 - i, i : 23 - i] = 1
            label_map[0, i + 1 : 18 - i, i + 1 : 22 - i] = 0
            label_map[0, i + 1, i] = 0
            label_map[0, i + 2 : i + 3, i + 1] = 1
    regions = np.asarray(jax.jit(consensus.connected_regions)(jnp.array(label_map)))
    for image in range(2):
        expected = np.zeros_like(label_map[image])
        total = 0
        for c in np.unique(label_map[image]):
            numbered, count = scipy.ndimage.label(label_map[image] == c)
            expected = np.where(numbered > 0, numbered + total, expected)
            total += count
        # The same partition: each number corresponds to one of scipy's.
        pairs = np.unique(np.stack([regions[image].ravel(), expected.ravel()]), axis=1)
        assert pairs.shape[1] == total
        np.testing.assert_array_equal(np.unique(regions[image]), np.arange(total))


def test_binary_cross_entropy_equals_its_definition():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    truth = jax.random.randint(jax.random.key(1), (2, 3, 4), 0, 5)
    sigmoid, hot = jax.nn.sigmoid(logits), jax.nn.one_hot(truth, 5)
    expected = -(hot * jnp.log(sigmoid) + (1 - hot) * jnp.log(1 - sigmoid)).mean()
    np.testing.assert_allclose(losses.binary_cross_entropy(logits, truth), expected, rtol=1e-5)


def test_cross_entropy_equals_its_definition():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    truth = jax.random.randint(jax.random.key(1), (2, 3, 4), 0, 5)
    probs = jax.nn.softmax(logits) * jax.nn.one_hot(truth, 5)
    loss = losses.cross_entropy(logits, truth)
    np.testing.assert_allclose(loss, -jnp.log(probs.sum(-1)).mean(), rtol=1e-6)


def test_balanced_cross_entropy_equals_its_definition():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 5, 6, 4)).astype(np.float32)
    label_map = rng.integers(0, 3, (2, 5, 6))  # without the last class
    per_image = []
    for scores, truth in zip(logits, label_map, strict=True):
        total = weights = 0.0
        for pixel, c in np.ndenumerate(truth):
            weight = 1 / np.sqrt(np.sum(truth == c))
            total += weight * (np.log(np.exp(scores[pixel]).sum()) - scores[pixel][c])
            weights += weight
        per_image.append(total / weights)
    found = losses.balanced_cross_entropy(jnp.array(logits), jnp.array(label_map))
    np.testing.assert_allclose(found, np.mean(per_image), rtol=1e-5)


def test_smooth_l1_is_quadratic_below_one_and_omits_absent_parts():
    target = jnp.zeros((1, 6, 2, 3))
    theta = target.at[0, 0].set(0.5).at[0, 1].set(3.0).at[0, 2].set(100.0)
    present = jnp.array([[True, True, False, False, False, False]])
    expected = (0.5 * 0.5**2 + (3.0 - 0.5)) / 2
    smooth_l1 = jax.jit(jax.value_and_grad(losses.smooth_l1))
    loss, gradient = smooth_l1(theta, target, present)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_array_equal(gradient[0, 2], jnp.zeros((2, 3)))
    assert smooth_l1(theta, target, jnp.zeros((1, 6), bool))[0] == 0


def test_the_message_names_a_wrong_argument():
    logits = jnp.zeros((1, 4, 4, 9))
    with pytest.raises(ValueError, match=r"labels 0\.\.9.*0\.\.8"):
        losses.cross_entropy(logits, jnp.zeros((1, 4, 4), jnp.int32).at[0, 0, 0].set(9))
    with pytest.raises(ValueError, match="label_map has shape"):
        losses.cross_entropy(logits, jnp.zeros((1, 4, 5), jnp.int32))
    with pytest.raises(ValueError, match="must hold integers, not float32"):
        losses.cross_entropy(logits, jnp.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="present has shape"):
        losses.smooth_l1(jnp.zeros((1, 6, 2, 3)), jnp.zeros((1, 6, 2, 3)), jnp.ones((1, 5), bool))


def near_by_a_loop(label_map, distance):
    height, width = label_map.shape
    near = np.zeros((height, width), bool)
    for y, x in np.ndindex(height, width):
        for v, u in ((y + 1, x), (y, x + 1)):
            if v < height and u < width and label_map[v, u] != label_map[y, x]:
                for row, column in ((y, x), (v, u)):
                    rows = slice(max(row - distance, 0), row + distance + 1)
                    near[rows, max(column - distance, 0) : column + distance + 1] = True
    return near


def squares():
    label_map = np.zeros((3, 14, 11), np.int32)
    label_map[0, 3:9, 4:8] = 2
    label_map[0, 5:, 8:] = 1
    label_map[1, 0, 0] = 1  # the third has no edge
    return label_map


@pytest.mark.parametrize("distance", [0, 1, 2])
def test_pixels_near_edges_equal_a_loop(distance):
    label_map = squares()
    near = [near_by_a_loop(one, distance) for one in label_map]
    np.testing.assert_array_equal(losses.near_edges(jnp.array(label_map), distance), near)


def test_cross_entropy_near_edges_equals_a_loop():
    label_map = squares()
    near = np.array([near_by_a_loop(one, 2) for one in label_map])
    logits = jax.random.normal(jax.random.key(0), (*label_map.shape, 4))
    log_probs = np.asarray(jax.nn.log_softmax(logits), np.float64)
    each = [
        -np.mean([log_probs[i][y, x, label_map[i, y, x]] for y, x in np.argwhere(near[i])])
        for i in (0, 1)
    ]
    loss, gradient = jax.jit(jax.value_and_grad(losses.edge_cross_entropy))(
        logits, jnp.array(label_map)
    )
    np.testing.assert_allclose(loss, sum(each) / 3, rtol=1e-5)
    np.testing.assert_array_equal(np.any(gradient != 0, axis=-1), near)


def test_the_edge_task_balances_edges_and_other_pixels():
    label_map = squares()
    edge = np.array([near_by_a_loop(one, 0) for one in label_map])
    logits = jax.random.normal(jax.random.key(0), label_map.shape)
    right = 1 / (1 + np.exp(-np.where(edge, 1, -1) * np.asarray(logits, np.float64)))
    each = [-np.log(right[i][edge[i]]).mean() - np.log(right[i][~edge[i]]).mean() for i in (0, 1)]
    expected = (sum(each) - np.log(right[2]).mean()) / 2 / 3
    loss, gradient = jax.jit(jax.value_and_grad(losses.edge_task_loss))(
        logits, jnp.array(label_map)
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert np.all(gradient != 0)


@pytest.mark.slow
@pytest.mark.parametrize("anatomy", [ELEVEN, NINETEEN], ids=lambda a: a.name)
def test_global_cross_entropy_equals_its_definition(anatomy):
    rng = np.random.default_rng(0)
    global_ids = anatomy.global_ids
    logits = rng.standard_normal((3, len(global_ids), 6, 7)).astype(np.float32)
    label_map = rng.integers(0, anatomy.num_classes, (3, 6, 7))
    label_map[2] = 5  # nothing but nose
    per_image = []
    for scores, truth in zip(np.moveaxis(logits, 1, -1), label_map, strict=True):
        terms = [
            np.log(np.exp(scores[pixel]).sum()) - scores[pixel][global_ids.index(c)]
            for pixel, c in np.ndenumerate(truth)
            if c in global_ids
        ]
        per_image.append(np.mean(terms) if terms else 0)
    given = jnp.array(label_map), global_ids, LabelSets(anatomy.num_classes)
    found = losses.global_cross_entropy(jnp.array(logits), *given)
    np.testing.assert_allclose(found, np.mean(per_image), rtol=1e-5)
    gradient = jax.grad(losses.global_cross_entropy)(jnp.array(logits), *given)
    assert np.all(np.isfinite(gradient)) and not np.any(gradient[2])
    outside = np.isin(label_map, anatomy.part_class_ids)
    assert not np.any(np.moveaxis(gradient, 1, -1)[outside])
