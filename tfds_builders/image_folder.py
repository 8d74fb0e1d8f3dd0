"""A data set of your own: a folder of images and masks, and a list of its classes.

    my_faces/classes.txt               one class per line, in the order of the ids, from 0
    my_faces/images/train/0001.jpg     RGB, JPEG or PNG
    my_faces/masks/train/0001.png      its mask: 8 bits per pixel, the id of the pixel's class
    my_faces/images/validation/..., my_faces/masks/test/...

`python -m tfds_builders.prepare my_faces --manual_dir PARENT_OF_MY_FACES` builds it. The splits are
the folders in `images`; the records of a split are sorted by name.
"""

import os
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from tfds_builders import archive as archive_lib
from tfds_builders import images, sharding

CLASSES = "classes.txt"
VERSION = "1.0.0"

_SHARD_SIZE = 64
_SUFFIXES = (".jpg", ".jpeg", ".png")


class Pair(NamedTuple):
    """An image and its mask."""

    split: str
    image: str
    """The image's member name."""

    @property
    def name(self) -> str:
        """The image's file name without its suffix."""
        return PurePosixPath(self.image).stem

    @property
    def mask(self) -> str:
        """The mask's member name."""
        return f"masks/{self.split}/{self.name}.png"


# Not registered, because each instance has its own name. TFDS has no type annotations.
class ImageFolder(sharding.ShardedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builds a data set from an archive of images and masks."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self, name: str, archive: archive_lib.Archive, data_dir: str | os.PathLike[str], **more: Any
    ):
        """Reads the list of classes.

        Args:
          name: name of the data set.
          archive: the folder, or a zip file of it.
          data_dir: the directory of prepared data sets.
          **more: passed on to `tfds.core.DatasetBuilder`.

        Raises:
          ArchiveError: if the list is missing or empty, or contains a class twice.
        """
        self.name = name
        self._archive = archive
        self._classes = read_classes(archive)
        super().__init__(data_dir=data_dir, **more)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.LabeledImage(
                    labels=self._classes, shape=(None, None, 1), encoding_format="png"
                ),
                "name": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images, and the class of each of their pixels.",
            features=features,
            supervised_keys=("image", "label"),
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> sharding.Shards:
        del dl_manager  # there is nothing to download
        splits = find_pairs(self._archive)
        return sharding.shard_iterators(splits, self._record, _SHARD_SIZE)

    def _record(self, pair: Pair) -> sharding.Record:
        data, size = images.read_rgb(self._archive, pair.image, ("JPEG", "PNG"))
        if images.has_exif_orientation(data):
            problem = "is stored rotated, with an EXIF orientation that does not apply to its mask"
            raise archive_lib.error(self._archive, pair.image, problem, "save it upright")
        mask = images.read_ids(self._archive, pair.mask)
        if mask.shape != size:
            problem = f"has (height, width) {mask.shape}, its image {size}"
            raise archive_lib.error(self._archive, pair.mask, problem, "give both the same size")
        if mask.max() >= len(self._classes):
            problem = f"contains id {mask.max()}, but {CLASSES} has {len(self._classes)} classes"
            raise archive_lib.error(self._archive, pair.mask, problem, "ids start at 0")
        return f"{pair.split}/{pair.name}", {
            "image": data,
            "label": images.encode_png(mask),
            "name": pair.name,
        }


def read_classes(archive: archive_lib.Archive) -> list[str]:
    """Reads the names of the classes.

    Args:
      archive: the folder.

    Returns:
      The names, in the order of their ids.

    Raises:
      ArchiveError: if the list is missing or empty, or contains a class twice.
    """
    if CLASSES not in archive:
        remedy = "write it: one class per line, in the order of the ids"
        raise archive_lib.error(archive, CLASSES, "is missing", remedy)
    lines = archive_lib.read_lines(archive, CLASSES)
    names = [line.strip() for line in lines if line.strip()]
    if not 2 <= len(names) <= 256 or len(set(names)) != len(names):
        problem = f"lists {', '.join(names) or 'no class'}"
        raise archive_lib.error(archive, CLASSES, problem, "list 2 to 256 classes, each once")
    return names


def find_pairs(archive: archive_lib.Archive) -> dict[str, list[Pair]]:
    """Finds the images of each split, and checks that images and masks correspond.

    Args:
      archive: the folder.

    Returns:
      For each split its pairs, sorted by name.

    Raises:
      ArchiveError: if there is no image, an image has no mask or a mask no image, or two images of
        a split differ only in their suffixes.
    """
    splits: dict[str, list[Pair]] = {}
    masks = set()
    for member in archive:
        folder, *rest = PurePosixPath(member).parts
        if len(rest) != 2 or PurePosixPath(member).name.startswith("."):
            continue
        if folder == "images" and PurePosixPath(member).suffix.lower() in _SUFFIXES:
            splits.setdefault(rest[0], []).append(Pair(rest[0], member))
        elif folder == "masks":
            masks.add(member)
    if not splits:
        remedy = "add images to images/train, images/validation and images/test"
        raise archive_lib.error(archive, "images", "has no image in its folders", remedy)
    for pairs in splits.values():
        pairs.sort()
        for pair, other in zip(pairs, pairs[1:], strict=False):
            if pair.name == other.name:
                problem = f"has the name of {other.image}"
                raise archive_lib.error(archive, pair.image, problem, "rename one")
    expected = {pair.mask: pair for pairs in splits.values() for pair in pairs}
    if missing := sorted(expected.keys() - masks):
        problem = f"has no mask {missing[0]}"
        raise archive_lib.error(archive, expected[missing[0]].image, problem, "add the mask")
    if unused := sorted(masks - expected.keys()):
        remedy = "add the image, or remove the mask"
        raise archive_lib.error(archive, unused[0], "has no image", remedy)
    return splits
