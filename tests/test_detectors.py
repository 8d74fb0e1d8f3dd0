from pathlib import Path

import cv2
import numpy as np
import pytest

from jax_stn_icnn.faces import detectors
from tfds_builders.synthetic_faces import classes
from tfds_builders.synthetic_faces.face import draw_face

EYES, LIPS = ("LEFT_EYE", "RIGHT_EYE"), ("UPPER_LIP", "LOWER_LIP", "INNER_MOUTH")


def middle(label, *names):
    """Returns the mean position of some classes of a drawn face, (x, y)."""
    y, x = np.nonzero(np.isin(label, [getattr(classes, name) for name in names]))
    return np.array([x.mean(), y.mean()])


@pytest.fixture(scope="module")
def canvas():
    """An image of three drawn faces; of each (left, top), scale and drawn labels."""
    image = np.full((1100, 1700, 3), 128, np.uint8)
    places = [(100, 50, 3), (1000, 200, 2), (1400, 800, 1)]
    drawn = []
    for index, (left, top, factor) in zip((7, 4, 5), places, strict=True):
        face, label = draw_face("train", index)
        face = face.repeat(factor, axis=0).repeat(factor, axis=1)
        image[top : top + len(face), left : left + len(face)] = face
        drawn.append((np.array([left, top]), factor, label))
    return image, drawn


def test_yunet_detects_drawn_faces_and_their_landmarks(canvas):
    image, drawn = canvas
    found = detectors.make_detector("yunet")(image)
    assert found.shape == (3, 5, 2)
    for points, (corner, factor, label) in zip(found, drawn, strict=True):
        eye_1, eye_2, nose, mouth_1, mouth_2 = (points - corner) / factor
        apart = np.linalg.norm(middle(label, EYES[1]) - middle(label, EYES[0]))
        assert np.linalg.norm((eye_1 + eye_2) / 2 - middle(label, *EYES)) < 0.12 * apart
        # Drawn mouths are a little lower than those of its training data.
        assert np.linalg.norm((mouth_1 + mouth_2) / 2 - middle(label, *LIPS)) < 0.3 * apart
        assert eye_1[0] < nose[0] < eye_2[0] and mouth_1[0] < mouth_2[0]


@pytest.mark.parametrize("degrees", [-30, 30])
def test_landmarks_rotate_with_the_face(degrees):
    image = np.full((556, 556, 3), 128, np.uint8)
    image[150:406, 150:406] = draw_face("train", 7).image
    (expected,) = detectors.make_detector("yunet")(image)
    matrix = cv2.getRotationMatrix2D((277.5, 277.5), degrees, 1.0)
    rotated = cv2.warpAffine(image, matrix, (556, 556), borderValue=(128, 128, 128))
    (found,) = detectors.make_detector("yunet")(rotated)
    near = 0.3 * np.linalg.norm(expected[1] - expected[0])
    distance = np.linalg.norm(found - (expected @ matrix[:, :2].T + matrix[:, 2]), axis=-1)
    assert distance.max() < near


def test_the_cascade_detects_drawn_faces_of_several_sizes_and_nothing_else(canvas):
    image, drawn = canvas
    boxes = detectors.make_detector("cascade")(image)
    assert len(boxes) == 3
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    assert sides[0, 0] > 1.3 * sides[1, 0] > 1.3**2 * sides[2, 0]
    expected = [corner + factor * middle(label, *EYES, *LIPS) for corner, factor, label in drawn]
    assert np.all(np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - expected) < 0.25 * sides)


def test_a_cascade_that_cannot_be_opened_is_an_error(monkeypatch):
    monkeypatch.setattr(detectors, "_CASCADE", "no_such.xml")
    with pytest.raises(ValueError, match="has no Haar cascade: use the detector yunet"):
        detectors.make_detector("cascade")


@pytest.mark.parametrize("name", detectors.NAMES)
@pytest.mark.parametrize("size", [(1, 1), (3, 900), (200, 300), (3000, 10)])
def test_no_face(name, size):
    assert len(detectors.make_detector(name)(np.full((*size, 3), 90, np.uint8))) == 0


def test_a_file_and_a_callable(canvas, tmp_path):
    image, _ = canvas
    (tmp_path / "own.onnx").write_bytes(detectors.yunet_file().read_bytes())
    own = detectors.make_detector(tmp_path / "own.onnx")
    np.testing.assert_array_equal(own(image), detectors.make_detector("yunet")(image))
    assert detectors.make_detector(len) is len


def test_a_damaged_or_missing_yunet_file_is_named(monkeypatch, tmp_path):
    file = tmp_path / "yunet.onnx"
    file.write_bytes(detectors.YUNET.read_bytes()[:-1])
    monkeypatch.setattr(detectors, "YUNET", file)
    with pytest.raises(ValueError, match="yunet.onnx is damaged: its SHA-256 differs"):
        detectors.make_detector("yunet")
    file.unlink()
    with pytest.raises(FileNotFoundError, match="yunet.onnx"):
        detectors.make_detector("yunet")


def test_an_opencv_without_the_cascade_is_named(monkeypatch):
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(ValueError, match="has no Haar cascade: use the detector yunet"):
        detectors.make_detector("cascade")


def test_unknown_and_damaged_detectors_are_named(tmp_path):
    with pytest.raises(ValueError, match="no detector 'yolo', only yunet, cascade"):
        detectors.make_detector("yolo")
    with pytest.raises(FileNotFoundError, match="nowhere.onnx"):
        detectors.make_detector(Path("nowhere.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="bad.onnx is not a YuNet network"):
        detectors.make_detector(tmp_path / "bad.onnx")
