"""Smooths the class scores of a face over the frames of a video, where the picture is still.

A still picture has noise, which moves borders back and forth. Each block of a frame counts for how
many pictures it has not changed, and its scores are the mean of as many, at most `_MEMORY`, with
the weights of an exponential mean. A block that changes, such as a mouth that opens, starts again,
so that labels do not lag behind the picture. So does everything if the frame itself moves.
"""

import numpy as np

from jax_stn_icnn.faces import framing, resample

_BLOCKS = 64  # along each side of a frame
# A block has changed, as have its neighbours, if its brightness, 0..255, differs from the mean of
# the pictures before by more than this many times the median difference of all blocks: about four
# standard deviations of the noise, where most of the picture is still. Elsewhere the limits apply.
_CHANGE, _CHANGE_LIMITS = 6, (3, 8)
_MEMORY = 10  # pictures


class ScoreSmoother:
    """Smooths the scores of one frame of a face: of the frame, the wide frame or the far frame."""

    def __init__(self) -> None:
        """Starts without a picture."""
        self._matrix: np.ndarray | None = None
        self._scores: np.ndarray = np.empty(0)
        self._picture: np.ndarray = np.empty(0)  # mean brightness of the blocks
        self._ages: np.ndarray = np.empty(0)  # number of pictures since a block changed

    def __call__(self, photo: np.ndarray, matrix: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Returns the smoothed scores of the next picture.

        Args:
            photo: RGB, uint8 (height, width, 3).
            matrix: pixels of the frame -> pixels of the photo.
            scores: class scores of the frame, float32 (classes, side, side).

        Returns:
            float32 (classes, side, side); `scores` itself if there is no picture before, or if its
            frame was another one.
        """
        side = scores.shape[-1]
        picture = block_means(photo, matrix, side)
        if self._matrix is None or not np.array_equal(self._matrix, matrix):
            self._ages = np.ones_like(picture)
            self._matrix, self._picture, self._scores = matrix, picture, scores
            return scores
        difference = np.abs(picture - self._picture)
        limit = np.clip(_CHANGE * np.median(difference), *_CHANGE_LIMITS)
        changed = _with_neighbours(difference > limit)
        self._ages = np.where(changed, 1, np.minimum(self._ages + 1, _MEMORY))
        weights = np.float32(1) / self._ages.astype(np.float32)
        self._picture = self._picture + weights * (picture - self._picture)
        self._scores = self._scores + _enlarge(weights, side) * (scores - self._scores)
        return self._scores


def block_means(photo: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """Returns the brightness of the blocks of a frame.

    Args:
        photo: RGB, uint8 (height, width, 3).
        matrix: pixels of the frame -> pixels of the photo.
        side: side of the frame in pixels.

    Returns:
        The mean of the three channels, 0..255, float32 (64, 64).
    """
    middle = np.full(2, (side - 1) / 2)
    center = resample.transform_points(matrix, middle)
    unit = np.concatenate([matrix[:, :2] * side, center[:, None]], axis=1)
    blocks = resample.warp(photo, framing.resize_frame(unit, _BLOCKS), (_BLOCKS, _BLOCKS))
    return blocks.mean(axis=-1, dtype=np.float32)


def _with_neighbours(changed: np.ndarray) -> np.ndarray:
    """Returns which blocks, or blocks next to them, have changed."""
    padded = np.pad(changed, 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    return np.asarray(windows.any(axis=(2, 3)))


def _enlarge(weights: np.ndarray, side: int) -> np.ndarray:
    """Returns the weights of blocks at the pixels of a frame, bilinear."""
    scale = len(weights) / side
    matrix = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]])
    matrix[:, 2] += 1  # the padding
    return resample.warp(np.pad(weights, 1, mode="edge"), matrix, (side, side))
