"""Locates the faces of a photo that are parsed: those given, those detected, or the full photo."""

from typing import Any, NamedTuple

import numpy as np

from jax_stn_icnn.faces import framing
from jax_stn_icnn.faces.detectors import Detections, Detector, lock_of
from jax_stn_icnn.faces.search import FaceSearch
from jax_stn_icnn.faces.yunet import Detection, landmarks_of, largest_first
from jax_stn_icnn.inference.turning import RotationCheck


class Selection(NamedTuple):
    """Which faces of a photo, or of several, are parsed: arguments of `FaceParser.__call__`."""

    boxes: Any
    landmarks: Any
    detect: bool
    max_faces: int | None

    @classmethod
    def checked(
        cls, boxes: Any, landmarks: Any, detect: bool, max_faces: int | None, largest: bool
    ) -> "Selection":
        """Returns the selection by the arguments of `FaceParser.__call__`.

        Raises:
            ValueError: arguments exclude each other, or `max_faces` is not a positive integer.
        """
        is_given = sum([boxes is not None, landmarks is not None, not detect])
        if is_given > 1:
            raise ValueError("boxes, landmarks and detect=False exclude each other: give one")
        if largest and max_faces is not None:
            raise ValueError("max_faces and largest exclude each other: give one")
        if largest:
            max_faces = 1
        is_count = isinstance(max_faces, int | np.integer) and max_faces >= 1
        if max_faces is not None and not is_count:
            raise ValueError(f"max_faces is {max_faces}, but must be an integer of at least 1")
        if max_faces is not None and is_given:
            raise ValueError(
                "max_faces and largest select detected faces, and exclude boxes, landmarks and "
                "detect=False"
            )
        return cls(boxes, landmarks, detect, max_faces)

    def per_photo(self, count: int) -> "list[Selection]":
        """Returns the selections of several photos.

        Args:
            count: the number of photos.

        Raises:
            ValueError: boxes or landmarks are not for this many photos.
        """
        selections = [self] * count
        for name in ("boxes", "landmarks"):
            values = getattr(self, name)
            if values is None:
                continue
            if len(values) != count:
                raise ValueError(f"{name} are for {len(values)} photos, but there are {count}")
            selections = [
                one._replace(**{name: value}) for one, value in zip(selections, values, strict=True)
            ]
        return selections


class LocatedFace(NamedTuple):
    """A face in a photo.

    Attributes:
        box: (x0, y0, x1, y1).
        matrix: pixels of the frame -> pixels of the photo.
        landmarks: float64 (5, 2), if it was located by landmarks.
        score: the detector's score, if it has one.
    """

    box: np.ndarray
    matrix: np.ndarray
    landmarks: np.ndarray | None = None
    score: float | None = None

    @property
    def area(self) -> float:
        """The area of the frame, in units of a frame's pixels."""
        return float(np.linalg.det(self.matrix[:, :2]))


class LocatedFaces(NamedTuple):
    """The faces of a photo.

    Attributes:
        selected: those that are parsed.
        neighbors: frame -> photo, (2, 3), of each detected face that is too small, or not among
            the largest `max_faces`.
    """

    selected: list[LocatedFace]
    neighbors: list[np.ndarray]


class FaceLocator:
    """Locates faces; threads may share it."""

    def __init__(self, check: RotationCheck, frame_size: int, min_score: float | None):
        """Creates the locator.

        Args:
            check: checks the doubtful faces of a `FaceSearch`.
            frame_size: side of the frames.
            min_score: score of the detected faces, at least; None for no limit.

        Raises:
            ValueError: `min_score` is outside of 0..1.
        """
        if min_score is not None and not 0 <= min_score <= 1:
            raise ValueError(f"min_score is {min_score}, but must be in 0..1")
        self._check, self._frame_size, self.min_score = check, frame_size, min_score

    def locate(self, image: np.ndarray, detector: Detector, selection: Selection) -> LocatedFaces:
        """Returns the faces of a photo.

        Args:
            image: RGB, uint8 (height, width, 3).
            detector: the detector, called only if it is needed.
            selection: which faces.

        Raises:
            ValueError: boxes, landmarks or the output of the detector are invalid.
        """
        size, side = image.shape[:2], self._frame_size
        if not selection.detect:
            matrix = framing.frame_from_photo(size, side)
            return LocatedFaces([LocatedFace(framing.box_from_frame(matrix, side), matrix)], [])
        if selection.boxes is not None:
            located = framing.frames_from_boxes(selection.boxes, size, side)
            return LocatedFaces(list(map(LocatedFace, *located)), [])
        if selection.landmarks is not None:
            located = framing.frames_from_landmarks(selection.landmarks, side)
            points = np.asarray(selection.landmarks, np.float64)
            return LocatedFaces(list(map(LocatedFace, *located, points)), [])
        if isinstance(detector, FaceSearch):
            faces, others = self._search(image, detector, selection.max_faces)
            return LocatedFaces(
                self._frame(_as_detections(faces), size),
                [face.matrix for face in self._frame(_as_detections(others), size)],
            )
        with lock_of(detector):
            output = detector(image)
        detected = [face for face in self._frame(output, size) if self._is_wanted(face.score)]
        if selection.max_faces is None:
            return LocatedFaces(detected, [])
        detected.sort(key=lambda face: -face.area)
        neighbors = [face.matrix for face in detected[selection.max_faces :]]
        return LocatedFaces(detected[: selection.max_faces], neighbors)

    def _search(
        self, image: np.ndarray, detector: FaceSearch, max_faces: int | None
    ) -> tuple[list[Detection], list[Detection]]:
        """Returns the largest faces that the check does not drop, and smaller ones, not checked."""
        with lock_of(detector):
            detected = detector.detect(image)
        wanted = [face for face in largest_first(detected) if self._is_wanted(face.score)]
        faces: list[Detection] = []
        for number, face in enumerate(wanted):
            if len(faces) == max_faces or not detector.is_large(face):
                return faces, wanted[number:]
            checked = self._check.check(image, face)
            if checked is not None:
                faces.append(checked)
        return faces, []

    def _is_wanted(self, score: float | None) -> bool:
        """Whether a face has the least score."""
        if self.min_score is None:
            return True
        if score is None:
            raise ValueError(f"min_score is {self.min_score}, but the detector returns no scores")
        return score >= self.min_score

    def _frame(self, output: Any, size: tuple[int, ...]) -> list[LocatedFace]:
        """Validates the output of a detector and returns its faces."""
        faces, scores = output if isinstance(output, Detections) else (output, None)
        boxes, matrices = framing.frames_from_detections(faces, size, self._frame_size)
        none = [None] * len(boxes)
        landmarks = np.asarray(faces, np.float64) if np.ndim(faces) == 3 else none
        values = none if scores is None else _check_scores(scores, len(boxes))
        return list(map(LocatedFace, boxes, matrices, landmarks, values))


def _as_detections(faces: list[Detection]) -> Detections:
    return Detections(landmarks_of(faces), [face.score for face in faces])


def _check_scores(scores: Any, count: int) -> list[float]:
    """Returns the scores of a detector after checking them."""
    values = np.asarray(scores, np.float64)
    if values.shape != (count,) or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(
            f"the scores of the detector are {values.tolist()}, but must be {count} numbers in "
            "0..1, one per face"
        )
    return values.tolist()
