"""The HELEN builder, compared with an independent reader of the archive."""

import zipfile
from pathlib import Path

import archives
import numpy as np
import pytest
import tensorflow_datasets as tfds
from archives import remove, replace, soft_map_name, truncate
from PIL import Image

import tfds_builders.helen  # registers the builder
from tfds_builders import prepare
from tfds_builders.archive import ArchiveError

# The builders have a job of their own (.ci/slow).
pytestmark = pytest.mark.slow

REAL = Path(__file__).parents[2] / "shared" / "data" / f"{archives.HELEN_ROOT}.zip"
CLASSES = (
    "background skin left_brow right_brow left_eye right_eye nose upper_lip inner_mouth lower_lip"
    " hair"
).split()
LISTS = {"train": "exemplars.txt", "validation": "tuning.txt", "test": "testing.txt"}


def build(manual_dir: Path, data_dir: Path) -> tfds.core.DatasetBuilder:
    prepare.prepare("helen", data_dir, manual_dir, "array_record")
    return tfds.builder_from_directory(data_dir / "helen" / "1.0.0")


def soft_maps(files: dict[str, bytes], name: str) -> np.ndarray:
    maps = [archives.decode(files[soft_map_name(name, k)]) for k in range(11)]
    return np.moveaxis(np.array(maps), 0, -1)


def largest(soft: np.ndarray) -> np.ndarray:
    """Returns the first class with the largest value."""
    label = np.zeros(soft.shape[:2], np.uint8)
    best = soft[..., 0].copy()
    for class_id in range(1, 11):
        higher = soft[..., class_id] > best
        label[higher] = class_id
        best[higher] = soft[..., class_id][higher]
    return label


def names_of(files: dict[str, bytes], member: str) -> list[str]:
    lines = files[member].decode().split("\n")
    return [line.split(",")[1].strip() for line in lines if line.strip()]


def correct_pairs(label: np.ndarray) -> list[bool]:
    """Returns for each pair present whether its left is on the viewer's left."""
    columns = [[np.nonzero(label == side)[1] for side in pair] for pair in ((2, 3), (4, 5))]
    return [left.mean() < right.mean() for left, right in columns if len(left) and len(right)]


def assert_equal_to_archive(builder, files: dict[str, bytes]) -> list[str]:
    """Compares all records; returns the names of the exchanged faces."""
    swapped = []
    for split, member in LISTS.items():
        raw = {"image": tfds.decode.SkipDecoding()}
        source = builder.as_data_source(split, decoders=raw)
        for name, record in zip(names_of(files, member), source, strict=True):
            assert record["name"].decode() == name
            soft = soft_maps(files, name)
            assert record["image"] == files[f"images/{name}.jpg"]
            assert record["soft_labels"].dtype == np.uint8
            np.testing.assert_array_equal(record["soft_labels"], soft)
            label = largest(soft)
            if record["sides_swapped"]:
                assert not any(correct_pairs(label))
                label = np.array([0, 1, 3, 2, 5, 4, 6, 7, 8, 9, 10])[label]
                swapped.append(name)
            np.testing.assert_array_equal(record["label"][..., 0], label)
            assert all(correct_pairs(label))
    return swapped


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return archives.helen()


@pytest.mark.parametrize("write", [archives.write_zip, archives.write_folder])
def test_records_equal_archive(write, files, tmp_path, caplog):
    write(files, tmp_path / "manual", archives.HELEN_ROOT)
    builder = build(tmp_path / "manual", tmp_path / "data")
    assert assert_equal_to_archive(builder, files) == [archives.HELEN_SWAPPED]
    message = "1 faces had left and right exchanged, which is fixed (sides_swapped): 20_1"
    assert message in caplog.text
    assert builder.info.features["label"].names == CLASSES


def test_data_source_by_name(files, tmp_path):
    archives.write_zip(files, tmp_path / "manual", archives.HELEN_ROOT)
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "manual")
    source = tfds.data_source(
        "helen",
        split="test",
        data_dir=tmp_path / "data",
        builder_kwargs={"file_format": "array_record"},
        download_and_prepare_kwargs={"download_config": config},
    )
    assert [record["name"] for record in source] == [b"9_1", b"8_1"]
    assert tfds_builders.helen.Builder.name == "helen"


def test_unlisted_image_is_left_out_and_reported(files, tmp_path, caplog):
    with_extra = {**files, "images/5_5.jpg": files["images/9_1.jpg"]}
    archives.write_zip(with_extra, tmp_path / "manual", archives.HELEN_ROOT)
    assert_equal_to_archive(build(tmp_path / "manual", tmp_path / "data"), files)
    assert "1 images are in no list and were left out" in caplog.text


def swap_sides(files: dict[str, bytes]) -> None:
    for name in archives.HELEN_LISTS["exemplars.txt"]:
        for left, right in ((2, 3), (4, 5)):
            one, other = (soft_map_name(name, k) for k in (left, right))
            files[one], files[other] = files[other], files[one]


SOFT = soft_map_name("7_1", 6)
SMALL = archives.encode(Image.new("L", (20, 30)), "PNG")
TWICE = b"0001 , 7_1 \n0002 , 100_1\n"
FAULTS = {
    "image truncated": (truncate("images/7_1.jpg"), "images/7_1.jpg: cannot be decoded"),
    "listed image missing": (remove("images/7_1.jpg"), "7_1.jpg: is missing, but tuning.txt lists"),
    "list missing": (remove("tuning.txt"), "tuning.txt: is missing"),
    "list empty": (replace("tuning.txt", b" \n"), "tuning.txt: lists no face"),
    "line without name": (replace("tuning.txt", b"0001\n"), "tuning.txt, line 1: '0001' is not"),
    "name twice": (replace("tuning.txt", TWICE), "tuning.txt, line 2: lists 100_1 a second time"),
    "labels of another size": (replace(SOFT, SMALL), f"{SOFT}: has .* \\(30, 20\\), its image"),
    "soft map missing": (remove(SOFT), f"{SOFT}: is missing"),
    "soft map empty": (replace(SOFT, b""), f"{SOFT}: cannot be decoded \\(not an image\\)"),
    "soft map truncated": (truncate(SOFT), f"{SOFT}: cannot be decoded"),
    "soft map without image": (
        replace(soft_map_name("5_5", 0), SMALL),
        "has no image images/5_5.jpg",
    ),
    "sides exchanged": (swap_sides, "on 3 of 4 faces the left brow and eye"),
}


@pytest.mark.parametrize("write", [archives.write_zip, archives.write_folder])
@pytest.mark.parametrize("fault", FAULTS)
def test_bad_archive_stops_with_one_error(fault, write, files, tmp_path):
    change, message = FAULTS[fault]
    damaged = dict(files)
    change(damaged)
    location = write(damaged, tmp_path / "manual", archives.HELEN_ROOT)
    with pytest.raises(ArchiveError, match=message) as caught:
        build(tmp_path / "manual", tmp_path / "data")
    assert str(caught.value).startswith(f"{location}: ")
    assert not (tmp_path / "data" / "helen").exists()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the real archive is not in ../shared/data")
def test_real_records_equal_archive(tmp_path):
    """All 60 records, and that left is the viewer's left."""
    with zipfile.ZipFile(REAL) as archive:
        files = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    builder = build(REAL.parent, tmp_path)
    swapped = assert_equal_to_archive(builder, files)
    assert len(swapped) < 6
    assert [builder.info.splits[split].num_examples for split in LISTS] == [40, 8, 12]


def test_soft_maps_of_the_archive_have_ties_and_sums_above_255(files):
    """Without them the tests above would not detect a wrong choice or an 8-bit overflow."""
    soft = np.asarray(soft_maps(files, "100_2"), np.int32)
    ordered = np.sort(soft, axis=-1)
    assert (ordered[..., -1] == ordered[..., -2])[ordered[..., -1] > 0].any()
    assert soft.sum(axis=-1).max() > 255
