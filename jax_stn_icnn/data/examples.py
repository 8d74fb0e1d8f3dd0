"""Examples: the records of a source as square frames with labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jax_stn_icnn.anatomy import Anatomy, DataSet
from jax_stn_icnn.data.source import Source
from jax_stn_icnn.label_sets import IGNORE_ID, LabelSets, label_table, labels_parts


class Examples:
    """Examples by index; an index of at least `len` gives padding.

    An example is a dict of `frame` uint8 (S, S, 3), `labels` uint8 (S, S), `region` float32 (2, 3),
    `index` int32, `mask` bool and `has_parts` bool, as `loader.loader_over` documents them.

    Attributes:
        anatomy: The classes.
        label_sets: The labels of the examples.
    """

    def __init__(
        self,
        source: Source,
        data_set: DataSet,
        anatomy: Anatomy,
        label_sets: LabelSets,
        frame_size: int,
    ):
        """Stores the arguments.

        Args:
            source: The records; those of framing `face` are framed already.
            data_set: How they map to frames and classes.
            anatomy: The classes.
            label_sets: The labels of the examples.
            frame_size: S, the side of the frame.
        """
        self.anatomy, self.label_sets = anatomy, label_sets
        self._source, self._frame_size = source, frame_size
        self._fit = _check_size if data_set.framing == "pad" else _downsample
        self._table = label_table(anatomy, data_set, label_sets)
        self._num_ids = len(data_set.classes)
        self._ignore = data_set.has_unknown_pixels
        # Nobody knows what is outside a photo; HELEN's papers count it as background.
        self._padding = self._table[IGNORE_ID] if self._ignore else 0
        self._has_parts = np.bool_(labels_parts(anatomy, data_set))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns an example.

        Raises:
            ValueError: The record does not fit the frame, or has an unknown label.
        """
        size = self._frame_size
        if index >= len(self):
            frame, region = empty_frame(size)
            label_map = np.zeros((size, size), np.uint8)
            index = -1
        else:
            image, label = self._read(index)
            frame, region = _pad(image, size)
            label_map, _ = _pad(self._table[label], size, self._padding)
        return {
            "frame": frame,
            "labels": label_map,
            "region": region,
            "index": np.int32(index),
            "mask": np.bool_(index >= 0),
            "has_parts": self._has_parts,
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
            self._check_ids(label)
            return self._fit(image, label[..., 0], self._frame_size)
        except ValueError as error:
            raise ValueError(f"record {index}, {_name(record)!r}: {error}") from error

    def _check_ids(self, label: np.ndarray) -> None:
        known = label[label != IGNORE_ID] if self._ignore else label
        if known.size and known.max() >= self._num_ids:
            also = f", or be {IGNORE_ID}" if self._ignore else ""
            raise ValueError(
                f"label has class {known.max()}, but must lie in 0..{self._num_ids - 1}{also}"
            )


class UnlabelledExamples:
    """Frames and regions of unlabelled records, `unlabelled` and `unlabelled_region`, by index."""

    def __init__(self, sources: Sequence[tuple[Source, str]], frame_size: int):
        """Stores the arguments.

        Args:
            sources: Records, and their framing; those of framing `face` are framed already.
            frame_size: Side of the frame.
        """
        self._sources, self._frame_size = sources, frame_size

    def __len__(self) -> int:
        return sum(len(source) for source, _ in self._sources)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a frame and its region.

        Raises:
            ValueError: The record does not fit the frame.
        """
        source, framing, place = self._find(index)
        record = source[place]
        fit = _check_size if framing == "pad" else _downsample
        image = record["image"]
        try:
            _check_image(image)
            image, _ = fit(image, np.zeros(image.shape[:2], np.uint8), self._frame_size)
        except ValueError as error:
            raise ValueError(f"unlabelled record {index}, {_name(record)!r}: {error}") from error
        frame, region = _pad(image, self._frame_size)
        return {"unlabelled": frame, "unlabelled_region": region}

    def _find(self, index: int) -> tuple[Source, str, int]:
        """Returns the source of an index, its framing, and the index in it."""
        place = index
        for source, framing in self._sources:
            if place < len(source):
                return source, framing, place
            place -= len(source)
        raise IndexError(f"there is no unlabelled record {index}")


def empty_frame(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a black frame, and the region of a picture that fills it."""
    return np.zeros((size, size, 3), np.uint8), np.eye(2, 3, dtype=np.float32)


def _pad(array: np.ndarray, size: int, padding: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image or its labels in the middle of a frame of one value, and its region."""
    height, width = array.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    frame = np.full((size, size, *array.shape[2:]), padding, np.uint8)
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
