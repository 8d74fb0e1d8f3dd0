"""Frames: the square around each face that the networks parse.

A frame is given by a (2, 3) matrix that maps pixels of the frame to pixels of the photo, as in
`resample`. Boxes are (x0, y0, x1, y1), the centers of their corner pixels, as everywhere in this
package.
"""

from typing import Any

import numpy as np

from jax_stn_icnn.faces import resample
from jax_stn_icnn.wide_frame import WIDE_DOWN, WIDE_SIDE

# Frames are framed like the pictures of CelebAMask-HQ. On the first 60 training pictures the Haar
# cascade detected 58 faces and nothing else; the side of the picture over the side of the box was
# 1.587 +- 0.109 (mean and standard deviation), and the center of the picture was 0.076 +- 0.022 box
# sides above the center of the box and 0.001 +- 0.014 beside it. The boxes of YuNet on 300 of them,
# by the mean of their two sides: 1.592 +- 0.091, 0.100 +- 0.024 and 0.000 +- 0.063.
_SIDE = 1.587
_UP = 0.076
# On the 149 photos of Figaro-1k with one detected face, at most 0.2 sides of its frame beside the
# center of the hair's box, that side over the width of the box was 0.911 (median; the middle half
# spans 0.415), and the center of the frame was 0.654 widths (0.282) below the top of the box. The
# height of the box predicts the frame worse, since it depends on the length of the hair.
_HAIR_SIDE = 0.911
_HAIR_DOWN = 0.654

NUM_LANDMARKS = 5  # eye 1, eye 2, tip of the nose, corner 1 and corner 2 of the mouth


def frame_from_box(box: np.ndarray, frame_size: int) -> np.ndarray:
    """Returns the upright frame of a face's box.

    Args:
        box: (x0, y0, x1, y1), from forehead to chin, as the Haar cascade returns it.
        frame_size: side of the frame.

    Returns:
        Matrix frame -> photo.
    """
    x0, y0, x1, y1 = box
    side = (x1 - x0 + y1 - y0) / 2 + 1
    center = np.array([(x0 + x1) / 2, (y0 + y1) / 2 - _UP * side])
    return _frame(center, np.array([_SIDE * side, 0.0]), frame_size)


def frame_from_landmarks(landmarks: np.ndarray, frame_size: int) -> np.ndarray:
    """Returns the rotated frame of a face's landmarks, by the rule that cropped CelebA-HQ.

    The rule is in appendix C of Karras et al., Progressive Growing of GANs (2018), and uses eyes
    and mouth only. On 58 of the 60 pictures above, with landmarks computed from the masks, the side
    of the frame is 0.989 +- 0.033 of the side of the picture, and its center is within 0.015 of the
    center of the picture.

    Args:
        landmarks: (x, y) of eye 1, eye 2, tip of the nose, corner 1 and corner 2 of the mouth, side
            1 being on the viewer's left in an upright face; (5, 2).
        frame_size: side of the frame.

    Returns:
        Matrix frame -> photo.

    Raises:
        ValueError: the points coincide.
    """
    eyes, across, down = _eyes_and_mouth(landmarks)
    axis = horizontal_axis(landmarks)
    side = max(4.0 * np.linalg.norm(across), 3.6 * np.linalg.norm(down))
    length = np.linalg.norm(axis)
    if length < 1e-6 * side or side < 1:
        raise ValueError(f"landmarks {landmarks.tolist()} do not span a face")
    return _frame(eyes + 0.1 * down, axis / length * side, frame_size)


def horizontal_axis(landmarks: np.ndarray) -> np.ndarray:
    """Returns the direction of the upper side of a face's frame, by its landmarks.

    Args:
        landmarks: as in `frame_from_landmarks`, (5, 2).

    Returns:
        (x, y) in pixels, to the right in an upright face; 0 if the points coincide.
    """
    _, across, down = _eyes_and_mouth(landmarks)
    return across + np.array([down[1], -down[0]])


def frame_from_photo(size: tuple[int, int], frame_size: int) -> np.ndarray:
    """Returns the frame that contains a photo, centered and padded as in `data`.

    Args:
        size: (height, width) of the photo; the longer side fills the frame.
        frame_size: side of the frame.

    Returns:
        Matrix frame -> photo.
    """
    height, width = size
    side = max(size)
    # Integer offsets, so that a photo of the frame's size is copied without interpolation.
    left, top = (side - width) // 2, (side - height) // 2
    center = np.array([(side - 1) / 2 - left, (side - 1) / 2 - top])
    return _frame(center, np.array([side, 0.0]), frame_size)


def frame_from_hair(box: np.ndarray, frame_size: int) -> np.ndarray:
    """Returns the approximate upright frame of a head's hair, for heads without a detected face.

    Args:
        box: (x0, y0, x1, y1) of the hair.
        frame_size: side of the frame.

    Returns:
        Matrix frame -> photo.
    """
    x0, y0, x1, _ = box
    width = x1 - x0 + 1
    center = np.array([(x0 + x1) / 2, y0 + _HAIR_DOWN * width])
    return _frame(center, np.array([_HAIR_SIDE * width, 0.0]), frame_size)


def wide_frame(matrix: np.ndarray, frame_size: int, wide_size: int | None = None) -> np.ndarray:
    """Returns the wide frame of a frame.

    Args:
        matrix: the frame, frame -> photo.
        frame_size: side of the frame in pixels.
        wide_size: side of the wide frame in pixels; by default that of the frame.

    Returns:
        Matrix wide frame -> photo.
    """
    middle = (frame_size - 1) / 2
    center = resample.transform_points(matrix, np.array([middle, middle + WIDE_DOWN * frame_size]))
    axis = matrix[:, 0] * frame_size * WIDE_SIDE
    return _frame(center, axis, frame_size if wide_size is None else wide_size)


def resize_frame(matrix: np.ndarray, frame_size: int, scale: float = 1.0) -> np.ndarray:
    """Returns a frame at another size; the center stays.

    Args:
        matrix: the frame at a size of 1, frame -> photo.
        frame_size: side of the resized frame in pixels.
        scale: extent of the resized frame in the photo, relative to that of the frame.

    Returns:
        Matrix frame -> photo.
    """
    return _frame(matrix[:, 2], matrix[:, 0] * scale, frame_size)


def box_from_frame(matrix: np.ndarray, frame_size: int) -> np.ndarray:
    """Returns the box of a frame's face, the inverse of `frame_from_box` for an upright frame.

    The box of a rotated frame is upright, with the same side, centered at the same point of the
    face.

    Args:
        matrix: frame -> photo.
        frame_size: side of the frame.

    Returns:
        (x0, y0, x1, y1), a square.
    """
    axis = matrix[:, 0] * frame_size
    side = np.linalg.norm(axis) / _SIDE
    down = np.array([-axis[1], axis[0]]) / np.linalg.norm(axis)
    frame_center = np.full(2, (frame_size - 1) / 2)
    center = resample.transform_points(matrix, frame_center) + _UP * side * down
    return np.concatenate([center - (side - 1) / 2, center + (side - 1) / 2])


def frames_from_boxes(
    boxes: Any, size: tuple[int, ...], frame_size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Validates boxes and returns the frame of each.

    Args:
        boxes: (faces, 4).
        size: (height, width) of the photo.
        frame_size: side of the frames.

    Returns:
        Boxes (4,) and matrices frame -> photo, one per face.

    Raises:
        ValueError: the shape is not (faces, 4), or a box is empty or outside the photo.
    """
    array = _points(boxes, "boxes", (4,))
    for x0, y0, x1, y1 in array.tolist():
        if not (x0 < x1 and y0 < y1 and x1 >= 0 and y1 >= 0 and x0 < size[1] and y0 < size[0]):
            raise ValueError(
                f"boxes contain {(x0, y0, x1, y1)}, but must be (x0, y0, x1, y1) with x0 < x1, "
                f"y0 < y1 and overlap the photo of {size[1]} x {size[0]} pixels"
            )
    return list(array), [frame_from_box(box, frame_size) for box in array]


def frames_from_landmarks(
    landmarks: Any, frame_size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Validates landmarks and returns the frame of each face.

    Args:
        landmarks: (faces, 5, 2).
        frame_size: side of the frames.

    Returns:
        Boxes (4,) and matrices frame -> photo, one per face.

    Raises:
        ValueError: the shape is not (faces, 5, 2), or the points of a face coincide.
    """
    array = _points(landmarks, "landmarks", (NUM_LANDMARKS, 2))
    matrices = [frame_from_landmarks(face, frame_size) for face in array]
    return [box_from_frame(matrix, frame_size) for matrix in matrices], matrices


def frames_from_detections(
    detections: Any, size: tuple[int, ...], frame_size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Validates the output of a detector and returns the frame of each face.

    Args:
        detections: boxes (faces, 4) or landmarks (faces, 5, 2); any empty array means no face.
        size: (height, width) of the photo.
        frame_size: side of the frames.

    Returns:
        Boxes (4,) and matrices frame -> photo, one per face.

    Raises:
        ValueError: the output is neither boxes nor landmarks of faces in the photo.
    """
    try:
        array = np.asarray(detections, np.float64)
        if array.size == 0:
            return [], []
        if array.ndim == 3:
            return frames_from_landmarks(array, frame_size)
        return frames_from_boxes(array, size, frame_size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the output of the detector is invalid: {error}") from error


def _points(values: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Converts to a finite float64 array of shape (faces, *shape); [] means no faces."""
    wanted = ", ".join(map(str, ("faces", *shape)))
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers of shape ({wanted}): {error}") from error
    if array.shape == (0,):
        array = array.reshape(0, *shape)
    if array.shape[1:] != shape:
        raise ValueError(f"{name} have shape {array.shape}, but must have shape ({wanted})")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} contain numbers that are not finite")
    return array


def _eyes_and_mouth(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the middle of the eyes, and the vectors eye 1 -> eye 2 and eyes -> mouth."""
    eye_1, eye_2, _, mouth_1, mouth_2 = landmarks
    eyes = (eye_1 + eye_2) / 2
    return eyes, eye_2 - eye_1, (mouth_1 + mouth_2) / 2 - eyes


def _frame(center: np.ndarray, axis: np.ndarray, frame_size: int) -> np.ndarray:
    """Returns the frame with a center, and the vector `axis` along its upper side."""
    right = axis / frame_size
    linear = np.array([[right[0], -right[1]], [right[1], right[0]]])
    frame_center = np.full(2, (frame_size - 1) / 2)
    return np.concatenate([linear, (center - linear @ frame_center)[:, None]], axis=1)
