"""Prepared data sets: their records, read from disk on access, and their labels."""

import os
from pathlib import Path

import tensorflow_datasets as tfds
from etils import epath

from jax_stn_icnn.anatomy import DATA_SETS, DataSet
from jax_stn_icnn.data.source import Source
from jax_stn_icnn.label_sets import get_data_set


def open_source(data_dir: str | os.PathLike[str], dataset: str, split: str) -> Source:
    """Opens a split of a prepared data set.

    Args:
        data_dir: Directory of TFDS's prepared data sets.
        dataset: Name of the data set, that of its directory.
        split: One of its splits, or a slice of one, such as `train[:100]`.

    Returns:
        The records; they pickle, and are read from disk on access.

    Raises:
        FileNotFoundError: The data set is not prepared; the message contains the command that
            prepares it.
        ValueError: The split is unknown, the classes differ from the registered ones, or the data
            set is prepared in a format without random access.
    """
    builder = _open_builder(data_dir, dataset)
    features = builder.info.features
    if "label" in features:
        get_data_set(dataset, features["label"].names)
    needed = ("image", "label", "name")
    others = {name: tfds.decode.SkipDecoding() for name in features if name not in needed}
    try:
        return builder.as_data_source(split, decoders=others)
    except NotImplementedError as error:
        raise ValueError(
            f"{builder.data_dir} holds {builder.info.file_format.value}, which has no random "
            "access: it must hold array_record; run: "
            f"python -m tfds_builders.prepare {dataset} --data_dir DIR"
        ) from error


def find_data_set(data_dir: str | os.PathLike[str], name: str) -> DataSet:
    """Returns how a registered or a prepared data set maps to classes and frames.

    Args:
        data_dir: Directory of TFDS's prepared data sets.
        name: Name of the data set. One that is not registered has labels that are named after
            known classes, and photos that are framed by their faces.

    Returns:
        The data set; without classes if it has no labels.

    Raises:
        FileNotFoundError: It is neither registered nor prepared.
        ValueError: A label's name is unknown.
    """
    if name in DATA_SETS:
        return DATA_SETS[name]
    features = _open_builder(data_dir, name).info.features
    if "label" not in features:
        return DataSet({}, framing="face")
    return get_data_set(name, features["label"].names)


def data_set_folder(data_dir: str | os.PathLike[str], name: str) -> Path:
    """Returns the directory of the newest version of a prepared data set.

    Raises:
        FileNotFoundError: The data set is not prepared.
    """
    return Path(_open_builder(data_dir, name).data_dir)


def _open_builder(data_dir: str | os.PathLike[str], dataset: str) -> tfds.core.DatasetBuilder:
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
    return tfds.builder_from_directory(max(versions, key=lambda p: tfds.core.Version(p.name)))
