"""Opens splits of prepared data sets as examples, photos framed by their faces where necessary."""

import os

from jax_stn_icnn.anatomy import Anatomy, DataSet
from jax_stn_icnn.data.examples import Examples
from jax_stn_icnn.data.framing import ExtendedSource, FramedSource
from jax_stn_icnn.data.prepared import data_set_folder, find_data_set, open_source
from jax_stn_icnn.data.source import Source
from jax_stn_icnn.label_sets import LabelSets, make_label_sets

DataDir = str | os.PathLike[str]


def framed_data_set(data_dir: DataDir, name: str, framing: str = "") -> DataSet:
    """Returns a data set of `prepared.find_data_set`, with another framing if one is given."""
    data_set = find_data_set(data_dir, name)
    return data_set._replace(framing=framing) if framing else data_set


def open_frames(
    data_dir: DataDir, name: str, split: str, data_set: DataSet, frame_size: int
) -> Source:
    """Opens a split whose records `examples.Examples` accepts.

    Args:
        data_dir: Directory of TFDS's prepared data sets.
        name: Name of the data set.
        split: One of its splits, or a slice of one.
        data_set: How it maps to classes and frames.
        frame_size: Side of the frames in pixels.

    Returns:
        The records, framed by their faces if the data set's framing starts with `face`, and
        surrounded by unknown pixels if it is `resize_wide` or `resize_far`.

    Raises:
        FileNotFoundError: The data set is not prepared.
        ValueError: The split is unknown, or the data set is prepared in another format.
    """
    source = open_source(data_dir, name, split)
    if not data_set.framing.startswith("face"):
        return ExtendedSource(source, data_set.extensions) if data_set.extensions else source
    return FramedSource(
        source,
        frame_size,
        label_names=tuple(data_set.classes.values()) or None,
        store=data_set_folder(data_dir, name),
        name=f"{name}/{split}",
        extensions=data_set.extensions,
    )


def open_examples(
    data_dir: DataDir,
    name: str,
    split: str,
    anatomy: Anatomy,
    frame_size: int,
    framing: str = "",
) -> tuple[Examples, LabelSets]:
    """Opens a split of one data set, for an evaluation.

    Args:
        data_dir: Directory of TFDS's prepared data sets.
        name: Name of the data set.
        split: One of its splits, or a slice of one.
        anatomy: The classes.
        frame_size: Side of the frames in pixels.
        framing: How images become frames, one of `anatomy.FRAMINGS`; empty for the data set's own.

    Returns:
        The examples, and the classes of each of their labels.

    Raises:
        FileNotFoundError: The data set is not prepared.
        ValueError: The data set has no labels, the split is unknown or empty, or the data set is
            prepared in another format.
    """
    data_set = framed_data_set(data_dir, name, framing)
    if not data_set.classes:
        raise ValueError(f"data set {name!r} has no labels, but an evaluation needs them")
    source = open_frames(data_dir, name, split, data_set, frame_size)
    if len(source) == 0:
        raise ValueError(f"the split {split!r} of {name!r} has no records")
    label_sets = make_label_sets(anatomy, [data_set])
    return Examples(source, data_set, anatomy, label_sets, frame_size), label_sets
