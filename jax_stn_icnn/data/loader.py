"""The loader: a prepared data set as batches of square frames, in an order determined by a seed.

    record index -> shuffle, repeat -> share of this process -> frame -> batch -> prefetch

Only the order is random; augmentation runs on the device. This module does not import JAX, so that
worker processes start fast and never claim an accelerator; the caller passes its process index.
"""

import os
import signal
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from etils import epath
from PIL import Image

from jax_stn_icnn.anatomy import DATA_SETS, Anatomy, data_set_class_ids
from jax_stn_icnn.data.source import Source

Batch = dict[str, np.ndarray]
# An element is a batch here, of which Grain would prefetch 500 by default. Memory is that of two
# prefetched batches and the one in use, in the main process or in each worker.
_READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)


def open_source(data_dir: str | os.PathLike[str], dataset: str, split: str) -> Source:
    """Opens a split of a prepared data set.

    Args:
        data_dir: Directory of TFDS's prepared data sets.
        dataset: `helen`, `celebamask_hq`, `synthetic_faces`, or a registered data set.
        split: One of its splits, or a slice of one, such as `train[:100]`.

    Returns:
        The records; they pickle, and are read from disk on access.

    Raises:
        FileNotFoundError: The data set is not prepared; the message contains the command that
            prepares it.
        ValueError: The data set or the split is unknown, its classes differ from the registered
            ones, or it is prepared in a format without random access.
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
            f"{folder} contains no prepared data set; run: "
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
            f"{newest} holds {builder.info.file_format.value}, which has no random access: it "
            f"must hold array_record; run: python -m tfds_builders.prepare {dataset} --data_dir DIR"
        ) from error


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
        dataset: `helen`, `celebamask_hq`, `synthetic_faces`, or a registered data set.
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
    unlabelled: Source | None = None,
    unlabelled_from: int = 0,
) -> grain.IterDataset[Batch]:
    """Returns batches of records, dicts of arrays; B is batch_size / process_count.

    * `frame` uint8 (B, S, S, 3): the picture, centred, with black padding.
    * `labels` uint8 (B, S, S): class ids of the anatomy, with background as padding.
    * `region` float32 (B, 2, 3): theta of the picture's rectangle in the frame.
    * `index` int32 (B,): the record's index in the source, -1 for padding.
    * `position` int32 (B,): the example's position in the global batch.
    * `mask` bool (B,): False for the examples that fill up the last batch of an evaluation.
    * `unlabelled` uint8 (B, S, S, 3) and `unlabelled_region`, as `frame` and `region`: as many
      images of the unlabelled source, if there is one, in an order of their own.

    Training batches never end; an epoch contains every record once, and a batch may contain the end
    of one epoch and the start of the next. Evaluation batches contain every record once, in the
    source's order. Global batch n is the same for any number of processes and of workers.

    An iterator's `get_state()` and `set_state()` (or `grain.checkpoint`) resume exactly, also
    within an epoch. Without workers the state is `{"next_index": number of batches}`, and is valid
    for any number of processes; with workers it is valid for their number only.

    Args:
        source: The records.
        dataset: Name of the data set, which determines the classes of its labels, and whether its
            images are padded to the frame (HELEN) or, square, downsampled to it (others).
        anatomy: The classes of the returned labels; a class that it lacks becomes background.
        frame_size: S, the side of the frame.
        batch_size: Number of examples in the global batch.
        seed: Seed of the training order, in 0 .. 2**32 - 1.
        train: Whether records are shuffled and repeated.
        num_workers: Number of worker processes; with 0, two threads of this process load. Workers
            are spawned: the main script needs `if __name__ == "__main__"`.
        process_index: Index of this process: `jax.process_index()`.
        process_count: Number of processes.
        unlabelled: Images without labels, for training; they are padded or downsampled as those of
            `dataset`.
        unlabelled_from: Number of the first batch that needs them; earlier batches contain zeros.

    Returns:
        The loader. `iter` of it returns a Grain iterator, whose `close()` ends the workers.

    Raises:
        ValueError: An argument is impossible. While iterating: a record does not fit the frame.
    """
    _check_dataset(dataset)
    _check_shares(batch_size, process_index, process_count)
    positions = np.arange(process_index, batch_size, process_count, dtype=np.int32)
    own = slice(process_index, None, process_count)
    examples = _order(len(source), batch_size, seed, train)[own].map(
        _Example(source, dataset, anatomy, frame_size)
    )
    if unlabelled is not None:
        order = _order(len(unlabelled), batch_size, (seed + 1) % 2**32, train)[own]
        images = order.map(_UnlabelledExample(unlabelled, dataset, frame_size))
        first = unlabelled_from * len(positions)
        examples = examples.map_with_index(_Merge(images, first, frame_size))
    # Grain divides the elements of `to_iter_dataset` among the workers: whole batches, so that the
    # number of workers does not change what is in a batch.
    batches = (
        examples.batch(len(positions), drop_remainder=True)
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


def _order(count: int, batch_size: int, seed: int, train: bool) -> grain.MapDataset[int]:
    """Returns the indices of the records of all processes; those from `count` on are padding."""
    if count == 0:
        raise ValueError("the source has no records")
    if train:
        return grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    num_batches = -(-count // batch_size)
    return grain.MapDataset.range(num_batches * batch_size)


class _Example:
    """Maps the index of a record to an example; a class, since workers receive it pickled."""

    def __init__(self, source: Source, dataset: str, anatomy: Anatomy, frame_size: int):
        self._source, self._frame_size = source, frame_size
        self._fit = _downsample if DATA_SETS[dataset].shrink else _check_size
        class_ids = data_set_class_ids(anatomy, dataset)
        self._num_classes = len(class_ids)
        self._class_ids = np.array(class_ids, np.uint8)

    def __call__(self, index: int) -> dict[str, Any]:
        size = self._frame_size
        if index >= len(self._source):
            frame, region = _empty_frame(size)
            label_map = np.zeros((size, size), np.uint8)
            index = -1
        else:
            image, label = self._read(index)
            frame, region = _pad(image, size)
            label_map, _ = _pad(self._class_ids[label], size)
        return {
            "frame": frame,
            "labels": label_map,
            "region": region,
            "index": np.int32(index),
            "mask": np.bool_(index >= 0),
        }

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a record's image (h, w, 3) and label (h, w), no larger than the frame."""
        record = self._source[index]
        image, label = record["image"], record["label"]
        try:
            _check_image(image)
            if label.ndim != 3 or label.shape[2] != 1:
                raise ValueError(
                    f"label has shape {label.shape}, but must have shape (height, width, 1)"
                )
            if label.max() >= self._num_classes:
                last = self._num_classes - 1
                raise ValueError(f"label has class {label.max()}, but must lie in 0..{last}")
            return self._fit(image, label[..., 0], self._frame_size)
        except ValueError as error:
            raise ValueError(f"record {index}, {_name(record)!r}: {error}") from error


class _UnlabelledExample:
    """Maps the index of an unlabelled record to its frame and region."""

    def __init__(self, source: Source, dataset: str, frame_size: int):
        self._source, self._frame_size = source, frame_size
        self._fit = _downsample if DATA_SETS[dataset].shrink else _check_size

    def __call__(self, index: int) -> dict[str, Any]:
        record = self._source[index]
        image = record["image"]
        try:
            _check_image(image)
            image, _ = self._fit(image, np.zeros(image.shape[:2], np.uint8), self._frame_size)
        except ValueError as error:
            raise ValueError(f"unlabelled record {index}, {_name(record)!r}: {error}") from error
        frame, region = _pad(image, self._frame_size)
        return {"unlabelled": frame, "unlabelled_region": region}


class _Merge:
    """Adds the unlabelled example of the same index to each example, from an index on."""

    def __init__(self, unlabelled: grain.MapDataset, first: int, frame_size: int):
        self._unlabelled, self._first, self._frame_size = unlabelled, first, frame_size

    def __call__(self, index: int, example: dict[str, Any]) -> dict[str, Any]:
        if index >= self._first:
            return example | self._unlabelled[index]
        # Zeros of the same shapes, since any batch may compile a later stage's program.
        frame, region = _empty_frame(self._frame_size)
        return example | {"unlabelled": frame, "unlabelled_region": region}


def _empty_frame(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a black frame, and the region of a picture that fills it."""
    return np.zeros((size, size, 3), np.uint8), np.eye(2, 3, dtype=np.float32)


def _pad(array: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image or its labels in the middle of a frame of zeros, and its region."""
    height, width = array.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    frame = np.zeros((size, size, *array.shape[2:]), np.uint8)
    frame[top : top + height, left : left + width] = array
    return frame, region_theta(top, left, height, width, size)


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
    """Returns the theta of a picture's rectangle in a square frame.

    The same as `geometry.theta_from_windows`, without JAX.

    Args:
        top: The picture's first row in the frame.
        left: Its first column.
        height: Its height in pixels.
        width: Its width in pixels.
        frame_size: Side of the frame.

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


def _check_size(
    image: np.ndarray, label: np.ndarray, frame_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns image and label unchanged, if they fit the frame."""
    if image.shape[:2] != label.shape:
        raise ValueError(f"image and label differ: {_size(image)} and {_size(label)} pixels")
    if max(label.shape) > frame_size:
        raise ValueError(
            f"the image has {_size(image)} pixels, but the frame only {frame_size} x {frame_size}"
        )
    return image, label


def _downsample(
    image: np.ndarray, label: np.ndarray, frame_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a square image and its label at the frame's size: area averages, nearest label.

    Image and label may differ in size: CelebAMask-HQ's have 1024 and 512 pixels a side. Neither is
    ever upsampled.
    """
    for name, array in (("image", image), ("label", label)):
        height, width = array.shape[:2]
        if height != width or height < frame_size:
            raise ValueError(
                f"the {name} has {_size(array)} pixels, "
                f"but must be square with at least {frame_size} a side"
            )
    return (
        _resize(image, frame_size, Image.Resampling.BOX),
        _resize(label, frame_size, Image.Resampling.NEAREST),
    )


def _resize(array: np.ndarray, size: int, method: Image.Resampling) -> np.ndarray:
    if array.shape[0] == size:
        return array
    # With `reducing_gap`, Pillow averages whole blocks exactly before it resizes.
    return np.asarray(Image.fromarray(array).resize((size, size), method, reducing_gap=1.0))


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
