"""What a run reads: its splits, and the pictures without labels beside them."""

from pathlib import Path

import grain
import jax
from ml_collections import ConfigDict

from jax_stn_icnn.anatomy import DATA_SETS, Anatomy
from jax_stn_icnn.data.face_folder import FaceFolder
from jax_stn_icnn.data.loader import Batch, Source, loader_over, open_source


def open_split(config: ConfigDict, split: str) -> Source:
    """Opens a split.

    Args:
        config: of the run.
        split: `train`, `validation` or `test`; what that is, the config says.

    Returns:
        Its records.

    Raises:
        FileNotFoundError: the data set is not prepared.
    """
    dataset = config.dataset
    return open_source(dataset.data_dir, dataset.name, dataset[split])


def open_unlabelled(config: ConfigDict) -> Source | None:
    """Opens the pictures without labels.

    Args:
        config: of the run.

    Returns:
        Its records; None if the config names none.

    Raises:
        FileNotFoundError: the data set is not prepared, or there is no such folder of photos.
    """
    dataset = config.dataset
    if not dataset.unlabelled:
        return None
    name, _, split = dataset.unlabelled.partition("/")
    if name in DATA_SETS and split:
        return open_source(dataset.data_dir, name, split)
    return FaceFolder(Path(dataset.unlabelled).expanduser(), dataset.frame_size)


def training_batches(
    config: ConfigDict,
    source: Source,
    anatomy: Anatomy,
    unlabelled: Source | None,
    unlabelled_from: int,
) -> grain.IterDataset[Batch]:
    """This process's share of endless batches to train on.

    Args:
        config: of the run.
        source: labelled pictures.
        anatomy: what their labels become.
        unlabelled: pictures without labels that lie beside them, if any.
        unlabelled_from: the first batch that needs those.

    Returns:
        The batches.
    """
    return loader_over(
        source,
        config.dataset.name,
        anatomy,
        frame_size=config.dataset.frame_size,
        batch_size=config.batch_size,
        seed=config.seed,
        train=True,
        num_workers=config.dataset.num_workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        unlabelled=unlabelled,
        unlabelled_from=unlabelled_from,
    )


def evaluation_batches(
    config: ConfigDict, source: Source, anatomy: Anatomy, *, shared: bool = True
) -> grain.IterDataset[Batch]:
    """One pass over a split, in its order.

    Args:
        config: of the run.
        source: labelled pictures.
        anatomy: what their labels become.
        shared: whether each process reads its share only.

    Returns:
        The batches.
    """
    return loader_over(
        source,
        config.dataset.name,
        anatomy,
        frame_size=config.dataset.frame_size,
        batch_size=config.eval_batch_size,
        seed=config.seed,
        train=False,
        num_workers=0,
        process_index=jax.process_index() if shared else 0,
        process_count=jax.process_count() if shared else 1,
    )
