"""The data of a run: its data sets, their labels, unlabelled images, and batches of them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import grain
import jax
from ml_collections import ConfigDict

from jax_stn_icnn.anatomy import DATA_SETS, Anatomy, DataSet
from jax_stn_icnn.data.examples import Examples, UnlabelledExamples
from jax_stn_icnn.data.face_folder import FaceFolder
from jax_stn_icnn.data.loader import Batch, Mixture, make_batches
from jax_stn_icnn.data.opening import framed_data_set, open_frames
from jax_stn_icnn.data.prepared import data_set_folder
from jax_stn_icnn.data.rare import RareClasses, find_rare_classes
from jax_stn_icnn.data.source import Source
from jax_stn_icnn.label_sets import LabelSets, make_label_sets


class Data:
    """The data of a run.

    Attributes:
        splits: The records of the splits `train`, `validation` and `test`.
        sources: The records of the further training data, by the keys of `dataset.sources`.
        unlabelled: Records without labels, with their framing.
        label_sets: The classes of each label of a batch; None if labels are class ids.
        evaluation_label_sets: The same for `evaluation_batches`, where classes that only further
            data sets label are absent.
    """

    def __init__(self, config: ConfigDict, anatomy: Anatomy):
        """Opens all splits, so that a missing one is reported before training.

        Args:
            config: The run's config.
            anatomy: The classes of the batches' labels.

        Raises:
            FileNotFoundError: A data set is not prepared, or there is no such folder of photos.
            ValueError: A split is empty, or no data set labels one of the classes by itself.
        """
        dataset = config.dataset
        self._config, self._anatomy = config, anatomy
        self._data_set = self._find(dataset.name, dataset.framing)
        self._sets = {
            key: self._find(one.name, one.framing) for key, one in dataset.sources.items()
        }
        self.splits: dict[str, Source] = {
            name: self._open(dataset.name, dataset[name], self._data_set)
            for name in ("train", "validation", "test")
        }
        self.sources: dict[str, Source] = {
            key: self._open(one.name, one.split, self._sets[key])
            for key, one in dataset.sources.items()
        }
        self._check_sizes()
        self.unlabelled = [self._open_unlabelled(name) for name in unlabelled_names(config)]
        label_sets = make_label_sets(anatomy, [self._data_set, *self._sets.values()])
        if label_sets.absent:
            raise ValueError(
                f"no data set of the config labels {', '.join(_names(anatomy, label_sets))} by "
                f"itself, which are classes of the anatomy {anatomy.name!r}"
            )
        self._label_sets = label_sets
        self.label_sets = label_sets if label_sets.unions or self._sets else None
        absent = make_label_sets(anatomy, [self._data_set]).absent
        self.evaluation_label_sets = self.label_sets and dataclasses.replace(
            self.label_sets, absent=absent
        )

    @property
    def num_examples(self) -> dict[str, int]:
        """Number of examples by the config's field that names them."""
        return {
            "dataset.train": len(self.splits["train"]),
            **{f"dataset.sources.{name}": len(one) for name, one in self.sources.items()},
            "dataset.unlabelled": sum(len(source) for source, _ in self.unlabelled),
        }

    def training_batches(
        self, mixed: Sequence[tuple[int, int]], unlabelled_from: int
    ) -> grain.IterDataset[Batch]:
        """Returns this process's share of the training batches, which never end.

        Args:
            mixed: Ranges of batch numbers, first and end, that contain the further data sets.
            unlabelled_from: Number of the first batch that needs unlabelled images.

        Raises:
            ValueError: No record has one of the rare classes, or regions cannot be pasted.
        """
        config = self._config
        mixture = unlabelled = None
        if self.sources:
            weights = [config.dataset.sources[name].weight for name in self.sources]
            examples = [self._examples(one, self._sets[name]) for name, one in self.sources.items()]
            mixture = Mixture(examples, weights, mixed)
        if self.unlabelled:
            unlabelled = UnlabelledExamples(self.unlabelled, config.dataset.frame_size)
        return make_batches(
            self._examples(self.splits["train"], self._data_set),
            batch_size=config.batch_size,
            seed=config.seed,
            train=True,
            num_workers=config.dataset.num_workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            rare=self._rare_classes(),
            mixture=mixture,
            unlabelled=unlabelled,
            unlabelled_from=unlabelled_from,
        )

    def evaluation_batches(self, split: str, *, shared: bool = True) -> grain.IterDataset[Batch]:
        """Returns the batches of one pass over a split, in its order.

        Args:
            split: `validation` or `test`.
            shared: Whether each process reads its share only.
        """
        return make_batches(
            self._examples(self.splits[split], self._data_set),
            batch_size=self._config.eval_batch_size,
            seed=self._config.seed,
            train=False,
            process_index=jax.process_index() if shared else 0,
            process_count=jax.process_count() if shared else 1,
        )

    def _check_sizes(self) -> None:
        """Checks that no split is empty, so that training does not end at its first validation."""
        dataset = self._config.dataset
        fields = {f"dataset.{name}": (dataset[name], one) for name, one in self.splits.items()}
        for name, one in self.sources.items():
            fields[f"dataset.sources.{name}.split"] = dataset.sources[name].split, one
        for field, (split, source) in fields.items():
            if len(source) == 0:
                raise ValueError(f"{field} is {split!r}, which has no records")

    def _rare_classes(self) -> RareClasses | None:
        dataset = self._config.dataset
        if not dataset.rare_classes:
            return None
        return find_rare_classes(
            self.splits["train"],
            self._data_set,
            self._anatomy,
            dataset.rare_classes,
            share=dataset.rare_share,
            paste=dataset.paste,
            store=data_set_folder(dataset.data_dir, dataset.name),
            name=f"{dataset.name}/{dataset.train}",
        )

    def _examples(self, source: Source, data_set: DataSet) -> Examples:
        size = self._config.dataset.frame_size
        return Examples(source, data_set, self._anatomy, self._label_sets, size)

    def _find(self, name: str, framing: str) -> DataSet:
        return framed_data_set(self._config.dataset.data_dir, name, framing)

    def _open(self, name: str, split: str, data_set: DataSet) -> Source:
        dataset = self._config.dataset
        return open_frames(dataset.data_dir, name, split, data_set, dataset.frame_size)

    def _open_unlabelled(self, text: str) -> tuple[Source, str]:
        """Opens images without labels: a split of a data set, or a folder of photos."""
        name, _, split = text.partition("/")  # The name in an absolute path is empty.
        dataset = self._config.dataset
        data_dir = Path(dataset.data_dir).expanduser()
        if name and split and (name in DATA_SETS or (data_dir / name).is_dir()):
            data_set = self._find(name, "")
            return self._open(name, split, data_set), data_set.framing
        return FaceFolder(Path(text).expanduser(), dataset.frame_size), "face"


def unlabelled_names(config: ConfigDict) -> tuple[str, ...]:
    """Returns the unlabelled sources of a config, which may be one text or several."""
    names = config.dataset.unlabelled
    return ((names,) if names else ()) if isinstance(names, str) else tuple(names)


def _names(anatomy: Anatomy, label_sets: LabelSets) -> list[str]:
    return [anatomy.classes[c] for c in label_sets.absent]
