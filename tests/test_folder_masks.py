"""Masks of a folder of images: unions, ignored pixels, two values, colours, and their errors."""

import archives
import folders
import numpy as np
import pytest
from folders import NAMES, build, ids_of, label_of, masks
from PIL import Image

from tfds_builders.archive import ArchiveError

# The builders have a job of their own (.ci/slow).
pytestmark = pytest.mark.slow

MASKS = folders.masks_of_drawn_faces()


def test_unions_ignore_and_the_value_255(tmp_path):
    mask = ids_of("masks/train/0.png").copy()
    mask[:5] = 255
    lines = b"\xef\xbb\xbfbackground+cloth\r\n skin + neck \r\nignore\r\n"  # as Windows saves it
    changes = {"classes.txt": lines, "masks/train/0.png": archives.encode(mask)}
    builder = build(tmp_path, changes)
    assert builder.info.features["label"].names == ["background+cloth", "skin+neck", "ignore"]
    np.testing.assert_array_equal(label_of(builder, "masks/train/0.png"), mask)


@pytest.mark.parametrize(
    ("change", "meaning"),
    [
        (lambda ids: np.where(ids == 2, 255, 0).astype(np.uint8), "two values"),
        (lambda ids: ids == 2, "one bit"),
        (lambda ids: np.choose(ids, (0, 255, 1)).astype(np.uint8), "255 is ignored"),
    ],
)
def test_two_classes(tmp_path, change, meaning):
    builder = build(tmp_path, {"classes.txt": b"no hair\nhair\n"} | masks(change))
    for member in MASKS:
        expected = change(ids_of(member)).astype(np.uint8)
        if meaning == "two values":
            expected = expected // 255
        np.testing.assert_array_equal(label_of(builder, member), expected)


def test_255_is_ignored_in_all_masks_if_one_contains_1_as_well(tmp_path):
    changes = masks(lambda ids: np.choose(ids, (0, 255, 1)).astype(np.uint8))
    without_hair = np.where(ids_of("masks/test/1.png"), 255, 0).astype(np.uint8)
    changes |= {
        "classes.txt": b"no hair\nhair\n",
        "masks/test/1.png": archives.encode(without_hair),
    }
    builder = build(tmp_path, changes)
    np.testing.assert_array_equal(label_of(builder, "masks/test/1.png"), without_hair)


@pytest.mark.parametrize("deviating", [1, 255])
def test_a_mask_that_deviates_from_the_others_is_named(tmp_path, deviating):
    usual = 256 - deviating
    changes = masks(lambda ids: np.where(ids == 2, usual, 0).astype(np.uint8))
    other = np.where(ids_of("masks/train/1.png") == 2, deviating, 0).astype(np.uint8)
    changes |= {"classes.txt": b"no hair\nhair\n", "masks/train/1.png": archives.encode(other)}
    message = f"masks/train/1.png: contains {deviating}, but 5 masks contain {usual} and 1 contain"
    with pytest.raises(ArchiveError, match=message):
        build(tmp_path, changes)


def test_masks_of_a_single_value(tmp_path):
    with pytest.raises(ArchiveError, match="masks/.*png: contains only 0, as all masks do"):
        build(tmp_path, masks(np.zeros_like))


def test_absent_classes_are_reported(tmp_path, caplog):
    build(tmp_path, {"classes.txt": b"a\nb\nc\nhat\nhorns\n"})
    assert "no mask contains the classes of classes.txt: hat, horns" in caplog.text


COLOURS = np.array([[0, 0, 0], [255, 0, 16], [18, 52, 86]], np.uint8)
COLOUR_LIST = b"nothing #000000\nface #ff0010\nhair #123456\n"


def paint_palette(ids):
    image = Image.fromarray(ids)
    image.putpalette(COLOURS[[2, 1, 0]].ravel().tolist())
    image.paste(Image.fromarray((2 - ids).astype(np.uint8)))  # ids differ from palette entries
    return image


@pytest.mark.parametrize(
    "paint", [lambda ids: COLOURS[ids], paint_palette, lambda ids: add_opacity(COLOURS[ids])]
)
def test_masks_in_colours(tmp_path, paint):
    builder = build(tmp_path, {"classes.txt": COLOUR_LIST} | masks(paint))
    assert builder.info.features["label"].names == list(NAMES)
    for member in MASKS:
        np.testing.assert_array_equal(label_of(builder, member), ids_of(member))


def add_opacity(pixels, opacity=255):
    return np.dstack([pixels, np.full(pixels.shape[:2], opacity, np.uint8)])


def test_faulty_masks_in_colours(tmp_path):
    changes = {"classes.txt": COLOUR_LIST} | masks(lambda ids: COLOURS[ids])
    pixels = COLOURS[ids_of("masks/test/1.png")]
    pixels[7, 9] = 255, 0, 17
    message = r"masks/test/1.png: contains the colour #ff0011 at x 9, y 7, which classes.txt does"
    with pytest.raises(ArchiveError, match=message):
        build(tmp_path, changes | {"masks/test/1.png": archives.encode(pixels)})
    clear = archives.encode(add_opacity(COLOURS[ids_of("masks/test/1.png")], 254))
    with pytest.raises(ArchiveError, match=r"masks/test/1.png: has transparent pixels; paint"):
        build(tmp_path, changes | {"masks/test/1.png": clear})
