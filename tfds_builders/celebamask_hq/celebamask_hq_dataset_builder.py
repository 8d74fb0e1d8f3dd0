"""CelebAMask-HQ: 30,000 faces with masks of 18 parts and accessories."""

import collections
import re
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from tfds_builders import archive as archive_lib
from tfds_builders import duplicates, images, sharding, sides

# The ids 1..18 and the order of painting are those of the authors' g_mask.py: where masks overlap,
# the later one counts. Other public code lists the same names in another order, with other ids.
PARTS = (
    "skin",
    "nose",
    "eye_g",
    "l_eye",
    "r_eye",
    "l_brow",
    "r_brow",
    "l_ear",
    "r_ear",
    "mouth",
    "u_lip",
    "l_lip",
    "hair",
    "hat",
    "ear_r",
    "neck_l",
    "neck",
    "cloth",
)
CLASSES = ("background", *PARTS)
# `l_` is the person's left, which is the viewer's right.
SIDES = tuple(
    (CLASSES.index(f"r_{part}"), CLASSES.index(f"l_{part}")) for part in ("eye", "brow", "ear")
)

_ROOT = "CelebAMask-HQ"
_MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
_IMAGE_FOLDER = "CelebA-HQ-img"
_MASK_FOLDER = "CelebAMask-HQ-mask-anno"
_IMAGES_PER_MASK_FOLDER = 2000
# CelebA's official splits, by an image's index in CelebA.
_FIRST_VALIDATION, _FIRST_TEST = 162_771, 182_638
_SHARD_SIZE = 256  # about 30 MB: an image of 1024 x 1024 takes about 100 kB


class Face(NamedTuple):
    """One row of the mapping file."""

    number: int
    """The image's number in CelebAMask-HQ."""
    celeba_index: int
    """The image's number in CelebA, from 0."""

    @property
    def split(self) -> str:
        """CelebA's official split."""
        if self.celeba_index < _FIRST_VALIDATION:
            return "train"
        return "validation" if self.celeba_index < _FIRST_TEST else "test"

    @property
    def image(self) -> str:
        """The image's member name."""
        return f"{_IMAGE_FOLDER}/{self.number}.jpg"

    def mask(self, part: str) -> str:
        """Returns the member name of a part's mask."""
        folder = self.number // _IMAGES_PER_MASK_FOLDER
        return f"{_MASK_FOLDER}/{folder}/{self.number:05d}_{part}.png"


class Builder(sharding.ShardedBuilder):
    """Builds CelebAMask-HQ from the official archive."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
Accept the license at https://github.com/switchablenorms/CelebAMask-HQ, download {_ROOT}.zip and
place it, or its unpacked folder {_ROOT}, in the manual directory.
"""

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "label": tfds.features.LabeledImage(
                        labels=list(CLASSES), shape=(None, None, 1), encoding_format="png"
                    ),
                    "name": tfds.features.Text(),
                    "celeba_index": tfds.features.Scalar(np.int32),
                    "sides_swapped": tfds.features.Scalar(np.bool_),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/switchablenorms/CelebAMask-HQ",
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> sharding.Shards:
        self._archive = archive_lib.open_archive(dl_manager, _ROOT)
        self._empty_masks: list[str] = []
        self._without_skin: list[str] = []
        self._swapped: list[str] = []
        self._duplicates = duplicates.Duplicates()
        faces = read_mapping(self._archive)
        check_members(self._archive, faces)
        splits = split_faces(self._archive, faces)
        return sharding.shard_iterators(splits, self._record, _SHARD_SIZE)

    def _record(self, face: Face) -> sharding.Record:
        name = str(face.number)
        image, size = images.read_rgb(self._archive, face.image)
        self._duplicates.add(face.split, name, image)
        label = self._label(face, size)
        if swapped := sides.are_swapped(label, SIDES):
            label = sides.swap(label, SIDES)
            self._swapped.append(name)
        return name, {
            "image": image,
            "label": images.encode_png(label),
            "name": name,
            "celeba_index": face.celeba_index,
            "sides_swapped": swapped,
        }

    def _label(self, face: Face, image_size: tuple[int, int]) -> np.ndarray:
        """Merges the face's masks into one label, uint8 (H, W) of the masks' size."""
        masks: dict[str, np.ndarray] = {}
        for part in PARTS:
            member = face.mask(part)
            if member not in self._archive:
                continue  # the part is not visible in the image
            data = self._archive.read(member)
            if data:
                masks[part] = images.decode_gray(self._archive, member, data) > 127
            if not data or not masks[part].any():
                self._empty_masks.append(member)
        if not masks:
            raise archive_lib.error(self._archive, face.image, "has no mask that can be read")
        if "skin" not in masks:
            self._without_skin.append(str(face.number))
        shapes = {face.mask(part): mask.shape for part, mask in masks.items()}
        label = np.zeros(_shape_of_masks(self._archive, shapes, image_size), np.uint8)
        for class_id, part in enumerate(PARTS, start=1):
            if part in masks:
                label[masks[part]] = class_id
        return label

    def _post_download_and_prepare_hook(self) -> None:
        sides.report(self._swapped)
        self._duplicates.report()
        if self._without_skin:
            logging.warning(
                "%d faces have no mask of the skin: %s",
                len(self._without_skin),
                archive_lib.abbreviate(self._without_skin),
            )
        if self._empty_masks:
            logging.warning(
                "%d mask files are empty; their parts are treated as absent: %s",
                len(self._empty_masks),
                archive_lib.abbreviate(self._empty_masks),
            )


def read_mapping(archive: archive_lib.Archive) -> list[Face]:
    """Reads the mapping from CelebAMask-HQ's image numbers to CelebA's.

    Args:
      archive: the archive.

    Returns:
      Its rows, sorted by number.

    Raises:
      ArchiveError: if a row is not `number index file`, or a number occurs twice.
    """
    faces: dict[int, Face] = {}
    for line_number, line in enumerate(archive_lib.read_lines(archive, _MAPPING), start=1):
        fields = line.split()
        if not fields or (line_number == 1 and not fields[0].isdecimal()):
            continue  # some copies of the file have a header line
        where = f"{_MAPPING}, line {line_number}"
        if len(fields) != 3 or not (fields[0].isdecimal() and fields[1].isdecimal()):
            raise archive_lib.error(archive, where, f"{line!r} is not 'idx orig_idx orig_file'")
        face = Face(int(fields[0]), int(fields[1]))
        if face.number in faces:
            raise archive_lib.error(archive, where, f"lists image {face.number} a second time")
        faces[face.number] = face
    return [faces[number] for number in sorted(faces)]


def split_faces(archive: archive_lib.Archive, faces: list[Face]) -> dict[str, list[Face]]:
    """Groups the faces into CelebA's official splits.

    Args:
      archive: the archive, for error messages.
      faces: the rows of its mapping.

    Returns:
      For each split its faces, in the order of `faces`.

    Raises:
      ArchiveError: if a split would be empty.
    """
    splits: dict[str, list[Face]] = {"train": [], "validation": [], "test": []}
    for face in faces:
        splits[face.split].append(face)
    for split, members in splits.items():
        if not members:
            raise archive_lib.error(archive, _MAPPING, f"lists no image of the {split} split")
    return splits


def check_members(archive: archive_lib.Archive, faces: list[Face]) -> None:
    """Checks that mapping, images and masks correspond, before anything is written.

    Args:
      archive: the archive.
      faces: the rows of its mapping.

    Raises:
      ArchiveError: if a row has no image, an image no row, a mask no image, or a mask's name or
        folder is not that of a part (the part would be treated as absent).
    """
    numbers = {face.number for face in faces}
    for face in faces:
        if face.image not in archive:
            raise archive_lib.error(archive, face.image, f"is missing, but {_MAPPING} lists it")
    image_name = re.compile(rf"{_IMAGE_FOLDER}/(\d+)\.jpg")
    mask_name = re.compile(rf"{_MASK_FOLDER}/\d+/(\d+)_({'|'.join(PARTS)})\.png")
    for member in archive:  # sorted by path: images before masks
        if match := image_name.fullmatch(member):
            if int(match[1]) not in numbers:
                raise archive_lib.error(archive, member, f"has no row in {_MAPPING}")
        elif match := mask_name.fullmatch(member):
            face = Face(int(match[1]), 0)
            if face.number not in numbers:
                raise archive_lib.error(archive, member, f"has no image {face.image}")
            if member != face.mask(match[2]):
                raise archive_lib.error(archive, member, f"should be {face.mask(match[2])}")
        elif member.startswith(f"{_MASK_FOLDER}/") and member.endswith(".png"):
            raise archive_lib.error(archive, member, "is not the mask of a known part")


def _shape_of_masks(
    archive: archive_lib.Archive, shapes: dict[str, tuple[int, ...]], image: tuple[int, int]
) -> tuple[int, ...]:
    """Returns the shape of a face's masks; the error names a mask of another than most have.

    The size of masks and image may differ (512 and 1024), but not their proportions.
    """
    for member, shape in shapes.items():
        if shape[0] * image[1] != shape[1] * image[0]:
            problem = f"has (height, width) {shape}, not the aspect ratio of its image, {image}"
            raise archive_lib.error(archive, member, problem)
    (usual, _), *others = collections.Counter(shapes.values()).most_common()
    if others:
        member = next(member for member, shape in shapes.items() if shape != usual)
        problem = f"has (height, width) {shapes[member]}, most masks of the image {usual}"
        raise archive_lib.error(archive, member, problem)
    return usual
