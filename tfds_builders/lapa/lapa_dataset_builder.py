"""LaPa: about 22,000 faces in the wild with masks of ten parts and 106 landmarks."""

import re
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import archive as archive_lib
from tfds_builders import images, sharding, sides
from tfds_builders.helen_classes import CLASSES

SIDES = ((2, 3), (4, 5))  # brows and eyes
NUM_LANDMARKS = 106

_ROOT = "LaPa"
_FOLDERS = {"train": "train", "validation": "val", "test": "test"}
_SUFFIXES = {"images": ".jpg", "labels": ".png", "landmarks": ".txt"}
_LEFT_EYE, _RIGHT_EYE = slice(66, 75), slice(75, 84)  # of the landmarks; the viewer's sides
_FACES_CHECKED = 50
_SHARD_SIZE = 256


class Face(NamedTuple):
    """An image with its mask and landmarks."""

    folder: str
    """The split's folder in the archive."""
    name: str

    def member(self, kind: str) -> str:
        """Returns the member name of the face's file in `images`, `labels` or `landmarks`."""
        return f"{self.folder}/{kind}/{self.name}{_SUFFIXES[kind]}"


class Builder(sharding.ShardedBuilder):
    """Builds LaPa from the authors' archive."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
Download LaPa from https://github.com/jd-opensource/lapa-dataset, unpack it and place its folder
{_ROOT}, or a zip file of the folder, {_ROOT}.zip, in the manual directory.
"""

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.LabeledImage(
                        labels=list(CLASSES), shape=(None, None, 1), encoding_format="png"
                    ),
                    "landmarks": tfds.features.Tensor(shape=(NUM_LANDMARKS, 2), dtype=np.float32),
                    "name": tfds.features.Text(),
                    "sides_swapped": tfds.features.Scalar(np.bool_),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/jd-opensource/lapa-dataset",
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> sharding.Shards:
        self._archive = archive_lib.open_archive(dl_manager, _ROOT)
        self._swapped: list[str] = []
        splits = find_faces(self._archive)
        check_sides(self._archive, splits["train"])
        return sharding.shard_iterators(splits, self._record, _SHARD_SIZE)

    def _record(self, face: Face) -> sharding.Record:
        picture, label, landmarks = read_face(self._archive, face)
        if swapped := are_swapped(label, landmarks):
            label = sides.swap(label, SIDES)
            self._swapped.append(face.name)
        return f"{face.folder}/{face.name}", {
            "image": images.encode_picture(picture),
            "label": images.encode_png(label),
            "landmarks": landmarks,
            "name": face.name,
            "sides_swapped": swapped,
        }

    def _post_download_and_prepare_hook(self) -> None:
        sides.report(self._swapped)


def find_faces(archive: archive_lib.Archive) -> dict[str, list[Face]]:
    """Finds the faces of each split, and checks that images, masks and landmarks correspond.

    Args:
      archive: the archive.

    Returns:
      For each split its faces, sorted by name.

    Raises:
      ArchiveError: if a split is empty, or a face lacks one of its three files.
    """
    member_name = re.compile(r"([^/]+)/(images|labels|landmarks)/([^/]+)(\.[^./]+)")
    found: dict[str, set[Face]] = {kind: set() for kind in _SUFFIXES}
    for member in archive:
        match = member_name.fullmatch(member)
        if match and match[1] in _FOLDERS.values() and match[4] == _SUFFIXES[match[2]]:
            found[match[2]].add(Face(match[1], match[3]))
    faces = sorted(set.union(*found.values()))
    for face in faces:
        for kind, others in found.items():
            if face not in others:
                raise archive_lib.error(archive, face.member(kind), "is missing")
    splits = {
        split: [face for face in faces if face.folder == folder]
        for split, folder in _FOLDERS.items()
    }
    for split, folder in _FOLDERS.items():
        if not splits[split]:
            raise archive_lib.error(archive, f"{folder}/images", "contains no image")
    return splits


def check_sides(archive: archive_lib.Archive, faces: list[Face]) -> None:
    """Checks on a sample that the left brow and eye are on the viewer's left.

    Args:
      archive: the archive.
      faces: the faces from which the sample is taken, evenly spaced.

    Raises:
      ArchiveError: if the sides are exchanged on half of the sample or more.
    """
    sample = faces[:: -(-len(faces) // _FACES_CHECKED)]
    swapped = sum(are_swapped(*read_face(archive, face)[1:]) for face in sample)
    if 2 * swapped >= len(sample):
        raise archive_lib.error(
            archive,
            "train/labels",
            f"on {swapped} of {len(sample)} faces the left brow and eye (ids 2, 4) are to the right"
            " of the right brow and eye (ids 3, 5)",
            "use the authors' archive, whose left is the viewer's left",
        )


def are_swapped(label: np.ndarray, landmarks: np.ndarray) -> bool:
    """Returns whether a face's mask has left and right exchanged.

    On a face that is upside down the left parts are on the viewer's right, but so are the landmarks
    of the left eye.

    Args:
      label: class ids, (H, W).
      landmarks: (x, y) of each landmark, (106, 2).
    """
    upright = landmarks[_LEFT_EYE, 0].mean() < landmarks[_RIGHT_EYE, 0].mean()
    return bool(upright) and sides.are_swapped(label, SIDES)


def read_face(
    archive: archive_lib.Archive, face: Face
) -> tuple[images.Picture, np.ndarray, np.ndarray]:
    """Reads an image, its mask and its landmarks.

    Args:
      archive: the archive.
      face: the face.

    Returns:
      The image, the mask, uint8 (H, W), and the landmarks, float32 (106, 2).

    Raises:
      ArchiveError: if a file is damaged, the mask does not have the image's size or contains an
        unknown id, or there are not 106 landmarks.
    """
    picture = images.read_picture(archive, face.member("images"))
    if picture.is_rotated:
        problem = "is stored rotated, with an EXIF orientation that does not apply to its mask"
        raise archive_lib.error(archive, face.member("images"), problem)
    member = face.member("labels")
    label = images.decode_gray(archive, member, archive.read(member))
    if label.shape != picture.size:
        problem = f"has (height, width) {label.shape}, its image {picture.size}"
        raise archive_lib.error(archive, member, problem)
    if label.max() >= len(CLASSES):
        problem = f"contains id {label.max()}, not 0 to {len(CLASSES) - 1}"
        raise archive_lib.error(archive, member, problem)
    return picture, label, read_landmarks(archive, face.member("landmarks"))


def read_landmarks(archive: archive_lib.Archive, member: str) -> np.ndarray:
    """Reads a file of landmarks: their number, then `x y` on each line.

    Args:
      archive: the archive.
      member: the name of the file.

    Returns:
      float32 (106, 2).

    Raises:
      ArchiveError: if the file is missing, or has another content.
    """
    number, *lines = archive_lib.read_lines(archive, member) or [""]
    try:
        points = np.array([line.split() for line in lines if line.strip()], np.float32)
    except ValueError as fault:
        raise archive_lib.error(archive, member, f"is not `x y` on each line ({fault})") from fault
    if number.strip() != str(NUM_LANDMARKS) or points.shape != (NUM_LANDMARKS, 2):
        problem = f"does not contain {NUM_LANDMARKS} and as many lines `x y`"
        raise archive_lib.error(archive, member, problem)
    return points
