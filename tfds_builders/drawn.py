"""Base class of the builders of data sets that a program draws; they download nothing."""

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple

import joblib
import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import images, sharding

Drawing = tuple[np.ndarray, np.ndarray]
"""An image, uint8 (size, size, 3), and the classes of its pixels, uint8 (size, size)."""

_SHARD_SIZE = 256  # about 30 MB


class Key(NamedTuple):
    """Identifies one picture."""

    split: str
    number: int


# Not registered, because it is abstract. TFDS has no type annotations.
class DrawnBuilder(sharding.ShardedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Builds a data set of drawn pictures, in parallel processes."""

    SPLIT_SIZES: ClassVar[dict[str, int]]
    SIZE: ClassVar[int]  # side of the pictures in pixels
    CLASSES: ClassVar[tuple[str, ...]]

    @staticmethod
    @abstractmethod
    def draw(split: str, index: int) -> Drawing:
        """Returns the picture of an index in a split."""

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self.SIZE, self.SIZE)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(*shape, 3), encoding_format="png"),
                    "label": tfds.features.LabeledImage(
                        labels=list(self.CLASSES), shape=(*shape, 1), encoding_format="png"
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
        build = functools.partial(_record, self.draw)
        return sharding.shard_iterators(keys, build, _SHARD_SIZE, _map_by_processes)


def _record(draw: Callable[[str, int], Drawing], key: Key) -> sharding.Record:
    image, label = draw(key.split, key.number)
    name = f"{key.split}_{key.number:05d}"
    return name, {
        "image": images.encode_png(image),
        "label": images.encode_png(label),
        "name": name,
    }


def _map_by_processes(
    build: Callable[[Key], sharding.Record], keys: Sequence[Key]
) -> Iterable[sharding.Record]:
    # Much of the drawing holds the GIL, so threads do not help. joblib's processes, unlike those of
    # `concurrent.futures`, do not import the caller's script again.
    parallel = joblib.Parallel(n_jobs=-1, return_as="generator")
    return parallel(joblib.delayed(build)(key) for key in keys)
