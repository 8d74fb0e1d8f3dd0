"""Records framed like the photos of the parser: by the detected face that the labels describe.

Wide and far frames also show hair, neck, shoulders and clothes; see `wide_frame`.

This module does not import JAX; see `loader`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jax_stn_icnn.data import stored
from jax_stn_icnn.data.source import Source
from jax_stn_icnn.faces import detectors, framing, resample
from jax_stn_icnn.wide_frame import WIDE_DOWN, WIDE_SIDE

IGNORE = 255  # the label of pixels outside the photo, which no loss and no score counts

# A change of what `find_frame` returns needs a new number, so that stored frames are not used.
_RULE = 1
_NOT_HEAD = {"background", "cloth", "ignore"}
# In 387 of 837 photos of Figaro-1k, where only hair is labelled, a face is detected. In 9 it
# belongs to another person, who has no label, and its overlap is at most 0.015; otherwise it is at
# least 0.034, except for one lowered head (0.008).
_LEAST_OVERLAP = 0.02
_OVERLAP_SIZE = 64  # pixels a side at which the overlap is computed


class FramedSource:
    """Random-access source of the records of another one, each framed by its face.

    Frames are computed on construction, or read from a file that an earlier construction wrote.
    Indices 0 .. len - 1 give dicts of `image`, uint8 (frame_size, frame_size, 3), black outside the
    photo; `label`, uint8 (frame_size, frame_size, 1), if the record has one, `IGNORE` outside the
    photo; and `name`, a str.
    """

    def __init__(
        self,
        source: Source,
        frame_size: int,
        *,
        label_names: Sequence[str] | None,
        store: Path | None,
        name: str,
        extensions: int = 0,
    ):
        """Computes or reads the frame of each record.

        Args:
            source: the records, in photos of any size.
            frame_size: side of the frames.
            label_names: the class of each label id, or classes joined by "+"; None for records
                without labels.
            store: directory of the file of frames, which serves every frame size, wide and
                far frames included; None for no file.
            name: name of the records in messages, such as `figaro/train`.
            extensions: 1 for the wide frames of the faces, 2 for their far frames.

        Raises:
            ValueError: a record's image or label has an invalid shape; the message names it.
        """
        self._source, self._frame_size, self._extensions = source, frame_size, extensions
        self._label_names = None if label_names is None else list(label_names)
        self._name = name
        self._frames = self._load_or_compute(store)

    def __len__(self) -> int:
        """The number of records."""
        return len(self._source)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Returns a framed record."""
        image, label, name = self._read(index)
        size = self._frame_size, self._frame_size
        matrix = framing.resize_frame(self._frames[index], self._frame_size)
        for _ in range(self._extensions):
            matrix = framing.wide_frame(matrix, self._frame_size)
        record = {"image": resample.warp(image, matrix, size), "name": name}
        if label is not None:
            record["label"] = resample.sample_nearest(label, matrix, size, IGNORE)[..., None]
        return record

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray | None, str]:
        """Returns image (h, w, 3), label (h, w), if there is one, and name of a source's record."""
        record = self._source[index]
        image, label, name = record["image"], record.get("label"), record["name"]
        name = name.decode() if isinstance(name, bytes) else name
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"{self._name}: record {index}, {name!r}: image has shape {image.shape}, but must "
                "have shape (height, width, 3)"
            )
        if label is None or self._label_names is None:
            return image, None, name
        if label.shape != (*image.shape[:2], 1):
            raise ValueError(
                f"{self._name}: record {index}, {name!r}: label has shape {label.shape}, but must "
                f"have shape {(*image.shape[:2], 1)}, since the image has {image.shape}"
            )
        return image, label[..., 0], name

    def _load_or_compute(self, store: Path | None) -> np.ndarray:
        """Returns the frame of each record at a size of 1, (records, 2, 3)."""
        path = None if store is None else store / f"frames_{self._digest()}.json"
        return stored.load_or_compute(
            path, (len(self), 2, 3), self._compute, "faces are detected again"
        )

    def _digest(self) -> str:
        """Returns a digest of what frames depend on; names and sizes stand for the photos."""
        read = [self._read(index) for index in stored.sample_indices(len(self))]
        samples = [(name, *image.shape[:2]) for image, _, name in read]
        key = [_RULE, detectors.YUNET_SHA256, len(self), self._label_names, samples]
        return stored.digest(key)

    def _compute(self) -> np.ndarray:
        """Detects the faces of all records."""
        detector = detectors.make_single_view_detector()
        frames = np.empty((len(self), 2, 3))
        indices = tqdm(
            range(len(self)), desc=f"{self._name}: detecting faces", unit="photo", leave=False
        )
        for index in indices:
            image, label, _ = self._read(index)
            head = hair = None
            if label is not None and self._label_names is not None:
                head = _select(label, [_is_head(names) for names in self._label_names])
                hair = _select(label, [names == "hair" for names in self._label_names])
            frames[index] = find_frame(image, detector, head, hair)
        return frames


class ExtendedSource:
    """Random-access source of square, aligned records in the middle of their wide or far frames.

    Nobody knows what surrounds the images: it is their mirror image, labelled `IGNORE`.
    """

    def __init__(self, source: Source, extensions: int):
        """Stores the records.

        Args:
            source: square images in which all faces have about the same place.
            extensions: 1 for wide frames, 2 for far frames.
        """
        self._source, self._extensions = source, extensions

    def __len__(self) -> int:
        """The number of records."""
        return len(self._source)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Returns a record whose image and label are `WIDE_SIDE` times as large, once or twice."""
        record = dict(self._source[index])
        for _ in range(self._extensions):
            record["image"] = _surround(record["image"], "symmetric")
            record["label"] = _surround(record["label"], "constant", constant_values=IGNORE)
        return record


def _surround(array: np.ndarray, mode: Any, **options: Any) -> np.ndarray:
    """Pads a square array (side, side, channels) to its wide frame."""
    side = len(array)
    margin = (WIDE_SIDE - 1) / 2 * side
    left, top = round(margin), round(margin - WIDE_DOWN * side)
    total = round(WIDE_SIDE * side) - side
    return np.pad(array, ((top, total - top), (left, total - left), (0, 0)), mode, **options)


def find_frame(
    photo: np.ndarray,
    detector: detectors.Detector,
    head: np.ndarray | None = None,
    hair: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the frame of a photo's face.

    Of several faces the one is framed whose frame overlaps best with the labelled head, or the
    largest if no head is labelled. Without such a face, the frame is that of the hair, or if there
    is none, the full photo.

    Args:
        photo: RGB, uint8 (height, width, 3).
        detector: a face detector.
        head: which pixels are labelled as parts of a head, uint8 (height, width), 0 or 1.
        hair: which pixels are labelled as hair, like `head`.

    Returns:
        Matrix frame -> photo of a frame with a side of 1, see `faces.framing.resize_frame`.
    """
    _, frames = framing.frames_from_detections(detector(photo), photo.shape, 1)
    if head is not None and head.any():
        overlaps = [_overlap(frame, head) for frame in frames]
        if max(overlaps, default=0) >= _LEAST_OVERLAP:
            return frames[int(np.argmax(overlaps))]
    elif frames:
        return max(frames, key=_area)
    if hair is not None and hair.any():
        rows, columns = np.flatnonzero(hair.any(axis=1)), np.flatnonzero(hair.any(axis=0))
        box = np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float64)
        return framing.frame_from_hair(box, 1)
    return framing.frame_from_photo(photo.shape[:2], 1)


def _is_head(names: str) -> bool:
    """Whether all classes of a label, joined by "+", are parts of a head."""
    return not _NOT_HEAD & set(names.split("+"))


def _select(label: np.ndarray, selected: Sequence[bool]) -> np.ndarray:
    """Returns which pixels have a selected id, uint8 0 or 1; ids beyond the classes are ignored."""
    table = np.zeros(256, np.uint8)
    table[: len(selected)] = selected
    return table[label]


def _overlap(frame: np.ndarray, head: np.ndarray) -> float:
    """Returns the intersection over union of a frame of size 1 and the labelled head."""
    size = _OVERLAP_SIZE, _OVERLAP_SIZE
    inside = resample.sample_nearest(head, framing.resize_frame(frame, _OVERLAP_SIZE), size)
    intersection = inside.mean() * _area(frame)
    return float(intersection / (_area(frame) + head.sum() - intersection))


def _area(frame: np.ndarray) -> float:
    """Returns the area of a frame of size 1 in pixels of the photo."""
    return float(np.linalg.det(frame[:, :2]))
