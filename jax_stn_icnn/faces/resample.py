"""Resampling on the host by any affine matrix, to any size: faces out of photos, scores back.

Matrices are (2, 3) and carry (x, y, 1) from pixels of one picture to pixels of another; whole
numbers are centres of pixels.
"""

import cv2
import numpy as np


def pull(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, ...], outside: float = 0
) -> np.ndarray:
    """Looks up where in the picture each pixel of the result comes from.

    Bilinear; where the result is coarser than the picture, each pixel is the mean of those that it
    covers. By exactly two, say, that is the plain mean of 2 x 2 pixels.

    Args:
        image: uint8 or float32, (height, width) or (height, width, 3).
        matrix: similarity, pixels of the result -> pixels of the picture.
        size: (height, width) of the result.
        outside: the value beyond the picture's edges.

    Returns:
        The result, of the picture's type.
    """
    if 0 in size:
        return np.empty((*size, *image.shape[2:]), image.dtype)
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    # Rounded, so that the cut keeps to blocks of whole pixels where the scale is whole.
    image, matrix = _cut(image, matrix, size, margin=int(np.ceil(round(max(scale, 1), 6))))
    height, width = image.shape[:2]
    if scale > 1:
        small = max(round(width / scale), 1), max(round(height / scale), 1)
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        # Edges stay edges: the centre of pixel i lies at i + 1/2 from the first one's edge.
        ratio = np.divide(small, (width, height))[:, None]
        matrix = np.concatenate([matrix[:, :2], matrix[:, 2:] + 0.5], axis=1) * ratio
        matrix[:, 2] -= 0.5
    return cv2.warpAffine(
        image,
        matrix,
        size[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(outside, outside, outside),
    )


def look_up(image: np.ndarray, matrix: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Looks up the nearest pixel for each of the result's; beyond the picture's edges, 0.

    Args:
        image: uint8 (height, width).
        matrix: pixels of the result -> pixels of the picture.
        size: (height, width) of the result.

    Returns:
        uint8 of that size.
    """
    if 0 in size:
        return np.empty(size, np.uint8)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, size[::-1], flags=flags))


def look_up_bilinear(image: np.ndarray, points: np.ndarray, outside: float = 0) -> np.ndarray:
    """Looks up points between pixels.

    Args:
        image: float32 (height, width).
        points: (x, y), (points, 2).
        outside: the value beyond the picture's edges.

    Returns:
        float32 (points,).
    """
    if not len(points):
        return np.empty(0, np.float32)
    # OpenCV takes pictures of points only, and none that are very long.
    count, width = len(points), 4096
    padded = np.pad(np.float32(points), ((0, -count % width), (0, 0)), mode="edge")
    x, y = padded.T.reshape(2, -1, width)
    found = cv2.remap(
        image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(outside,) * 3
    )
    return np.asarray(found).ravel()[:count]


def footprint(
    matrix: np.ndarray, size: tuple[int, ...], within: tuple[int, ...]
) -> tuple[slice, slice]:
    """The rows and columns of a picture that another one covers, carried there by a matrix.

    Args:
        matrix: pixels of the other -> pixels of the picture.
        size: (height, width) of the other.
        within: (height, width) of the picture.

    Returns:
        Two slices, which are empty if it lies outside.
    """
    low, high = corners(matrix, size).min(axis=0), corners(matrix, size).max(axis=0)
    last = np.array(within[::-1])
    first = np.clip(np.floor(low + 0.5), 0, last).astype(int)
    end = np.clip(np.ceil(high + 0.5), first, last).astype(int)
    return slice(first[1], end[1]), slice(first[0], end[0])


def corners(matrix: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Where a picture's outer corners go, half a pixel beyond the centres of its corner pixels.

    Args:
        matrix: pixels of the picture -> pixels of another.
        size: (height, width) of the picture.

    Returns:
        (x, y) in the other of the upper left, upper right, lower right and lower left one, (4, 2).
    """
    x, y = size[1] - 0.5, size[0] - 0.5
    return apply(matrix, np.array([(-0.5, -0.5), (x, -0.5), (x, y), (-0.5, y)]))


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Carries points.

    Args:
        matrix: pixels of one picture -> pixels of another.
        points: (x, y) in the one, (..., 2).

    Returns:
        (x, y) in the other, (..., 2).
    """
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: np.ndarray) -> np.ndarray:
    """The matrix that carries back."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -linear @ matrix[:, 2:]], axis=1)


def shift(matrix: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """The matrix for a picture cut to rows and columns, where it was the whole picture's.

    Args:
        matrix: pixels of the whole picture -> pixels of another.
        rows: those that are left; only where they start counts.
        columns: likewise.

    Returns:
        Matrix: pixels of the cut picture -> pixels of the other.
    """
    start = np.array([columns.start, rows.start], np.float64)
    return np.concatenate([matrix[:, :2], apply(matrix, start)[:, None]], axis=1)


def _cut(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, ...], margin: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture that a result draws on, never empty, and the matrix to it."""
    height, width = image.shape[:2]
    rows, columns = footprint(matrix, size, (height, width))
    # The margin is what bilinear sampling mixes in at the edges.
    top, left = (
        max(min(first, last - 1) - margin, 0)
        for first, last in ((rows.start, height), (columns.start, width))
    )
    image = image[top : rows.stop + margin, left : columns.stop + margin]
    matrix = np.concatenate([matrix[:, :2], matrix[:, 2:] - [[left], [top]]], axis=1)
    return np.ascontiguousarray(image), matrix
