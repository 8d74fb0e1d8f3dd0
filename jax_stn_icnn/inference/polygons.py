"""Polygons around the regions of a mask."""

import cv2
import numpy as np


def trace(mask: np.ndarray) -> list[np.ndarray]:
    """Returns the borders of a mask's regions and holes as polygons.

    Borders run between pixels. A point is inside an odd number of polygons exactly if it lies in
    the mask: a hole is a polygon of its own, with the opposite orientation, so that the even-odd
    and the nonzero rule fill the same.

    Args:
        mask: bool (height, width).

    Returns:
        Polygons (x, y), float64 (points, 2), each border of a region before those of its holes;
        integers are the centers of pixels. The last point is connected to the first one.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = rows[0], columns[0]
    region = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    # OpenCV's contours run through the centers of a region's outermost pixels. Between the pixels
    # of this lattice lie others for the edges and corners of pixels, which belong to the region,
    # so that these are the outermost ones.
    lattice = np.zeros([2 * n + 1 for n in region.shape], np.uint8)
    lattice[1::2, 1::2] = region
    closed = cv2.dilate(lattice, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(closed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0] / 2 - 0.5 + (left, top) for contour in contours]
