import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.evaluation import metrics


def test_counts_and_scores_equal_the_original(golden):
    z = golden("scores")
    counts = metrics.confusion(jnp.array(z["truth_uint8"]), jnp.array(z["prediction_uint8"]))
    np.testing.assert_array_equal(counts, z["confusion"])
    scores = metrics.f1_scores(np.asarray(counts))
    for group in (*NINE.group_ids, "overall"):
        assert scores[group] == z[f"f1_{group}"], group


def test_counts_add_up_over_batches_and_devices():
    truth, prediction = jax.random.randint(jax.random.key(0), (2, 4, 16, 16), 0, 9)
    together = metrics.confusion(truth, prediction)
    parts = [metrics.confusion(truth[i : i + 1], prediction[i : i + 1]) for i in range(4)]
    np.testing.assert_array_equal(sum(parts), together)
    by_device = jax.pmap(
        lambda t, p: jax.lax.psum(metrics.confusion(t, p), "batch"), axis_name="batch"
    )(truth.reshape(4, 1, 16, 16), prediction.reshape(4, 1, 16, 16))
    np.testing.assert_array_equal(by_device[0], together)


def test_a_brow_labeled_as_an_eye_lowers_the_mean_but_not_overall():
    counts = np.zeros((9, 9), int)
    counts[0, 0] = 100
    counts[1, 3] = 10
    for c in range(2, 9):
        counts[c, c] = 10
    scores = metrics.f1_scores(counts)
    assert scores["overall"] == 1.0
    np.testing.assert_allclose(scores["mean_of_eight"], (0 + 6 * 1 + 20 / 30) / 8)


def test_the_mean_excludes_classes_in_neither_map():
    counts = np.zeros((9, 9), int)
    counts[5, 5] = 3
    scores = metrics.f1_scores(counts)
    assert scores["nose"] == scores["mean_of_eight"] == 1.0
    assert np.isnan(scores["eyes"])


def test_errors_name_the_argument():
    good = jnp.zeros((1, 4, 4), jnp.int32)
    with pytest.raises(ValueError, match="prediction has shape"):
        metrics.confusion(good, good[:, :3])
    with pytest.raises(ValueError, match=r"truth holds labels 0\.\.11"):
        metrics.confusion(good.at[0, 0, 0].set(11), good)
    with pytest.raises(ValueError, match="counts has shape"):
        metrics.f1_scores(np.zeros((8, 8)))
