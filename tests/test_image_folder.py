"""Data sets from a folder of images and masks, and the errors for faulty folders."""

import io

import archives
import numpy as np
import pytest
import tensorflow_datasets as tfds
from folders import NAMES, SPLITS, build, files, ids, ids_of, masks_of_drawn_faces
from PIL import ExifTags, Image

from tfds_builders import prepare
from tfds_builders.archive import ArchiveError
from tfds_builders.synthetic_faces.face import draw_face

# The builders have a job of their own (.ci/slow).
pytestmark = pytest.mark.slow


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


PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
SMALL = archives.encode(np.zeros((9, 9), np.uint8))
RGB = archives.encode(np.zeros((64, 64, 3), np.uint8))
GRAY = Image.new("L", (64, 64))
JPEG, GIF = archives.encode(GRAY, "JPEG"), archives.encode(GRAY, "GIF")
ONE_BIT = archives.encode(GRAY.convert("1"))
_FIVE = np.zeros((64, 64), np.uint8)
_FIVE[2, 3] = 5
FIVE = archives.encode(_FIVE)


def rotated(kind="PNG"):
    """Returns PIXELS as a phone stores it when held upside down."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = 3
    Image.fromarray(PIXELS[::-1, ::-1]).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes.txt": None}, "classes.txt: is missing; write it: one class per line"),
        ({"classes.txt": b"\n"}, "classes.txt: has 0 lines; list 2 to 256 classes"),
        ({"classes.txt": b"a\na\n"}, "classes.txt, line 2: lists the classes of line 1"),
        ({"classes.txt": b"a\nb+c\nc + b\n"}, "classes.txt, line 3: lists the classes of line 2"),
        ({"classes.txt": b"a\n\nb\n"}, "classes.txt, line 2: is blank"),
        ({"classes.txt": b"a\nb++c\nd\n"}, r"classes.txt, line 2: 'b\+\+c' has a member without"),
        ({"classes.txt": b"a\nb+c+b\nd\n"}, "classes.txt, line 2: lists b twice"),
        ({"classes.txt": b"a\nb+ignore\nd\n"}, r"classes.txt, line 2: 'b\+ignore' has ignore in"),
        ({"classes.txt": b"a #000000\nb\nc\n"}, "classes.txt, line 2: has no colour, but other"),
        (
            {"classes.txt": b"a #ff0000\nb #00ff00\nc #FF0000\n"},
            "classes.txt, line 3: has the colour of line 1",
        ),
        (
            {"classes.txt": b"a\nb\n"},
            r"masks/test/0\.png: contains id 2 at x \d+, y \d+, but classes.txt has 2 classes",
        ),
        ({"masks/test/0.png": FIVE}, r"masks/test/0\.png: contains id 5 at x 3, y 2, but"),
        ({"masks/test/0.png": ONE_BIT}, "masks/test/0.png: is PNG 1 with 1 bits, not an"),
        ({"masks/test/0.png": JPEG}, "masks/test/0.png: is JPEG, not PNG"),
        ({"masks/train/1.png": None}, r"images/train/1\.JPG: has no mask masks/train/1\.png; add"),
        ({"masks/train/9.png": SMALL}, r"masks/train/9\.png: has no image; add the image, or"),
        ({"masks/test/0.png": SMALL}, r"masks/test/0.png: has \(height, width\) \(9, 9\), "),
        ({"masks/test/0.png": RGB}, "masks/test/0.png: is PNG RGB with 8 bits, not an"),
        (
            {"images/test/0.png": GIF},
            "images/test/0.png: is GIF; save it as JPEG, PNG, WebP or BMP",
        ),
        ({"images/test/a.heic": b""}, "images/test/a.heic: is not a .bmp or .jpeg or .* file"),
        (
            {"images/a.png": RGB},
            "images/a.png: is not in the folder of a split; move it to images/",
        ),
        (
            {"images/val/a.png": RGB},
            "images/val: is not a split .*; rename it to images/validation",
        ),
        ({"images/Test/a.png": RGB}, "images/Test: is not a split .*; rename it to images/test"),
        ({"images/my-split/a.png": RGB}, "images/my-split: is not the name of a split"),
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
    assert not (tmp_path / "my_faces").exists()


def test_folder_without_images(tmp_path):
    archives.write_folder({"classes.txt": b"a\nb\n"}, tmp_path / "manual", "my_faces")
    with pytest.raises(ArchiveError, match="images: has no image in its folders; add images to"):
        prepare.prepare("my_faces", tmp_path, tmp_path / "manual", "array_record")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hellen",
            "expected one of celebamask_hq, helen, lapa, synthetic_faces, synthetic_portraits, or "
            "the name of a folder .*; got 'hellen', and --manual_dir is /",
        ),
        ("My faces", "lower-case letters"),
    ],
)
def test_no_such_folder(tmp_path, name, message):
    with pytest.raises(prepare.PrepareError, match=message):
        prepare.prepare(name, tmp_path, tmp_path, "array_record")
    with pytest.raises(prepare.PrepareError, match="lower-case letters|not set"):
        prepare.prepare(name, tmp_path, None, "array_record")


def test_without_classes_and_masks_the_images_are_unlabelled(tmp_path):
    changes = {member: None for member in ("classes.txt", *masks_of_drawn_faces())}
    builder = build(tmp_path, changes | {"images/test/0.png": rotated()})
    assert set(builder.info.features) == {"image", "name"}
    assert builder.info.supervised_keys is None
    record = builder.as_data_source("test")[0]
    assert set(record) == {"image", "name"}
    np.testing.assert_array_equal(record["image"], PIXELS)  # upright


OPACITY = np.arange(64, dtype=np.uint8) * 4


def blended():
    share = OPACITY[None, :, None] / 255
    return PIXELS * share + 255 * (1 - share)


@pytest.mark.parametrize(
    ("suffix", "kind", "pixels", "expected"),
    [
        ("png", "PNG", PIXELS[..., 0], np.repeat(PIXELS[..., :1], 3, axis=2)),
        ("png", "PNG", np.dstack([PIXELS, np.broadcast_to(OPACITY, (64, 64))]), blended()),
        ("png", "PNG", PIXELS[..., 0] * np.uint16(257), np.repeat(PIXELS[..., :1], 3, axis=2)),
        ("bmp", "BMP", PIXELS, PIXELS),
        ("webp", "WEBP", PIXELS, PIXELS),
    ],
    ids=["gray", "transparent", "16 bits", "bmp", "webp"],
)
def test_pictures_become_rgb(tmp_path, suffix, kind, pixels, expected):
    options = {"lossless": True} if kind == "WEBP" else {}
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    changes = {"images/test/0.png": None, f"images/test/0.{suffix}": file.getvalue()}
    record = build(tmp_path, changes).as_data_source("test")[0]
    assert record["image"].shape == (64, 64, 3)
    assert np.abs(record["image"] - expected.astype(float)).max() <= 1


def test_rgb_pictures_are_stored_unchanged(tmp_path):
    file = io.BytesIO()
    pictures = [Image.fromarray(PIXELS)] * 2
    pictures[0].save(file, "MPO", save_all=True, append_images=pictures[1:])  # as phones do
    changes = {"images/train/1.JPG": file.getvalue()}
    builder = build(tmp_path, changes)
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    for record, name in zip(source, ("0.png", "1.JPG", "2.png"), strict=True):
        assert record["image"] == (files() | changes)[f"images/train/{name}"]
    assert builder.as_data_source("train")[1]["image"].shape == (64, 64, 3)


HIDDEN = (
    "._classes.txt",
    ".DS_Store",
    "images/train/._0.png",
    "images/train/Thumbs.db",
    "masks/train/._0.png",
    "masks/.ipynb_checkpoints/0.png",
    "__MACOSX/images/train/0.png",
)


@pytest.mark.parametrize("write", [archives.write_folder, archives.write_zip])
def test_hidden_files_are_skipped(tmp_path, write):
    builder = build(tmp_path, dict.fromkeys(HIDDEN, b"Mac OS X"), write=write)
    assert builder.info.splits["train"].num_examples == 3


def oblong(split):
    """Returns a picture and mask of 40 x 64 in place of the split's first."""
    image = archives.encode(archives.decode(files()[f"images/{split}/0.png"])[:40])
    mask = archives.encode(ids_of(f"masks/{split}/0.png")[:40])
    return {f"images/{split}/0.png": image, f"masks/{split}/0.png": mask}


def many(split, count):
    """Returns copies of the split's first picture and mask."""
    pair = files()[f"images/{split}/0.png"], files()[f"masks/{split}/0.png"]
    names = [f"copy_{i}" for i in range(count)]
    return {f"images/{split}/{name}.png": pair[0] for name in names} | {
        f"masks/{split}/{name}.png": pair[1] for name in names
    }


@pytest.mark.parametrize(
    ("more", "framing", "accepted"),
    [
        (many("test", 10), None, False),
        (many("test", 10), "resize", False),
        (many("test", 10), "face", True),
        (many("test", 10), "pad", True),
        ({}, None, True),  # five of six are square
        ({}, "resize", False),
    ],
)
def test_oblong_picture_among_square_ones(tmp_path, more, framing, accepted):
    changes = more | oblong("test")
    if accepted:
        builder = build(tmp_path, changes, framing=framing)
        assert builder.as_data_source("test")[0]["image"].shape == (40, 64, 3)
        return
    message = "images/test/0.png: is 64 pixels wide and 40 high, but .* crop it to a square, or"
    with pytest.raises(ArchiveError, match=message):
        build(tmp_path, changes, framing=framing)
    assert not (tmp_path / "data" / "my_faces").exists()


def test_zip_file_without_the_folder(tmp_path):
    archives.write_zip(files(), tmp_path / "manual", "her_faces")
    (tmp_path / "manual" / "her_faces.zip").rename(tmp_path / "manual" / "my_faces.zip")
    with pytest.raises(ArchiveError, match="my_faces.zip: does not contain the folder my_faces;"):
        prepare.prepare("my_faces", tmp_path, tmp_path / "manual", "array_record")


def test_two_builds_have_the_same_bytes(tmp_path):
    archives.write_folder(files(), tmp_path / "manual", "my_faces")
    for where in ("a", "b"):
        prepare.prepare("my_faces", tmp_path / where, tmp_path / "manual", "array_record")
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / where).rglob("*.array_record*")}
        for where in ("a", "b")
    )
    assert first == second and len(first) == 3
