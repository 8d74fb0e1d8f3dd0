"""The loader: a prepared data set as batches of square frames, in an order fixed by the seed.

    record index -> shuffle, repeat -> share of this process -> frame -> batch -> prefetch

The only randomness here is the order; augmentation runs on the device. Nothing here touches JAX, so
worker processes start fast and never claim an accelerator: the caller says which process it is.
"""

import os
import signal
from collections.abc import Mapping
from typing import Any, Protocol

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from etils import epath
from PIL import Image

from jax_stn_icnn.anatomy import DATA_SETS, Anatomy, data_set_class_ids

Batch = dict[str, np.ndarray]
_Picture = tuple[np.ndarray, np.ndarray]  # image (h, w, 3) and labels (h, w), both uint8

# Grain's default, 500 elements, would be 500 batches. An element is a batch here: memory is that of
# the two batches read ahead and the one in use, for the main process or for each worker.
_READ_AHEAD = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)


class Source(Protocol):
    """Records by index: dicts of `image` (h, w, 3), `label` (h, w, 1), both uint8, and `name`.

    Of a source without labels `label` is not asked for.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


def open_source(data_dir: str | os.PathLike[str], dataset: str, split: str) -> Source:
    """Opens a split of a prepared data set.

    Args:
        data_dir: where TFDS keeps its data sets.
        dataset: `helen`, `celebamask_hq`, `synthetic_faces`, or a registered one.
        split: one of the data set's splits, or a part of one, such as `train[:100]`.

    Returns:
        The records; they pickle, and read from disk only when asked.

    Raises:
        FileNotFoundError: the data set is not prepared; the message names the command that does it.
        ValueError: the data set or the split is unknown, its classes are not the expected ones, or
            it is prepared in a format that cannot be read by index.
    """
    _check_dataset(dataset)
    folder = epath.Path(data_dir).expanduser() / dataset
    versions = [
        path
        for path in folder.glob("*")
        if tfds.core.Version.is_valid(path.name) and (path / "dataset_info.json").exists()
    ]
    if not versions:
        raise FileNotFoundError(
            f"{folder} holds no prepared data set; run: "
            f"python -m tfds_builders.prepare {dataset} --data_dir {os.fspath(data_dir)}"
        )
    newest = max(versions, key=lambda path: tfds.core.Version(path.name))
    builder = tfds.builder_from_directory(newest)
    features = builder.info.features
    if features["label"].names != list(DATA_SETS[dataset].classes):
        raise ValueError(
            f"{newest}: feature 'label' has the classes {features['label'].names}, "
            f"but must have {list(DATA_SETS[dataset].classes)}"
        )
    needed = ("image", "label", "name")
    others = {name: tfds.decode.SkipDecoding() for name in features if name not in needed}
    try:
        return builder.as_data_source(split, decoders=others)
    except NotImplementedError as error:
        raise ValueError(
            f"{newest} holds {builder.info.file_format.value}, which cannot be read by index: it "
            f"must hold array_record; run: python -m tfds_builders.prepare {dataset} --data_dir DIR"
        ) from error


def make_loader(
    data_dir: str | os.PathLike[str],
    dataset: str,
    split: str,
    anatomy: Anatomy,
    **options: Any,
) -> grain.IterDataset[Batch]:
    """Batches of a prepared data set: `loader_over` the records of `open_source`.

    Args:
        data_dir: where TFDS keeps its data sets.
        dataset: `helen`, `celebamask_hq`, `synthetic_faces`, or a registered one.
        split: one of the data set's splits, or a part of one, such as `train[:100]`.
        anatomy: whose classes the labels become.
        **options: the keywords of `loader_over`.

    Returns:
        The loader.

    Raises:
        FileNotFoundError: the data set is not prepared; the message names the command that does it.
        ValueError: an argument does not fit.
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
    unlabelled: Source | None = None,
    unlabelled_from: int = 0,
) -> grain.IterDataset[Batch]:
    """Batches of records, as dicts of arrays; B is batch_size / process_count.

    * `frame` uint8 (B, S, S, 3): the picture, centred, black around it.
    * `labels` uint8 (B, S, S): class ids of the anatomy, background around it.
    * `region` float32 (B, 2, 3): theta of the picture's rectangle in the frame.
    * `index` int32 (B,): the record's index in the source, -1 for padding.
    * `position` int32 (B,): the example's place in the global batch.
    * `mask` bool (B,): False for the padding that fills up the last batch of an evaluation.
    * `unlabelled` uint8 (B, S, S, 3) and `unlabelled_region`, as `frame` and `region`: as many
      pictures of the other source, if there is one, in an order of its own.

    Training goes on without end; every record comes once in an epoch, and a batch may straddle two
    epochs. Evaluation goes once through the source in its order. Global batch n holds the same
    records at the same positions whatever the number of processes and of workers.

    An iterator's `get_state()` and `set_state()` (or `grain.checkpoint`) resume exactly, in
    mid-epoch too. Without workers the state is `{"next_index": batches so far}`, good for another
    number of processes as well; with workers it is bound to their number.

    Args:
        source: the records.
        dataset: whose classes and whose way into the frame they follow: HELEN is padded to the
            frame, others, square, are shrunk to it.
        anatomy: whose classes the labels become; what is in none of them is background.
        frame_size: S, the side of the frame.
        batch_size: examples in the global batch.
        seed: of the order in training, in 0 .. 2**32 - 1.
        train: whether to shuffle and repeat.
        num_workers: worker processes; with 0 two threads of this process load. Workers start by
            spawn: the main script needs `if __name__ == "__main__"`.
        process_index: which of the processes this is: `jax.process_index()`.
        process_count: how many there are.
        unlabelled: pictures without labels for training; square, or shrunk or padded as `dataset`
            is.
        unlabelled_from: the first batch that needs them; those before it hold zeroes instead.

    Returns:
        The loader; `iter` of it gives a Grain iterator, whose `close()` ends the workers.

    Raises:
        ValueError: an argument does not fit; while iterating: a record does not fit the frame.
    """
    _check_dataset(dataset)
    _check_shares(batch_size, process_index, process_count)
    positions = np.arange(process_index, batch_size, process_count, dtype=np.int32)
    # Batching comes before `to_iter_dataset`: there Grain divides the work among the workers, so
    # that they take whole batches and their number does not change what is in a batch.
    own = slice(process_index, None, process_count)
    examples = _order(len(source), batch_size, seed, train)[own].map(
        _Framer(source, dataset, anatomy, frame_size)
    )
    if unlabelled is not None:
        order = _order(len(unlabelled), batch_size, (seed + 1) % 2**32, train)[own]
        framer = _PictureFramer(unlabelled, dataset, frame_size)
        joined = _Joined(order.map(framer), unlabelled_from * len(positions), frame_size)
        examples = examples.map_with_index(joined)
    batches = (
        examples.batch(len(positions), drop_remainder=True)
        .map(lambda batch: batch | {"position": positions})
        .to_iter_dataset(_READ_AHEAD)
    )
    if num_workers == 0:
        return batches
    if not flags.FLAGS.is_parsed():
        # Grain reads an absl flag while it starts workers, and fails in programs without absl.
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers=num_workers)
    return batches.mp_prefetch(options, worker_init_fn=_ignore_interrupts)


def _ignore_interrupts(worker_index: int, worker_count: int) -> None:
    """Ctrl+C in a terminal reaches workers too; the main process, which saves first, ends them."""
    del worker_index, worker_count
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _order(count: int, batch_size: int, seed: int, train: bool) -> grain.MapDataset[int]:
    """The indices of the records of all processes; those from `count` on stand for padding."""
    if count == 0:
        raise ValueError("the source holds no record")
    if train:
        return grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    num_batches = -(-count // batch_size)
    return grain.MapDataset.range(num_batches * batch_size)


class _Framer:
    """Turns the index of a record into an example; a class because it travels to the workers."""

    def __init__(self, source: Source, dataset: str, anatomy: Anatomy, frame_size: int):
        self._source = source
        self._frame_size = frame_size
        self._fit = _shrink if DATA_SETS[dataset].shrink else _keep
        classes = data_set_class_ids(anatomy, dataset)
        self._num_classes = len(classes)
        # All 256 values, so that looking up is safe before the check for classes has spoken.
        self._to_classes = np.zeros(256, np.uint8)
        self._to_classes[: self._num_classes] = classes

    def __call__(self, index: int) -> dict[str, Any]:
        size = self._frame_size
        frame = np.zeros((size, size, 3), np.uint8)
        label_map = np.zeros((size, size), np.uint8)
        top = left = 0
        height = width = size
        present = index < len(self._source)
        if present:
            image, label = self._read(index)
            height, width = image.shape[:2]
            top, left = (size - height) // 2, (size - width) // 2
            frame[top : top + height, left : left + width] = image
            label_map[top : top + height, left : left + width] = self._to_classes[label]
        return {
            "frame": frame,
            "labels": label_map,
            "region": region_theta(top, left, height, width, size),
            "index": np.int32(index if present else -1),
            "mask": np.bool_(present),
        }

    def _read(self, index: int) -> _Picture:
        """The picture of a record, no larger than the frame."""
        record = self._source[index]
        image, label = record["image"], record["label"]
        try:
            _check_image(image)
            if label.ndim != 3 or label.shape[2] != 1:
                raise ValueError(
                    f"label has shape {label.shape}, but must have shape (height, width, 1)"
                )
            if label.max() >= self._num_classes:
                raise ValueError(
                    f"label holds class {label.max()}, but must lie in 0..{self._num_classes - 1}"
                )
            return self._fit(image, label[..., 0], self._frame_size)
        except ValueError as error:
            raise ValueError(f"record {index}, {_name(record)!r}: {error}") from error


class _PictureFramer:
    """Turns the index of a record without labels into what goes beside an example."""

    def __init__(self, source: Source, dataset: str, frame_size: int):
        self._source = source
        self._frame_size = frame_size
        self._fit = _shrink if DATA_SETS[dataset].shrink else _keep

    def __call__(self, index: int) -> dict[str, Any]:
        size, record = self._frame_size, self._source[index]
        image = record["image"]
        try:
            _check_image(image)
            image, _ = self._fit(image, np.zeros(image.shape[:2], np.uint8), size)
        except ValueError as error:
            raise ValueError(f"unlabelled record {index}, {_name(record)!r}: {error}") from error
        height, width = image.shape[:2]
        top, left = (size - height) // 2, (size - width) // 2
        frame = np.zeros((size, size, 3), np.uint8)
        frame[top : top + height, left : left + width] = image
        region = region_theta(top, left, height, width, size)
        return {"unlabelled": frame, "unlabelled_region": region}


class _Joined:
    """Puts what another data set holds at its place beside each example, from one of them on."""

    def __init__(self, other: grain.MapDataset, first: int, frame_size: int):
        self._other, self._first, self._frame_size = other, first, frame_size

    def __call__(self, index: int, example: dict[str, Any]) -> dict[str, Any]:
        return example | (self._other[index] if index >= self._first else self._nothing())

    def _nothing(self) -> dict[str, Any]:
        """Of the same shapes, for a stage's program is compiled ahead by any batch's."""
        size = self._frame_size
        frame, region = np.zeros((size, size, 3), np.uint8), np.eye(2, 3, dtype=np.float32)
        return {"unlabelled": frame, "unlabelled_region": region}


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image has shape {image.shape} and type {image.dtype}, "
            "but must have shape (height, width, 3) and type uint8"
        )


def _name(record: Mapping[str, Any]) -> str:
    name = record["name"]
    return name.decode() if isinstance(name, bytes) else name


def region_theta(top: int, left: int, height: int, width: int, frame_size: int) -> np.ndarray:
    """Theta of a picture's rectangle in a square frame.

    The same as `geometry.theta_from_windows`, without JAX.

    Args:
        top: the picture's first row in the frame.
        left: its first column.
        height: its height, in pixels.
        width: its width.
        frame_size: the side of the frame.

    Returns:
        float32 (2, 3), picture -> frame; the identity if the picture fills the frame.
    """
    last = frame_size - 1
    return np.array(
        [
            [(width - 1) / last, 0, (2 * left + width - 1) / last - 1],
            [0, (height - 1) / last, (2 * top + height - 1) / last - 1],
        ],
        np.float32,
    )


def _keep(image: np.ndarray, label: np.ndarray, frame_size: int) -> _Picture:
    """A picture that goes into the frame as it is."""
    if image.shape[:2] != label.shape:
        raise ValueError(f"image and label differ: {_size(image)} and {_size(label)} pixels")
    if max(label.shape) > frame_size:
        raise ValueError(
            f"the picture has {_size(image)} pixels, but the frame only {frame_size} x {frame_size}"
        )
    return image, label


def _shrink(image: np.ndarray, label: np.ndarray, frame_size: int) -> _Picture:
    """A square picture brought to the frame's size: area averages, and the nearest label.

    Image and label may differ in size: CelebAMask-HQ's have 1024 and 512 pixels a side. Neither is
    ever enlarged.
    """
    for what, array in (("image", image), ("label", label)):
        height, width = array.shape[:2]
        if height != width or height < frame_size:
            raise ValueError(
                f"the {what} has {_size(array)} pixels, "
                f"but must be square with at least {frame_size} a side"
            )
    return (
        _resize(image, frame_size, Image.Resampling.BOX),
        _resize(label, frame_size, Image.Resampling.NEAREST),
    )


def _resize(array: np.ndarray, size: int, how: Image.Resampling) -> np.ndarray:
    if array.shape[0] == size:
        return array
    # The gap makes Pillow average whole blocks exactly before it resizes what is left.
    return np.asarray(Image.fromarray(array).resize((size, size), how, reducing_gap=1.0))


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"


def _check_dataset(dataset: str) -> None:
    if dataset not in DATA_SETS:
        raise ValueError(f"dataset is {dataset!r}, but must be one of {', '.join(DATA_SETS)}")


def _check_shares(batch_size: int, process_index: int, process_count: int) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size is {batch_size}, but must be a multiple of process_count, {process_count}"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index is {process_index}, but must be in 0..{process_count - 1}")
