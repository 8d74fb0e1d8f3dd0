"""The data of a run: its splits, unlabelled images, and batches of them."""

from pathlib import Path

import grain
import jax
from ml_collections import ConfigDict

from jax_stn_icnn.anatomy import DATA_SETS, Anatomy
from jax_stn_icnn.data.face_folder import FaceFolder
from jax_stn_icnn.data.loader import Batch, loader_over, open_source
from jax_stn_icnn.data.source import Source


class Data:
    """The data of a run.

    Attributes:
        splits: The records of the splits `train`, `validation` and `test`.
        unlabelled: Records without labels; None if the config has none.
    """

    def __init__(self, config: ConfigDict, anatomy: Anatomy):
        """Opens all splits, so that a missing one is reported before training.

        Args:
            config: The run's config.
            anatomy: The classes of the batches' labels.

        Raises:
            FileNotFoundError: A data set is not prepared, or there is no such folder of photos.
        """
        dataset = config.dataset
        self._config, self._anatomy = config, anatomy
        self.splits: dict[str, Source] = {
            name: open_source(dataset.data_dir, dataset.name, dataset[name])
            for name in ("train", "validation", "test")
        }
        self.unlabelled = _open_unlabelled(config)

    @property
    def num_examples(self) -> dict[str, int]:
        """Number of examples by the config's field that names them."""
        return {
            "dataset.train": len(self.splits["train"]),
            "dataset.unlabelled": 0 if self.unlabelled is None else len(self.unlabelled),
        }

    def training_batches(self, unlabelled_from: int) -> grain.IterDataset[Batch]:
        """Returns this process's share of the training batches, which never end.

        Args:
            unlabelled_from: Number of the first batch that needs unlabelled images.
        """
        return loader_over(
            self.splits["train"],
            self._config.dataset.name,
            self._anatomy,
            frame_size=self._config.dataset.frame_size,
            batch_size=self._config.batch_size,
            seed=self._config.seed,
            train=True,
            num_workers=self._config.dataset.num_workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            unlabelled=self.unlabelled,
            unlabelled_from=unlabelled_from,
        )

    def evaluation_batches(self, split: str, *, shared: bool = True) -> grain.IterDataset[Batch]:
        """Returns the batches of one pass over a split, in its order.

        Args:
            split: `validation` or `test`.
            shared: Whether each process reads its share only.
        """
        return loader_over(
            self.splits[split],
            self._config.dataset.name,
            self._anatomy,
            frame_size=self._config.dataset.frame_size,
            batch_size=self._config.eval_batch_size,
            seed=self._config.seed,
            train=False,
            process_index=jax.process_index() if shared else 0,
            process_count=jax.process_count() if shared else 1,
        )


def _open_unlabelled(config: ConfigDict) -> Source | None:
    """Opens the images without labels: a split of a data set, or a folder of photos."""
    dataset = config.dataset
    if not dataset.unlabelled:
        return None
    name, _, split = dataset.unlabelled.partition("/")
    if name in DATA_SETS and split:
        return open_source(dataset.data_dir, name, split)
    return FaceFolder(Path(dataset.unlabelled).expanduser(), dataset.frame_size)
