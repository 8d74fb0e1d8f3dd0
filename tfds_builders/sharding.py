"""Data sets written shard by shard: bounded memory, progress, the same bytes on every build."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
import tqdm
from tensorflow_datasets.proto import tf_example_pb2

Record = tuple[str, dict[str, Any]]
"""A key and an example."""
Shards = dict[str, list[Callable[[], Iterator[Record]]]]
"""For each split, one function a shard, which returns an iterator over its records."""


class _StableWriter(tfds.core.ExampleWriter):
    """Writes records whose bytes do not depend on the process.

    An example is a protocol buffer map, which TFDS serializes in the map's own order: it differs
    from process to process.
    """

    def write(self, path, examples):
        """Writes one shard; see the base class."""
        return super().write(path, ((key, _sort_features(data)) for key, data in examples))


def _sort_features(data: bytes) -> bytes:
    return tf_example_pb2.Example.FromString(data).SerializeToString(deterministic=True)


class ShardedBuilder(tfds.core.ShardBasedBuilder):
    """The base of this package's builders: every build of a data set gives the same bytes."""

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _StableWriter(self.info.file_format)


def shard_iterators(
    splits: Mapping[str, Sequence[Any]],
    build: Callable[[Any], Record],
    shard_size: int,
    mapping: Callable[..., Iterable[Record]] = map,
) -> Shards:
    """Returns what `tfds.core.ShardBasedBuilder._shard_iterators_per_split` has to return.

    TFDS holds the records of one shard in memory, so the shard's size bounds the memory.

    Args:
      splits: for each split, what its records are built from, in the order on disk; none empty.
      build: makes the key and the example of one record.
      shard_size: the number of records in each shard but the last of a split.
      mapping: applies `build` to the records of a shard, in order, as `map` does; an executor's
        `map` builds several at once.

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
            progress.close()  # ends its line, so that the error stands on its own
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
