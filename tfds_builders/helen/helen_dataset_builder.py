"""HELEN in the version of Smith et al. (2013): 2,330 faces with soft labels of ten parts."""

import re
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from tfds_builders import archive as archive_lib
from tfds_builders import images, sharding, sides

# In the order of the files lbl00 .. lbl10. Left is the viewer's left (`check_sides`).
CLASSES = (
    "background",
    "skin",
    "left_brow",
    "right_brow",
    "left_eye",
    "right_eye",
    "nose",
    "upper_lip",
    "inner_mouth",
    "lower_lip",
    "hair",
)
SIDES = ((2, 3), (4, 5))  # brows and eyes

_ROOT = "SmithCVPR2013_dataset_resized"
_LISTS = {"train": "exemplars.txt", "validation": "tuning.txt", "test": "testing.txt"}
_FACES_CHECKED = 50
_SHARD_SIZE = 16  # soft maps take 11 bytes a pixel: 60 MB for 16 images of 600 x 600


class Face(NamedTuple):
    """One line of a list file."""

    name: str

    @property
    def image(self) -> str:
        """The photograph's name in the archive."""
        return f"images/{self.name}.jpg"

    def soft_map(self, class_id: int) -> str:
        """The name that the soft map of a class has in the archive."""
        return f"labels/{self.name}/{self.name}_lbl{class_id:02d}.png"


class Builder(sharding.ShardedBuilder):
    """Builds HELEN from the archive of Smith et al."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
Download {_ROOT}.zip from https://pages.cs.wisc.edu/~lizhang/projects/face-parsing/ and place it (or
the folder {_ROOT} that it unpacks to) in the manual directory.
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
            logging.warning("%d images stand in no list and were left out", self._unlisted)


def hard_label(soft_labels: np.ndarray) -> np.ndarray:
    """Returns the class of the largest value, the lowest id where values are equal.

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
      ArchiveError: if a line is not `number , name`, a name stands there twice, or a list is empty.
    """
    splits: dict[str, list[Face]] = {}
    seen: set[str] = set()
    for split, member in _LISTS.items():
        splits[split] = []
        lines = archive.read(member).decode("utf-8", "replace").splitlines()
        for line_number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{member}, line {line_number}"
            fields = [field.strip() for field in line.split(",")]
            if len(fields) != 2 or not all(fields):
                raise archive_lib.error(archive, where, f"{line!r} is not 'number , name'")
            if fields[1] in seen:
                raise archive_lib.error(archive, where, f"{fields[1]} was listed before")
            seen.add(fields[1])
            splits[split].append(Face(fields[1]))
        if not splits[split]:
            raise archive_lib.error(archive, member, "names no face")
    return splits


def check_members(archive: archive_lib.Archive, splits: dict[str, list[Face]]) -> int:
    """Checks, before anything is written, that lists, images and labels belong together.

    Args:
      archive: the archive.
      splits: the faces of each split.

    Returns:
      The number of images that no list names.

    Raises:
      ArchiveError: if a listed image or one of its eleven soft maps is missing, or there is a soft
        map without its image.
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
                raise archive_lib.error(archive, member, f"there is no image {image}")
    return unlisted


def check_sides(archive: archive_lib.Archive, faces: list[Face]) -> None:
    """Checks on a sample that the left brow and eye are on the viewer's left.

    The archive's own text does not say whose left it means, and CelebAMask-HQ means the other one.

    Args:
      archive: the archive.
      faces: the faces to draw the sample from, at equal distances.

    Raises:
      ArchiveError: if on most of the sample the left parts lie to the right of the right ones.
    """
    sample = faces[:: -(-len(faces) // _FACES_CHECKED)]
    swapped = sum(
        sides.are_swapped(hard_label(read_face(archive, face)[1]), SIDES) for face in sample
    )
    if 2 * swapped >= len(sample):
        raise archive_lib.error(
            archive,
            "labels",
            f"on {swapped} of {len(sample)} faces the left brow and eye (lbl02, lbl04) lie to the"
            " right of the right ones (lbl03, lbl05)",
            "its labels are numbered from the other side; use the archive of Smith et al. (2013)",
        )


def read_face(archive: archive_lib.Archive, face: Face) -> tuple[bytes, np.ndarray]:
    """Reads a photograph and its soft maps.

    Args:
      archive: the archive.
      face: the face.

    Returns:
      The photograph's own bytes, and uint8 (H, W, 11).

    Raises:
      ArchiveError: if a file is damaged, or a map has another size than the photograph.
    """
    image, size = images.read_rgb(archive, face.image)
    soft_maps = []
    for member in map(face.soft_map, range(len(CLASSES))):
        soft_map = images.read_gray(archive, member, archive.read(member))
        if soft_map.shape != size:
            problem = f"has (height, width) {soft_map.shape}, its image {size}"
            raise archive_lib.error(archive, member, problem)
        soft_maps.append(soft_map)
    return image, np.stack(soft_maps, axis=-1)
