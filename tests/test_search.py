"""Faces at any rotation and size."""

import cv2
import numpy as np
import pytest
from conftest import small_model

from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.faces import detectors, resample
from jax_stn_icnn.faces.yunet import Detection
from jax_stn_icnn.inference.turning import RotationCheck
from tfds_builders.synthetic_faces.face import draw_face

GRAY = (128, 128, 128)


@pytest.fixture(scope="module")
def face():
    """A drawn face in a gray square, and its landmarks."""
    image = np.full((320, 320, 3), GRAY, np.uint8)
    image[32:288, 32:288] = draw_face("train", 7).image
    (landmarks,) = detectors.make_single_view_detector()(image)
    return image, landmarks


def place(canvas, image, degrees, scale, center):
    """Draws an image into a canvas; returns the matrix image -> canvas."""
    matrix = cv2.getRotationMatrix2D((159.5, 159.5), degrees, scale)
    matrix[:, 2] += np.subtract(center, 159.5)
    size = canvas.shape[:2]
    back = resample.invert_matrix(matrix)
    drawn = resample.sample_nearest(np.ones((320, 320), np.uint8), back, size) == 1
    canvas[drawn] = resample.warp(image, back, size)[drawn]
    return matrix


def distance(found, expected):
    """The distance of landmarks, relative to that of the eyes."""
    apart = np.linalg.norm(expected[1] - expected[0])
    return np.linalg.norm(found - expected, axis=-1).max() / apart


@pytest.mark.parametrize("degrees", [60, 90, 180, 300])
def test_a_rotated_face_has_rotated_landmarks(face, degrees):
    image, landmarks = face
    photo = np.full((460, 460, 3), GRAY, np.uint8)
    matrix = place(photo, image, degrees, 1, (230, 230))
    (found,) = detectors.make_detector("yunet")(photo)
    assert distance(found, resample.transform_points(matrix, landmarks)) < 0.35
    single = detectors.make_single_view_detector()(photo)
    assert not len(single) or distance(single[0], found) > 0.35


def test_small_faces_of_a_large_photo_are_searched_by_min_face_size(face):
    image, landmarks = face
    photo = np.full((900, 1200, 3), GRAY, np.uint8)
    matrix = place(photo, image, 0, 0.15, (900, 300))
    assert len(detectors.make_detector("yunet", min_face_size=200)(photo)) == 0
    (found,) = detectors.make_detector("yunet", min_face_size=15)(photo)
    assert distance(found, resample.transform_points(matrix, landmarks)) < 0.35


def test_faces_smaller_than_a_given_size_are_left_out(face):
    image, _ = face
    (found,) = detectors.make_detector("yunet").detect(image)
    for factor, count in [(0.95, 1), (1.05, 0)]:
        size = factor * found.side
        assert len(detectors.make_detector("yunet", min_face_size=size)(image)) == count


def test_a_close_up_larger_than_the_photo(face):
    image, landmarks = face
    photo = cv2.resize(image[104:248, 88:232], (640, 640), interpolation=cv2.INTER_CUBIC)
    (found,) = detectors.make_detector("yunet")(photo)
    assert distance(found, (landmarks - (88, 104)) * 640 / 144) < 0.35


@pytest.mark.parametrize(
    ("detector", "size"), [("yunet", 0), ("yunet", -3.0), ("cascade", 20), (len, 20)]
)
def test_an_invalid_min_face_size_is_named(detector, size):
    with pytest.raises(ValueError, match=f"min_face_size is {size}.*must be positive"):
        detectors.make_detector(detector, size)


class TestRotationCheck:
    # In its frame of side 64, see `test_parser.TestLandmarks`.
    POINTS = np.array([(23.5, 29.9), (39.5, 29.9), (31, 38), (26.0, 45.9), (37.0, 45.9)])

    @pytest.fixture
    def check(self):
        """A check whose network predicts the class that the red of a pixel gives."""
        check = RotationCheck(small_model(), {}, 64)
        check._program = lambda variables, frames: np.eye(9)[frames[..., 0] // 20]
        return check

    def draw_parts(self, points):
        """Draws the eyes, the nose and the mouth of a face, in the colors of their classes."""
        photo = np.zeros((64, 64, 3), np.uint8)
        centers = [*points[:3], points[3:].mean(axis=0)]
        names = ("eye_1", "eye_2", "nose", "upper_lip")
        for (x, y), name in zip(centers, names, strict=True):
            rows, columns = slice(round(y) - 2, round(y) + 3), slice(round(x) - 2, round(x) + 3)
            photo[rows, columns] = 20 * NINE.classes.index(name) + 10
        return photo

    def detection(self, points, score=0.9, **fields):
        return Detection(np.array([31.5, 34.5]), 40.0, points, score, **fields)

    @pytest.mark.parametrize("degrees", [0, 90, 180, 210])
    def test_landmarks_that_the_segmentation_contradicts_are_replaced(self, check, degrees):
        center = (31.5, 34.5)
        matrix = cv2.getRotationMatrix2D(center, degrees, 1.0)
        points = resample.transform_points(matrix, self.POINTS)
        photo = self.draw_parts(points)
        wrong = self.detection(
            resample.transform_points(cv2.getRotationMatrix2D(center, 60, 1.0), points)
        )
        found = check.check(photo, wrong)
        assert distance(found.landmarks, points) < 0.2 < distance(wrong.landmarks, points)

    def test_other_landmarks_are_kept(self, check):
        face = self.detection(self.POINTS)
        assert check.check(self.draw_parts(self.POINTS), face) is face

    @pytest.mark.parametrize(("score", "kept"), [(0.85, True), (0.75, False)])
    def test_a_profile_shows_some_of_the_parts(self, check, score, kept):
        photo = self.draw_parts(self.POINTS)
        photo[:, 32:], photo[34:] = 0, 0  # all but one eye
        face = self.detection(self.POINTS, score)
        assert check.check(photo, face) is (face if kept else None)

    def test_a_doubtful_face_without_eyes_nose_and_mouth_is_dropped(self, check):
        photo = np.zeros((64, 64, 3), np.uint8)
        assert check.check(photo, self.detection(self.POINTS)) is None
        certain = self.detection(self.POINTS, is_certain=True)
        assert check.check(photo, certain) is certain

    def test_certain_faces_do_not_need_the_network(self):
        image = np.asarray(draw_face("test", 3).image)
        check = RotationCheck(small_model(), {}, 64)  # without variables, so it cannot compile
        detector = detectors.make_detector("yunet")
        (face,) = detector.detect(image)
        assert face.is_certain and check.check(image, face) is face
