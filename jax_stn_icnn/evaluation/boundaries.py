"""What F1 hardly sees: how well edges lie, and regions that stand where nothing of theirs is.

On the host, by OpenCV. Counts add up over faces; divide once.
"""

import cv2
import numpy as np

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def edge_counts(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, within: float = 2.0
) -> np.ndarray:
    """Counts the pixels of each class's edge, and those that have an edge of the other near.

    A pixel lies on its class's edge if one of its four neighbours is of another class; the
    picture's border is no edge.

    Args:
        truth: class ids (height, width).
        prediction: likewise.
        num_classes: how many classes there are.
        within: how near, in pixels from centre to centre.

    Returns:
        int64 (classes, 4): the prediction's edge pixels, those of them near the true edge, the true
        edge's pixels, those of them near the predicted edge.

    Raises:
        ValueError: the shapes differ.
    """
    _check(truth, prediction)
    near = _disc(within)
    counts = np.zeros((num_classes, 4), np.int64)
    for c in range(num_classes):
        true, found = _edge(truth == c), _edge(prediction == c)
        counts[c, 0], counts[c, 2] = np.count_nonzero(found), np.count_nonzero(true)
        if counts[c, 0] and counts[c, 2]:
            counts[c, 1] = np.count_nonzero(found & cv2.dilate(true, near))
            counts[c, 3] = np.count_nonzero(true & cv2.dilate(found, near))
    return counts


def boundary_f(counts: np.ndarray) -> np.ndarray:
    """Each class's boundary F, the harmonic mean of precision and recall of its edge.

    Args:
        counts: of `edge_counts`, summed, (classes, 4).

    Returns:
        float64 (classes,); NaN where neither has an edge.
    """
    found, found_near, true, true_near = np.asarray(counts, np.float64).T
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = found_near / found, true_near / true
        score = 2 * precision * recall / (precision + recall)
    return np.where((found_near == 0) & (found + true > 0), 0.0, score)


def stray_regions(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> int:
    """Counts the 4-connected regions of a class that hold no true pixel of it.

    Args:
        truth: class ids (height, width).
        prediction: likewise.
        num_classes: how many classes there are; background, 0, does not count.

    Returns:
        How many regions.

    Raises:
        ValueError: the shapes differ.
    """
    _check(truth, prediction)
    stray = 0
    for c in range(1, num_classes):
        mask = prediction == c
        if mask.any():
            count, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
            stray += count - np.union1d([0], regions[truth == c]).size
    return stray


def _edge(mask: np.ndarray) -> np.ndarray:
    """1 where a mask's pixel has a neighbour outside it, uint8."""
    there = mask.astype(np.uint8)
    inner = cv2.erode(there, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=(1,))
    return there - np.asarray(inner, np.uint8)


def _disc(radius: float) -> np.ndarray:
    reach = np.arange(-int(radius), int(radius) + 1)
    return np.asarray(reach[:, None] ** 2 + reach**2 <= radius**2, np.uint8)


def _check(truth: np.ndarray, prediction: np.ndarray) -> None:
    if truth.ndim != 2 or truth.shape != prediction.shape:
        raise ValueError(
            f"truth has shape {truth.shape} and prediction {prediction.shape}, but both must be "
            "(height, width)"
        )
