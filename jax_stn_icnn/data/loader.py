"""The loader: prepared data sets as batches of square frames, in an order determined by a seed.

    record index -> shuffle, repeat -> mix -> share of this process -> example -> batch -> prefetch

Only the order is random; augmentation runs on the device. This module does not import JAX, so that
worker processes start fast and never claim an accelerator; the caller passes its process index.
"""

import os
import signal
from collections.abc import Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from jax_stn_icnn.anatomy import DATA_SETS, Anatomy
from jax_stn_icnn.data.copy_paste import CopyPaste
from jax_stn_icnn.data.examples import Examples, UnlabelledExamples, empty_frame
from jax_stn_icnn.data.order import further_seed, make_order, oversample
from jax_stn_icnn.data.prepared import open_source
from jax_stn_icnn.data.rare import RareClasses
from jax_stn_icnn.data.source import Source
from jax_stn_icnn.label_sets import make_label_sets

Batch = dict[str, np.ndarray]
# An element is a batch here, of which Grain would prefetch 500 by default. Memory is that of two
# prefetched batches and the one in use, in the main process or in each worker.
_READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)


# Length of an endless stream of examples, for Grain.
_ENDLESS = 2**62


class Mixture(NamedTuple):
    """Examples of further data sets in the training batches.

    Attributes:
        examples: The examples of each data set.
        weights: Weight of each, relative to the main data set, which has 1.
        batches: Ranges of batch numbers, first and end, that are mixed; others contain the main
            data set alone.
    """

    examples: Sequence[Examples]
    weights: Sequence[float]
    batches: Sequence[tuple[int, int]]


def make_loader(
    data_dir: str | os.PathLike[str],
    dataset: str,
    split: str,
    anatomy: Anatomy,
    **options: Any,
) -> grain.IterDataset[Batch]:
    """Returns batches of a prepared data set: `loader_over` the records of `open_source`.

    Args:
        data_dir: Directory of TFDS's prepared data sets.
        dataset: Name of a registered data set whose images are resized or padded.
        split: One of its splits, or a slice of one, such as `train[:100]`.
        anatomy: The classes of the returned labels.
        **options: Keyword arguments of `loader_over`.

    Returns:
        The loader.

    Raises:
        FileNotFoundError: The data set is not prepared; the message contains the command that
            prepares it.
        ValueError: An argument is impossible.
    """
    return loader_over(open_source(data_dir, dataset, split), dataset, anatomy, **options)


def loader_over(
    source: Source,
    dataset: str,
    anatomy: Anatomy,
    *,
    frame_size: int,
    batch_size: int,
    seed: int,
    train: bool,
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset[Batch]:
    """Returns batches of a source's records: `make_batches` of its examples.

    Args:
        source: The records.
        dataset: Name of the registered data set that determines the classes of its labels, and
            whether its images are padded to the frame or, square, downsampled to it.
        anatomy: The classes of the returned labels; a class that it lacks becomes background.
        frame_size: S, the side of the frame.
        batch_size: As for `make_batches`, like the following.
        seed: Seed of the training order.
        train: Whether records are shuffled and repeated.
        num_workers: Number of worker processes.
        process_index: Index of this process.
        process_count: Number of processes.

    Returns:
        The loader.

    Raises:
        ValueError: An argument is impossible. While iterating: a record does not fit the frame.
    """
    if dataset not in DATA_SETS:
        raise ValueError(f"dataset is {dataset!r}, but must be one of {', '.join(DATA_SETS)}")
    data_set = DATA_SETS[dataset]
    label_sets = make_label_sets(anatomy, [data_set])
    if missing := [
        c for c in label_sets.absent if not label_sets.members[anatomy.num_classes :, c].any()
    ]:
        names = ", ".join(anatomy.classes[c] for c in missing)
        raise ValueError(
            f"data set {dataset!r} does not label {names}, which are classes of the anatomy "
            f"{anatomy.name!r}; it labels {', '.join(data_set.classes.values())}"
        )
    return make_batches(
        Examples(source, data_set, anatomy, label_sets, frame_size),
        batch_size=batch_size,
        seed=seed,
        train=train,
        num_workers=num_workers,
        process_index=process_index,
        process_count=process_count,
    )


def make_batches(
    examples: Examples,
    *,
    batch_size: int,
    seed: int,
    train: bool,
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    rare: RareClasses | None = None,
    mixture: Mixture | None = None,
    unlabelled: UnlabelledExamples | None = None,
    unlabelled_from: int = 0,
) -> grain.IterDataset[Batch]:
    """Returns batches of examples, dicts of arrays; B is batch_size / process_count.

    * `frame` uint8 (B, S, S, 3): the picture, centred, with black padding.
    * `labels` uint8 (B, S, S): labels, as the examples' `LabelSets` define them; class ids if every
      label of the data set is one class. Padding is background, or any class.
    * `region` float32 (B, 2, 3): theta of the picture's rectangle in the frame.
    * `index` int32 (B,): the record's index in the source, -1 for padding.
    * `position` int32 (B,): the example's position in the global batch.
    * `mask` bool (B,): False for the examples that fill up the last batch of an evaluation.
    * `has_parts` bool (B,): whether the example's data set labels every class of the parts.
    * `unlabelled` uint8 (B, S, S, 3) and `unlabelled_region`, as `frame` and `region`: as many
      unlabelled images, if there are any, in an order of their own.

    Training batches never end; an epoch contains every record once, and a batch may contain the end
    of one epoch and the start of the next. Evaluation batches contain every record once, in the
    source's order. Global batch n is the same for any number of processes and of workers.

    An iterator's `get_state()` and `set_state()` (or `grain.checkpoint`) resume exactly, also
    within an epoch. Without workers the state is `{"next_index": number of batches}`, and is valid
    for any number of processes; with workers it is valid for their number only.

    Args:
        examples: The examples of the main data set.
        batch_size: Number of examples in the global batch.
        seed: Seed of the training order, in 0 .. 2**32 - 1.
        train: Whether records are shuffled and repeated.
        num_workers: Number of worker processes; with 0, two threads of this process load. Workers
            are spawned: the main script needs `if __name__ == "__main__"`.
        process_index: Index of this process: `jax.process_index()`.
        process_count: Number of processes.
        rare: Rare classes of the examples, for training; records of an epoch may then repeat.
        mixture: Further data sets, for training. Each is shuffled and repeated by itself, and Grain
            takes examples of all in fixed proportions, in a fixed order.
        unlabelled: Images without labels, for training.
        unlabelled_from: Number of the first batch that needs them; earlier batches contain zeros.

    Returns:
        The loader. `iter` of it returns a Grain iterator, whose `close()` ends the workers.

    Raises:
        ValueError: An argument is impossible. While iterating: a record does not fit the frame.
    """
    _check_shares(batch_size, process_index, process_count)
    positions = np.arange(process_index, batch_size, process_count, dtype=np.int32)
    own = slice(process_index, None, process_count)
    order = make_order(len(examples), batch_size, seed, train)
    if rare is not None and rare.share:
        order = oversample(order, rare, seed)
    stream = order.map(examples.__getitem__)
    if rare is not None and rare.paste:
        stream = stream.map_with_index(CopyPaste(examples, rare, seed))
    if mixture is not None:
        mixed = [stream] + [
            make_order(len(further), batch_size, further_seed(seed, 2 + i), train).map(
                further.__getitem__
            )
            for i, further in enumerate(mixture.examples)
        ]
        mix = grain.MapDataset.mix(mixed, [1.0, *mixture.weights])
        stream = grain.MapDataset.range(_ENDLESS).map(
            _Switch(stream, mix, mixture.batches, batch_size)
        )
    stream = stream[own]
    if unlabelled is not None:
        order = make_order(len(unlabelled), batch_size, further_seed(seed, 1), train)[own]
        images = order.map(unlabelled.__getitem__)
        first = unlabelled_from * len(positions)
        stream = stream.map_with_index(_Merge(images, first))
    # Grain divides the elements of `to_iter_dataset` among the workers: whole batches, so that the
    # number of workers does not change what is in a batch.
    batches = (
        stream.batch(len(positions), drop_remainder=True)
        .map(lambda batch: batch | {"position": positions})
        .to_iter_dataset(_READ_OPTIONS)
    )
    if num_workers == 0:
        return batches
    if not flags.FLAGS.is_parsed():
        # Grain reads an absl flag when it starts workers, which fails in programs without absl.
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=num_workers)
    return batches.mp_prefetch(options, worker_init_fn=_ignore_interrupts)


def _ignore_interrupts(worker_index: int, worker_count: int) -> None:
    """Ignores Ctrl+C, which a terminal sends to workers too; the main process ends them."""
    del worker_index, worker_count
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Switch:
    """Returns an example of the mixture in some batches, and of the main data set in others."""

    def __init__(
        self,
        main: grain.MapDataset,
        mix: grain.MapDataset,
        batches: Sequence[tuple[int, int]],
        batch_size: int,
    ):
        self._main, self._mix, self._batches, self._size = main, mix, batches, batch_size

    def __call__(self, index: int) -> dict[str, Any]:
        batch = index // self._size
        mixed = any(first <= batch < end for first, end in self._batches)
        return (self._mix if mixed else self._main)[index]


class _Merge:
    """Adds the unlabelled example of the same index to each example, from an index on."""

    def __init__(self, unlabelled: grain.MapDataset, first: int):
        self._unlabelled, self._first = unlabelled, first

    def __call__(self, index: int, example: dict[str, Any]) -> dict[str, Any]:
        if index >= self._first:
            return example | self._unlabelled[index]
        # Zeros of the same shapes, since any batch may compile a later stage's program.
        frame, region = empty_frame(len(example["frame"]))
        return example | {"unlabelled": frame, "unlabelled_region": region}


def _check_shares(batch_size: int, process_index: int, process_count: int) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size is {batch_size}, but must be a multiple of process_count, {process_count}"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index is {process_index}, but must be in 0..{process_count - 1}")
