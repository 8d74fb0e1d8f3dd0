"""Boundary F of each class and stray regions, two errors that F1 hardly shows.

Both are computed on the host by OpenCV. Counts are summed over faces before scores are computed.
"""

import cv2
import numpy as np

from jax_stn_icnn.checks import check_shape

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def edge_counts(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, within: float = 2.0
) -> np.ndarray:
    """Counts the edge pixels of each class, and those near an edge of the other label map.

    A pixel is an edge pixel of its class if one of its four neighbors has another class; the
    border of the image is not an edge.

    Args:
        truth: Class ids (height, width).
        prediction: Class ids of the same shape.
        num_classes: Number of classes.
        within: Largest distance that counts as near, in pixels from center to center.

    Returns:
        int64 (classes, 4): predicted edge pixels, those of them near a true edge pixel, true edge
        pixels, those of them near a predicted edge pixel.

    Raises:
        ValueError: The shapes differ.
    """
    _check(truth, prediction)
    near = _disc(within)
    counts = np.zeros((num_classes, 4), np.int64)
    for c in range(num_classes):
        true, predicted = _edge(truth == c), _edge(prediction == c)
        counts[c, 0], counts[c, 2] = np.count_nonzero(predicted), np.count_nonzero(true)
        if counts[c, 0] and counts[c, 2]:
            counts[c, 1] = np.count_nonzero(predicted & cv2.dilate(true, near))
            counts[c, 3] = np.count_nonzero(true & cv2.dilate(predicted, near))
    return counts


def boundary_f(counts: np.ndarray) -> np.ndarray:
    """Computes the boundary F of each class, the harmonic mean of edge precision and edge recall.

    Args:
        counts: Summed counts of `edge_counts`, (classes, 4).

    Returns:
        float64 (classes,); NaN for a class without an edge in truth and prediction.
    """
    predicted, predicted_near, true, true_near = np.asarray(counts, np.float64).T
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = predicted_near / predicted, true_near / true
        score = 2 * precision * recall / (precision + recall)
    return np.where((predicted_near == 0) & (predicted + true > 0), 0.0, score)


def stray_regions(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> int:
    """Counts the predicted regions, 4-connected, that contain no true pixel of their class.

    Args:
        truth: Class ids (height, width).
        prediction: Class ids of the same shape.
        num_classes: Number of classes; regions of background, class 0, are not counted.

    Returns:
        The number of regions.

    Raises:
        ValueError: The shapes differ.
    """
    _check(truth, prediction)
    stray = 0
    for c in range(1, num_classes):
        mask = prediction == c
        if mask.any():
            count, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
            stray += count - np.union1d([0], regions[truth == c]).size
    return stray


def _check(truth: np.ndarray, prediction: np.ndarray) -> None:
    check_shape("truth", truth, ("height", "width"))
    check_shape("prediction", prediction, truth.shape)


def _edge(mask: np.ndarray) -> np.ndarray:
    """Returns 1 at the pixels of a mask with a neighbor outside it, uint8."""
    pixels = mask.astype(np.uint8)
    inner = cv2.erode(pixels, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=(1,))
    return pixels - np.asarray(inner, np.uint8)


def _disc(radius: float) -> np.ndarray:
    offsets = np.arange(-int(radius), int(radius) + 1)
    return np.asarray(offsets[:, None] ** 2 + offsets**2 <= radius**2, np.uint8)
