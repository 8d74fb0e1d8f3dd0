"""The kinds of inputs that `mutations.py` mutates: how they are made, changed and read.

Checkpoints contain times and random names, so that their cases are not the same in each run.
"""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from PIL import Image, ImageCms

from benchmarks.interruptions import MODEL, SIZE, get_config
from benchmarks.mutation_operations import Files, mutate, mutate_file
from jax_stn_icnn.compilation import entries
from jax_stn_icnn.compilation.program import Program, serialize
from jax_stn_icnn.io.weights import CONFIG, WEIGHTS, load_weights, save_weights
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN, variable_shapes
from jax_stn_icnn.photos.reading import HEIF, PhotoError, to_rgb
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train.checkpoints import Checkpoints
from jax_stn_icnn.train.state import TrainState
from tests import archives
from tfds_builders.archive import ArchiveError
from tfds_builders.prepare import PrepareError, prepare

# Format, mode and options of each picture.
PICTURES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("JPEG", "RGB", {}),
    ("JPEG", "CMYK", {"progressive": True}),
    ("JPEG", "L", {}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "I;16", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("WEBP", "RGBA", {"save_all": True}),
    ("GIF", "P", {"save_all": True}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "CMYK", {"compression": "jpeg"}),
    ("TIFF", "F", {}),
    ("TIFF", "1", {"compression": "group4"}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("AVIF", "RGB", {}),
    ("JPEG2000", "RGB", {}),
    ("PPM", "RGB", {}),
    (HEIF, "RGB", {}),
)
HEIGHT, WIDTH = 37, 48
# Members that a program which unpacks an archive would write outside of its folder.
OUTSIDE = (
    "../outside",
    "{root}/images/train/../../../../outside.png",
    "/tmp/outside",
    "C:\\outside",
)
STEPS = (3, 4)  # of the checkpoints
ENTRY = "entry"


class Kind(NamedTuple):
    """Inputs of one kind.

    Attributes:
        make: Returns intact inputs.
        change: Returns a mutated input, given the intact ones.
        read: Reads the input in a folder, the only one that it may write to.
        errors: Types of the errors that `read` documents.
        lines: Number of lines that an error's message and the warnings have at most.
    """

    make: Callable[[], list[Files]]
    change: Callable[[list[Files], np.random.Generator], Files]
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    lines: int = 1


def make_pictures() -> list[Files]:
    """Returns pictures of all formats, with a profile and an EXIF block where these exist."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rgb = Image.fromarray(np.stack([5 * x, 6 * y, 2 * (x + y)], axis=-1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pictures = []
    for number, (name, mode, options) in enumerate(PICTURES):
        if mode == "I;16":
            image = Image.fromarray((x * y * 30).astype(np.uint16))
        elif mode == "F":
            image = Image.fromarray((x * y / x.size).astype(np.float32))
        else:
            image = rgb.convert(mode)
        if "save_all" in options:
            options = options | {"append_images": [image.rotate(90)]}
        if name in ("JPEG", "PNG", "WEBP", "AVIF", HEIF) and mode in ("RGB", "RGBA"):
            options = options | {"exif": exif.tobytes(), "icc_profile": profile}
        file = io.BytesIO()
        image.save(file, name, **options)
        pictures.append({f"{number}.{name.lower()}": file.getvalue()})
    return pictures


def read_picture(folder: Path) -> None:
    """Reads the picture of a folder."""
    (path,) = folder.iterdir()
    pixels = to_rgb(path)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


def make_archives() -> list[Files]:
    """Returns archives of a folder of images and masks, and in the layout of LaPa."""
    faces = {"classes.txt": b"nothing\nskin\nhair\n"}
    for split in ("train", "test"):
        mask = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16) % 3
        faces[f"images/{split}/0.png"] = archives.encode(np.stack([mask] * 3, axis=-1))
        faces[f"masks/{split}/0.png"] = archives.encode(mask)
    samples = []
    for root, files in {"faces": faces, archives.LAPA_ROOT: archives.lapa()}.items():
        members = {f"{root}/{name}": data for name, data in files.items()}
        samples.append({f"{root}.zip": _zip(members, links=())})
    return samples


def change_archive(samples: list[Files], rng: np.random.Generator) -> Files:
    """Returns an archive with a mutated member, a misplaced member or a link, or mutated bytes."""
    ((name, data),) = samples[rng.integers(len(samples))].items()
    if rng.integers(3) == 0:
        return {name: mutate(data, data, rng)}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    chosen = list(members)[rng.integers(len(members))]
    how = rng.integers(3)
    if how == 0:
        members = mutate_file(members, rng)
    elif how == 1:
        misplaced = OUTSIDE[rng.integers(len(OUTSIDE))].format(root=chosen.split("/")[0])
        members = {(misplaced if m == chosen else m): d for m, d in members.items()}
    else:
        members[chosen] = b"../../canary"
    return {name: _zip(members, links=(chosen,) if how == 2 else ())}


def _zip(members: Files, links: Sequence[str]) -> bytes:
    """Returns a zip file, of which some members are symbolic links."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o120777 if name in links else 0o100644) << 16
            archive.writestr(info, data)
    return file.getvalue()


def read_archive(folder: Path) -> None:
    """Prepares the data set of the archive in a folder."""
    (path,) = folder.iterdir()
    name = path.stem.lower()
    with tempfile.TemporaryDirectory(dir=folder) as prepared:
        prepare(name, Path(prepared), folder, "array_record")


def make_weights() -> list[Files]:
    """Returns weight files of small models with an interlinked CNN and a U-Net."""
    samples = []
    for options in ({}, {"coarse_network": "unet", "edge_head": True, "bridge": True}):
        config = ModelConfig.from_dict(MODEL | options)
        shapes = variable_shapes(STNiCNN(config))
        variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, WEIGHTS)
            save_weights(path, variables, config, SIZE, half=bool(options))
            samples.append({WEIGHTS: path.read_bytes()})
    return samples


def change_weights(samples: list[Files], rng: np.random.Generator) -> Files:
    """Returns a weight file with a mutated header whose length is right, or with mutated bytes."""
    data = samples[rng.integers(len(samples))][WEIGHTS]
    how = rng.integers(3)
    if how == 0:
        return {WEIGHTS: mutate(data, data, rng)}
    length = int.from_bytes(data[:8], "little")
    header, arrays = data[8 : 8 + length], data[8 + length :]
    if how == 1:
        header = mutate(header, header, rng)
    else:
        fields = json.loads(header)
        model = fields["__metadata__"]["model"].encode()
        fields["__metadata__"]["model"] = mutate(model, model, rng).decode(errors="replace")
        header = json.dumps(fields).encode()
    return {WEIGHTS: len(header).to_bytes(8, "little") + header + arrays}


def read_weights(folder: Path) -> None:
    """Loads the weights in a folder."""
    leaves = jax.tree.leaves(load_weights(folder / WEIGHTS).variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}


def make_state(step: int) -> TrainState:
    """Returns the state of a step."""
    weights = np.random.default_rng(step).random((8, 8), np.float32)
    return TrainState(np.int32(step), {"w": weights}, {"mean": weights[0]}, ({"mu": weights},))


def make_iterator() -> grain.DatasetIterator:
    """Returns an iterator whose position is part of checkpoints."""
    return iter(grain.MapDataset.range(100).shuffle(seed=1).to_iter_dataset())


def make_checkpoints() -> list[Files]:
    """Returns the checkpoints of a run."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints, iterator = Checkpoints(Path(folder)), make_iterator()
        for step in STEPS:
            next(iterator)
            checkpoints.save(make_state(step), iterator, {"step": step}, rank=step)
        checkpoints.close()
        return [archives.read_tree(Path(folder))]


def read_checkpoints(folder: Path) -> None:
    """Restores the latest intact checkpoint in a folder."""
    checkpoints, iterator = Checkpoints(folder), make_iterator()
    try:
        checkpoints.remove_damaged()
        step = checkpoints.latest_step
        if step is not None:
            assert checkpoints.read_record(step) == {"step": step}
            state = checkpoints.restore(step, make_state(0), iterator)
            jax.tree.map(np.testing.assert_array_equal, state, make_state(step))
    finally:
        checkpoints.close()


def make_entries() -> list[Files]:
    """Returns an entry of the cache of compiled programs."""
    compiled = jax.jit(lambda x: 2 * x).lower(np.ones(3, np.float32)).compile()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ENTRY)
        entries.write(path, serialize(compiled, jax.devices()[:1]))
        return [{ENTRY: path.read_bytes()}]


def read_entry(folder: Path) -> None:
    """Reads the entry in a folder, and runs its program."""
    data = entries.read(folder / ENTRY)
    if data is not None:
        (double,) = jax.tree.leaves(Program(data, jax.devices()[:1])(np.ones(3, np.float32)))
        np.testing.assert_array_equal(double, 2 * np.ones(3))


def make_configs() -> list[Files]:
    """Returns the config of a run."""
    return [{CONFIG: configs.to_json(get_config()).encode()}]


def read_config(folder: Path) -> None:
    """Reads and checks the config in a folder."""
    config = configs.read(folder / CONFIG)
    configs.make_augmentation(config)


def change_file(samples: list[Files], rng: np.random.Generator) -> Files:
    """Returns an input of one file, mutated by parts of another input, too."""
    ((name, data),), other = (samples[rng.integers(len(samples))].items() for _ in range(2))
    return {name: mutate(data, next(iter(other))[1], rng)}


def change_files(samples: list[Files], rng: np.random.Generator) -> Files:
    """Returns an input of several files, of which one to three are mutated."""
    (files,) = samples
    for _ in range(rng.integers(1, 4)):
        files = mutate_file(files, rng)
    return files


KINDS: dict[str, Kind] = {
    "pictures": Kind(make_pictures, change_file, read_picture, (PhotoError,)),
    "archives": Kind(
        make_archives, change_archive, read_archive, (ArchiveError, PrepareError, OSError), lines=3
    ),
    "weights": Kind(make_weights, change_weights, read_weights, (ValueError, OSError), lines=12),
    "checkpoints": Kind(
        make_checkpoints, change_files, read_checkpoints, (ValueError, OSError), lines=3
    ),
    "cache entries": Kind(make_entries, change_file, read_entry, ()),
    "configs": Kind(make_configs, change_file, read_config, (ValueError,), lines=12),
}
