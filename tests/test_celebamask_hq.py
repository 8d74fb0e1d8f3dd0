"""The CelebAMask-HQ builder against an independent reading of the archive."""

import io
import zipfile
from pathlib import Path

import archives
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import tfds_builders.celebamask_hq  # registers the builder
from tfds_builders import prepare
from tfds_builders.archive import ArchiveError

REAL = Path(__file__).parents[2] / "shared" / "data" / "CelebAMask-HQ.zip"
# The order of the authors' g_mask.py, written down here a second time.
OFFICIAL = (
    "skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat ear_r neck_l"
    " neck cloth"
).split()
PAIRS = [("r_eye", "l_eye"), ("r_brow", "l_brow"), ("r_ear", "l_ear")]


def build(manual_dir: Path, data_dir: Path) -> tfds.core.DatasetBuilder:
    prepare.prepare("celebamask_hq", data_dir, manual_dir, "array_record")
    return tfds.builder_from_directory(data_dir / "celebamask_hq" / "1.0.0")


def merge(files, number: int) -> np.ndarray:
    """As the ids rise in the order of painting, the pixel's class is the highest of its masks."""
    label = np.uint8(0)
    for class_id, part in enumerate(OFFICIAL, start=1):
        data = files.get(archives.mask_name(number, part))
        if data:
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[..., 0]
            label = np.maximum(label, np.uint8(class_id) * (pixels >= 128))
    return label


def pairs_right_way(label: np.ndarray) -> list[bool]:
    """For each pair that the label has: whether the person's left is on the viewer's right."""
    columns = [
        [np.nonzero(label == 1 + OFFICIAL.index(part))[1] for part in pair] for pair in PAIRS
    ]
    return [right.mean() < left.mean() for right, left in columns if len(right) and len(left)]


def exchange(label: np.ndarray) -> np.ndarray:
    exchanged = label.copy()
    for pair in PAIRS:
        one, other = (1 + OFFICIAL.index(part) for part in pair)
        exchanged[label == one], exchanged[label == other] = other, one
    return exchanged


class ZipFiles:
    """The members of a real archive by name, read by the standard library."""

    def __init__(self, path: Path):
        self._zip = zipfile.ZipFile(path)
        self._names = set(self._zip.namelist())

    def get(self, member: str) -> bytes | None:
        name = f"{archives.CELEBAMASK_ROOT}/{member}"
        return self._zip.read(name) if name in self._names else None


def assert_equal_to_archive(
    builder, files, splits: dict[str, list[str]], every: int = 1
) -> list[str]:
    """Compares every record, and the labels of every so many; returns the names of those with
    exchanged sides.
    """
    swapped = []
    rows = [line.split() for line in files.get(archives.MAPPING).decode().splitlines()[1:]]
    indices = {row[0]: int(row[1]) for row in rows}
    raw = {"image": tfds.decode.SkipDecoding()}
    for split, names in splits.items():
        for name, record in zip(names, builder.as_data_source(split, decoders=raw), strict=True):
            assert record["name"].decode() == name
            number = int(name)
            assert record["image"] == files.get(f"CelebA-HQ-img/{number}.jpg")
            assert record["celeba_index"] == indices[name]
            if record["sides_swapped"]:
                swapped.append(name)
            elif number % every:
                continue
            merged = merge(files, number)
            if record["sides_swapped"]:
                assert not any(pairs_right_way(merged))
                merged = exchange(merged)
            np.testing.assert_array_equal(record["label"][..., 0], merged)
            assert all(pairs_right_way(merged))
    return swapped


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return archives.celebamask()


@pytest.mark.parametrize("write", [archives.write_zip, archives.write_folder])
def test_records_equal_archive(write, files, tmp_path, caplog):
    write(files, tmp_path / "manual", archives.CELEBAMASK_ROOT)
    builder = build(tmp_path / "manual", tmp_path / "data")
    swapped = assert_equal_to_archive(builder, files, archives.CELEBAMASK_SPLITS)
    assert swapped == [str(archives.CELEBAMASK_SWAPPED)]
    assert "1 faces had left and right exchanged, now put right (sides_swapped): 30" in caplog.text
    assert builder.info.features["label"].names == ["background", *OFFICIAL]
    record = builder.as_data_source("test")[0]
    assert record["image"].shape == (128, 128, 3)
    assert record["label"].shape == (64, 64, 1)


def test_data_source_by_name(files, tmp_path):
    archives.write_zip(files, tmp_path / "manual", archives.CELEBAMASK_ROOT)
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "manual")
    source = tfds.data_source(
        "celebamask_hq",
        split="validation",
        data_dir=tmp_path / "data",
        builder_kwargs={"file_format": "array_record"},
        download_and_prepare_kwargs={"download_config": config},
    )
    assert len(source) == 2
    assert tfds_builders.celebamask_hq.Builder.name == "celebamask_hq"


def test_mask_threshold_and_colour_modes(files, tmp_path):
    """127 is background, 128 is not; grey and RGBA masks count as RGB ones do."""
    files = {m: data for m, data in files.items() if not m.startswith("CelebAMask-HQ-mask-anno")}
    for number in archives.CELEBAMASK_FACES:
        grey = np.full((4, 4), 127, np.uint8)
        grey[1, 2] = 128
        mask = Image.fromarray(grey).convert(("L", "RGB", "RGBA")[number % 3])
        files[archives.mask_name(number, "hair")] = archives.encode(mask, "PNG")
    archives.write_zip(files, tmp_path / "manual", archives.CELEBAMASK_ROOT)
    expected = np.zeros((4, 4, 1), np.uint8)
    expected[1, 2] = 13
    for source in build(tmp_path / "manual", tmp_path / "data").as_data_source().values():
        for record in source:
            np.testing.assert_array_equal(record["label"], expected)


def test_mapping_without_header(files, tmp_path):
    headless = files[archives.MAPPING].split(b"\n", 1)[1] + b"\n"
    files = {**files, archives.MAPPING: headless}
    archives.write_zip(files, tmp_path / "manual", archives.CELEBAMASK_ROOT)
    counts = build(tmp_path / "manual", tmp_path / "data").info.splits
    assert {split: counts[split].num_examples for split in counts} == {
        split: len(names) for split, names in archives.CELEBAMASK_SPLITS.items()
    }


@pytest.mark.parametrize("empty", ["no bytes", "no pixels"])
def test_empty_mask_counts_as_absent_and_is_reported(empty, files, tmp_path, caplog):
    member = archives.mask_name(10, "hair")
    blank = archives.encode(Image.new("RGB", (64, 64)), "PNG")
    with_empty = {**files, member: b"" if empty == "no bytes" else blank}
    archives.write_zip(with_empty, tmp_path / "manual", archives.CELEBAMASK_ROOT)
    builder = build(tmp_path / "manual", tmp_path / "data")
    assert_equal_to_archive(builder, with_empty, archives.CELEBAMASK_SPLITS)
    assert f"1 mask files are empty, their parts count as absent: {member}" in caplog.text


def cut(member: str):
    return lambda files: files.update({member: files[member][:-40]})


def replace(member: str, data: bytes):
    return lambda files: files.update({member: data})


def remove(member: str):
    return lambda files: files.pop(member)


def remove_masks(number: int):
    def damage(files):
        for part in archives.PARTS:
            files.pop(archives.mask_name(number, part), None)

    return damage


def edit_mapping(old: bytes, new: bytes):
    def damage(files):
        assert old in files[archives.MAPPING]
        files[archives.MAPPING] = files[archives.MAPPING].replace(old, new)

    return damage


def no_test_split(files):
    for index in archives.CELEBAMASK_FACES.values():
        if index >= 182_638:
            edit_mapping(f" {index} ".encode(), b" 3 ")(files)


def png(width: int, height: int) -> bytes:
    return archives.encode(Image.new("RGB", (width, height), (255, 255, 255)), "PNG")


MASK = archives.mask_name(10, "hair")
GREY = archives.encode(Image.new("L", (128, 128)), "JPEG")
FAULTS = {
    "image cut short": (cut("CelebA-HQ-img/9.jpg"), "CelebA-HQ-img/9.jpg: cannot be decoded"),
    "image is no JPEG": (replace("CelebA-HQ-img/9.jpg", png(128, 128)), "9.jpg: is PNG RGB, not"),
    "image is grey": (replace("CelebA-HQ-img/9.jpg", GREY), "9.jpg: is JPEG L, not an RGB"),
    "image missing": (remove("CelebA-HQ-img/9.jpg"), "CelebA-HQ-img/9.jpg: is missing, but"),
    "image without row": (
        edit_mapping(b"9    162771       162772.jpg\n", b""),
        "9.jpg: has no row",
    ),
    "mask cut short": (cut(MASK), f"{MASK}: cannot be decoded"),
    "mask is no image": (replace(MASK, b"text"), f"{MASK}: cannot be decoded \\(it is no image"),
    "mask of another size": (replace(MASK, png(32, 32)), f"{MASK}: has .* \\(32, 32\\)"),
    "mask of other shape": (
        replace(archives.mask_name(10, "skin"), png(64, 32)),
        "10_skin.png: has .* \\(32, 64\\), which does not fit the image's \\(128, 128\\)",
    ),
    "mask without image": (
        replace(archives.mask_name(777, "hair"), png(64, 64)),
        "00777_hair.png: there is no image CelebA-HQ-img/777.jpg",
    ),
    "mask in wrong folder": (
        replace("CelebAMask-HQ-mask-anno/1/00010_hat.png", png(64, 64)),
        "1/00010_hat.png: should be CelebAMask-HQ-mask-anno/0/00010_hat.png",
    ),
    "mask of unknown part": (
        replace(archives.mask_name(10, "tail"), png(64, 64)),
        "00010_tail.png: is not the mask of a known part",
    ),
    "no masks": (remove_masks(30), "30.jpg: has not a single readable mask"),
    "mapping missing": (remove(archives.MAPPING), f"{archives.MAPPING}: is missing"),
    "no test split": (no_test_split, f"{archives.MAPPING}: lists no image of the test split"),
    "mapping row cut": (edit_mapping(b"       162772.jpg", b""), "line 4: '9    162771' is not"),
    "mapping row twice": (edit_mapping(b"\n9 ", b"\n10 "), "line 4: image 10 was listed before"),
}


@pytest.mark.parametrize("write", [archives.write_zip, archives.write_folder])
@pytest.mark.parametrize("fault", FAULTS)
def test_bad_archive_stops_with_one_error(fault, write, files, tmp_path):
    damage, message = FAULTS[fault]
    damaged = dict(files)
    damage(damaged)
    location = write(damaged, tmp_path / "manual", archives.CELEBAMASK_ROOT)
    with pytest.raises(ArchiveError, match=message) as caught:
        build(tmp_path / "manual", tmp_path / "data")
    assert str(caught.value).startswith(f"{location}: ")
    assert str(caught.value).endswith("; download the archive again")
    assert not list((tmp_path / "data" / "celebamask_hq").iterdir())


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not REAL.exists():
        pytest.skip("the real archive is not at ../shared/data")
    return build(REAL.parent, tmp_path_factory.mktemp("real"))


@pytest.mark.slow
def test_real_records_equal_archive(real):
    """All 850, labels of every fourth, and sides: `l_` is the person's left, the viewer's right."""
    files = ZipFiles(REAL)
    splits = {"train": [], "validation": [], "test": []}
    for line in files.get(archives.MAPPING).decode().splitlines()[1:]:
        number, index, _ = line.split()
        place = (int(index) >= 162_771) + (int(index) >= 182_638)
        splits[("train", "validation", "test")[place]].append(number)
    assert [len(names) for names in splits.values()] == [690, 80, 80]
    swapped = assert_equal_to_archive(real, files, splits, every=4)
    assert 0 < len(swapped) < 0.1 * 850
