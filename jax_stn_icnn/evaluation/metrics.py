"""Confusion counts and the F1 scores computed from them.

The true labels may be sets of classes (`label_sets`). A prediction is correct if its class belongs
to the label. The F1 of a group of classes then counts the pixels whose label lies within the group
as positive; one whose label only overlaps the group counts if the prediction is wrong.

Counts are summed over batches and devices before F1 is computed: the mean of the batches' F1 is not
the F1 of the data set.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_labels, check_shape
from jax_stn_icnn.label_sets import LabelSets

# F1 over the classes of the parts, and over all classes but background.
OVERALL = "overall"
MEAN_OF_EIGHT = "mean_of_eight"
MEAN = "mean"


def confusion(
    truth: jax.Array,
    prediction: jax.Array,
    num_classes: int = NINE.num_classes,
    num_labels: int | None = None,
) -> jax.Array:
    """Returns the confusion counts of label maps.

    Args:
        truth: Labels, integers (batch, height, width).
        prediction: Class ids of the same shape.
        num_classes: Number of classes.
        num_labels: Number of true labels; by default that of the classes.

    Returns:
        Numbers of pixels, int32 (labels, classes), rows truth, columns prediction. Sums that may
        exceed 2**31 - 1 pixels belong on the host, in int64.

    Raises:
        ValueError: Shapes differ, or a label is unknown.
    """
    check_shape("truth", truth, ("batch", "height", "width"))
    check_shape("prediction", prediction, truth.shape)
    rows = num_classes if num_labels is None else num_labels
    check_labels("truth", truth, rows)
    check_labels("prediction", prediction, num_classes)
    pair = truth.astype(jnp.int32) * num_classes + prediction.astype(jnp.int32)
    return jnp.bincount(pair.ravel(), length=rows * num_classes).reshape(rows, num_classes)


def f1_scores(
    counts: np.ndarray, anatomy: Anatomy = NINE, label_sets: LabelSets | None = None
) -> dict[str, float]:
    """Computes F1 = 2 TP / (2 TP + FP + FN) of each group of classes, and means over classes.

    The classes of a group are merged into one before counting. `overall` merges all classes of
    parts, as the literature does; a brow that is labeled as an eye costs nothing there.
    `mean_of_eight` is the mean F1 of the same classes, eight in the paper, without merging. `mean`,
    for an anatomy with global classes besides background, is the mean over all classes but
    background.

    Args:
        counts: Summed confusion counts (labels, classes), rows truth.
        anatomy: The classes and their groups.
        label_sets: The classes of each label; None if labels are class ids.

    Returns:
        Group name -> F1 in 0..1; NaN if neither truth nor prediction contains the group, or no
        label lies within it.

    Raises:
        ValueError: The shape is not (labels, classes).
    """
    sets = label_sets or LabelSets(anatomy.num_classes)
    check_shape("counts", counts, (sets.num_labels, anatomy.num_classes))
    scores = {name: _f1(counts, group, sets) for name, group in anatomy.group_ids.items()}
    scores[OVERALL] = _f1(counts, anatomy.part_class_ids, sets)
    scores[MEAN_OF_EIGHT] = _mean_f1(counts, anatomy.part_class_ids, sets)
    if len(anatomy.global_ids) > 1:
        scores[MEAN] = _mean_f1(counts, tuple(range(1, anatomy.num_classes)), sets)
    return scores


def part_mean_title(anatomy: Anatomy) -> str:
    """Returns the title of the score `mean_of_eight`: the mean of as many part classes."""
    return f"mean of {len(anatomy.part_class_ids)}"


def label_f1(counts: np.ndarray, label_sets: LabelSets | None = None) -> np.ndarray:
    """Computes the F1 of each label: of each class, then of each union of classes.

    Args:
        counts: Summed confusion counts (labels, classes), rows truth.
        label_sets: The classes of each label; None if labels are class ids.

    Returns:
        float64 (labels,), background included; NaN for a label that neither truth nor prediction
        contains, for a class that is no label by itself, and for the set of all classes.
    """
    sets = label_sets or LabelSets(counts.shape[1])
    return np.array([_f1(counts, classes, sets) for classes in sets.sets])


def _mean_f1(counts: np.ndarray, ids: tuple[int, ...], label_sets: LabelSets) -> float:
    """Returns the mean F1 of the classes that truth or prediction contains."""
    scores = [_f1(counts, (c,), label_sets) for c in ids]
    known = [score for score in scores if not np.isnan(score)]
    return float(np.mean(known)) if known else float("nan")


def _f1(counts: np.ndarray, group: tuple[int, ...], label_sets: LabelSets) -> float:
    counts, members = np.asarray(counts, np.int64), label_sets.members
    in_group = np.isin(np.arange(label_sets.num_classes), group)
    positive = ~np.any(members & ~in_group, axis=1)
    usable = positive.copy()
    usable[list(label_sets.absent)] = False
    if in_group.all() or not usable.any():
        return float("nan")
    true_positives = counts[positive][:, in_group].sum()
    misses = counts[positive][:, ~in_group].sum()
    false_positives = counts[~positive][:, in_group][~members[~positive][:, in_group]].sum()
    total = 2 * true_positives + misses + false_positives
    return float(2 * true_positives / total) if total else float("nan")
