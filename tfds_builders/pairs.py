"""Finds the images and masks of a folder, `images/SPLIT/NAME.jpg` and `masks/SPLIT/NAME.png`."""

import re
from pathlib import PurePosixPath
from typing import NamedTuple

from tfds_builders import archive as archive_lib
from tfds_builders.class_list import CLASSES

_IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_MASK_SUFFIXES = (".png",)
# Names of splits elsewhere -> the names that training looks for.
_USUAL_SPLITS = {
    "training": "train",
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
    "testing": "test",
}


class Pair(NamedTuple):
    """An image and its mask."""

    split: str
    image: str
    """The image's member name."""
    mask: str | None
    """The mask's member name; None in a folder of unlabelled images."""

    @property
    def name(self) -> str:
        """The image's file name without its suffix."""
        return PurePosixPath(self.image).stem


def find_pairs(archive: archive_lib.Archive) -> dict[str, list[Pair]]:
    """Finds the images of each split, and checks that images and masks correspond.

    Args:
      archive: the folder. Without a list of classes and masks, its images are unlabelled.

    Returns:
      For each split its pairs, sorted by the image's file name.

    Raises:
      ArchiveError: if there is no image, a file of `images` or `masks` is not in a folder of a
        split or has the suffix of another format, a split has a name that training does not look
        for, an image has no mask or a mask no image, or two images differ only in their suffixes.
    """
    found = _find_files(archive, "images", _IMAGE_SUFFIXES)
    masks = _find_files(archive, "masks", _MASK_SUFFIXES)
    if not found:
        remedy = "add images to images/train, images/validation and images/test"
        raise archive_lib.error(archive, "images", "has no image in its folders", remedy)
    labelled = bool(masks) or CLASSES in archive
    splits: dict[str, list[Pair]] = {}
    for (split, name), image in found.items():
        mask = masks.pop((split, name), None)
        if labelled and mask is None:
            problem = f"has no mask masks/{split}/{name}.png"
            remedy = f"add the mask, or, if no image has one, remove {CLASSES}"
            raise archive_lib.error(archive, image, problem, remedy)
        splits.setdefault(split, []).append(Pair(split, image, mask))
    if masks:
        remedy = "add the image, or remove the mask"
        raise archive_lib.error(archive, min(masks.values()), "has no image", remedy)
    return {split: sorted(pairs) for split, pairs in splits.items()}


def _find_files(
    archive: archive_lib.Archive, folder: str, suffixes: tuple[str, ...]
) -> dict[tuple[str, str], str]:
    """Returns (split, name without suffix) -> member of the files in `folder`."""
    found: dict[tuple[str, str], str] = {}
    for member in archive:
        path = PurePosixPath(member)
        if path.parts[0] != folder:
            continue
        if len(path.parts) != 3:
            remedy = f"move it to {folder}/train, {folder}/validation or {folder}/test"
            raise archive_lib.error(archive, member, "is not in the folder of a split", remedy)
        if path.suffix.lower() not in suffixes:
            expected = " or ".join(suffixes)
            remedy = "save it in such a format, or remove it"
            raise archive_lib.error(archive, member, f"is not a {expected} file", remedy)
        split = path.parts[1]
        _check_split(archive, folder, split)
        other = found.setdefault((split, path.stem), member)
        if other != member:
            raise archive_lib.error(archive, other, f"has the name of {member}", "rename one")
    return found


def _check_split(archive: archive_lib.Archive, folder: str, split: str) -> None:
    usual = _USUAL_SPLITS.get(split.lower(), split.lower())
    if usual != split:
        problem = "is not a split that training looks for"
        remedy = f"rename it to {folder}/{usual}"
        raise archive_lib.error(archive, f"{folder}/{split}", problem, remedy)
    if not re.fullmatch("[a-z][a-z0-9_]*", split) or split == "all":
        problem = "is not the name of a split"
        remedy = "use letters, digits and underscores, starting with a letter, and not `all`"
        raise archive_lib.error(archive, f"{folder}/{split}", problem, remedy)
