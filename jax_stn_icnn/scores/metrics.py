"""Scores: confusion counts that add up over batches and devices, and F1 from them.

Sum the counts first, divide once: the mean of batches' F1 is not the data set's F1.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn import anatomy
from jax_stn_icnn.checks import check_labels, check_shape

MEAN_OF_EIGHT = "mean_of_eight"


def confusion(truth: jax.Array, prediction: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Counts how often each class was called each.

    Args:
        truth: class ids 0..8, integers (batch, height, width).
        prediction: likewise.
        mask: which examples count, bool (batch,); all by default.

    Returns:
        int32 (9, 9), rows truth, columns prediction. Add up on the host, in int64, what may pass
        2**31 pixels in all.

    Raises:
        ValueError: shapes differ, or a label is outside 0..8.
    """
    check_shape("truth", truth, ("batch", "height", "width"))
    check_shape("prediction", prediction, truth.shape)
    check_labels("truth", truth, anatomy.NUM_CLASSES)
    check_labels("prediction", prediction, anatomy.NUM_CLASSES)
    n = anatomy.NUM_CLASSES
    pair = truth.astype(jnp.int32) * n + prediction.astype(jnp.int32)
    if mask is not None:
        check_shape("mask", mask, truth.shape[:1])
        pair = jnp.where(mask[:, None, None], pair, n * n)
    return jnp.bincount(pair.ravel(), length=n * n + 1)[:-1].reshape(n, n)


def f1_scores(counts: np.ndarray) -> dict[str, float]:
    """F1 = 2 TP / (2 TP + FP + FN) of every group, and the mean of the eight single classes.

    The classes of a group become one before counting: under `overall`, the field's convention, a
    brow called an eye costs nothing; `mean_of_eight` is the honest one beside it.

    Args:
        counts: summed confusion counts (9, 9), rows truth.

    Returns:
        Group name -> F1 in 0..1, NaN where a group is in neither truth nor prediction.

    Raises:
        ValueError: the shape is not (9, 9).
    """
    check_shape("counts", counts, (anatomy.NUM_CLASSES, anatomy.NUM_CLASSES))
    counts = np.asarray(counts, np.int64)
    scores = {name: _f1(counts, group) for name, group in anatomy.SCORE_GROUPS.items()}
    single = [_f1(counts, (c,)) for c in range(1, anatomy.NUM_CLASSES)]
    known = [score for score in single if not np.isnan(score)]
    scores[MEAN_OF_EIGHT] = float(np.mean(known)) if known else float("nan")
    return scores


def _f1(counts: np.ndarray, group: tuple[int, ...]) -> float:
    ids = list(group)
    hit = counts[np.ix_(ids, ids)].sum()
    either = counts[ids].sum() + counts[:, ids].sum()
    return float(2 * hit / either) if either else float("nan")
