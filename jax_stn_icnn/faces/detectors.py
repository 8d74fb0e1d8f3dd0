"""Face detectors.

A detector is any callable that takes a photo, RGB uint8 (height, width, 3), and returns boxes,
(faces, 4), or five landmarks per face, (faces, 5, 2), in pixels of the photo, in the format that
`FaceParser.__call__` accepts. Landmarks are better because they also give a face's rotation.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Detector = Callable[[np.ndarray], Any]
NAMES = ("yunet", "cascade")

# YuNet as OpenCV's model zoo publishes it (MIT license, see YUNET_LICENSE beside it).
YUNET = Path(__file__).parents[1] / "pretrained" / "face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
# YuNet runs on the photo resized to at most this many pixels a side, as in its authors' evaluation.
# There it detects faces from about 10 to 600 pixels.
_YUNET_SIDE = 640
_YUNET_SMALLEST = 10
_YUNET_SCORE, _YUNET_OVERLAP = 0.7, 0.3

# The cascade runs on the photo resized to at most this many pixels a side and detects faces from 24
# pixels there.
_CASCADE = "haarcascade_frontalface_alt.xml"
_CASCADE_SIDE = 1024
_CASCADE_SMALLEST = 24


def make_detector(detector: str | Path | Detector) -> Detector:
    """Returns the detector of a name or file.

    Args:
        detector: `"yunet"`; `"cascade"`, OpenCV's Haar cascade of 2001; an `.onnx` file of YuNet,
            for example a newer version; or a callable, which is returned unchanged.

    Returns:
        The detector.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the name is unknown, the file is not a YuNet network, or the installed OpenCV
            has no Haar cascade.
    """
    if callable(detector):
        return detector
    if detector == "yunet":
        return YuNet(yunet_file())
    if detector == "cascade":
        if not hasattr(cv2, "CascadeClassifier"):
            raise ValueError(
                f"OpenCV {cv2.__version__} has no Haar cascade: use the detector yunet, or install "
                "OpenCV 4"
            )
        return cascade
    if Path(detector).suffix != ".onnx":
        raise ValueError(
            f"there is no detector {str(detector)!r}, only {', '.join(NAMES)}, an .onnx file of "
            "YuNet, and any callable"
        )
    return YuNet(Path(detector).expanduser())


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


class YuNet:
    """OpenCV's YuNet: detects faces rotated by up to 60 degrees, and returns landmarks.

    Wu, Peng and Yu, YuNet: A Tiny Millisecond-level Face Detector, Machine Intelligence Research
    (2023).
    """

    def __init__(self, file: Path):
        """Loads the network.

        Args:
            file: its `.onnx` file.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: OpenCV cannot read the file.
        """
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file} for the face detector")
        # OpenCV 5 warns that its engine for the CPU has no other targets; the CPU is what is used.
        log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._network = cv2.FaceDetectorYN.create(
                str(file), "", (320, 320), _YUNET_SCORE, _YUNET_OVERLAP
            )
        except cv2.error as error:
            raise ValueError(f"{file} is not a YuNet network that OpenCV reads: {error}") from error
        finally:
            cv2.utils.logging.setLogLevel(log_level)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Detects faces.

        Args:
            image: RGB, uint8 (height, width, 3).

        Returns:
            Landmarks of each face, the largest face first, float64 (faces, 5, 2): the centers of
            the eyes, the tip of the nose and the corners of the mouth, side 1 before side 2.
        """
        small, scale = _shrink(image, _YUNET_SIDE)
        if min(small.shape[:2]) < _YUNET_SMALLEST:
            return np.empty((0, 5, 2))  # In narrower strips YuNet returns false detections.
        self._network.setInputSize(small.shape[1::-1])
        _, detections = self._network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        rows = np.reshape([] if detections is None else detections, (-1, 15)).astype(np.float64)
        rows = rows[np.argsort(-rows[:, 2] * rows[:, 3], kind="stable")]
        landmarks = rows[:, 4:14].reshape(-1, 5, 2)
        # Integer coordinates are pixel centers, both in the photo and in the resized image.
        return (landmarks + 0.5) * scale - 0.5


def cascade(image: np.ndarray) -> np.ndarray:
    """Detects upright frontal faces with OpenCV's Haar cascade.

    Args:
        image: RGB, uint8 (height, width, 3).

    Returns:
        Boxes, the largest first, float64 (faces, 4).
    """
    import cv2.data

    small, scale = _shrink(image, _CASCADE_SIDE)
    classifier = cv2.CascadeClassifier(cv2.data.haarcascades + _CASCADE)
    detections = classifier.detectMultiScale(
        cv2.cvtColor(small, cv2.COLOR_RGB2GRAY),
        scaleFactor=1.1,
        minNeighbors=5,
        minSize=(_CASCADE_SMALLEST, _CASCADE_SMALLEST),
    )
    left, top, width, height = np.reshape(detections, (-1, 4)).astype(np.float64).T
    boxes = np.stack([left, top, left + width, top + height], axis=1) * np.tile(scale, 2)
    boxes[:, 2:] -= 1  # from the far edges to the centers of the last pixels
    selected: list[np.ndarray] = []
    for box in boxes[np.argsort(-width, kind="stable")]:
        # A box centered inside a larger one is an eye or a mouth detected as a face.
        center = (box[:2] + box[2:]) / 2
        if not any(np.all((center > larger[:2]) & (center < larger[2:])) for larger in selected):
            selected.append(box)
    return np.reshape(selected, (-1, 4))


def _shrink(image: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Resizes a photo to at most `side` pixels a side; also returns the scale (x, y) back."""
    height, width = image.shape[:2]
    factor = max(max(height, width) / side, 1)
    size = max(round(width / factor), 1), max(round(height / factor), 1)
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image), np.divide((width, height), size)
