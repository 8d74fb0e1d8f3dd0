import numpy as np
import pytest

from jax_stn_icnn.faces import framing, resample

POINTS = np.array([(23.5, 29.9), (39.5, 29.9), (31, 38), (26.0, 45.9), (37.0, 45.9)])


@pytest.mark.parametrize("box", [(100, 80, 299, 279), (-20.5, 3, 41.25, 64.75)])
def test_frame_from_box_has_the_calibrated_framing(box):
    matrix = framing.frame_from_box(np.array(box), 512)
    corners = resample.corners(matrix, (512, 512))
    side = box[2] - box[0] + 1
    np.testing.assert_allclose(corners[2] - corners[0], 1.587 * side)
    middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    np.testing.assert_allclose(corners.mean(axis=0), middle - [0, 0.076 * side])
    np.testing.assert_allclose(framing.box_from_frame(matrix, 512), box)


def test_frame_from_landmarks_rotates_and_scales_with_them():
    matrix = framing.frame_from_landmarks(POINTS, 64)
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    angle = np.radians(70)
    rotation = 3 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = np.concatenate([rotation, [[200.0], [-30.0]]], axis=1)
    found = framing.frame_from_landmarks(resample.transform_points(moved, POINTS), 64)
    np.testing.assert_allclose(found, moved, atol=1e-9)


@pytest.mark.parametrize("size", [(64, 64), (63, 64), (40, 64), (64, 17)])
def test_frame_from_photo_pads_like_the_loader(size):
    image = np.random.default_rng(0).integers(1, 256, (*size, 3), np.uint8)
    height, width = size
    top, left = (64 - height) // 2, (64 - width) // 2
    expected = np.zeros((64, 64, 3), np.uint8)
    expected[top : top + height, left : left + width] = image
    matrix = framing.frame_from_photo(size, 64)
    np.testing.assert_array_equal(resample.warp(image, matrix, (64, 64)), expected)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: framing.frames_from_boxes([1, 2, 3, 4], (9, 9), 64),
            r"must have shape \(faces, 4\)",
        ),
        (lambda: framing.frames_from_boxes([[4, 2, 3, 4]], (9, 9), 64), "x0 < x1"),
        (
            lambda: framing.frames_from_boxes([["a", 2, 3, 4]], (9, 9), 64),
            r"numbers of shape \(faces, 4\)",
        ),
        (
            lambda: framing.frames_from_boxes({"face": 1}, (9, 9), 64),
            r"numbers of shape \(faces, 4\)",
        ),
        (
            lambda: framing.frames_from_boxes(np.array([[10, 2, 13, 4]]), (9, 9), 64),
            r"contain \(10.0, 2.0, 13",
        ),
        (
            lambda: framing.frames_from_boxes([[10, 2, 13, 4]], (9, 9), 64),
            "overlap the photo of 9 x 9",
        ),
        (lambda: framing.frames_from_boxes([[0, 0, np.nan, 4]], (9, 9), 64), "not finite"),
        (lambda: framing.frames_from_landmarks(np.zeros((1, 68, 2)), 64), r"\(faces, 5, 2\)"),
        (lambda: framing.frames_from_landmarks(np.ones((1, 5, 2)), 64), "do not span a face"),
        (
            lambda: framing.frames_from_detections([1, 2, 3], (9, 9), 64),
            "output of the detector .*boxes have shape",
        ),
        (
            lambda: framing.frames_from_detections("face", (9, 9), 64),
            "output of the detector is invalid",
        ),
        (
            lambda: framing.frames_from_detections(np.ones((2, 68, 2)), (9, 9), 64),
            "detector .*landmarks have",
        ),
    ],
)
def test_invalid_boxes_and_landmarks_are_named(check, message):
    with pytest.raises(ValueError, match=message):
        check()


@pytest.mark.parametrize("none", [[], np.zeros((0, 4)), np.zeros((0, 5, 2))])
def test_no_faces_are_valid(none):
    assert framing.frames_from_detections(none, (9, 9), 64) == ([], [])
    assert framing.frames_from_boxes([], (9, 9), 64) == ([], [])
    assert framing.frames_from_landmarks([], 64) == ([], [])


def test_the_shape_of_detections_tells_boxes_from_landmarks():
    boxes, matrices = framing.frames_from_detections([(1, 2, 30, 40)], (99, 99), 64)
    np.testing.assert_array_equal(boxes, [(1, 2, 30, 40)])
    np.testing.assert_array_equal(matrices[0], framing.frame_from_box(boxes[0], 64))
    boxes, matrices = framing.frames_from_detections([POINTS.tolist()], (99, 99), 64)
    np.testing.assert_array_equal(matrices[0], framing.frame_from_landmarks(POINTS, 64))
    np.testing.assert_array_equal(boxes[0], framing.box_from_frame(matrices[0], 64))
