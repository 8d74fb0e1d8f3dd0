"""The CelebAMask-HQ builder, compared with an independent reader of the archive."""

import io
import zipfile
from pathlib import Path

import archives
import numpy as np
import pytest
import tensorflow_datasets as tfds
from archives import encode, mask_name, remove, replace, truncate
from PIL import Image

import tfds_builders.celebamask_hq  # registers the builder
from tfds_builders import prepare
from tfds_builders.archive import ArchiveError

# The builders have a job of their own (.ci/slow).
pytestmark = pytest.mark.slow

REAL = Path(__file__).parents[2] / "shared" / "data" / "CelebAMask-HQ.zip"
# The order of the authors' g_mask.py, defined independently of the builder.
OFFICIAL = (
    "skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat ear_r neck_l"
    " neck cloth"
).split()
PAIRS = [("r_eye", "l_eye"), ("r_brow", "l_brow"), ("r_ear", "l_ear")]


def build(manual_dir: Path, data_dir: Path) -> tfds.core.DatasetBuilder:
    prepare.prepare("celebamask_hq", data_dir, manual_dir, "array_record")
    return tfds.builder_from_directory(data_dir / "celebamask_hq" / "1.0.0")


def merge(files, number: int) -> np.ndarray:
    """Returns the highest id among each pixel's masks, because ids follow the painting order."""
    label = np.uint8(0)
    for class_id, part in enumerate(OFFICIAL, start=1):
        data = files.get(mask_name(number, part))
        if data:
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[..., 0]
            label = np.maximum(label, np.uint8(class_id) * (pixels >= 128))
    return label


def correct_pairs(label: np.ndarray) -> list[bool]:
    """Returns for each pair present whether the person's left is on the viewer's right."""
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
    """Compares all records, and the labels of one in `every` and of all exchanged faces.

    Returns the names of the exchanged faces.
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
                assert not any(correct_pairs(merged))
                merged = exchange(merged)
            np.testing.assert_array_equal(record["label"][..., 0], merged)
            assert all(correct_pairs(merged))
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
    message = "1 faces had left and right exchanged, which is fixed (sides_swapped): 30"
    assert message in caplog.text
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


def test_mask_threshold_and_modes(files, tmp_path):
    """127 is background and 128 is not, in grayscale, RGB and RGBA masks."""
    files = {m: data for m, data in files.items() if not m.startswith("CelebAMask-HQ-mask-anno")}
    for number in archives.CELEBAMASK_FACES:
        gray = np.full((4, 4), 127, np.uint8)
        gray[1, 2] = 128
        mask = Image.fromarray(gray).convert(("L", "RGB", "RGBA")[number % 3])
        files[mask_name(number, "hair")] = encode(mask)
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


def test_empty_masks_are_absent_parts_and_reported(files, tmp_path, caplog):
    no_bytes, no_pixels = mask_name(10, "hair"), mask_name(30, "skin")
    files = {**files, no_bytes: b"", no_pixels: encode(Image.new("RGB", (64, 64)))}
    archives.write_zip(files, tmp_path / "manual", archives.CELEBAMASK_ROOT)
    builder = build(tmp_path / "manual", tmp_path / "data")
    assert_equal_to_archive(builder, files, archives.CELEBAMASK_SPLITS)
    message = f"2 mask files are empty; their parts are treated as absent: {no_bytes}, {no_pixels}"
    assert message in caplog.text


def test_faces_without_a_mask_of_the_skin_are_reported(files, tmp_path, caplog):
    files = {name: data for name, data in files.items() if name != mask_name(30, "skin")}
    archives.write_zip(files, tmp_path / "manual", archives.CELEBAMASK_ROOT)
    build(tmp_path / "manual", tmp_path / "data")
    assert "1 faces have no mask of the skin: 30" in caplog.text


def again(data: bytes, size: tuple[int, int], quality: int) -> bytes:
    """Returns a JPEG, resized and compressed again."""
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).resize(size).save(file, "JPEG", quality=quality)
    return file.getvalue()


def test_same_pictures_in_different_splits_are_reported(files, tmp_path, caplog):
    """Equal files of train and test, a copy in validation; no report of others."""
    archives.write_zip(files, tmp_path / "manual", archives.CELEBAMASK_ROOT)
    build(tmp_path / "manual", tmp_path / "data")
    assert "same picture" not in caplog.text

    image = files["CelebA-HQ-img/4.jpg"]
    copies = {
        "CelebA-HQ-img/10.jpg": image,  # in the same split
        "CelebA-HQ-img/2001.jpg": image,
        "CelebA-HQ-img/9.jpg": again(image, (160, 160), 60),
    }
    archives.write_zip({**files, **copies}, tmp_path / "copies", archives.CELEBAMASK_ROOT)
    build(tmp_path / "copies", tmp_path / "data_copies")
    message = (
        "5 pairs of images in different splits show the same picture (2 are equal files): "
        "train/4 and validation/9, train/10 and validation/9, train/4 and test/2001, "
        "train/10 and test/2001, validation/9 and test/2001"
    )
    assert message in caplog.text


def remove_masks(number: int):
    def change(files):
        for part in archives.PARTS:
            files.pop(mask_name(number, part), None)

    return change


def edit_mapping(old: bytes, new: bytes):
    def change(files):
        assert old in files[archives.MAPPING]
        files[archives.MAPPING] = files[archives.MAPPING].replace(old, new)

    return change


def white(width: int, height: int) -> bytes:
    return encode(Image.new("RGB", (width, height), (255, 255, 255)))


IMAGE = "CelebA-HQ-img/9.jpg"
MASK = mask_name(10, "hair")
GRAY = encode(Image.new("L", (128, 128)), "JPEG")
FAULTS = {
    "image truncated": (truncate(IMAGE), f"{IMAGE}: cannot be decoded"),
    "image is a PNG": (replace(IMAGE, white(128, 128)), f"{IMAGE}: is PNG RGB, not an RGB JPEG"),
    "image is grayscale": (replace(IMAGE, GRAY), f"{IMAGE}: is JPEG L, not an RGB JPEG"),
    "image missing": (remove(IMAGE), f"{IMAGE}: is missing, but {archives.MAPPING} lists it"),
    "image without row": (
        edit_mapping(b"9    162771       162772.jpg\n", b""),
        f"{IMAGE}: has no row",
    ),
    "mask truncated": (truncate(MASK), f"{MASK}: cannot be decoded"),
    "mask is not an image": (
        replace(MASK, b"text"),
        f"{MASK}: cannot be decoded \\(not an image\\)",
    ),
    "mask of another size": (replace(MASK, white(32, 32)), f"{MASK}: has .* \\(32, 32\\)"),
    "first mask of another size": (
        replace(mask_name(10, "skin"), white(32, 32)),
        "10_skin.png: has .* \\(32, 32\\), most masks of the image \\(64, 64\\)",
    ),
    "mask of another shape": (
        replace(mask_name(10, "skin"), white(64, 32)),
        "10_skin.png: has .* \\(32, 64\\), not the aspect ratio of its image, \\(128, 128\\)",
    ),
    "mask without image": (
        replace(mask_name(777, "hair"), white(64, 64)),
        "00777_hair.png: has no image CelebA-HQ-img/777.jpg",
    ),
    "mask in wrong folder": (
        replace("CelebAMask-HQ-mask-anno/1/00010_hat.png", white(64, 64)),
        "1/00010_hat.png: should be CelebAMask-HQ-mask-anno/0/00010_hat.png",
    ),
    "mask of unknown part": (
        replace(mask_name(10, "tail"), white(64, 64)),
        "00010_tail.png: is not the mask of a known part",
    ),
    "no masks": (remove_masks(10), "10.jpg: has no mask that can be read"),
    "mapping missing": (remove(archives.MAPPING), f"{archives.MAPPING}: is missing"),
    "no test split": (
        edit_mapping(b" 182638 ", b" 3 "),
        f"{archives.MAPPING}: lists no image of the test split",
    ),
    "mapping row truncated": (
        edit_mapping(b"       162772.jpg", b""),
        "line 4: '9    162771' is not",
    ),
    "mapping row twice": (
        edit_mapping(b"\n9 ", b"\n10 "),
        "line 4: lists image 10 a second time",
    ),
}


@pytest.mark.parametrize("write", [archives.write_zip, archives.write_folder])
@pytest.mark.parametrize("fault", FAULTS)
def test_bad_archive_stops_with_one_error(fault, write, tmp_path):
    change, message = FAULTS[fault]
    damaged = dict(archives.celebamask((2, 10, 9, 2000)))  # fewer faces are written sooner
    change(damaged)
    location = write(damaged, tmp_path / "manual", archives.CELEBAMASK_ROOT)
    with pytest.raises(ArchiveError, match=message) as caught:
        build(tmp_path / "manual", tmp_path / "data")
    assert str(caught.value).startswith(f"{location}: ")
    assert str(caught.value).endswith("; download the archive again")
    assert not (tmp_path / "data" / "celebamask_hq").exists()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the real archive is not in ../shared/data")
def test_real_records_equal_archive(tmp_path):
    """All 850 records, one label in four, and that `l_` is the viewer's right."""
    files = ZipFiles(REAL)
    splits = {"train": [], "validation": [], "test": []}
    for line in files.get(archives.MAPPING).decode().splitlines()[1:]:
        number, index, _ = line.split()
        place = (int(index) >= 162_771) + (int(index) >= 182_638)
        splits[("train", "validation", "test")[place]].append(number)
    assert [len(names) for names in splits.values()] == [690, 80, 80]
    builder = build(REAL.parent, tmp_path)
    swapped = assert_equal_to_archive(builder, files, splits, every=4)
    assert 0 < len(swapped) < 0.1 * 850
