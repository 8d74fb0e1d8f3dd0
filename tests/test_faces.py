import cv2
import numpy as np
import pytest

from jax_stn_icnn.photos import faces, resample
from tfds_builders.synthetic_faces import classes
from tfds_builders.synthetic_faces.face import draw_face

has_detector = pytest.mark.skipif(
    not hasattr(cv2, "CascadeClassifier"), reason="OpenCV 5 has no face detector"
)


def centre(label):
    """The middle of eyes, nose and mouth in a drawn face, (x, y)."""
    names = ("LEFT_EYE", "RIGHT_EYE", "NOSE", "UPPER_LIP", "LOWER_LIP")
    y, x = np.nonzero(np.isin(label, [getattr(classes, name) for name in names]))
    return np.array([x.mean(), y.mean()])


@has_detector
class TestDetect:
    def test_finds_drawn_faces_of_several_sizes_and_nothing_else(self):
        canvas = np.full((1100, 1700, 3), 128, np.uint8)
        expected = []
        for index, (left, top, factor) in zip(
            (0, 16, 27), [(100, 50, 3), (1000, 200, 2), (1400, 800, 1)], strict=True
        ):
            image, label = draw_face("train", index)
            image = image.repeat(factor, axis=0).repeat(factor, axis=1)
            canvas[top : top + len(image), left : left + len(image)] = image
            expected.append([left, top] + factor * centre(label))
        boxes = faces.detect(canvas)
        assert len(boxes) == 3
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        assert sides[0, 0] > 1.3 * sides[1, 0] > 1.3**2 * sides[2, 0]
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert np.all(np.abs(middle - expected) < 0.25 * sides)

    @pytest.mark.parametrize("size", [(1, 1), (3, 900), (200, 300), (3000, 10)])
    def test_no_face(self, size):
        boxes = faces.detect(np.full((*size, 3), 90, np.uint8))
        assert boxes.shape == (0, 4)


def test_opencv_without_a_detector_is_named(monkeypatch):
    monkeypatch.delattr(cv2, "CascadeClassifier", raising=False)
    with pytest.raises(ImportError, match="install opencv-python-headless<5"):
        faces.detect(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("box", [(100, 80, 299, 279), (-20.5, 3, 41.25, 64.75)])
def test_a_box_s_frame_has_the_calibrated_framing(box):
    matrix = faces.frame_around_box(np.array(box), 512)
    corners = resample.corners(matrix, (512, 512))
    side = box[2] - box[0] + 1
    np.testing.assert_allclose(corners[2] - corners[0], 1.587 * side)
    middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    np.testing.assert_allclose(corners.mean(axis=0), middle - [0, 0.076 * side])
    np.testing.assert_allclose(faces.box_in_frame(matrix, 512), box)


def test_the_frame_around_landmarks_turns_and_scales_with_them():
    points = np.array([(23.5, 29.9), (39.5, 29.9), (31, 38), (26.0, 45.9), (37.0, 45.9)])
    matrix = faces.frame_around_landmarks(points, 64)
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    angle = np.radians(70)
    turn = 3 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = np.concatenate([turn, [[200.0], [-30.0]]], axis=1)
    found = faces.frame_around_landmarks(resample.apply(moved, points), 64)
    np.testing.assert_allclose(found, moved, atol=1e-9)


@pytest.mark.parametrize("size", [(64, 64), (63, 64), (40, 64), (64, 17)])
def test_a_photo_goes_into_its_frame_as_the_loader_puts_it(size):
    image = np.random.default_rng(0).integers(1, 256, (*size, 3), np.uint8)
    height, width = size
    top, left = (64 - height) // 2, (64 - width) // 2
    expected = np.zeros((64, 64, 3), np.uint8)
    expected[top : top + height, left : left + width] = image
    matrix = faces.frame_around_photo(size, 64)
    np.testing.assert_array_equal(resample.pull(image, matrix, (64, 64)), expected)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: faces.check_boxes([1, 2, 3, 4], (9, 9)), r"must have shape \(faces, 4\)"),
        (lambda: faces.check_boxes([[4, 2, 3, 4]], (9, 9)), "x0 < x1"),
        (lambda: faces.check_boxes([[10, 2, 13, 4]], (9, 9)), "within the photo of 9 x 9"),
        (lambda: faces.check_boxes([[0, 0, np.nan, 4]], (9, 9)), "not finite"),
        (lambda: faces.check_landmarks(np.zeros((1, 68, 2))), r"\(faces, 5, 2\)"),
        (lambda: faces.frame_around_landmarks(np.ones((5, 2)), 64), "do not span a face"),
    ],
)
def test_impossible_places_are_named(check, message):
    with pytest.raises(ValueError, match=message):
        check()


def test_no_boxes_are_no_error():
    assert faces.check_boxes([], (9, 9)).shape == (0, 4)
    assert faces.check_landmarks([]).shape == (0, 5, 2)
