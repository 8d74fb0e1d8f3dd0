"""YuNet, the network that detects faces: one pass over one image.

Wu, Peng and Yu, YuNet: A Tiny Millisecond-level Face Detector, Machine Intelligence Research
(2023).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from jax_stn_icnn.faces import resample

# Faces with a lower score are not returned as such, but may be detected in another view.
MIN_SCORE = 0.7
_MIN_CANDIDATE_SCORE, _OVERLAP = 0.3, 0.3
_SMALLEST_IMAGE = 10  # In narrower strips YuNet returns false detections.
# YuNet runs on a photo resized to at most this many pixels a side, as in its authors' evaluation.
# There it detects faces from about 10 to 600 pixels.
SIDE = 640
# OpenCV prepares a network again for images of another size, which takes longer than a small view.
_NUM_NETWORKS = 2  # one for photos, and one for views of faces


class Detection(NamedTuple):
    """A detected face.

    Attributes:
        center: (x, y) of its box.
        side: Side of a square with the area of its box, in pixels.
        landmarks: The centers of the eyes, the tip of the nose and the corners of the mouth, side 1
            before side 2, (5, 2).
        score: Of YuNet, 0..1.
        is_certain: Whether it certainly is a face with this rotation.
    """

    center: np.ndarray
    side: float
    landmarks: np.ndarray
    score: float
    is_certain: bool = False

    def transform(self, matrix: np.ndarray) -> "Detection":
        """Returns the detection in the pixels of another image, given the matrix to them."""
        return Detection(
            resample.transform_points(matrix, self.center),
            self.side * float(np.sqrt(abs(np.linalg.det(matrix[:, :2])))),
            resample.transform_points(matrix, self.landmarks),
            self.score,
            self.is_certain,
        )


class YuNet:
    """The network; as a detector it returns the faces of one view, rotated by up to 60 degrees."""

    def __init__(self, file: Path):
        """Loads the network.

        Args:
            file: its `.onnx` file.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: OpenCV cannot read the file.
        """
        self._file = file
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file} for the face detector")
        # With its input, by the size of the image, the most recently used one last.
        size = (320, 320)
        self._networks = {size: (self._create_network(size), _new_input(size))}

    def _create_network(self, size: tuple[int, int]) -> Any:
        """Returns a network for images of a size, (width, height)."""
        # OpenCV 5 warns that its engine for the CPU has no other targets; the CPU is what is used.
        log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            return cv2.FaceDetectorYN.create(
                str(self._file), "", size, _MIN_CANDIDATE_SCORE, _OVERLAP
            )
        except cv2.error as error:
            raise ValueError(
                f"{self._file} is not a YuNet network that OpenCV reads: {error}"
            ) from error
        finally:
            cv2.utils.logging.setLogLevel(log_level)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the path of the file; OpenCV's network does not pickle."""
        return YuNet, (self._file,)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Detects faces in one view, the photo resized to at most `SIDE` pixels a side.

        Args:
            image: RGB, uint8 (height, width, 3).

        Returns:
            Landmarks of each face, the largest face first, float64 (faces, 5, 2), as in
            `Detection`.
        """
        small, to_photo = shrink(image, SIDE)
        faces = [face for face in self.detect(small) if face.score >= MIN_SCORE]
        return landmarks_of(largest_first(face.transform(to_photo) for face in faces))

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Detects faces, and candidates with lower scores, at the size of the image.

        Args:
            image: RGB, uint8 (height, width, 3).

        Returns:
            The detections, the best score first.
        """
        if min(image.shape[:2]) < _SMALLEST_IMAGE:
            return []
        network, bgr = self._network_for(image.shape[1::-1])
        _, found = network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR, bgr))
        rows = np.reshape([] if found is None else found, (-1, 15)).astype(np.float64)
        return [
            Detection(
                row[:2] + row[2:4] / 2,
                float(np.sqrt(row[2] * row[3])),
                row[4:14].reshape(5, 2),
                float(row[14]),
            )
            for row in rows
        ]

    def _network_for(self, size: tuple[int, int]) -> tuple[Any, np.ndarray]:
        """Returns a network that is prepared for images of a size, and an array for its input."""
        prepared = self._networks.pop(size, None)
        if prepared is None and len(self._networks) < _NUM_NETWORKS:
            prepared = self._create_network(size), _new_input(size)
        elif prepared is None:
            network, _ = self._networks.pop(next(iter(self._networks)))
            network.setInputSize(size)
            prepared = network, _new_input(size)
        self._networks[size] = prepared
        return prepared


def _new_input(size: tuple[int, int]) -> np.ndarray:
    """Returns an array for images of a size.

    It is used for all of them: a new one each time makes the C library return the memory of the
    network's activations to the system, too, and the page faults take a third of a pass.
    """
    width, height = size
    return np.empty((height, width, 3), np.uint8)


def largest_first(faces: Iterable[Detection]) -> list[Detection]:
    """Returns detections, the largest face first."""
    return sorted(faces, key=lambda face: -face.side)


def landmarks_of(faces: Iterable[Detection]) -> np.ndarray:
    """Returns the landmarks of detections, float64 (faces, 5, 2)."""
    return np.reshape([face.landmarks for face in faces], (-1, 5, 2))


def shrink(image: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Resizes a photo to at most `side` pixels a side.

    Args:
        image: uint8 (height, width, 3).
        side: the longest side of the result.

    Returns:
        The resized photo, and the matrix from its pixels to those of the photo, (2, 3).
    """
    height, width = image.shape[:2]
    factor = max(max(height, width) / side, 1)
    size = max(round(width / factor), 1), max(round(height / factor), 1)
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    # Integer coordinates are pixel centers, both in the photo and in the resized image.
    scale = np.divide((width, height), size)
    matrix = np.concatenate([np.diag(scale), (scale[:, None] - 1) / 2], axis=1)
    return np.ascontiguousarray(image), matrix
