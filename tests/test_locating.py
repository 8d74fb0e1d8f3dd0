"""Which of the faces of a photo are located."""

import numpy as np
import pytest

from jax_stn_icnn.faces import framing
from jax_stn_icnn.faces.detectors import Detections
from jax_stn_icnn.faces.search import FaceSearch
from jax_stn_icnn.faces.yunet import Detection
from jax_stn_icnn.inference.locating import FaceLocator, Selection

S = 64
PHOTO = np.zeros((200, 300, 3), np.uint8)
BOXES = [(5.0, 5.0, 24.0, 24.0), (50.0, 5.0, 129.0, 84.0), (150.0, 20.0, 189.0, 59.0)]
SCORES = [0.9, 0.95, 0.8]
# Eyes, nose and mouth of a face of side 40 at the origin.
POINTS = np.array([(-8.0, -5), (8, -5), (0, 3), (-6, 11), (6, 11)])


class FakeCheck:
    """Drops detections at x 100; records the others that it checks."""

    def __init__(self):
        self.checked = []

    def check(self, image, face):
        self.checked.append(face.score)
        return None if face.center[0] == 100 else face


class FakeSearch(FaceSearch):
    """A search that finds these faces: x of the center, side, score."""

    def __init__(self, *faces, min_face_size=None):
        super().__init__(None, min_face_size)
        self._faces = [
            Detection(np.array([x, 90.0]), side, POINTS * side / 40 + (x, 90), score)
            for x, side, score in faces
        ]

    def detect(self, image):
        return self._faces


class FakeDetector:
    """A detector with this output."""

    def __init__(self, output):
        self._output = output

    def __call__(self, image):
        return self._output


def locate_all(detector, max_faces=None, largest=False, min_score=None, check=None, **where):
    arguments = {"boxes": None, "landmarks": None, "detect": True} | where
    selection = Selection.checked(**arguments, max_faces=max_faces, largest=largest)
    locator = FaceLocator(check or FakeCheck(), S, min_score)
    return locator.locate(PHOTO, detector, selection)


def locate(detector, **options):
    return locate_all(detector, **options).selected


def boxes_of(faces):
    return [tuple(face.box) for face in faces]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"max_faces": 2}, [1, 2]),
        ({"max_faces": 7}, [1, 2, 0]),
        ({"largest": True}, [1]),
        ({"min_score": 0.9}, [0, 1]),
        ({"min_score": 0.9, "max_faces": 1}, [1]),
        ({"min_score": 0.99}, []),
    ],
)
def test_detected_faces_are_selected_by_size_and_score(options, expected):
    found = locate(lambda image: Detections(BOXES, SCORES), **options)
    assert boxes_of(found) == [BOXES[i] for i in expected]
    assert [face.score for face in found] == [SCORES[i] for i in expected]
    assert all(face.landmarks is None for face in found)


@pytest.mark.parametrize("scores", [None, [0.5, 0.25]])
def test_landmarks_are_returned_as_they_are_detected(scores):
    points = np.stack([POINTS + 60, 2 * POINTS + 90])
    found = locate(lambda image: points if scores is None else Detections(points, scores))
    np.testing.assert_array_equal([face.landmarks for face in found], points)
    assert [face.score for face in found] == (scores or [None, None])
    for face, expected in zip(found, points, strict=True):
        np.testing.assert_array_equal(face.matrix, framing.frame_from_landmarks(expected, S))


def test_given_faces_have_no_score():
    (face,) = locate(None, landmarks=[POINTS.tolist()])
    np.testing.assert_array_equal(face.landmarks, POINTS)
    assert face.score is None
    (face,) = locate(None, boxes=BOXES[:1])
    assert (face.landmarks, face.score) == (None, None)
    (face,) = locate(None, detect=False)
    assert (face.landmarks, face.score) == (None, None)


@pytest.mark.parametrize("none", [[], Detections([], []), Detections(np.empty((0, 5, 2)), [])])
@pytest.mark.parametrize("min_score", [None, 0.5])
def test_no_face(none, min_score):
    assert locate(lambda image: none, min_score=min_score) == []


def test_no_more_faces_are_checked_than_are_returned():
    check = FakeCheck()
    search = FakeSearch((50, 20, 0.9), (100, 40, 0.95), (150, 50, 0.7), (250, 30, 0.8))
    (face,) = locate(search, max_faces=1, min_score=0.75, check=check)
    assert face.score == 0.8
    np.testing.assert_array_equal(face.landmarks, POINTS * 30 / 40 + (250, 90))
    assert check.checked == [0.95, 0.8]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"largest": True}, [30, 20]),
        ({"max_faces": 2}, [20]),
        ({"max_faces": 2, "min_score": 0.95}, []),
    ],
)
@pytest.mark.parametrize("is_search", [True, False])
def test_detected_faces_that_are_left_out_are_neighbors(options, expected, is_search):
    detector = FakeSearch((50, 20, 0.9), (200, 50, 0.95), (250, 30, 0.95))
    if not is_search:
        faces = detector.detect(PHOTO)
        output = Detections([face.landmarks for face in faces], [face.score for face in faces])
        detector = FakeDetector(output)
    found = locate_all(detector, **options).neighbors
    side = np.linalg.norm(framing.frame_from_landmarks(POINTS, S)[:, 0]) / 40
    np.testing.assert_allclose([np.linalg.norm(m[:, 0]) / side for m in found], expected)


def test_small_faces_are_neighbors():
    search = FakeSearch((50, 20, 0.9), (200, 50, 0.95), (250, 30, 0.95), min_face_size=30)
    found = locate_all(search)
    assert len(found.selected) == 2
    assert len(found.neighbors) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_faces": 0}, "max_faces is 0, but must be an integer of at least 1"),
        ({"max_faces": 1.5}, "max_faces is 1.5"),
        ({"max_faces": 2, "largest": True}, "max_faces and largest exclude each other"),
        ({"largest": True, "detect": False}, "select detected faces, and exclude"),
        ({"max_faces": 2, "boxes": BOXES}, "select detected faces, and exclude"),
        ({"min_score": 1.5}, "min_score is 1.5, but must be in 0..1"),
        ({"min_score": float("nan")}, "min_score is nan"),
        ({"min_score": 0.5}, "min_score is 0.5, but the detector returns no scores"),
    ],
)
def test_invalid_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        locate(lambda image: BOXES, **options)


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5, 2], [0.1, 0.2, np.nan], 0.5])
def test_invalid_scores_are_named(scores):
    with pytest.raises(
        ValueError, match=r"scores of the detector are .* must be 3 numbers in 0..1"
    ):
        locate(lambda image: Detections(BOXES, scores))
