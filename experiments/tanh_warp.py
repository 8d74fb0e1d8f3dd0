"""RoI tanh-warping (Lin et al., Face Parsing with RoI Tanh-Warping, 2019): a photo in one picture.

The face is rotated upright, its box becomes [-1, 1] x [-1, 1], and each axis goes through tanh. The
box, which is that of `faces.framing.box_from_frame`, keeps .76 of each side of the picture; the
outermost pixels stand for everything from 2.8 half sides of the box outwards.
"""

import cv2
import numpy as np
from scipy import sparse

from jax_stn_icnn.data.framing import IGNORE
from jax_stn_icnn.faces import framing, resample

SIDE = 256  # of the picture, in pixels
_REACH = 3.5  # extent of the upright image, in half sides of the box
_COUNT = round(_REACH * SIDE)  # its side in pixels, which are those of the picture in its middle


def warp(image: np.ndarray, frame: np.ndarray, frame_size: int) -> np.ndarray:
    """Warps a photo; each pixel is the mean of the upright pixels that it covers.

    Args:
        image: RGB, uint8 (height, width, 3).
        frame: the frame of a face, frame -> photo.
        frame_size: side of the frame.

    Returns:
        uint8 (SIDE, SIDE, 3), black outside the photo.
    """
    first, step = 1 / SIDE - _REACH, 2 / SIDE
    to_box = np.array([[step, 0, first], [0, step, first]])
    size = _COUNT, _COUNT
    upright = resample.warp(image, _compose(_box_to_photo(frame, frame_size), to_box), size)
    rows = _MEANS @ upright.reshape(_COUNT, -1).astype(np.float32)
    columns = rows.reshape(SIDE, _COUNT, 3).swapaxes(0, 1).reshape(_COUNT, -1)
    warped = (_MEANS @ columns).reshape(SIDE, SIDE, 3).swapaxes(0, 1)
    return np.round(warped).astype(np.uint8)


def warp_labels(label: np.ndarray, frame: np.ndarray, frame_size: int) -> np.ndarray:
    """Warps labels by nearest neighbour.

    Args:
        label: uint8 (height, width).
        frame: as in `warp`, like the following.
        frame_size: side of the frame.

    Returns:
        uint8 (SIDE, SIDE), `IGNORE` outside the photo.
    """
    axis = np.arctanh((2 * np.arange(SIDE) + 1) / SIDE - 1)
    points = np.stack(np.meshgrid(axis, axis), axis=-1)
    points = resample.transform_points(_box_to_photo(frame, frame_size), points).astype(np.float32)
    warped = cv2.remap(
        label,
        points[..., 0],
        points[..., 1],
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(IGNORE,),
    )
    return np.asarray(warped)


def unwarp_labels(
    scores: np.ndarray,
    frame: np.ndarray,
    frame_size: int,
    photo_size: tuple[int, ...],
    cut: bool = False,
) -> np.ndarray:
    """Returns the labels of a photo by the scores of its warped picture.

    Args:
        scores: channels first, float32 (classes, SIDE, SIDE), sampled bilinearly.
        frame: as in `warp`, like the following.
        frame_size: side of the frame.
        photo_size: (height, width).
        cut: whether the first class is returned where the picture has no pixels; otherwise its
            outermost pixels continue to the edges of the photo.

    Returns:
        Indices of the classes, uint8 (height, width).
    """
    to_box = resample.invert_matrix(_box_to_photo(frame, frame_size))
    pixels = np.stack(np.meshgrid(*(np.arange(n) for n in photo_size[::-1])), axis=-1)
    points = resample.transform_points(to_box, pixels)
    x, y = np.moveaxis(((np.tanh(points) + 1) * SIDE - 1) / 2, -1, 0).astype(np.float32)
    sampled = [
        cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for plane in scores
    ]
    labels = np.argmax(sampled, axis=0).astype(np.uint8)
    if cut:
        labels[np.abs(points).max(axis=-1) > _REACH] = 0
    return labels


def _box_to_photo(frame: np.ndarray, frame_size: int) -> np.ndarray:
    """Returns the matrix from the face's box, [-1, 1] x [-1, 1], to the photo."""
    x0, y0, x1, y1 = framing.box_from_frame(np.eye(2, 3), frame_size)
    half = (x1 - x0 + 1) / 2
    return _compose(frame, np.array([[half, 0, (x0 + x1) / 2], [0, half, (y0 + y1) / 2]]))


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Returns the matrix that applies `inner`, then `outer`."""
    shift = resample.transform_points(outer, inner[:, 2])
    return np.concatenate([outer[:, :2] @ inner[:, :2], shift[:, None]], axis=1)


def _means() -> sparse.csr_array:
    """Returns the share of each upright pixel in each pixel of the picture, (SIDE, _COUNT)."""
    inner = np.arctanh(np.linspace(-1, 1, SIDE + 1)[1:-1])
    edges = np.array([-_REACH, *inner, _REACH])[:, None]
    pixels = np.linspace(-_REACH, _REACH, _COUNT + 1)
    overlaps = np.minimum(edges[1:], pixels[1:]) - np.maximum(edges[:-1], pixels[:-1])
    shares = np.maximum(overlaps, 0) / (edges[1:] - edges[:-1])
    return sparse.csr_array(shares.astype(np.float32))


_MEANS = _means()
