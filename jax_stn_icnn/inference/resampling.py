"""Scores of frames as scores and labels of a photo's pixels.

Scores are resampled rather than labels, so that borders are as fine as the photo.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jax_stn_icnn.faces import resample
from jax_stn_icnn.inference.compact import CompactArray

Area = tuple[slice, slice]  # rows and columns of a photo
_AMBIGUOUS = 255  # not a class: the pixels of the frame around a point have different classes


class Layer(NamedTuple):
    """Scores of a square frame.

    Attributes:
        scores: channels first, float32 (classes, side, side); the first class is background.
        matrix: pixels of the frame -> pixels of the photo.
        class_ids: class ids of the channels.
    """

    scores: np.ndarray
    matrix: np.ndarray
    class_ids: tuple[int, ...]

    @property
    def side(self) -> int:
        """Side of the frame in its own pixels."""
        return self.scores.shape[-1]

    def area(self, photo_size: tuple[int, ...]) -> Area:
        """Returns the rows and columns of a photo of a size that the frame covers."""
        return resample.footprint(self.matrix, self.scores.shape[1:], photo_size)


class CompactLayer(NamedTuple):
    """A layer whose scores are rounded to multiples of 1/255 and compressed.

    Attributes:
        steps: for each class its scores in units of 1/255, uint8 (side, side).
        matrix: as in `Layer`.
        class_ids: as in `Layer`.
    """

    steps: tuple[CompactArray, ...]
    matrix: np.ndarray
    class_ids: tuple[int, ...]

    @classmethod
    def of(cls, layer: Layer) -> "CompactLayer":
        """Compresses a layer."""
        # Class by class, in small arrays: fresh memory takes longer than the computation.
        steps = tuple(
            CompactArray.of(np.rint(scores * 255).astype(np.uint8)) for scores in layer.scores
        )
        return cls(steps, layer.matrix, layer.class_ids)

    @property
    def side(self) -> int:
        """Side of the frame in its own pixels."""
        return self.steps[0].shape[-1]

    def area(self, photo_size: tuple[int, ...]) -> Area:
        """Returns the rows and columns of a photo of a size that the frame covers."""
        return resample.footprint(self.matrix, self.steps[0].shape, photo_size)

    def restore(self) -> Layer:
        """Returns the layer with rounded scores."""
        scores = np.stack([steps.restore() * np.float32(1 / 255) for steps in self.steps])
        return Layer(scores, self.matrix, self.class_ids)


def restore_layers(layers: Sequence[Layer | CompactLayer]) -> list[Layer]:
    """Returns layers with scores that are arrays."""
    return [layer.restore() if isinstance(layer, CompactLayer) else layer for layer in layers]


def labels_of_layers(
    layers: Sequence[Layer], photo_size: tuple[int, ...]
) -> tuple[np.ndarray, Area]:
    """Returns the labels of a photo by frames of which each contains the one before.

    Args:
        layers: the frames; where several contain a pixel, the first of them counts.
        photo_size: (height, width) of the photo.

    Returns:
        Class ids, uint8 (rows, columns), and the area of the photo that they cover, outside of
        which everything is background.
    """
    outermost = layers[-1].area(photo_size)
    label_map = np.zeros(size_of(outermost), np.uint8)
    for layer in reversed(layers):
        area = layer.area(photo_size)
        ids = np.array(layer.class_ids, np.uint8)
        found = ids[resample_labels(layer.scores, layer.matrix, area)]
        if layer is layers[-1]:
            label_map[:] = found
        else:
            inside = is_inside(layer, area)
            np.copyto(label_map[within(area, outermost)], found, where=inside)
    return label_map, outermost


def scores_of_layers(layers: Sequence[Layer], photo_size: tuple[int, ...]) -> np.ndarray:
    """Returns the scores behind `labels_of_layers`, divided by their sum at each pixel.

    Args:
        layers: the frames; the first of them has all classes.
        photo_size: (height, width) of the photo.

    Returns:
        Class scores, float32 (height, width, classes); outside of all frames, that of background is
        1.
    """
    scores = np.zeros((*photo_size, len(layers[0].class_ids)), np.float32)
    scores[..., 0] = 1
    for layer in reversed(layers):
        area = layer.area(photo_size)
        inside = np.ones((1, 1), bool) if layer is layers[-1] else is_inside(layer, area)
        for c in range(scores.shape[-1]):
            if c in layer.class_ids:
                values = resample_scores(layer.scores, layer.class_ids.index(c), layer.matrix, area)
            else:
                values = np.zeros(size_of(area), np.float32)
            np.copyto(scores[(*area, c)], values, where=inside)
    # Windows of parts overlap, and where several of them predict a class, the sum exceeds 1.
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


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
    labels = resample.sample_nearest(cells, to_frame + [[0, 0, 0.5], [0, 0, 0.5]], size_of(area))
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
    return resample.warp(frame_scores[c], to_frame, size_of(area), outside=float(c == 0))


def is_inside(layer: Layer, area: Area) -> np.ndarray:
    """Returns which pixels of a photo lie in a frame, half a pixel from its outermost pixels."""
    inner = np.pad(np.ones((layer.side - 2, layer.side - 2), np.uint8), 1)
    to_frame = resample.shift_origin(resample.invert_matrix(layer.matrix), *area)
    return resample.sample_nearest(inner, to_frame, size_of(area)) == 1


def within(area: Area, outer: Area) -> Area:
    """Returns the slices of an area in an array of a larger area."""
    rows, columns = (
        slice(inner.start - edge.start, inner.stop - edge.start)
        for inner, edge in zip(area, outer, strict=True)
    )
    return rows, columns


def size_of(area: Area) -> tuple[int, int]:
    """Returns the number of rows and columns of an area."""
    rows, columns = area
    return rows.stop - rows.start, columns.stop - columns.start
