"""Affine resampling on the host with OpenCV: crops frames out of photos and maps scores back.

A matrix has shape (2, 3) and maps (x, y, 1) from pixels of one image to pixels of another. Integer
coordinates are pixel centers.
"""

import cv2
import numpy as np

OpenCVError = cv2.error  # which OpenCV raises, for example if memory is exhausted


def warp(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, ...], outside: float = 0
) -> np.ndarray:
    """Resamples an image by a similarity transform.

    Sampling is bilinear. Where the result is coarser than the image, each pixel is the mean of the
    pixels that it covers; at a scale of exactly 2 this is the mean of 2 x 2 pixels.

    Args:
        image: uint8 or float32, (height, width) or (height, width, 3).
        matrix: similarity from pixels of the result to pixels of the image ("backward" warping).
        size: (height, width) of the result.
        outside: value outside the image.

    Returns:
        The resampled image, (*size) or (*size, 3), of the image's dtype.
    """
    if 0 in size:
        return np.empty((*size, *image.shape[2:]), image.dtype)
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    # Rounded, so that at an integer scale the crop consists of complete blocks of pixels.
    image, matrix = _crop(image, matrix, size, margin=int(np.ceil(round(max(scale, 1), 6))))
    height, width = image.shape[:2]
    if scale > 1:
        small = max(round(width / scale), 1), max(round(height / scale), 1)
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        # Resizing maps edges to edges, and the center of pixel i is i + 1/2 away from the edge.
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


def sample_nearest(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, ...], outside: int = 0
) -> np.ndarray:
    """Resamples an image with nearest-neighbor interpolation.

    Args:
        image: uint8 (height, width).
        matrix: pixels of the result -> pixels of the image.
        size: (height, width) of the result.
        outside: value outside the image.

    Returns:
        uint8 of shape `size`.
    """
    if 0 in size:
        return np.empty(size, np.uint8)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(image, matrix, size[::-1], flags=flags, borderValue=(outside,))
    )


def sample_bilinear(image: np.ndarray, points: np.ndarray, outside: float = 0) -> np.ndarray:
    """Samples an image bilinearly at points.

    Args:
        image: float32 (height, width).
        points: (x, y), (points, 2).
        outside: value outside the image.

    Returns:
        float32 (points,).
    """
    if not len(points):
        return np.empty(0, np.float32)
    # cv2.remap requires 2-D coordinates and limits their width, so points are padded to rows.
    count, width = len(points), 4096
    padded = np.pad(np.float32(points), ((0, -count % width), (0, 0)), mode="edge")
    x, y = padded.T.reshape(2, -1, width)
    values = cv2.remap(
        image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(outside,) * 3
    )
    return np.asarray(values).ravel()[:count]


def footprint(
    matrix: np.ndarray, size: tuple[int, ...], within: tuple[int, ...]
) -> tuple[slice, slice]:
    """Returns the rows and columns of image B that image A covers under a matrix.

    Args:
        matrix: pixels of A -> pixels of B.
        size: (height, width) of A.
        within: (height, width) of B.

    Returns:
        Slices of rows and columns of B, empty where A lies outside B.
    """
    low, high = corners(matrix, size).min(axis=0), corners(matrix, size).max(axis=0)
    last = np.array(within[::-1])
    first = np.clip(np.floor(low + 0.5), 0, last).astype(int)
    end = np.clip(np.ceil(high + 0.5), first, last).astype(int)
    return slice(first[1], end[1]), slice(first[0], end[0])


def corners(matrix: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Maps the outer corners of an image, half a pixel beyond the centers of its corner pixels.

    Args:
        matrix: pixels of the image -> pixels of another.
        size: (height, width) of the image.

    Returns:
        (x, y) of the upper left, upper right, lower right and lower left corner in the other image,
        (4, 2).
    """
    x, y = size[1] - 0.5, size[0] - 0.5
    return transform_points(matrix, np.array([(-0.5, -0.5), (x, -0.5), (x, y), (-0.5, y)]))


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Maps points by a matrix.

    Args:
        matrix: pixels of one image -> pixels of another, (2, 3).
        points: (x, y) in the first image, (..., 2).

    Returns:
        (x, y) in the second image, (..., 2).
    """
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert_matrix(matrix: np.ndarray) -> np.ndarray:
    """Returns the inverse of an affine matrix, (2, 3)."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -linear @ matrix[:, 2:]], axis=1)


def shift_origin(matrix: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """Returns the matrix for a crop of an image, given the matrix for the image.

    Args:
        matrix: pixels of the image -> pixels of another.
        rows: rows of the crop; only `rows.start` is used.
        columns: columns of the crop; only `columns.start` is used.

    Returns:
        Matrix: pixels of the crop -> pixels of the other image.
    """
    start = np.array([columns.start, rows.start], np.float64)
    return np.concatenate([matrix[:, :2], transform_points(matrix, start)[:, None]], axis=1)


def _crop(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, ...], margin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Crops an image to the pixels that a result depends on, at least one; adapts the matrix."""
    height, width = image.shape[:2]
    rows, columns = footprint(matrix, size, (height, width))
    # Bilinear sampling also reads pixels next to the footprint.
    top, left = (
        max(min(first, last - 1) - margin, 0)
        for first, last in ((rows.start, height), (columns.start, width))
    )
    image = image[top : rows.stop + margin, left : columns.stop + margin]
    matrix = np.concatenate([matrix[:, :2], matrix[:, 2:] - [[left], [top]]], axis=1)
    return np.ascontiguousarray(image), matrix
