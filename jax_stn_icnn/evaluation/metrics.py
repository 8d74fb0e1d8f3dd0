"""Confusion counts and the F1 scores computed from them.

Counts are summed over batches and devices before F1 is computed: the mean of the batches' F1 is not
the F1 of the data set.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_labels, check_shape

# F1 over the classes of the parts, and over all classes but background.
OVERALL = "overall"
MEAN_OF_EIGHT = "mean_of_eight"
MEAN = "mean"


def confusion(
    truth: jax.Array,
    prediction: jax.Array,
    num_classes: int = NINE.num_classes,
) -> jax.Array:
    """Returns the confusion counts of label maps.

    Args:
        truth: Class ids, integers (batch, height, width).
        prediction: Class ids of the same shape.
        num_classes: Number of classes.

    Returns:
        Numbers of pixels, int32 (classes, classes), rows truth, columns prediction. Sums that may
        exceed 2**31 - 1 pixels belong on the host, in int64.

    Raises:
        ValueError: Shapes differ, or a label is not a class id.
    """
    check_shape("truth", truth, ("batch", "height", "width"))
    check_shape("prediction", prediction, truth.shape)
    check_labels("truth", truth, num_classes)
    check_labels("prediction", prediction, num_classes)
    n = num_classes
    pair = truth.astype(jnp.int32) * n + prediction.astype(jnp.int32)
    return jnp.bincount(pair.ravel(), length=n * n).reshape(n, n)


def f1_scores(counts: np.ndarray, anatomy: Anatomy = NINE) -> dict[str, float]:
    """Computes F1 = 2 TP / (2 TP + FP + FN) of each group of classes, and means over classes.

    The classes of a group are merged into one before counting. `overall` merges all classes of
    parts, as the literature does; a brow that is labeled as an eye costs nothing there.
    `mean_of_eight` is the mean F1 of the same classes, eight in the paper, without merging. `mean`,
    for an anatomy with global classes besides background, is the mean over all classes but
    background.

    Args:
        counts: Summed confusion counts (classes, classes), rows truth.
        anatomy: The classes and their groups.

    Returns:
        Group name -> F1 in 0..1; NaN if neither truth nor prediction contains the group.

    Raises:
        ValueError: The shape is not (classes, classes).
    """
    check_shape("counts", counts, (anatomy.num_classes, anatomy.num_classes))
    scores = {name: _f1(counts, group) for name, group in anatomy.group_ids.items()}
    scores[OVERALL] = _f1(counts, anatomy.part_class_ids)
    scores[MEAN_OF_EIGHT] = _mean_f1(counts, anatomy.part_class_ids)
    if len(anatomy.global_ids) > 1:
        scores[MEAN] = _mean_f1(counts, tuple(range(1, anatomy.num_classes)))
    return scores


def class_f1(counts: np.ndarray) -> np.ndarray:
    """Computes the F1 of each class.

    Args:
        counts: Summed confusion counts (classes, classes), rows truth.

    Returns:
        float64 (classes,), background included; NaN for a class that neither truth nor prediction
        contains.
    """
    return np.array([_f1(counts, (c,)) for c in range(len(counts))])


def _mean_f1(counts: np.ndarray, ids: tuple[int, ...]) -> float:
    """Returns the mean F1 of the classes that truth or prediction contains."""
    scores = [score for score in (_f1(counts, (c,)) for c in ids) if not np.isnan(score)]
    return float(np.mean(scores)) if scores else float("nan")


def _f1(counts: np.ndarray, group: tuple[int, ...]) -> float:
    counts, ids = np.asarray(counts, np.int64), list(group)
    true_positives = counts[np.ix_(ids, ids)].sum()
    total = counts[ids].sum() + counts[:, ids].sum()
    return float(2 * true_positives / total) if total else float("nan")
