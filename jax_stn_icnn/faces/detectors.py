"""Face detectors.

A detector is any callable that takes a photo, RGB uint8 (height, width, 3), and returns boxes,
(faces, 4), or five landmarks per face, (faces, 5, 2), in pixels of the photo, in the format that
`FaceParser.__call__` accepts. Landmarks are better because they also give a face's rotation. With
scores, it returns `Detections`.
"""

import hashlib
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from jax_stn_icnn.faces.search import FaceSearch
from jax_stn_icnn.faces.yunet import YuNet, shrink

Detector = Callable[[np.ndarray], Any]
NAMES = ("yunet", "cascade")

# YuNet as OpenCV's model zoo publishes it (MIT license, see YUNET_LICENSE beside it).
YUNET = Path(__file__).parents[1] / "pretrained" / "face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
# The cascade runs on the photo resized to at most this many pixels a side and detects faces from 24
# pixels there.
_CASCADE = "haarcascade_frontalface_alt.xml"
_CASCADE_SIDE = 1024
_CASCADE_SMALLEST = 24

_locks: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_find_lock = threading.Lock()


class Detections(NamedTuple):
    """The output of a detector that returns scores.

    Attributes:
        faces: Boxes, (faces, 4), or landmarks, (faces, 5, 2).
        scores: Probabilities that these are faces, 0..1, (faces,).
    """

    faces: Any
    scores: Any


def lock_of(detector: Detector) -> threading.Lock:
    """Returns the lock of a detector: detectors serve one thread at a time.

    All parsers that share a detector get the same lock, as do all methods of an object.

    Args:
        detector: the detector.

    Returns:
        The lock; it exists while it is used.
    """
    owner = getattr(detector, "__self__", detector)
    with _find_lock:
        return _locks.setdefault(id(owner), threading.Lock())


def make_detector(detector: str | Path | Detector, min_face_size: float | None = None) -> Detector:
    """Returns the detector of a name or file.

    Args:
        detector: `"yunet"`; `"cascade"`, OpenCV's Haar cascade of 2001; an `.onnx` file of YuNet,
            for example a newer version; or a callable, which is returned unchanged.
        min_face_size: side of the smallest faces that YuNet returns, in pixels of the photo, as in
            `FaceSearch`.

    Returns:
        The detector.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the name is unknown, the file is not a YuNet network, the installed OpenCV has
            no Haar cascade, or `min_face_size` is not positive or given for another detector.
    """
    is_yunet = not callable(detector) and detector != "cascade"
    if min_face_size is not None and not (is_yunet and min_face_size > 0):
        raise ValueError(
            f"min_face_size is {min_face_size} and the detector {detector!r}, but min_face_size "
            "must be positive, and is for YuNet only"
        )
    if callable(detector):
        return detector
    if detector == "cascade":
        _load_cascade()
        return cascade
    if detector != "yunet" and Path(detector).suffix != ".onnx":
        raise ValueError(
            f"there is no detector {str(detector)!r}, only {', '.join(NAMES)}, an .onnx file of "
            "YuNet, and any callable"
        )
    file = yunet_file() if detector == "yunet" else Path(detector).expanduser()
    return FaceSearch(YuNet(file), min_face_size)


def make_single_view_detector() -> YuNet:
    """Returns the shipped YuNet, which detects the faces of one view, rotated by up to 60 degrees.

    Frames of data sets come from it, so that they do not change with the search for faces.
    """
    return YuNet(yunet_file())


def yunet_file() -> Path:
    """Returns the path of the shipped YuNet network after verifying its checksum.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file's SHA-256 differs from `YUNET_SHA256`.
    """
    if hashlib.sha256(YUNET.read_bytes()).hexdigest() != YUNET_SHA256:
        raise ValueError(
            f"{YUNET} is damaged: its SHA-256 differs from {YUNET_SHA256}; install jax-stn-icnn "
            "again"
        )
    return YUNET


def _load_cascade() -> Any:
    """Returns OpenCV's classifier; raises a ValueError if the installed OpenCV lacks it."""
    data = getattr(cv2, "data", None)  # not in every distribution
    if hasattr(cv2, "CascadeClassifier") and data is not None:
        classifier = cv2.CascadeClassifier(data.haarcascades + _CASCADE)
        if not classifier.empty():
            return classifier
    raise ValueError(
        f"OpenCV {cv2.__version__} has no Haar cascade: use the detector yunet, or install OpenCV 4"
    )


def cascade(image: np.ndarray) -> np.ndarray:
    """Detects upright frontal faces with OpenCV's Haar cascade.

    Args:
        image: RGB, uint8 (height, width, 3).

    Returns:
        Boxes, the largest first, float64 (faces, 4).
    """
    small, to_photo = shrink(image, _CASCADE_SIDE)
    detections = _load_cascade().detectMultiScale(
        cv2.cvtColor(small, cv2.COLOR_RGB2GRAY),
        scaleFactor=1.1,
        minNeighbors=5,
        minSize=(_CASCADE_SMALLEST, _CASCADE_SMALLEST),
    )
    left, top, width, height = np.reshape(detections, (-1, 4)).astype(np.float64).T
    boxes = np.stack([left, top, left + width, top + height], axis=1) * np.tile(
        np.diag(to_photo), 2
    )
    boxes[:, 2:] -= 1  # from the far edges to the centers of the last pixels
    selected: list[np.ndarray] = []
    for box in boxes[np.argsort(-width, kind="stable")]:
        # A box centered inside a larger one is an eye or a mouth detected as a face.
        center = (box[:2] + box[2:]) / 2
        if not any(np.all((center > larger[:2]) & (center < larger[2:])) for larger in selected):
            selected.append(box)
    return np.reshape(selected, (-1, 4))
