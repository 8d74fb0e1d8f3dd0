import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from benchmarks import grayscale, wild
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.faces import framing
from jax_stn_icnn.inference.pixels import Pixels
from jax_stn_icnn.inference.results import FaceResult, PhotoResult

# A face of 100 pixels between the pupils, by COFW's landmarks; sides alternate.
LANDMARKS = np.zeros((29, 2))
LANDMARKS[[0, 1, 2, 3, 4, 5, 6, 7]] = [
    (60, 90), (240, 90), (130, 90), (170, 90), (100, 80), (100, 92), (200, 80), (200, 92),
]  # fmt: skip
LANDMARKS[8:18] = [
    (80, 110), (220, 110), (120, 110), (180, 110), (100, 105), (100, 115), (200, 105), (200, 115),
    (100, 110), (200, 110),
]  # fmt: skip
LANDMARKS[18:] = [
    (130, 170), (170, 170), (150, 165), (150, 180), (120, 210), (180, 210), (150, 200), (150, 208),
    (150, 212), (150, 222), (150, 260),
]  # fmt: skip
POINTS = {
    "brow_1": (100, 86), "brow_2": (200, 86), "eye_1": (100, 110), "eye_2": (200, 110),
    "nose": (150, 165), "upper_lip": (150, 204), "lower_lip": (150, 217),
}  # fmt: skip


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "wild.zip"
    colours = np.random.default_rng(0).integers(0, 256, (300, 320, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    with zipfile.ZipFile(path, "w") as file:
        file.write(tmp_path / "a.png", "photos/a.jpg")
        file.writestr("landmarks.json", json.dumps({"a.jpg": LANDMARKS.tolist()}))
    return path


def result_of(photo, painted, box=(40, 60, 260, 280)):
    """A result with one face, and single pixels of some classes."""
    labels = np.zeros(photo.image.shape[:2], np.uint8)
    for name, (x, y) in painted.items():
        labels[round(y), round(x)] = NINE.classes.index(name)
    matrix = framing.frame_from_box(np.array(box, float), 64)
    pixels = Pixels.of(labels.shape, np.s_[: len(labels), : labels.shape[1]], labels)
    face = FaceResult(box, {}, (), labels, matrix, labels.shape, NINE, (), pixels)
    return PhotoResult(photo.image, [face], NINE, pixels)


def test_points_are_landmarks_or_their_middles(archive):
    (photo,) = wild.read_photos(str(archive))
    assert {name: tuple(point) for name, point in photo.points.items()} == POINTS
    assert wild.score(photo, result_of(photo, POINTS)) == (True, 0, dict.fromkeys(POINTS, True))


def test_a_point_counts_within_a_twentieth_of_the_distance_between_the_pupils(archive):
    (photo,) = wild.read_photos(str(archive))
    moved = {name: (x + 5, y) for name, (x, y) in POINTS.items()}
    assert all(wild.score(photo, result_of(photo, moved))[2].values())
    moved = {name: (x + 6, y) for name, (x, y) in POINTS.items()}
    assert not any(wild.score(photo, result_of(photo, moved))[2].values())


def test_a_face_elsewhere_is_another_face(archive):
    (photo,) = wild.read_photos(str(archive))
    for box in ((0, 0, 90, 90), (90, 80, 160, 150)):
        found, others, hits = wild.score(photo, result_of(photo, POINTS, box))
        assert (found, others) == (False, 1) and not any(hits.values())


def test_rotation_and_grayscale(archive):
    (plain,), (photo,) = (wild.read_photos(str(archive), *how) for how in ((), (90.0, True)))
    assert photo.image.shape == (320, 300, 3)
    assert np.all(photo.image == photo.image[..., :1])
    # Counterclockwise: x is the row from the bottom.
    x, y = plain.points["nose"]
    np.testing.assert_allclose(photo.points["nose"], (y, 319 - x), atol=1e-9)
    before = np.asarray(Image.fromarray(plain.image).convert("L"))
    np.testing.assert_array_equal(photo.image[..., 0], np.rot90(before))


def test_grayscale_pictures_agree_with_themselves(small_parser):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 1), np.uint8)
    counts = grayscale.agreement(small_parser, [picture.repeat(3, axis=2)] * 2)
    assert counts.sum() == 2 * 64 * 64
    np.testing.assert_array_equal(counts, np.diag(np.diag(counts)))
