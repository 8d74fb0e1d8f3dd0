"""Where faces are in a photo, and the square around each that becomes a frame.

A frame's place is a (2, 3) matrix of `resample`: pixels of the frame -> pixels of the photo. Boxes
are (x0, y0, x1, y1), the centres of their corner pixels, as everywhere in this project.
"""

from typing import Any

import numpy as np

from jax_stn_icnn.faces import resample

# The frame has the framing of CelebAMask-HQ's pictures. On the first 60 training pictures the Haar
# cascade found 58 faces and nothing else; the picture's side over the box's was 1.587 +- 0.109
# (mean and standard deviation), and the picture's centre lay 0.076 +- 0.022 of the box's side above
# the box's, and 0.001 +- 0.014 beside it. YuNet's boxes on 300 of them, by the mean of their two
# sides: 1.592 +- 0.091, 0.100 +- 0.024 and 0.000 +- 0.063.
_SIDE = 1.587
_UP = 0.076

NUM_LANDMARKS = 5  # eye 1, eye 2, tip of the nose, corner 1 and corner 2 of the mouth


def frame_around_box(box: np.ndarray, frame_size: int) -> np.ndarray:
    """The frame of a face that has a box like the detector's, upright.

    Args:
        box: (x0, y0, x1, y1).
        frame_size: side of the frame.

    Returns:
        Matrix frame -> photo.
    """
    x0, y0, x1, y1 = box
    side = (x1 - x0 + y1 - y0) / 2 + 1
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2 - _UP * side])
    return _frame(centre, np.array([_SIDE * side, 0.0]), frame_size)


def frame_around_landmarks(landmarks: np.ndarray, frame_size: int) -> np.ndarray:
    """The frame of a face, turned upright: the rule by which CelebA-HQ was cut.

    It is in appendix C of Karras et al., Progressive Growing of GANs (2018), and asks for eyes and
    mouth only. On 58 of the 60 pictures above, with the points taken from the masks, its side is
    0.989 +- 0.033 of the picture's, and its centre within 0.015 of the picture's.

    Args:
        landmarks: (x, y) of eye 1, eye 2, tip of the nose, corner 1 and corner 2 of the mouth, side
            1 being on the viewer's left where the face is upright; (5, 2).
        frame_size: side of the frame.

    Returns:
        Matrix frame -> photo.

    Raises:
        ValueError: the points coincide.
    """
    eye_1, eye_2, _, mouth_1, mouth_2 = landmarks
    eyes, mouth = (eye_1 + eye_2) / 2, (mouth_1 + mouth_2) / 2
    across, down = eye_2 - eye_1, mouth - eyes
    axis = across + np.array([down[1], -down[0]])
    side = max(4.0 * np.linalg.norm(across), 3.6 * np.linalg.norm(down))
    length = np.linalg.norm(axis)
    if length < 1e-6 * side or side < 1:
        raise ValueError(f"landmarks {landmarks.tolist()} do not span a face")
    return _frame(eyes + 0.1 * down, axis / length * side, frame_size)


def frame_around_photo(size: tuple[int, int], frame_size: int) -> np.ndarray:
    """The frame of a whole photo, which lies centred in it, as in `data`.

    Args:
        size: (height, width) of the photo, whose longer side fills the frame.
        frame_size: side of the frame.

    Returns:
        Matrix frame -> photo.
    """
    height, width = size
    side = max(size)
    # Whole pixels, so that a photo as large as the frame goes into it as it is.
    left, top = (side - width) // 2, (side - height) // 2
    centre = np.array([(side - 1) / 2 - left, (side - 1) / 2 - top])
    return _frame(centre, np.array([side, 0.0]), frame_size)


def box_in_frame(matrix: np.ndarray, frame_size: int) -> np.ndarray:
    """The box of which `frame_around_box` makes a frame of this place and size, if it is upright.

    Of a turned frame the box is upright all the same: as large, its centre at the same point of the
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
    middle = resample.apply(matrix, np.full(2, (frame_size - 1) / 2)) + _UP * side * down
    return np.concatenate([middle - (side - 1) / 2, middle + (side - 1) / 2])


def of_boxes(
    boxes: Any, size: tuple[int, ...], frame_size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The frames of faces that are given as boxes.

    Args:
        boxes: (faces, 4).
        size: (height, width) of the photo.
        frame_size: side of the frames.

    Returns:
        Boxes, and matrices frame -> photo.

    Raises:
        ValueError: the shape is another, or a box is impossible or lies outside.
    """
    array = _points(boxes, "boxes", (4,))
    for x0, y0, x1, y1 in array.tolist():
        if not (x0 < x1 and y0 < y1 and x1 >= 0 and y1 >= 0 and x0 < size[1] and y0 < size[0]):
            raise ValueError(
                f"boxes hold {(x0, y0, x1, y1)}, but must be (x0, y0, x1, y1) with x0 < x1, "
                f"y0 < y1 and within the photo of {size[1]} x {size[0]} pixels, at least in part"
            )
    return list(array), [frame_around_box(box, frame_size) for box in array]


def of_landmarks(landmarks: Any, frame_size: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The frames of faces that are given as landmarks.

    Args:
        landmarks: (faces, 5, 2).
        frame_size: side of the frames.

    Returns:
        Boxes, and matrices frame -> photo.

    Raises:
        ValueError: the shape is another, or a face's points coincide.
    """
    array = _points(landmarks, "landmarks", (NUM_LANDMARKS, 2))
    matrices = [frame_around_landmarks(face, frame_size) for face in array]
    return [box_in_frame(matrix, frame_size) for matrix in matrices], matrices


def of_detector(
    found: Any, size: tuple[int, ...], frame_size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The frames of faces that a detector found.

    Args:
        found: boxes (faces, 4) or landmarks (faces, 5, 2); what has none may be empty.
        size: (height, width) of the photo.
        frame_size: side of the frames.

    Returns:
        Boxes, and matrices frame -> photo.

    Raises:
        ValueError: it is neither boxes nor landmarks of faces in the photo.
    """
    try:
        array = np.asarray(found, np.float64)
        if array.size == 0:
            return [], []
        if array.ndim == 3:
            return of_landmarks(array, frame_size)
        return of_boxes(array, size, frame_size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"what the detector returned does not fit: {error}") from error


def _points(values: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of (faces, *shape); no faces may come as an empty list."""
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
        raise ValueError(f"{name} hold numbers that are not finite")
    return array


def _frame(centre: np.ndarray, axis: np.ndarray, frame_size: int) -> np.ndarray:
    """The square with a centre, and a side as long as `axis`, which points to its right."""
    right = axis / frame_size
    linear = np.array([[right[0], -right[1]], [right[1], right[0]]])
    middle = np.full(2, (frame_size - 1) / 2)
    return np.concatenate([linear, (centre - linear @ middle)[:, None]], axis=1)
