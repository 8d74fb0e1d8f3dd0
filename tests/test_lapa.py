"""The LaPa builder, compared with an independent reader of the archive."""

from pathlib import Path

import archives
import numpy as np
import pytest
import tensorflow_datasets as tfds
from archives import remove, replace, truncate
from PIL import Image

import tfds_builders.lapa  # registers the builder
from tfds_builders import prepare
from tfds_builders.archive import ArchiveError

# The builders have a job of their own (.ci/slow).
pytestmark = pytest.mark.slow

FOLDERS = {"train": "train", "validation": "val", "test": "test"}
CLASSES = (
    "background skin left_brow right_brow left_eye right_eye nose upper_lip inner_mouth lower_lip"
    " hair"
).split()


def build(manual_dir: Path, data_dir: Path) -> tfds.core.DatasetBuilder:
    prepare.prepare("lapa", data_dir, manual_dir, "array_record")
    return tfds.builder_from_directory(data_dir / "lapa" / "1.0.0")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return archives.lapa()


@pytest.mark.parametrize("write", [archives.write_zip, archives.write_folder])
def test_records_equal_archive(write, files, tmp_path, caplog):
    write(files, tmp_path / "manual", archives.LAPA_ROOT)
    builder = build(tmp_path / "manual", tmp_path / "data")
    assert builder.info.features["label"].names == CLASSES
    for split, folder in FOLDERS.items():
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        for name, record in zip(sorted(archives.LAPA_FACES[folder]), source, strict=True):
            assert record["name"].decode() == name
            assert record["image"] == files[f"{folder}/images/{name}.jpg"]
            label = archives.decode(files[f"{folder}/labels/{name}.png"])
            assert record["sides_swapped"] == (name == archives.LAPA_SWAPPED)
            if record["sides_swapped"]:
                label = np.array([0, 1, 3, 2, 5, 4, 6, 7, 8, 9, 10])[label]
            np.testing.assert_array_equal(record["label"][..., 0], label)
            text = files[f"{folder}/landmarks/{name}.txt"].decode().split()
            points = np.array(text[1:], np.float32).reshape(106, 2)
            np.testing.assert_array_equal(record["landmarks"], points)
    message = "1 faces had left and right exchanged, which is fixed (sides_swapped): 9_1"
    assert message in caplog.text


def test_name():
    assert tfds_builders.lapa.Builder.name == "lapa"


def swap_sides(files: dict[str, bytes]) -> None:
    for name in archives.LAPA_FACES["train"]:
        member = f"train/labels/{name}.png"
        label = archives.decode(files[member])
        exchanged = np.array([0, 1, 3, 2, 5, 4, 6, 7, 8, 9, 10], np.uint8)[label]
        files[member] = archives.encode(exchanged)


IMAGE, MASK, POINTS = "val/images/5_0.jpg", "val/labels/5_0.png", "val/landmarks/5_0.txt"
SMALL = archives.encode(Image.new("L", (20, 30)))


def unknown_id(files: dict[str, bytes]) -> None:
    label = archives.decode(files[MASK]).copy()
    label[0, 0] = 11
    files[MASK] = archives.encode(label)


FAULTS = {
    "image truncated": (truncate(IMAGE), f"{IMAGE}: cannot be decoded"),
    "image missing": (remove(IMAGE), f"{IMAGE}: is missing"),
    "mask truncated": (truncate(MASK), f"{MASK}: cannot be decoded"),
    "mask missing": (remove(MASK), f"{MASK}: is missing"),
    "mask of another size": (replace(MASK, SMALL), f"{MASK}: has .* \\(30, 20\\), its image"),
    "mask with an unknown id": (unknown_id, f"{MASK}: contains id 11, not 0 to 10"),
    "mask without image": (
        replace("test/labels/7_7.png", SMALL),
        "test/images/7_7.jpg: is missing",
    ),
    "landmarks missing": (remove(POINTS), f"{POINTS}: is missing"),
    "landmarks empty": (replace(POINTS, b""), f"{POINTS}: does not contain 106"),
    "landmarks truncated": (truncate(POINTS), f"{POINTS}: (does not contain 106|is not `x y`)"),
    "landmarks of another kind": (replace(POINTS, b"106\na b\n"), f"{POINTS}: is not `x y`"),
    "no validation split": (
        lambda files: [files.pop(member) for member in (IMAGE, MASK, POINTS)],
        "val/images: contains no image",
    ),
    "sides exchanged": (swap_sides, "on 3 of 4 faces the left brow and eye"),
}


@pytest.mark.parametrize("write", [archives.write_zip, archives.write_folder])
@pytest.mark.parametrize("fault", FAULTS)
def test_bad_archive_stops_with_one_error(fault, write, files, tmp_path):
    change, message = FAULTS[fault]
    damaged = dict(files)
    change(damaged)
    location = write(damaged, tmp_path / "manual", archives.LAPA_ROOT)
    with pytest.raises(ArchiveError, match=message) as caught:
        build(tmp_path / "manual", tmp_path / "data")
    assert str(caught.value).startswith(f"{location}: ")
    assert not (tmp_path / "data" / "lapa").exists()
