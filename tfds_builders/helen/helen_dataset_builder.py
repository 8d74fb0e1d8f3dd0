"""HELEN with the labels of Smith et al. (2013): 2,330 faces with soft labels of ten parts."""

import re
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from tfds_builders import archive as archive_lib
from tfds_builders import images, sharding, sides
from tfds_builders.helen_classes import CLASSES

SIDES = ((2, 3), (4, 5))  # brows and eyes

_ROOT = "SmithCVPR2013_dataset_resized"
_LISTS = {"train": "exemplars.txt", "validation": "tuning.txt", "test": "testing.txt"}
_FACES_CHECKED = 50
_SHARD_SIZE = 16  # soft maps take 11 bytes per pixel: 60 MB for 16 images of 600 x 600


class Face(NamedTuple):
    """One line of a list file."""

    name: str

    @property
    def image(self) -> str:
        """The image's member name."""
        return f"images/{self.name}.jpg"

    def soft_map(self, class_id: int) -> str:
        """Returns the member name of a class's soft map."""
        return f"labels/{self.name}/{self.name}_lbl{class_id:02d}.png"


class Builder(sharding.ShardedBuilder):
    """Builds HELEN from the archive of Smith et al."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
Download {_ROOT}.zip from https://pages.cs.wisc.edu/~lizhang/projects/face-parsing/ and place it, or
its unpacked folder {_ROOT}, in the manual directory.
"""

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "label": tfds.features.LabeledImage(
                        labels=list(CLASSES), shape=(None, None, 1), encoding_format="png"
                    ),
                    "soft_labels": tfds.features.Tensor(
                        shape=(None, None, len(CLASSES)), dtype=np.uint8, encoding="zlib"
                    ),
                    "name": tfds.features.Text(),
                    "sides_swapped": tfds.features.Scalar(np.bool_),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://pages.cs.wisc.edu/~lizhang/projects/face-parsing/",
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> sharding.Shards:
        self._archive = archive_lib.open_archive(dl_manager, _ROOT)
        splits = read_lists(self._archive)
        self._swapped: list[str] = []
        self._unlisted = check_members(self._archive, splits)
        check_sides(self._archive, splits["train"])
        return sharding.shard_iterators(splits, self._record, _SHARD_SIZE)

    def _record(self, face: Face) -> sharding.Record:
        image, soft_labels = read_face(self._archive, face)
        label = hard_label(soft_labels)
        if swapped := sides.are_swapped(label, SIDES):
            label = sides.swap(label, SIDES)
            self._swapped.append(face.name)
        return face.name, {
            "image": image,
            "label": images.encode_png(label),
            "soft_labels": soft_labels,
            "name": face.name,
            "sides_swapped": swapped,
        }

    def _post_download_and_prepare_hook(self) -> None:
        sides.report(self._swapped)
        if self._unlisted:
            logging.warning("%d images are in no list and were left out", self._unlisted)


def hard_label(soft_labels: np.ndarray) -> np.ndarray:
    """Returns the class of each pixel's largest value; the lowest id if values are equal.

    Args:
      soft_labels: uint8 (H, W, 11).

    Returns:
      uint8 (H, W).
    """
    return soft_labels.argmax(axis=-1).astype(np.uint8)


def read_lists(archive: archive_lib.Archive) -> dict[str, list[Face]]:
    """Reads the official splits.

    Args:
      archive: the archive.

    Returns:
      For each split its faces, in the order of the list.

    Raises:
      ArchiveError: if a line is not `number , name`, a name occurs twice, or a list is empty.
    """
    splits: dict[str, list[Face]] = {}
    seen: set[str] = set()
    for split, member in _LISTS.items():
        splits[split] = []
        for line_number, line in enumerate(archive_lib.read_lines(archive, member), start=1):
            if not line.strip():
                continue
            where = f"{member}, line {line_number}"
            fields = [field.strip() for field in line.split(",")]
            if len(fields) != 2 or not all(fields):
                raise archive_lib.error(archive, where, f"{line!r} is not 'number , name'")
            if fields[1] in seen:
                raise archive_lib.error(archive, where, f"lists {fields[1]} a second time")
            seen.add(fields[1])
            splits[split].append(Face(fields[1]))
        if not splits[split]:
            raise archive_lib.error(archive, member, "lists no face")
    return splits


def check_members(archive: archive_lib.Archive, splits: dict[str, list[Face]]) -> int:
    """Checks that lists, images and labels correspond, before anything is written.

    Args:
      archive: the archive.
      splits: the faces of each split.

    Returns:
      The number of images that are in no list.

    Raises:
      ArchiveError: if a listed image or one of its eleven soft maps is missing, or a soft map has
        no image.
    """
    for split, faces in splits.items():
        for face in faces:
            if face.image not in archive:
                problem = f"is missing, but {_LISTS[split]} lists it"
                raise archive_lib.error(archive, face.image, problem)
            for class_id in range(len(CLASSES)):
                if face.soft_map(class_id) not in archive:
                    raise archive_lib.error(archive, face.soft_map(class_id), "is missing")
    listed = {face.name for faces in splits.values() for face in faces}
    unlisted = 0
    for member in archive:
        if match := re.fullmatch(r"images/([^/]+)\.jpg", member):
            unlisted += match[1] not in listed
        elif match := re.fullmatch(r"labels/([^/]+)/[^/]+\.png", member):
            image = Face(match[1]).image
            if image not in archive:
                raise archive_lib.error(archive, member, f"has no image {image}")
    return unlisted


def check_sides(archive: archive_lib.Archive, faces: list[Face]) -> None:
    """Checks on a sample that the left brow and eye are on the viewer's left.

    The archive does not define left and right, and CelebAMask-HQ uses the person's.

    Args:
      archive: the archive.
      faces: the faces from which the sample is taken, evenly spaced.

    Raises:
      ArchiveError: if on half of the sample or more the left parts are to the right of the right
        parts.
    """
    sample = faces[:: -(-len(faces) // _FACES_CHECKED)]
    swapped = sum(
        sides.are_swapped(hard_label(read_face(archive, face)[1]), SIDES) for face in sample
    )
    if 2 * swapped >= len(sample):
        raise archive_lib.error(
            archive,
            "labels",
            f"on {swapped} of {len(sample)} faces the left brow and eye (lbl02, lbl04) are to the"
            " right of the right brow and eye (lbl03, lbl05)",
            "use the archive of Smith et al. (2013), whose left is the viewer's left",
        )


def read_face(archive: archive_lib.Archive, face: Face) -> tuple[bytes, np.ndarray]:
    """Reads an image and its soft maps.

    Args:
      archive: the archive.
      face: the face.

    Returns:
      The image file's bytes, and uint8 (H, W, 11).

    Raises:
      ArchiveError: if a file is damaged, or a soft map does not have the image's size.
    """
    image, size = images.read_rgb(archive, face.image)
    soft_maps = []
    for member in map(face.soft_map, range(len(CLASSES))):
        soft_map = images.decode_gray(archive, member, archive.read(member))
        if soft_map.shape != size:
            problem = f"has (height, width) {soft_map.shape}, its image {size}"
            raise archive_lib.error(archive, member, problem)
        soft_maps.append(soft_map)
    return image, np.stack(soft_maps, axis=-1)
