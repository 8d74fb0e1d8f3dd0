"""Search for faces of any rotation and size, in several views of a photo.

YuNet detects upright faces from about 10 to 600 pixels. One view, the photo resized to 640 pixels,
is enough for most photos. Other views are added only where they are needed:

    large photo                       tiles at a higher resolution, for small faces
    face that may not be upright      the face alone, at twelve rotations
    no certain face                   the photo at other rotations, and much reduced

Faces that several views contain are returned once.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from jax_stn_icnn.faces import framing, resample
from jax_stn_icnn.faces.yunet import (
    MIN_SCORE,
    SIDE,
    Detection,
    YuNet,
    landmarks_of,
    largest_first,
    shrink,
)

MIN_FACE_SIZE = 40.0  # for which large photos are searched by default
# Tiles are resized so that the smallest faces have this many pixels, from which YuNet detects
# almost all faces, if with low scores. Neighboring tiles share a strip that contains every face too
# small for the first view.
_DETECTABLE_SIZE = 24
_TILE, _STRIP = 1600, 160
# Of the faces of wild.zip 96 in 100 have this score and at most these degrees in the first view. In
# small views, which are one image for YuNet, 88 also have this score, and are lower by this much at
# the other angles. Of copies rotated by 30 degrees, 14 and 2 in 100 do, of drawn faces 5 and none.
_CERTAIN_SCORE, _CERTAIN_DEGREES = 0.9, 12
_SMALL_SCORE, _LOWER = 0.75, 0.01
_OTHER_ANGLES = (-np.pi / 6, np.pi / 6)
# The side of these views, and the part of it that the face covers.
_SMALL_VIEW, _SMALL_PART = 64, 0.55
# The side of the view of a face alone, the part of it that the face covers, and the number of
# rotations. Rotated upright, 98 % of the faces have the score.
_FACE_VIEW, _FACE_PART, _ROTATIONS = 128, 0.4, 12
_UPRIGHT_SCORE, _UPRIGHT_DEGREES = 0.85, 30
_NEAR_BEST = 0.85  # Views with this part of the best score count in the mean of rotations.
# Degrees by which the photo is rotated, and if no face is found, degrees between these.
_QUARTER_TURNS, _BETWEEN = (0, 90, 180, 270), (45, 135, 225, 315)
_CLOSE_UP = 192  # In a larger view the features of a face that exceeds the photo are too large.
# Faces smaller than this in the first view may have low scores because of their size alone.
_SMALL = 24
_APART = 0.4  # distance of the centers of two faces, at least, in sides of the larger


class FaceSearch:
    """Detector of faces of any rotation and size."""

    def __init__(self, network: YuNet, min_face_size: float | None = None):
        """Creates the detector.

        Args:
            network: detects the faces of a view.
            min_face_size: side of the smallest faces that are returned, in pixels of the photo; a
                face is as wide as from forehead to chin, 2 to 2.5 times the distance of its eyes.
                By default large photos are searched for faces of `MIN_FACE_SIZE`, and smaller ones
                that are found in other photos are returned, too.
        """
        self._network = network
        self._min_face_size = min_face_size

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Detects faces.

        Args:
            image: RGB, uint8 (height, width, 3).

        Returns:
            Landmarks of each face, the largest face first, float64 (faces, 5, 2): the centers of
            the eyes, the tip of the nose and the corners of the mouth, side 1 before side 2.
        """
        faces = [face for face in self.detect(image) if self.is_large(face)]
        return landmarks_of(largest_first(faces))

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Returns all faces, also those that are smaller than `min_face_size`."""
        small, to_photo = shrink(image, SIDE)
        candidates = [face.transform(to_photo) for face in self._network.detect(small)]
        sure, unsure = self._select_faces(image, [*candidates, *self._detect_in_tiles(image)])
        if not sure or any(_degrees(face) > _UPRIGHT_DEGREES for face in sure):
            for angles in (_QUARTER_TURNS, _BETWEEN):
                rotated = [face.transform(to_photo) for face in self._detect_rotated(small, angles)]
                found = self._select_faces(image, [f for f in rotated if _is_new(f, sure)])
                sure, unsure = _without_overlaps(sure + found[0]), unsure + found[1]
                if sure or unsure:
                    break
        return sure + [face for face in _without_overlaps(unsure) if _is_new(face, sure)]

    def is_large(self, face: Detection) -> bool:
        """Whether a face has at least the side `min_face_size`."""
        return face.side >= (self._min_face_size or 0)

    def _detect_in_tiles(self, image: np.ndarray) -> Iterator[Detection]:
        """Yields the detections of a large photo at the resolution of its smallest faces."""
        longest, smallest = max(image.shape[:2]), self._min_face_size or MIN_FACE_SIZE
        side = min(longest, round(longest * _DETECTABLE_SIZE / smallest))
        if side <= SIDE:
            return
        resized, to_photo = shrink(image, side)
        height, width = resized.shape[:2]
        for top in range(0, max(height - _STRIP, 1), _TILE - _STRIP):
            for left in range(0, max(width - _STRIP, 1), _TILE - _STRIP):
                tile = np.ascontiguousarray(resized[top : top + _TILE, left : left + _TILE])
                to_resized = np.array([[1.0, 0.0, left], [0.0, 1.0, top]])
                for face in self._network.detect(tile):
                    yield face.transform(to_resized).transform(to_photo)

    def _detect_rotated(self, image: np.ndarray, angles: Iterable[int]) -> Iterator[Detection]:
        """Yields the detections of an image and of the reduced image, rotated by some degrees."""
        reduced, to_image = shrink(image, _CLOSE_UP)
        for degrees in angles:
            view, to_reduced = _rotate(reduced, degrees)
            for face in self._network.detect(view):
                yield face.transform(to_reduced).transform(to_image)
            if degrees:  # The first view is upright.
                view, to_unrotated = _rotate(image, degrees)
                for face in self._network.detect(view):
                    yield face.transform(to_unrotated)

    def _select_faces(
        self, image: np.ndarray, candidates: Iterable[Detection]
    ) -> tuple[list[Detection], list[Detection]]:
        """Returns the candidates that are faces, with landmarks from the upright view of each.

        Args:
            image: the photo.
            candidates: detections in it, also several of one face.

        Returns:
            The faces that are detected when they are upright, and other likely ones.
        """
        small = _SMALL * max(*image.shape[:2], SIDE) / SIDE
        sure, unsure = [], []
        for candidate in _without_overlaps(candidates):
            if self._is_certain(image, candidate):
                sure.append(candidate._replace(is_certain=True))
                continue
            upright = self._detect_upright(image, candidate)
            if upright is not None and upright.score >= _UPRIGHT_SCORE:
                # Large upright detections with a low score are rarely faces.
                is_rotated = _degrees(upright) > _UPRIGHT_DEGREES
                if candidate.score >= MIN_SCORE or is_rotated or candidate.side < small:
                    sure.append(upright)
            elif candidate.score >= MIN_SCORE:
                unsure.append(candidate)
            elif candidate.side < small and upright is not None and upright.score >= MIN_SCORE:
                unsure.append(upright)
        return sure, unsure

    def _is_certain(self, image: np.ndarray, face: Detection) -> bool:
        """Whether a detection certainly is an upright face."""
        if face.score < _CERTAIN_SCORE or _degrees(face) > _CERTAIN_DEGREES:
            return False
        upright, *others = self._scores_at(image, face, (0.0, *_OTHER_ANGLES))
        return upright >= _SMALL_SCORE and max(others) <= upright - _LOWER

    def _scores_at(
        self, image: np.ndarray, face: Detection, angles: Sequence[float]
    ) -> list[float]:
        """Returns the score of a face in small views at rotations, 0 where it is not detected."""
        side, size = _SMALL_PART * _SMALL_VIEW, (_SMALL_VIEW, _SMALL_VIEW)
        matrices = [_view(face, angle, _SMALL_VIEW, _SMALL_PART) for angle in angles]
        views = [resample.warp(image, matrix, size) for matrix in matrices]
        found = self._network.detect(np.concatenate(views, axis=1))
        centers = [
            ((i + 0.5) * _SMALL_VIEW - 0.5, (_SMALL_VIEW - 1) / 2) for i in range(len(views))
        ]
        return [
            max((one.score for one in found if _is_at(one, center, side)), default=0.0)
            for center in centers
        ]

    def _detect_upright(self, image: np.ndarray, face: Detection) -> Detection | None:
        """Detects one face in the view in which it is most likely upright, of several."""
        # The views are resampled from an image that contains all of them.
        around_to_image = _view(face, 0.0, 2 * _FACE_VIEW, _FACE_PART / 2)
        around = resample.warp(image, around_to_image, (2 * _FACE_VIEW, 2 * _FACE_VIEW))
        in_around = face.transform(resample.invert_matrix(around_to_image))
        angles = np.arange(_ROTATIONS) * 2 * np.pi / _ROTATIONS
        views = [self._detect_at(around, in_around, angle) for angle in angles]
        scores = np.array([0.0 if found is None else found.score for found in views])
        best = int(np.argmax(scores))
        # Landmarks are rotated too little in views that are not upright, but the scores around the
        # best view are symmetric.
        near = np.cos(angles - angles[best]) > 0.4
        weights = near * np.maximum(scores - _NEAR_BEST * scores[best], 0)
        mean_angle = float(np.angle(np.sum(weights * np.exp(1j * angles))))
        found = self._detect_at(around, in_around, mean_angle)
        if found is None or found.score < scores[best] - 0.05:
            found = views[best]
        return None if found is None else found.transform(around_to_image)

    def _detect_at(self, image: np.ndarray, face: Detection, angle: float) -> Detection | None:
        """Detects one face in its view at a rotation; None if the view does not contain it."""
        to_image = _view(face, angle, _FACE_VIEW, _FACE_PART)
        view = resample.warp(image, to_image, (_FACE_VIEW, _FACE_VIEW))
        for found in self._network.detect(view):
            found = found.transform(to_image)
            if _is_at(found, face.center, face.side):
                return found
        return None


def _is_at(found: Detection, center: ArrayLike, side: float) -> bool:
    """Whether a detection has about a center and a side."""
    return bool(np.linalg.norm(found.center - center) < 0.5 * side and 0.5 < found.side / side < 2)


def _degrees(face: Detection) -> float:
    """Returns the angle between a face and an upright one, 0..180."""
    x, y = framing.horizontal_axis(face.landmarks)
    return float(np.degrees(abs(np.arctan2(y, x))))


def _view(face: Detection, angle: float, side: int, part: float) -> np.ndarray:
    """Returns the matrix of a view in which a face that is rotated by an angle is upright.

    Args:
        face: the face, in an image.
        angle: its rotation, in radians.
        side: side of the view, in pixels.
        part: the part of this side that the face covers.

    Returns:
        Matrix: pixels of the view -> pixels of the image, (2, 3).
    """
    pixel = face.side / (part * side)
    cos, sin = pixel * np.cos(angle), pixel * np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    origin = face.center - linear @ np.full(2, (side - 1) / 2)
    return np.concatenate([linear, origin[:, None]], axis=1)


def _rotate(image: np.ndarray, degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image with a face upright that is rotated by some degrees, and its matrix back.

    The result contains the full image.
    """
    height, width = image.shape[:2]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    linear = np.array([[cos, -sin], [sin, cos]])
    columns, rows = np.ceil(np.round(np.abs(linear) @ (width, height), 6)).astype(int)
    origin = np.array([width - 1, height - 1]) / 2 - linear @ np.array([columns - 1, rows - 1]) / 2
    matrix = np.concatenate([linear, origin[:, None]], axis=1)
    return resample.warp(image, matrix, (rows, columns)), matrix


def _without_overlaps(faces: Iterable[Detection]) -> list[Detection]:
    """Returns the detections, the best score first, without further ones of the same faces."""
    distinct: list[Detection] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if _is_new(face, distinct):
            distinct.append(face)
    return distinct


def _is_new(face: Detection, others: Iterable[Detection]) -> bool:
    """Whether the centers of a detection and of each other are outside of the larger box."""
    return all(
        np.max(np.abs(face.center - other.center)) > _APART * max(face.side, other.side)
        for other in others
    )
