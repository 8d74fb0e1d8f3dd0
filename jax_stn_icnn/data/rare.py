"""Records with rare classes, from which more training examples are drawn.

This module does not import JAX; see `loader`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jax_stn_icnn.anatomy import Anatomy, DataSet
from jax_stn_icnn.data import stored
from jax_stn_icnn.data.source import Source
from jax_stn_icnn.label_sets import class_sets

# A record has a class if at least this share of its pixels is labelled so: 27 of 512 x 512.
LEAST_SHARE = 1e-4


class RareClasses(NamedTuple):
    """Rare classes, and how the training examples of the main data set use their records.

    Attributes:
        ids: Class ids.
        records: Indices of the records of each class.
        share: Share of the examples that is drawn from these records, an equal part for each class.
        paste: Probability that an example receives a region of a rare class of another record.
    """

    ids: tuple[int, ...]
    records: tuple[tuple[int, ...], ...]
    share: float
    paste: float


def find_rare_classes(
    source: Source,
    data_set: DataSet,
    anatomy: Anatomy,
    classes: Sequence[str],
    *,
    share: float,
    paste: float,
    store: Path | None,
    name: str,
) -> RareClasses:
    """Returns rare classes with the records that have them.

    Args:
        source: The records, as `examples.Examples` accepts them.
        data_set: How they map to frames and classes.
        anatomy: The classes.
        classes: Names of the rare classes.
        share: As for `RareClasses`, like the following.
        paste: Only for images that are resized: faces must have about the same place in each.
        store: Directory of the file of counted labels; None for no file.
        name: Name of the records in messages, such as `celebamask_hq/train`.

    Returns:
        The rare classes.

    Raises:
        ValueError: A class is unknown, or no record has it; or images are pasted that are not
            resized.
    """
    ids = anatomy.ids(classes)
    if paste and data_set.framing != "resize":
        raise ValueError(
            f"dataset.paste is {paste}, but the images of {name} have framing "
            f"{data_set.framing!r}: regions can be pasted only with framing 'resize', where all "
            "faces have about the same place"
        )
    counts = count_labels(source, len(data_set.classes), store, name)
    least = np.maximum(LEAST_SHARE * counts.sum(axis=1), 1)
    sets = class_sets(anatomy, data_set)
    records = []
    for id_, class_name in zip(ids, classes, strict=True):
        columns = [column for column, members in enumerate(sets) if members == (id_,)]
        found = np.flatnonzero(counts[:, columns].sum(axis=1) >= least)
        if not found.size:
            raise ValueError(
                f"dataset.rare_classes contains {class_name!r}, but in no record of {name} is "
                f"{LEAST_SHARE:.2%} of the pixels labelled so"
            )
        records.append(tuple(found.tolist()))
    return RareClasses(ids, tuple(records), share, paste)


def count_labels(source: Source, num_ids: int, store: Path | None, name: str) -> np.ndarray:
    """Returns how many pixels of each record have each label, computed or from a file.

    Args:
        source: The records.
        num_ids: Number of label ids.
        store: Directory of the file; None for no file.
        name: Name of the records, for the progress bar.

    Returns:
        (records, num_ids + 1); the last column counts all other ids.
    """

    def count_record(index: int) -> np.ndarray:
        label = np.minimum(source[index]["label"], num_ids)
        return np.bincount(label.ravel(), minlength=num_ids + 1)

    def count_records() -> np.ndarray:
        indices = tqdm(
            range(len(source)), desc=f"{name}: counting labels", unit="record", leave=False
        )
        return np.array([count_record(index) for index in indices])

    path = None
    if store is not None:
        samples = [count_record(index).tolist() for index in stored.sample_indices(len(source))]
        path = store / f"labels_{stored.digest([len(source), num_ids, samples])}.json"
    shape = len(source), num_ids + 1
    return stored.load_or_compute(path, shape, count_records, "labels are counted again")
