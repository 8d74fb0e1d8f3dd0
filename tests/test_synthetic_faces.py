import math
import os
import subprocess
import sys
from pathlib import Path

import archives
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jax_stn_icnn.anatomy import NINETEEN
from jax_stn_icnn.data.prepared import find_data_set
from tfds_builders.synthetic_faces import classes, contact_sheet, face
from tfds_builders.synthetic_faces.canvas import Canvas
from tfds_builders.synthetic_faces.class_shares import class_shares
from tfds_builders.synthetic_faces.portrait import draw_portrait
from tfds_builders.synthetic_faces.pose import Grid, Pose
from tfds_builders.synthetic_faces.synthetic_faces_dataset_builder import Builder
from tfds_builders.synthetic_portraits.synthetic_portraits_dataset_builder import (
    Builder as PortraitsBuilder,
)

# The builders have a job of their own (.ci/slow).
pytestmark = pytest.mark.slow

SPLIT_SIZES = {"train": 3, "validation": 1, "test": 2}
UPRIGHT = Pose(x=0.5, y=0.5, unit=0.4, tilt=0.0, yaw=0.0, pitch=0.0)
PAIRS = [(classes.LEFT_BROW, classes.RIGHT_BROW), (classes.LEFT_EYE, classes.RIGHT_EYE)]


@pytest.fixture(scope="module")
def faces():
    """Faces of the data set's size."""
    return [face.draw_face("train", index) for index in range(8)]


@pytest.fixture(scope="module")
def small_faces():
    """Enough faces for statistics, in a size that is drawn in a third of the time."""
    return [face.draw_face("train", index, 128) for index in range(60)]


@pytest.fixture(scope="module")
def small_build(tmp_path_factory):
    """A build with few faces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Builder, "SPLIT_SIZES", SPLIT_SIZES)
        builder = Builder(data_dir=tmp_path_factory.mktemp("small"), file_format="array_record")
        builder.download_and_prepare()
        return builder


def test_shapes_and_dtypes(faces):
    for image, label in faces:
        assert image.shape == (256, 256, 3) and image.dtype == np.uint8
        assert label.shape == (256, 256) and label.dtype == np.uint8
        assert label.max() < len(classes.CLASSES)


def test_the_face_depends_only_on_split_and_index(faces, small_faces):
    again = face.draw_face("train", 7)
    np.testing.assert_array_equal(again.image, faces[7].image)
    np.testing.assert_array_equal(again.label, faces[7].label)
    others = [face.draw_face(split, 7, 128) for split in ("validation", "test")]
    images = [image.tobytes() for image, _ in [*small_faces, *others]]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize(
    ("split", "index", "message"),
    [("dev", 0, "train, validation, test; got 'dev'"), ("test", -1, "not be negative; got -1")],
)
def test_unknown_split_and_negative_index(split, index, message):
    with pytest.raises(ValueError, match=message):
        face.draw_face(split, index)


@pytest.mark.parametrize("size", [64, 512])
def test_the_same_face_at_any_size(size, faces):
    label = face.draw_face("train", 2, size).label
    # The face of 256 pixels, at the centres of the other's pixels.
    nearest = ((np.arange(size) + 0.5) * 256 / size).astype(int)
    agreement = np.mean(label == faces[2].label[np.ix_(nearest, nearest)])
    assert agreement > 0.97


def test_a_disc_is_painted_at_the_position_of_its_equation():
    size, x, y, radius = 64, 30.3, 25.8, 11.4
    canvas, grid = Canvas(size), Grid.of(UPRIGHT, size)
    column, row = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    # The grid's own coordinates, in pixels: the centre of the first pixel is at (0.5, 0.5).
    dx, dy = grid.p * grid.unit + size / 2 - x, grid.q * grid.unit + size / 2 - y
    canvas.paint(grid, np.hypot(dx, dy) - radius, np.ones(3), classes.NOSE)

    inside = np.hypot(column - x, row - y) < radius
    np.testing.assert_array_equal(canvas.label == classes.NOSE, inside)
    for plane in canvas.image:
        assert plane.sum() == pytest.approx(math.pi * radius**2, rel=2e-3)
        assert np.average(column, weights=plane) == pytest.approx(x, abs=0.01)
        assert np.average(row, weights=plane) == pytest.approx(y, abs=0.01)


@pytest.mark.parametrize("axis", [0, 1])
def test_image_and_label_have_the_same_outline(small_faces, axis):
    """The image's mean step across the outline of the face is centred on the label's step."""
    reach = np.arange(-2, 3)
    profile = np.zeros(reach.size)
    for image, label in small_faces:
        brightness = np.moveaxis(image.astype(float).mean(axis=2), axis, 1)
        label = np.moveaxis(label, axis, 1)
        steps = np.abs(np.diff(brightness, axis=1))
        sides = np.sort(np.stack([label[:, :-1], label[:, 1:]]), axis=0)
        outline = (sides[0] == classes.BACKGROUND) & (sides[1] == classes.SKIN)
        outline[:, :2] = outline[:, -2:] = False
        rows, columns = np.nonzero(outline)
        profile += [steps[rows, columns + shift].sum() for shift in reach]
    profile -= profile.min()
    assert reach[profile.argmax()] == 0
    assert abs(np.average(reach, weights=profile)) < 0.1


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_left_is_on_the_viewers_left(small_faces, left, right):
    pairs = 0
    for _, label in small_faces:
        if (label == left).any() and (label == right).any():
            pairs += 1
            assert np.nonzero(label == left)[1].mean() < np.nonzero(label == right)[1].mean()
    assert pairs > 40


def test_every_class_occurs_and_parts_can_be_missing(small_faces):
    pixels, missing = class_shares(label for _, label in small_faces)
    assert pixels.min() > 0.002
    assert 0.25 < missing[classes.INNER_MOUTH] < 0.6
    for left, right in PAIRS:
        assert 0.0 < missing[left] + missing[right] < 0.2
    assert missing[[classes.SKIN, classes.UPPER_LIP, classes.LOWER_LIP]].max() < 0.05


def test_class_shares():
    first = np.array([[0, 1], [1, 1]], np.uint8)
    second = np.array([[0, 0], [10, 1]], np.uint8)
    pixels, missing = class_shares([first, second])
    np.testing.assert_allclose(pixels, [3 / 8, 4 / 8, *[0] * 8, 1 / 8])
    np.testing.assert_allclose(missing, [0, 0, *[1] * 8, 0.5])
    with pytest.raises(ValueError, match="no label maps"):
        class_shares([])


def test_contact_sheet_shows_faces_beside_their_classes(faces):
    sheet = contact_sheet.contact_sheet("train", range(3), columns=2)
    assert sheet.shape == (2 * 256, 2 * 2 * 256, 3)
    np.testing.assert_array_equal(sheet[:256, 512:768], faces[1].image)
    np.testing.assert_array_equal(sheet[256:, 256:512], contact_sheet.PALETTE[faces[2].label])
    assert not sheet[256:, 512:].any()


def test_a_build_contains_the_drawn_faces(small_build):
    info = small_build.info
    assert {name: split.num_examples for name, split in info.splits.items()} == SPLIT_SIZES
    assert info.features["label"].names == list(classes.CLASSES)
    for split, count in SPLIT_SIZES.items():
        source = small_build.as_data_source(split)
        for index in range(count):
            record, drawn = source[index], face.draw_face(split, index)
            np.testing.assert_array_equal(record["image"], drawn.image)
            np.testing.assert_array_equal(record["label"], drawn.label[..., np.newaxis])
            assert record["name"] == f"{split}_{index:05d}".encode()


BUILD = f"""
import sys
from tfds_builders.synthetic_faces import Builder
Builder.SPLIT_SIZES = {SPLIT_SIZES}
builder = Builder(data_dir=sys.argv[1], file_format="array_record")
builder.download_and_prepare()
"""


def test_portraits_are_a_data_set_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(PortraitsBuilder, "SPLIT_SIZES", {"train": 1, "test": 2})
    builder = PortraitsBuilder(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    source = builder.as_data_source("test")
    image, label = draw_portrait("test", 1)
    np.testing.assert_array_equal(source[1]["image"], image)
    np.testing.assert_array_equal(source[1]["label"], label[..., np.newaxis])
    # Not registered: its labels are named after the classes, and faces frame its pictures.
    data_set = find_data_set(tmp_path, "synthetic_portraits")
    assert tuple(data_set.classes.values()) == NINETEEN.classes and data_set.framing == "face"


def test_two_processes_build_the_same_bytes(small_build, tmp_path):
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    sequential = {**os.environ, "LOKY_MAX_CPU_COUNT": "1"}  # without joblib's processes
    subprocess.run(command, check=True, capture_output=True, env=sequential)
    files = archives.read_tree(tmp_path / "synthetic_faces")
    assert files == archives.read_tree(Path(small_build.data_dir).parent)
    assert any("array_record" in name for name in files)


def test_the_builders_are_registered_under_their_names():
    assert tfds.builder_cls("synthetic_faces") is Builder
    assert tfds.builder_cls("synthetic_portraits") is PortraitsBuilder
    assert sum(Builder.SPLIT_SIZES.values()) == 2400
