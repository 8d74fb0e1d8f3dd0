"""Synthetic faces: images drawn by a program, with the exact class of every pixel."""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple

import joblib
import tensorflow_datasets as tfds

from tfds_builders import images, sharding

from . import classes, face

_SHARD_SIZE = 256  # about 30 MB


class Key(NamedTuple):
    """Identifies one face."""

    split: str
    number: int


class Builder(sharding.ShardedBuilder):
    """Builds a data set of drawn faces; downloads nothing."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    SPLIT_SIZES: ClassVar[dict[str, int]] = {"train": 2000, "validation": 200, "test": 200}

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (face.SIZE, face.SIZE)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(*shape, 3), encoding_format="png"),
                    "label": tfds.features.LabeledImage(
                        labels=list(classes.CLASSES), shape=(*shape, 1), encoding_format="png"
                    ),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> sharding.Shards:
        del dl_manager  # there is nothing to download
        keys = {
            split: [Key(split, number) for number in range(count)]
            for split, count in self.SPLIT_SIZES.items()
        }
        return sharding.shard_iterators(keys, _record, _SHARD_SIZE, _map_by_processes)


def _map_by_processes(
    build: Callable[[Key], sharding.Record], keys: Sequence[Key]
) -> Iterable[sharding.Record]:
    # Much of the drawing holds the GIL, so threads do not help. joblib's processes, unlike those of
    # `concurrent.futures`, do not import the caller's script again.
    parallel = joblib.Parallel(n_jobs=-1, return_as="generator")
    return parallel(joblib.delayed(build)(key) for key in keys)


def _record(key: Key) -> sharding.Record:
    image, label = face.draw_face(key.split, key.number)
    name = f"{key.split}_{key.number:05d}"
    return name, {
        "image": images.encode_png(image),
        "label": images.encode_png(label),
        "name": name,
    }
