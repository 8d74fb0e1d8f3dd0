"""Records in tanh-warped pictures (`tanh_warp`), for the training of a coarse network."""

from typing import Any

import numpy as np

from experiments import tanh_warp
from jax_stn_icnn.anatomy import DataSet
from jax_stn_icnn.data.framing import IGNORE, FramedSource
from jax_stn_icnn.data.opening import DataDir
from jax_stn_icnn.data.prepared import data_set_folder, open_source
from jax_stn_icnn.data.source import Source
from jax_stn_icnn.faces import framing


class WarpedFaces(FramedSource):
    """Records in pictures warped by the frames of their faces."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a warped record."""
        image, label, name = self._read(index)
        assert label is not None
        return _warped(image, label, self._frames[index], name)


class WarpedAligned:
    """Aligned records surrounded by their mirror images, in warped pictures."""

    def __init__(self, source: Source):
        """Stores the records, square images in which all faces have about the same place."""
        self._source = source

    def __len__(self) -> int:
        """The number of records."""
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a warped record."""
        record = self._source[index]
        return _warped(*surround(record["image"], record["label"]), record["name"])


def _warped(image: np.ndarray, label: np.ndarray, frame: np.ndarray, name: Any) -> dict[str, Any]:
    """Returns the warped record of a photo with the frame of its face at a size of 1."""
    label = tanh_warp.warp_labels(label, frame, 1)[..., None]
    return {"image": tanh_warp.warp(image, frame, 1), "label": label, "name": name}


def surround(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surrounds an aligned image by its mirror images, which are not labelled.

    Args:
        image: uint8 (side, side, 3).
        label: uint8 (side, side, 1).

    Returns:
        Image (3 side, 3 side, 3), label (3 side, 3 side), and the frame of its face at a size of 1.
    """
    side = len(image)
    image = np.pad(image, ((side, side), (side, side), (0, 0)), "symmetric")
    label = np.pad(label[..., 0], side, constant_values=IGNORE)
    frame = framing.resize_frame(framing.frame_from_photo(label.shape, 1), 1, 1 / 3)
    return image, label, frame


def open_warped(
    data_dir: DataDir, name: str, split: str, data_set: DataSet, frame_size: int
) -> Source:
    """Opens a split in warped pictures; arguments as for `opening.open_frames`."""
    source = open_source(data_dir, name, split)
    if data_set.framing.startswith("resize"):
        return WarpedAligned(source)
    return WarpedFaces(
        source,
        frame_size,
        label_names=tuple(data_set.classes.values()),
        store=data_set_folder(data_dir, name),
        name=f"{name}/{split}",
    )
