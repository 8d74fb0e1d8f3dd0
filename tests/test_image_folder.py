"""Data sets from a folder of images and masks, and the errors for faulty folders."""

import functools
import io

import archives
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import ExifTags, Image

from tfds_builders import prepare
from tfds_builders.archive import ArchiveError
from tfds_builders.synthetic_faces.face import draw_face

# The builders have a job of their own (.ci/slow).
pytestmark = pytest.mark.slow

NAMES = ("nothing", "face", "hair")
SPLITS = {"train": 3, "validation": 1, "test": 2}


@functools.cache
def files():
    """Returns drawn faces in three classes; some images are JPEG, some masks have a palette."""
    found = {"classes.txt": "\n".join(NAMES).encode() + b"\n", "README.md": b"My faces."}
    for split, count in SPLITS.items():
        for i in range(count):
            image, label = draw_face(split, i, 64)
            suffix, kind = ((".png", "PNG"), (".JPG", "JPEG"))[i % 2]
            found[f"images/{split}/{i}{suffix}"] = archives.encode(image, kind)
            mask = Image.fromarray(ids(label))
            if i % 2:
                mask.putpalette([0, 0, 0, 255, 200, 150, 90, 60, 30])
            found[f"masks/{split}/{i}.png"] = archives.encode(mask)
    return found


def ids(label):
    return np.where(label == 10, 2, (label > 0).astype(np.uint8)).astype(np.uint8)


@pytest.mark.parametrize("write", [archives.write_folder, archives.write_zip])
def test_tfds_reads_the_data_set_without_this_package(tmp_path, write):
    write(files(), tmp_path / "manual", "my_faces")
    line = prepare.prepare("my_faces", tmp_path, tmp_path / "manual", "array_record")
    assert line.endswith("my_faces/1.0.0 (array_record; test 2, train 3, validation 1)")
    builder = tfds.builder_from_directory(tmp_path / "my_faces" / "1.0.0")
    assert builder.info.features["label"].names == list(NAMES)
    for split, count in SPLITS.items():
        source = builder.as_data_source(split)
        assert len(source) == count
        for i in range(count):
            image, label = draw_face(split, i, 64)
            record = source[i]
            assert record["name"] == str(i).encode()
            np.testing.assert_array_equal(record["label"][..., 0], ids(label))
            assert np.abs(record["image"].astype(int) - image).mean() < (8 if i % 2 else 1e-9)


def test_prepared_data_set_does_not_need_the_folder(tmp_path):
    archives.write_folder(files(), tmp_path / "manual", "my_faces")
    prepare.prepare("my_faces", tmp_path, tmp_path / "manual", "array_record")
    line = prepare.prepare("my_faces", tmp_path, None, "array_record")
    assert line.startswith("already complete: ")


SMALL = archives.encode(np.zeros((9, 9), np.uint8))
RGB = archives.encode(np.zeros((64, 64, 3), np.uint8))


def rotated():
    """Returns an image as a phone stores it when held upside down."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = 3
    Image.new("RGB", (64, 64)).save(file, "PNG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes.txt": None}, "classes.txt: is missing; write it: one class per line"),
        ({"classes.txt": b"a\na\n"}, "classes.txt: lists a, a; list 2 to 256 classes"),
        ({"classes.txt": b"\n"}, "classes.txt: lists no class; list 2"),
        ({"classes.txt": b"a\nb\n"}, r"masks/.*\.png: contains id 2, but classes.txt has 2 cl"),
        ({"masks/train/1.png": None}, r"images/train/1\.JPG: has no mask masks/train/1\.png; add"),
        ({"masks/train/9.png": SMALL}, r"masks/train/9\.png: has no image; add the image, or"),
        ({"masks/test/0.png": SMALL}, r"masks/test/0.png: has \(height, width\) \(9, 9\), "),
        ({"masks/test/0.png": RGB}, "masks/test/0.png: is PNG RGB, not an"),
        ({"images/test/0.png": SMALL}, "images/test/0.png: is PNG L, not an RGB JPEG or PNG"),
        (
            {"images/test/0.png": b"no image"},
            "images/test/0.png: cannot be decoded .*; fix it in your folder",
        ),
        (
            {"images/test/0.png": rotated()},
            r"images/test/0\.png: is stored rotated, with an EXIF .*upright",
        ),
        ({"images/test/0.jpg": b""}, r"images/test/0\.jpg: has the name of images/test/0\.png"),
    ],
)
def test_faulty_folder(tmp_path, changes, message):
    changed = {name: data for name, data in (files() | changes).items() if data is not None}
    archives.write_folder(changed, tmp_path / "manual", "my_faces")
    with pytest.raises(ArchiveError, match=f"my_faces: {message}"):
        prepare.prepare("my_faces", tmp_path, tmp_path / "manual", "array_record")
    assert not list((tmp_path / "my_faces").glob("1*"))


def test_folder_without_images(tmp_path):
    archives.write_folder({"classes.txt": b"a\nb\n"}, tmp_path / "manual", "my_faces")
    with pytest.raises(ArchiveError, match="images: has no image in its folders; add images to"):
        prepare.prepare("my_faces", tmp_path, tmp_path / "manual", "array_record")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hellen",
            "expected one of celebamask_hq, helen, synthetic_faces, or the name of a folder .*; "
            "got 'hellen', and --manual_dir is /",
        ),
        ("My faces", "lower-case letters"),
    ],
)
def test_no_such_folder(tmp_path, name, message):
    with pytest.raises(prepare.PrepareError, match=message):
        prepare.prepare(name, tmp_path, tmp_path, "array_record")
    with pytest.raises(prepare.PrepareError, match="lower-case letters|not set"):
        prepare.prepare(name, tmp_path, None, "array_record")


def test_two_builds_have_the_same_bytes(tmp_path):
    archives.write_folder(files(), tmp_path / "manual", "my_faces")
    for where in ("a", "b"):
        prepare.prepare("my_faces", tmp_path / where, tmp_path / "manual", "array_record")
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / where).rglob("*.array_record*")}
        for where in ("a", "b")
    )
    assert first == second and len(first) == 3
