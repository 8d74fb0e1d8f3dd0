"""Folders of drawn faces and their masks, for the tests of a data set of your own."""

import functools

import archives
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tfds_builders import prepare
from tfds_builders.synthetic_faces.face import draw_face

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


def build(tmp_path, changes, name="my_faces", framing=None, write=archives.write_folder):
    """Prepares the drawn faces with changes; None removes a file."""
    changed = {member: data for member, data in (files() | changes).items() if data is not None}
    write(changed, tmp_path / "manual", name)
    prepare.prepare(name, tmp_path / "data", tmp_path / "manual", "array_record", framing)
    return tfds.builder_from_directory(tmp_path / "data" / name / "1.0.0")


def masks(change):
    """Returns the masks of the drawn faces, changed."""
    return {
        member: archives.encode(change(archives.decode(data)))
        for member, data in files().items()
        if member.startswith("masks/")
    }


def label_of(builder, member):
    """Returns the label of a mask's record, (H, W)."""
    _, split, file = member.split("/")
    for record in builder.as_data_source(split):
        if record["name"].decode() == file.removesuffix(".png"):
            return record["label"][..., 0]
    raise AssertionError(member)


def ids_of(member):
    return archives.decode(files()[member])


def masks_of_drawn_faces():
    """Returns the names of the masks of the drawn faces."""
    return [member for member in files() if member.startswith("masks/")]
