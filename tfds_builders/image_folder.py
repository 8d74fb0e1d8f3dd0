"""A data set of your own: a folder of images and masks, and a list of its classes.

    my_faces/classes.txt               one class per line, in the order of the ids, from 0
    my_faces/images/train/0001.jpg     JPEG, PNG, WebP or BMP
    my_faces/masks/train/0001.png      its mask: 8 bits per pixel, the id of the pixel's class
    my_faces/images/validation/..., my_faces/masks/test/...

`python -m tfds_builders.prepare my_faces --manual_dir PARENT_OF_MY_FACES` builds it. The splits are
the folders in `images`; the records of a split are sorted by name. Without `classes.txt` and
`masks`, the images are unlabelled. `class_list` defines the list of classes, `masks` the forms of
masks.
"""

import os
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from absl import logging

from tfds_builders import archive as archive_lib
from tfds_builders import images, mask_survey, masks, shapes, sharding
from tfds_builders.class_list import CLASSES, ClassList, read_classes
from tfds_builders.pairs import Pair, find_pairs

VERSION = "1.0.0"

_SHARD_SIZE = 64


# Not registered, because each instance has its own name. TFDS has no type annotations.
class ImageFolder(sharding.ShardedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builds a data set from an archive of images and masks, or of unlabelled images."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        name: str,
        archive: archive_lib.Archive,
        data_dir: str | os.PathLike[str],
        framing: shapes.Framing | None = None,
        **more: Any,
    ):
        """Finds the images and masks, and reads the list of classes.

        Args:
          name: name of the data set.
          archive: the folder, or a zip file of it.
          data_dir: the directory of prepared data sets.
          framing: how training frames the images; see `shapes.check_shapes`.
          **more: passed on to `tfds.core.DatasetBuilder`.

        Raises:
          ArchiveError: if images and masks do not correspond, or the list is missing or wrong.
        """
        self.name = name
        self._archive = archive
        self._framing = framing
        self._splits = find_pairs(archive)
        labelled = any(pair.mask for pairs in self._splits.values() for pair in pairs)
        self._classes: ClassList | None = read_classes(archive) if labelled else None
        self._white_is_one = False
        super().__init__(data_dir=data_dir, **more)

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, tfds.features.FeatureConnector] = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "name": tfds.features.Text(),
        }
        if self._classes:
            features["label"] = tfds.features.LabeledImage(
                labels=self._classes.names, shape=(None, None, 1), encoding_format="png"
            )
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Images, and the class of each of their pixels; 255 is any class."
                if self._classes
                else "Images without labels."
            ),
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label") if self._classes else None,
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> sharding.Shards:
        del dl_manager  # there is nothing to download
        self._check()
        return sharding.shard_iterators(self._splits, self._record, _SHARD_SIZE)

    def _check(self) -> None:
        """Reads all records once, so that a faulty one stops the build before it writes."""
        pairs = [pair for pairs in self._splits.values() for pair in pairs]
        sizes = {}
        survey = mask_survey.MaskSurvey(self._classes) if self._classes else None
        # `with` ends the progress line, so that an error starts a new one.
        with tqdm.tqdm(pairs, desc="checking", unit=" records") as progress:
            for pair in progress:
                sizes[pair.image] = self._picture(pair).size
                if pair.mask and survey:
                    survey.add(pair.mask, self._mask(pair.mask, sizes[pair.image]))
        shapes.check_shapes(self._archive, sizes, self._framing)
        if survey:
            self._white_is_one = survey.check(self._archive)
            if absent := survey.absent(self._white_is_one):
                names = archive_lib.abbreviate(absent)
                logging.warning("no mask contains the classes of %s: %s", CLASSES, names)

    def _record(self, pair: Pair) -> sharding.Record:
        picture = self._picture(pair)
        record: dict[str, Any] = {"image": images.encode_picture(picture), "name": pair.name}
        if pair.mask:
            label = self._mask(pair.mask, picture.size).astype(np.uint8)
            if self._white_is_one:
                label = np.minimum(label, 1)
            record["label"] = images.encode_png(label)
        return f"{pair.split}/{pair.name}", record

    def _picture(self, pair: Pair) -> images.Picture:
        picture = images.read_picture(self._archive, pair.image)
        if pair.mask and picture.is_rotated:
            problem = "is stored rotated, with an EXIF orientation that does not apply to its mask"
            raise archive_lib.error(self._archive, pair.image, problem, "save it upright")
        return picture

    def _mask(self, member: str, size: tuple[int, int]) -> np.ndarray:
        assert self._classes
        values = masks.read_values(self._archive, member, self._classes)
        if values.shape != size:
            problem = f"has (height, width) {values.shape}, its image {size}"
            raise archive_lib.error(self._archive, member, problem, "give both the same size")
        return values
