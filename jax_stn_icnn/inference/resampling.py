"""Scores of frames as scores and labels of a photo's pixels.

Scores are resampled rather than labels, so that borders are as fine as the photo.
"""

from collections.abc import Sequence

import numpy as np

from jax_stn_icnn.faces import resample

Area = tuple[slice, slice]  # rows and columns of a photo
_AMBIGUOUS = 255  # not a class: the pixels of the frame around a point have different classes


def resample_labels(frame_scores: np.ndarray, matrix: np.ndarray, area: Area) -> np.ndarray:
    """Returns the argmax of the scores that `resample_scores` returns, without all of them.

    Args:
        frame_scores: scores of the frame, channels first, float32 (classes, S, S); class 0 is
            background, whose score outside the frame is 1.
        matrix: pixels of the frame -> pixels of the photo.
        area: rows and columns of the photo.

    Returns:
        Indices of the classes, uint8 (rows, columns).
    """
    if np.linalg.det(matrix[:, :2]) < 1:  # The photo is coarser than the frame, so it is small.
        return _argmax(
            [resample_scores(frame_scores, c, matrix, area) for c in range(len(frame_scores))]
        )
    if np.array_equal(matrix[:, :2], np.eye(2)) and not np.any(matrix[:, 2] % 1):
        # The pixels of the photo are pixels of the frame.
        offset = -matrix[::-1, 2].astype(int)
        inside = [slice(e.start + n, e.stop + n) for e, n in zip(area, offset, strict=True)]
        return _argmax(frame_scores[:, *inside])
    # A bilinear score is a convex combination of the scores of four pixels: where the four have the
    # same argmax, so has every point between them. Scores are needed only where they differ.
    label_map = np.pad(_argmax(frame_scores), 1)  # Outside the frame everything is background.
    corners = label_map[:-1, :-1], label_map[:-1, 1:], label_map[1:, :-1], label_map[1:, 1:]
    agree = np.all([corner == corners[0] for corner in corners[1:]], axis=0)
    cells = np.where(agree, corners[0], _AMBIGUOUS)
    to_frame = resample.shift_origin(resample.invert_matrix(matrix), *area)
    labels = resample.sample_nearest(cells, to_frame + [[0, 0, 0.5], [0, 0, 0.5]], _size(area))
    rows, columns = np.nonzero(labels == _AMBIGUOUS)
    pixels = np.stack([columns, rows], axis=1).astype(np.float64)
    points = resample.transform_points(to_frame, pixels)
    labels[rows, columns] = _argmax(
        [
            resample.sample_bilinear(frame_scores[c], points, outside=float(c == 0))
            for c in range(len(frame_scores))
        ]
    )
    return labels


def _argmax(scores: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """np.argmax over the first axis as uint8, class by class to save memory on large photos."""
    best = scores[0].copy()
    label_map = np.zeros(best.shape, np.uint8)
    for c in range(1, len(scores)):
        np.copyto(label_map, np.uint8(c), where=scores[c] > best)
        np.maximum(best, scores[c], out=best)
    return label_map


def resample_scores(frame_scores: np.ndarray, c: int, matrix: np.ndarray, area: Area) -> np.ndarray:
    """Resamples the scores of class `c` to an area of the photo.

    Args:
        frame_scores: as for `resample_labels`, like the others.
        c: index of the class.
        matrix: pixels of the frame -> pixels of the photo.
        area: rows and columns of the photo.

    Returns:
        float32 (rows, columns).
    """
    to_frame = resample.shift_origin(resample.invert_matrix(matrix), *area)
    return resample.warp(frame_scores[c], to_frame, _size(area), outside=float(c == 0))


def is_inside(size: tuple[int, ...], matrix: np.ndarray, area: Area) -> np.ndarray:
    """Returns which pixels of a photo lie in a frame, half a pixel from its outermost pixels.

    Args:
        size: (height, width) of the frame, three or more.
        matrix: pixels of the frame -> pixels of the photo.
        area: rows and columns of the photo.

    Returns:
        bool (rows, columns).
    """
    inner = np.pad(np.ones((size[0] - 2, size[1] - 2), np.uint8), 1)
    to_frame = resample.shift_origin(resample.invert_matrix(matrix), *area)
    return resample.sample_nearest(inner, to_frame, _size(area)) == 1


def _size(area: Area) -> tuple[int, int]:
    rows, columns = area
    return rows.stop - rows.start, columns.stop - columns.start
