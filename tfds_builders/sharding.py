"""Data sets written shard by shard: bounded memory, progress, identical bytes on every build."""

import errno
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
import tqdm
from tensorflow_datasets.proto import tf_example_pb2

Record = tuple[str, dict[str, Any]]
"""A key and an example."""
Shards = dict[str, list[Callable[[], Iterator[Record]]]]
"""For each split, one function per shard, which returns an iterator over the shard's records."""


class _StableWriter(tfds.core.ExampleWriter):
    """Writes records whose bytes are the same in every process.

    An example is a protocol buffer map. TFDS serializes it in the map's own order, which differs
    between processes.
    """

    def write(self, path, examples):
        """Writes one shard; see the base class. Raises an OSError if the disk is full."""
        try:
            return super().write(path, ((key, _sort_features(data)) for key, data in examples))
        except RuntimeError as error:  # array_record has no other
            if (full := os.strerror(errno.ENOSPC)) in str(error):
                raise OSError(errno.ENOSPC, full, str(path)) from error
            raise


def _sort_features(data: bytes) -> bytes:
    return tf_example_pb2.Example.FromString(data).SerializeToString(deterministic=True)


class ShardedBuilder(tfds.core.ShardBasedBuilder):
    """Base class of this package's builders; every build of a data set writes the same bytes."""

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _StableWriter(self.info.file_format)


def shard_iterators(
    splits: Mapping[str, Sequence[Any]],
    build: Callable[[Any], Record],
    shard_size: int,
    mapping: Callable[..., Iterable[Record]] = map,
) -> Shards:
    """Returns the value for `tfds.core.ShardBasedBuilder._shard_iterators_per_split`.

    TFDS stores the records of one shard in memory, so the shard's size bounds the memory.

    Args:
      splits: for each split, the items that its records are built from, in the order on disk;
        no split is empty.
      build: returns the key and the example of one record, given its item.
      shard_size: the number of records per shard; the last shard of a split may have fewer.
      mapping: applies `build` to the items of a shard in order, as `map` does; an executor's `map`
        builds several records in parallel.

    Returns:
      The shards of each split.
    """
    progress = tqdm.tqdm(total=sum(map(len, splits.values())), unit=" records")

    def records(items: Sequence[Any]) -> Iterator[Record]:
        try:
            for record in mapping(build, items):
                yield record
                progress.update()
        except Exception:
            progress.close()  # ends the progress line, so that the error starts a new one
            raise
        if progress.n == progress.total:
            progress.close()

    return {
        split: [
            functools.partial(records, items[start : start + shard_size])
            for start in range(0, len(items), shard_size)
        ]
        for split, items in splits.items()
    }
