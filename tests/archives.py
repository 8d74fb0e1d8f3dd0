"""Small archives in the layouts of CelebAMask-HQ, HELEN and LaPa, with shapes instead of faces.

An archive is a dict from member name to bytes, so a test can change any part of it before writing.
The dicts are cached: a test copies a dict before it changes it. `python tests/archives.py` writes
the archives of the builders' TFDS test cases.
"""

import functools
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CELEBAMASK_ROOT = "CelebAMask-HQ"
HELEN_ROOT = "SmithCVPR2013_dataset_resized"
LAPA_ROOT = "LaPa"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
# Number -> CelebA index: text order is not number order, masks are in two folders, and the indices
# include both sides of each boundary between splits.
CELEBAMASK_FACES = {
    2: 5,
    10: 162_770,
    9: 162_771,
    1999: 182_637,
    2000: 182_638,
    2001: 200_000,
    30: 7,
    4: 162_000,
}
CELEBAMASK_SWAPPED = 30  # the face whose left and right are exchanged
HELEN_SWAPPED = "20_1"
CELEBAMASK_SPLITS = {
    "train": ["2", "4", "10", "30"],
    "validation": ["9", "1999"],
    "test": ["2000", "2001"],
}
# Not in the order of the authors' g_mask.py, which the tests define independently.
PARTS = "cloth ear_r eye_g hair hat l_brow l_ear l_eye l_lip mouth neck neck_l nose".split()
PARTS += "r_brow r_ear r_eye skin u_lip".split()
PAIRED = {"l_brow", "r_brow", "l_eye", "r_eye", "l_ear", "r_ear"}
HELEN_LISTS = {
    "exemplars.txt": ["100_2", "100_1", "20_1", "3_1"],
    "tuning.txt": ["7_1"],
    "testing.txt": ["9_1", "8_1"],
}

LAPA_FACES = {
    "train": ["10_0", "9_1", "HELEN_7_1", "LFPW_image_train_3"],
    "val": ["5_0"],
    "test": ["2_0", "1_0"],
}
LAPA_SWAPPED = "9_1"  # the face whose mask has left and right exchanged
LAPA_UPSIDE_DOWN = "1_0"


@functools.cache
def celebamask(numbers: tuple[int, ...] = tuple(CELEBAMASK_FACES)) -> dict[str, bytes]:
    """Returns an archive of images of 128 x 128 with overlapping masks of 64 x 64."""
    files = {MAPPING: b"idx  orig_idx   orig_file\n"}
    for number in numbers:
        index = CELEBAMASK_FACES[number]
        rng = np.random.default_rng(number)
        files[MAPPING] += f"{number}    {index}       {index + 1:06d}.jpg\n".encode()
        files[f"CelebA-HQ-img/{number}.jpg"] = _photo(rng, (128, 128))
        for part in PARTS:
            if part in ("hat", "neck_l") and number % 2:
                continue  # a part that is not visible has no file
            mask = Image.new("RGB", (64, 64))
            box = _box(rng, 64)
            if part in PAIRED:  # in its own half of the image
                on_the_right = part.startswith("l_") != (number == CELEBAMASK_SWAPPED)
                box = (np.array(_box(rng, 32)) + [32 * on_the_right, 0] * 2).tolist()
            ImageDraw.Draw(mask).ellipse(box, fill=(255, 255, 255))
            files[mask_name(number, part)] = encode(mask, "PNG")
    return files


@functools.cache
def helen() -> dict[str, bytes]:
    """Returns an archive of 7 images of different sizes with overlapping soft maps."""
    files = {}
    for member, names in HELEN_LISTS.items():
        lines = [f"{number:04d} , {name} \n" for number, name in enumerate(names, start=1)]
        files[member] = "".join([*lines, "\n"]).encode()
        for name in names:
            rng = np.random.default_rng(int(name.replace("_", "")))
            size = (int(rng.integers(40, 60)), int(rng.integers(40, 60)))
            files[f"images/{name}.jpg"] = _photo(rng, size)
            for class_id in range(11):
                soft = Image.new("L", size)
                x = 10 if class_id in (2, 4) else 30 if class_id in (3, 5) else 20
                if name == HELEN_SWAPPED:
                    x = 40 - x
                box = (x - 8, 4 * class_id - 8, x + 8, 4 * class_id + 8)
                ImageDraw.Draw(soft).ellipse(box, fill=200)
                soft = soft.filter(ImageFilter.GaussianBlur(2))
                files[soft_map_name(name, class_id)] = encode(soft, "PNG")
    return files


@functools.cache
def lapa() -> dict[str, bytes]:
    """Returns an archive of 7 images of different sizes with masks and landmarks."""
    files = {}
    for folder, names in LAPA_FACES.items():
        for seed, name in enumerate(names):
            rng = np.random.default_rng([seed, len(name)])
            width, height = rng.integers(50, 70, 2).tolist()
            label = Image.new("L", (width, height))
            points = rng.uniform(0, [width, height], (106, 2))
            for class_id in range(1, 11):
                x = 15 if class_id in (2, 4) else 35 if class_id in (3, 5) else 25
                if name in (LAPA_SWAPPED, LAPA_UPSIDE_DOWN):
                    x = 50 - x
                box = (x - 6, 4 * class_id - 3, x + 6, 4 * class_id + 3)
                ImageDraw.Draw(label).ellipse(box, fill=class_id)
            # The landmarks of the eyes on the viewer's left, 66 to 74, and right, 75 to 83.
            left, right = (35, 15) if name == LAPA_UPSIDE_DOWN else (15, 35)
            points[66:75, 0] = rng.uniform(left - 5, left + 5, 9)
            points[75:84, 0] = rng.uniform(right - 5, right + 5, 9)
            lines = ["106", *(f"{x:.6f} {y:.6f}" for x, y in points)]
            files[f"{folder}/images/{name}.jpg"] = _photo(rng, (width, height))
            files[f"{folder}/labels/{name}.png"] = encode(label)
            files[f"{folder}/landmarks/{name}.txt"] = "\n".join([*lines, ""]).encode()
    return files


def mask_name(number: int, part: str) -> str:
    """Returns the member name of a mask in CelebAMask-HQ."""
    return f"CelebAMask-HQ-mask-anno/{number // 2000}/{number:05d}_{part}.png"


def soft_map_name(name: str, class_id: int) -> str:
    """Returns the member name of a soft map in HELEN."""
    return f"labels/{name}/{name}_lbl{class_id:02d}.png"


def encode(image: Image.Image | np.ndarray, image_format: str = "PNG") -> bytes:
    """Returns the bytes of an image file."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, image_format)
    return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    """Returns the pixels of an image file."""
    return np.asarray(Image.open(io.BytesIO(data)))


# Changes of an archive: functions that change its dict.


def truncate(member: str):
    """Returns a change that removes the last 40 bytes of a member."""
    return lambda files: files.update({member: files[member][:-40]})


def replace(member: str, data: bytes):
    """Returns a change that replaces or adds a member."""
    return lambda files: files.update({member: data})


def remove(member: str):
    """Returns a change that removes a member."""
    return lambda files: files.pop(member)


def write_zip(files: dict[str, bytes], manual_dir: Path, root: str) -> Path:
    """Writes an archive as a zip file; every second member is deflated, the others are stored."""
    manual_dir.mkdir(parents=True, exist_ok=True)
    path = manual_dir / f"{root}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"{root}/"), b"")
        for index, (member, data) in enumerate(files.items()):
            method = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)[index % 2]
            # `ZipInfo` has a constant date, so equal members give equal files.
            archive.writestr(zipfile.ZipInfo(f"{root}/{member}"), data, method)
    return path


def write_folder(files: dict[str, bytes], manual_dir: Path, root: str) -> Path:
    """Writes an archive as an unpacked folder."""
    for member, data in files.items():
        path = manual_dir / root / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return manual_dir / root


def read_tree(folder: Path) -> dict[str, bytes]:
    """Returns the content of each file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _photo(rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    colours = rng.integers(0, 256, (3, 3)).tolist()
    image = Image.new("RGB", size, tuple(colours[0]))
    draw = ImageDraw.Draw(image)
    draw.rectangle(_box(rng, min(size)), fill=tuple(colours[1]))
    draw.ellipse(_box(rng, min(size)), fill=tuple(colours[2]))
    return encode(image, "JPEG")


def _box(rng: np.random.Generator, side: int) -> list[int]:
    """Returns left, top, right, bottom of a box inside a square."""
    corner = rng.integers(0, side // 2, 2)
    return [*corner.tolist(), *(corner + rng.integers(4, side // 2, 2)).tolist()]


if __name__ == "__main__":
    builders = Path(__file__).parents[1] / "tfds_builders"
    write_zip(celebamask(), builders / "celebamask_hq" / "dummy_data", CELEBAMASK_ROOT)
    write_zip(helen(), builders / "helen" / "dummy_data", HELEN_ROOT)
    write_zip(lapa(), builders / "lapa" / "dummy_data", LAPA_ROOT)
