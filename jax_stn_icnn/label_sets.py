"""Labels as sets of classes, one of which is the class of the pixel (partial labels).

Most labelled face data has other labels than an anatomy's classes: "hair or not", "skin, neck or
any part of the face", "unknown". A label map contains indices of the sets of a `LabelSets`, whose
first sets are the single classes: a map of class ids is a label map.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from jax_stn_icnn.anatomy import ANATOMIES, DATA_SETS, Anatomy, DataSet

IGNORE = "ignore"
# Id of a pixel of unknown class in the label maps of every data set.
IGNORE_ID = 255

ClassSet = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LabelSets:
    """The labels of label maps, each a set of classes.

    Attributes:
        num_classes: Number of classes; the labels 0 .. num_classes - 1 are a class each.
        unions: Class ids of the labels num_classes, num_classes + 1, ...: sets of two or more
            classes, each ascending.
        absent: Ids of the classes that never are labels by themselves.
    """

    num_classes: int
    unions: tuple[ClassSet, ...] = ()
    absent: ClassSet = ()

    @property
    def num_labels(self) -> int:
        """Number of labels."""
        return self.num_classes + len(self.unions)

    @property
    def sets(self) -> tuple[ClassSet, ...]:
        """Class ids of each label."""
        return (*((c,) for c in range(self.num_classes)), *self.unions)

    @property
    def ignored(self) -> int | None:
        """The label of all classes, if there is one."""
        every = tuple(range(self.num_classes))
        return self.label(every) if every in self.unions else None

    @functools.cached_property
    def members(self) -> np.ndarray:
        """Whether a class belongs to a label, bool (labels, classes)."""
        members = np.zeros((self.num_labels, self.num_classes), bool)
        for label, classes in enumerate(self.sets):
            members[label, list(classes)] = True
        return members

    def label(self, classes: Iterable[int]) -> int:
        """Returns the label of a set of class ids.

        Raises:
            ValueError: There is no such label.
        """
        return self.sets.index(tuple(sorted(set(classes))))

    def mirror_ids(self, anatomy: Anatomy) -> tuple[int, ...]:
        """Returns the label that each label has in the mirror image."""
        other = anatomy.mirror_ids
        return tuple(self.label(other[c] for c in classes) for classes in self.sets)

    def names(self, anatomy: Anatomy) -> tuple[str, ...]:
        """Returns a name for each label: its classes, or those that it lacks if they are fewer."""
        return tuple(_name(classes, anatomy) for classes in self.sets)


def _name(classes: ClassSet, anatomy: Anatomy) -> str:
    others = [name for c, name in enumerate(anatomy.classes) if c not in classes]
    if not others:
        return IGNORE
    if len(others) < len(classes):
        return "all but " + "+".join(others)
    return "+".join(anatomy.classes[c] for c in classes)


def get_data_set(name: str, label_names: Sequence[str]) -> DataSet:
    """Returns a registered data set, or one whose names of labels are those of known classes.

    Args:
        name: Name of the data set.
        label_names: Its own names of its labels, in the order of its ids.

    Returns:
        How it maps to classes and frames; without registration, its photos are framed by their
        faces.

    Raises:
        ValueError: Its labels are not those of its registration; or it is not registered, and a
            name is no class of a registered anatomy.
    """
    if name in DATA_SETS:
        if list(label_names) != list(DATA_SETS[name].classes):
            raise ValueError(
                f"data set {name!r} has the labels {list(label_names)}, "
                f"but is registered with {list(DATA_SETS[name].classes)}"
            )
        return DATA_SETS[name]
    known = {IGNORE, *(c for anatomy in ANATOMIES.values() for c in anatomy.classes)}
    members = [member for label in label_names for member in label.split("+")]
    if unknown := [member for member in members if member not in known]:
        raise ValueError(
            f"data set {name!r} has the class {unknown[0]!r}, which no registered anatomy has: "
            "rename it in classes.txt, or map it by `register_data_set`; known classes are "
            f"{', '.join(sorted(known))}"
        )
    return DataSet({label: label for label in label_names}, framing="face", ignore=True)


def class_sets(anatomy: Anatomy, data_set: DataSet) -> tuple[ClassSet, ...]:
    """Returns the set of class ids of each id of a data set.

    A class that the anatomy lacks becomes background, the first class.

    Args:
        anatomy: The classes.
        data_set: The data set.

    Returns:
        Class ids, ascending, in the order of the data set's ids.
    """
    every = tuple(range(anatomy.num_classes))

    def ids(label: str) -> ClassSet:
        if label == IGNORE:
            return every
        names = label.split("+")
        return tuple(
            sorted({anatomy.classes.index(n) if n in anatomy.classes else 0 for n in names})
        )

    return tuple(ids(label) for label in data_set.classes.values())


def ids_in_data_set(anatomy: Anatomy, name: str) -> np.ndarray:
    """Returns the id that each class has in a data set.

    Args:
        anatomy: The classes.
        name: Name of a registered data set.

    Returns:
        uint8 (num_classes,). Classes that the data set lacks have the id of its background.

    Raises:
        ValueError: The data set is not registered, or has no background; or one of its classes is
            a union of classes, any class, no class of the anatomy, or the same as another.
    """
    if name not in DATA_SETS:
        raise ValueError(f"there is no data set {name!r}, only {', '.join(DATA_SETS)}")
    names = list(DATA_SETS[name].classes.values())
    background = anatomy.classes[0]
    if background not in names:
        raise ValueError(f"no class of data set {name!r} is {background}, but one must be")
    for own, label in DATA_SETS[name].classes.items():
        if label not in anatomy.classes or names.count(label) > 1:
            raise ValueError(
                f"class {own!r} of data set {name!r} is {label!r}, but must be one class of "
                f"{', '.join(anatomy.classes)}, each for one class of the data set at most"
            )
    return np.array(
        [names.index(c if c in names else background) for c in anatomy.classes], np.uint8
    )


def make_label_sets(anatomy: Anatomy, data_sets: Iterable[DataSet]) -> LabelSets:
    """Returns the labels of data sets that are used together, and of their mirror images.

    Args:
        anatomy: The classes.
        data_sets: The data sets.

    Returns:
        All classes, and every other set that a data set labels, in order of first use. The last one
        is the set of all classes, if a data set needs it.
    """
    every = tuple(range(anatomy.num_classes))
    unions: dict[ClassSet, None] = {}
    singles: set[int] = set()
    ignore = False
    for data_set in data_sets:
        ignore |= data_set.has_unknown_pixels
        for classes in class_sets(anatomy, data_set):
            mirrored = tuple(sorted(anatomy.mirror_ids[c] for c in classes))
            unions |= {s: None for s in (classes, mirrored) if 1 < len(s) < len(every)}
            singles |= set(classes) if len(classes) == 1 else set()
            ignore |= classes == every
    absent = tuple(c for c in every if c not in singles)
    return LabelSets(anatomy.num_classes, (*unions, *([every] if ignore else ())), absent)


def label_table(anatomy: Anatomy, data_set: DataSet, label_sets: LabelSets) -> np.ndarray:
    """Returns the label of each id of a data set.

    Args:
        anatomy: The classes.
        data_set: The data set.
        label_sets: Labels that contain those of the data set.

    Returns:
        uint8 (256,), ids beyond the data set's included. These, and IGNORE_ID unless the data set
        has 256 labels, are the set of all classes.
    """
    labels = [label_sets.label(classes) for classes in class_sets(anatomy, data_set)]
    table = np.full(256, label_sets.num_labels - 1, np.uint8)
    table[: len(labels)] = labels
    return table


def labels_parts(anatomy: Anatomy, data_set: DataSet) -> bool:
    """Returns whether a data set labels every class of every part by itself, in inner frames."""
    labelled = {classes for classes in class_sets(anatomy, data_set) if len(classes) == 1}
    return not data_set.extensions and labelled >= {(c,) for c in anatomy.part_class_ids}
