"""The loader against PyTorch's DataLoader over the same records."""

import collections
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import grain
import numpy as np
from PIL import Image

from benchmarks.inputs import drawn_labels, random_frames
from benchmarks.rows import MakeRow, Row, Settings
from jax_stn_icnn.anatomy import DATA_SETS, NINE
from jax_stn_icnn.data.loader import loader_over
from jax_stn_icnn.label_sets import label_table, make_label_sets

BATCH, BATCHES = 16, 8
# Sides of the pictures and of the frame: HELEN is padded, CelebAMask-HQ is shrunk.
SIDES = {"helen": (1000, 1024), "celebamask_hq": (1024, 512), "synthetic_faces": (256, 256)}


class Records:
    """A source of equal records in memory, without reading and decoding."""

    def __init__(self, size: int):
        self._image = random_frames(1, size)[0]
        self._label = drawn_labels(1, size)[0][..., None]

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {"image": self._image, "label": self._label, "name": f"record {index}"}


def rows(settings: Settings) -> list[MakeRow]:
    """Returns the loading of batches of each data set."""
    return [partial(_row, dataset, settings.batch(BATCH)) for dataset in SIDES]


def _row(dataset: str, batch: int) -> Row:
    size, frame_size = SIDES[dataset]
    loader = loader_over(
        Records(size),
        dataset,
        NINE,
        frame_size=frame_size,
        batch_size=batch,
        seed=0,
        train=True,
    )
    title = f"loader, {dataset}, {BATCHES} batches of {batch}, {size} -> frame {frame_size}"
    row = Row(title, {"ours": partial(_take, loader)}, None, images=BATCHES * batch)
    row.add_torch(partial(_in_torch, dataset=dataset, batch=batch))
    return row


def _take(loader: grain.IterDataset) -> None:
    """Reads BATCHES batches, and stops the threads, which would run while a peer is timed."""
    batches = iter(loader)
    for _ in range(BATCHES):
        next(batches)
    batches.close()


def _in_torch(peer: ModuleType, dataset: str, batch: int) -> Callable[[], object]:
    """Returns a call that loads in the main process; `ours` loads in two background threads."""
    size, frame_size = SIDES[dataset]
    records = Records(size)
    data_set = DATA_SETS[dataset]
    to_nine = label_table(NINE, data_set, make_label_sets(NINE, [data_set]))

    class Faces:
        def __len__(self) -> int:
            return len(records)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            record = records[index]
            image, label = record["image"], to_nine[record["label"][..., 0]]
            if size > frame_size:
                new = (frame_size, frame_size)
                image = np.array(Image.fromarray(image).resize(new, Image.Resampling.BOX))
                label = np.array(Image.fromarray(label).resize(new, Image.Resampling.NEAREST))
            elif size < frame_size:
                before = (frame_size - size) // 2
                padding = (before, frame_size - size - before)
                image = np.pad(image, (padding, padding, (0, 0)))
                label = np.pad(label, (padding, padding))
            return image, label

    loader = peer.torch.utils.data.DataLoader(Faces(), batch, shuffle=True, drop_last=True)
    return lambda: collections.deque(itertools.islice(loader, BATCHES), maxlen=0)
