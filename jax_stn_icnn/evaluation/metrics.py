"""Scores: confusion counts that add up over batches and devices, and F1 from them.

Sum the counts first, divide once: the mean of batches' F1 is not the data set's F1.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_labels, check_shape

# Over the classes that have a window, eight in all of ours; and over all but background.
OVERALL = "overall"
MEAN_OF_EIGHT = "mean_of_eight"
MEAN = "mean"


def confusion(
    truth: jax.Array,
    prediction: jax.Array,
    num_classes: int = NINE.num_classes,
) -> jax.Array:
    """Counts how often each class was called each.

    Args:
        truth: class ids, integers (batch, height, width).
        prediction: likewise.
        num_classes: how many classes there are.

    Returns:
        int32 (classes, classes), rows truth, columns prediction. Add up on the host, in int64, what
        may pass 2**31 pixels in all.

    Raises:
        ValueError: shapes differ, or a label is no class.
    """
    check_shape("truth", truth, ("batch", "height", "width"))
    check_shape("prediction", prediction, truth.shape)
    check_labels("truth", truth, num_classes)
    check_labels("prediction", prediction, num_classes)
    n = num_classes
    pair = truth.astype(jnp.int32) * n + prediction.astype(jnp.int32)
    return jnp.bincount(pair.ravel(), length=n * n).reshape(n, n)


def f1_scores(counts: np.ndarray, anatomy: Anatomy = NINE) -> dict[str, float]:
    """F1 = 2 TP / (2 TP + FP + FN) of every group, and the mean of single classes.

    The classes of a group become one before counting. `overall`, the field's convention, does so
    with all that have a window: a brow called an eye costs nothing; `mean_of_eight`, over the same
    classes, eight in the paper, is the honest one beside it. Where there are classes without a
    window, `mean` is that over all but background.

    Args:
        counts: summed confusion counts (classes, classes), rows truth.
        anatomy: what the face consists of.

    Returns:
        Group name -> F1 in 0..1, NaN where a group is in neither truth nor prediction.

    Raises:
        ValueError: the shape is not (classes, classes).
    """
    check_shape("counts", counts, (anatomy.num_classes, anatomy.num_classes))
    counts = np.asarray(counts, np.int64)
    scores = {name: _f1(counts, group) for name, group in anatomy.group_ids.items()}
    scores[OVERALL] = _f1(counts, anatomy.part_class_ids)
    scores[MEAN_OF_EIGHT] = _mean_f1(counts, anatomy.part_class_ids)
    if len(anatomy.global_ids) > 1:
        scores[MEAN] = _mean_f1(counts, tuple(range(1, anatomy.num_classes)))
    return scores


def class_f1(counts: np.ndarray) -> np.ndarray:
    """F1 of every single class, background included; NaN where it is nowhere.

    Args:
        counts: summed confusion counts (classes, classes), rows truth.

    Returns:
        float64 (classes,).
    """
    return np.array([_f1(np.asarray(counts, np.int64), (c,)) for c in range(len(counts))])


def _mean_f1(counts: np.ndarray, ids: tuple[int, ...]) -> float:
    """The mean over single classes, those in neither truth nor prediction left out."""
    known = [score for score in (_f1(counts, (c,)) for c in ids) if not np.isnan(score)]
    return float(np.mean(known)) if known else float("nan")


def _f1(counts: np.ndarray, group: tuple[int, ...]) -> float:
    ids = list(group)
    hit = counts[np.ix_(ids, ids)].sum()
    either = counts[ids].sum() + counts[:, ids].sum()
    return float(2 * hit / either) if either else float("nan")
