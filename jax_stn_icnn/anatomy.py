"""What a face consists of: classes, parts with their windows, sides, score groups, colours.

An `Anatomy` is one value that everything takes from here: models, losses, scores, loader,
augmentation, pictures, parser. `register` and `register_data_set` add one of your own, and a data
set with ids of its own; a config file is the place to call them.

Plain Python on purpose: everything else may import this, and it imports nothing of ours. Side 1 is
on the viewer's left, side 2 on the viewer's right, whatever a data set itself calls left.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# The side of the paper's square windows on CelebAMask-HQ, in whose pixels `Part.window` is given.
SQUARE = 127

Colour = tuple[int, int, int]


class Part(NamedTuple):
    """A part of the face that gets a window and a fine network.

    Attributes:
        name: the part's name.
        classes: names of the classes it fills, in the order of its network's labels 1, 2, ...
            (label 0 is the background of the patch).
        network: the fine network that parses it.
        mirrored: whether its patch goes through the network left-right mirrored.
        window: (height, width) of a window that fits it, in pixels where the paper's square window
            has a side of 127: the faces of CelebAMask-HQ at 512 x 512.
    """

    name: str
    classes: tuple[str, ...]
    network: str
    mirrored: bool
    window: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """What a face consists of.

    Attributes:
        name: by which configs and files of weights call it.
        classes: their names in the order of their ids; 0 is background.
        parts: what has a window of its own.
        pairs: classes that change sides in a mirror. Mirroring a label map without exchanging them
            is the best-known bug of public face parsers.
        groups: what papers score beside single classes: name -> classes that count as one.
        colours: RGB 0..255 for each class.

    Raises:
        ValueError: names are unknown or taken twice; the message says which.
    """

    name: str
    classes: tuple[str, ...]
    parts: tuple[Part, ...]
    pairs: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    colours: tuple[Colour, ...]

    def __post_init__(self) -> None:
        """Checks that the names fit together."""
        if not self.parts:
            raise ValueError(f"anatomy {self.name!r} has no part with a window, but needs one")
        used = [name for part in self.parts for name in part.classes]
        named: tuple[tuple[str, list[str]], ...] = (
            ("classes", list(self.classes)),
            ("parts", [part.name for part in self.parts]),
            ("the parts' classes", used),
            ("pairs", [name for pair in self.pairs for name in pair]),
        )
        for what, names in named:
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"anatomy {self.name!r}: {what} name {', '.join(twice)} twice")
        for members in (used, *self.pairs, *(members for _, members in self.groups)):
            self.ids(members)
        if 0 in self.ids(used):
            raise ValueError(f"anatomy {self.name!r}: {self.classes[0]} is the background")
        if len(self.colours) != len(self.classes):
            raise ValueError(
                f"anatomy {self.name!r} has {len(self.classes)} classes, "
                f"but {len(self.colours)} colours"
            )
        for network in {part.network for part in self.parts}:
            kinds = {(len(p.classes), p.window) for p in self.parts if p.network == network}
            if len(kinds) > 1:
                raise ValueError(
                    f"anatomy {self.name!r}: the parts of network {network!r} must have equally "
                    f"many classes and equal windows, but have {sorted(kinds)}"
                )

    def ids(self, names: Sequence[str]) -> tuple[int, ...]:
        """The ids of classes.

        Args:
            names: of classes.

        Returns:
            Their ids, in the same order.

        Raises:
            ValueError: a name is unknown; the message lists those that are known.
        """
        if unknown := [name for name in names if name not in self.classes]:
            raise ValueError(
                f"there is no class {', '.join(map(repr, unknown))}: "
                f"the classes are {', '.join(self.classes)}"
            )
        return tuple(self.classes.index(name) for name in names)

    @property
    def num_classes(self) -> int:
        """How many classes there are, background included."""
        return len(self.classes)

    @property
    def num_parts(self) -> int:
        """How many parts have a window."""
        return len(self.parts)

    @property
    def networks(self) -> dict[str, int]:
        """Fine network -> number of labels of its patches, background included."""
        return {part.network: len(part.classes) + 1 for part in self.parts}

    @property
    def part_ids(self) -> tuple[tuple[int, ...], ...]:
        """For each part the ids of its classes."""
        return tuple(self.ids(part.classes) for part in self.parts)

    @property
    def part_class_ids(self) -> tuple[int, ...]:
        """The ids of the classes that parts fill, in order."""
        return tuple(sorted(i for ids in self.part_ids for i in ids))

    @property
    def global_ids(self) -> tuple[int, ...]:
        """The ids of the classes without a window, in order; background is the first."""
        return tuple(i for i in range(self.num_classes) if i not in self.part_class_ids)

    @property
    def mirror_ids(self) -> tuple[int, ...]:
        """What each class becomes in a mirrored picture."""
        other = {a: b for pair in self.pairs for a, b in (pair, pair[::-1])}
        return self.ids([other.get(name, name) for name in self.classes])

    @property
    def group_ids(self) -> dict[str, tuple[int, ...]]:
        """Score group -> the ids of its classes."""
        return {name: self.ids(members) for name, members in self.groups}

    def patch_labels(self, part: Part) -> tuple[int, ...]:
        """For each class its label in a part's patch: 0 unless the part fills it."""
        return tuple(
            1 + part.classes.index(name) if name in part.classes else 0 for name in self.classes
        )

    def fitted_sizes(self, side: int) -> tuple[tuple[int, int], ...]:
        """Windows that fit their parts.

        Args:
            side: of the square window that they stand for, in pixels.

        Returns:
            For each part (height, width), odd, so that windows fall on whole pixels.
        """
        return tuple(
            (_odd(part.window[0] * side / SQUARE), _odd(part.window[1] * side / SQUARE))
            for part in self.parts
        )


def _odd(length: float) -> int:
    """The nearest odd number, at least 3."""
    return max(2 * round((length - 1) / 2) + 1, 3)


_PARTS = (
    Part("brow_1", ("brow_1",), "brow", False, (79, 131)),
    Part("brow_2", ("brow_2",), "brow", True, (79, 131)),
    Part("eye_1", ("eye_1",), "eye", False, (69, 115)),
    Part("eye_2", ("eye_2",), "eye", True, (69, 115)),
    Part("nose", ("nose",), "nose", False, (147, 101)),
    Part("mouth", ("upper_lip", "inner_mouth", "lower_lip"), "mouth", False, (107, 149)),
)
_LIPS = ("upper_lip", "inner_mouth", "lower_lip")
_EIGHT = ("brow_1", "brow_2", "eye_1", "eye_2", "nose", *_LIPS)
_PAIRS = (("brow_1", "brow_2"), ("eye_1", "eye_2"))
_GROUPS = (
    ("brows", ("brow_1", "brow_2")),
    ("eyes", ("eye_1", "eye_2")),
    ("nose", ("nose",)),
    ("upper_lip", ("upper_lip",)),
    ("inner_mouth", ("inner_mouth",)),
    ("lower_lip", ("lower_lip",)),
    ("mouth", _LIPS),
)
# Of paired classes, warm for side 1 and cool for side 2.
_COLOURS: dict[str, Colour] = {
    "background": (0, 0, 0),
    "brow_1": (230, 159, 0),
    "brow_2": (0, 114, 178),
    "eye_1": (240, 228, 66),
    "eye_2": (86, 180, 233),
    "nose": (0, 158, 115),
    "upper_lip": (213, 94, 0),
    "inner_mouth": (255, 255, 255),
    "lower_lip": (204, 121, 167),
    "skin": (244, 199, 171),
    "hair": (122, 76, 48),
    "ear_1": (255, 127, 80),
    "ear_2": (65, 105, 225),
    "glasses": (138, 43, 226),
    "hat": (178, 34, 34),
    "earring": (255, 0, 255),
    "necklace": (0, 220, 220),
    "neck": (170, 200, 120),
    "cloth": (112, 128, 144),
}


def _anatomy(name: str, *more: str, pairs: tuple[tuple[str, str], ...] = _PAIRS) -> Anatomy:
    """The paper's nine classes and some more behind them: an id means the same in each."""
    classes = ("background", *_EIGHT, *more)
    colours = tuple(_COLOURS[c] for c in classes)
    groups = _GROUPS + tuple((c, (c,)) for c in more)
    return Anatomy(name, classes, _PARTS, pairs, groups, colours)


NINE = _anatomy("nine")
ELEVEN = _anatomy("eleven", "skin", "hair")
NINETEEN = _anatomy(
    "nineteen",
    "skin",
    "hair",
    "ear_1",
    "ear_2",
    "glasses",
    "hat",
    "earring",
    "necklace",
    "neck",
    "cloth",
    pairs=(*_PAIRS, ("ear_1", "ear_2")),
)
ANATOMIES: dict[str, Anatomy] = {anatomy.name: anatomy for anatomy in (NINE, ELEVEN, NINETEEN)}


class DataSet(NamedTuple):
    """A data set's way into the frame and into the classes.

    Attributes:
        classes: its own names in the order of its ids -> our names.
        shrink: whether its pictures, square, are shrunk to the frame; otherwise they are padded to
            it as they are.
    """

    classes: Mapping[str, str]
    shrink: bool


# HELEN's left is the viewer's left; CelebAMask-HQ's `l_` is the subject's left, the viewer's right.
_HELEN_CLASSES = {
    "background": "background",
    "skin": "skin",
    "left_brow": "brow_1",
    "right_brow": "brow_2",
    "left_eye": "eye_1",
    "right_eye": "eye_2",
    "nose": "nose",
    "upper_lip": "upper_lip",
    "inner_mouth": "inner_mouth",
    "lower_lip": "lower_lip",
    "hair": "hair",
}
_CELEBAMASK_HQ_CLASSES = {
    "background": "background",
    "skin": "skin",
    "nose": "nose",
    "eye_g": "glasses",
    "l_eye": "eye_2",
    "r_eye": "eye_1",
    "l_brow": "brow_2",
    "r_brow": "brow_1",
    "l_ear": "ear_2",
    "r_ear": "ear_1",
    "mouth": "inner_mouth",
    "u_lip": "upper_lip",
    "l_lip": "lower_lip",
    "hair": "hair",
    "hat": "hat",
    "ear_r": "earring",
    "neck_l": "necklace",
    "neck": "neck",
    "cloth": "cloth",
}
DATA_SETS: dict[str, DataSet] = {
    "helen": DataSet(_HELEN_CLASSES, shrink=False),
    "synthetic_faces": DataSet(_HELEN_CLASSES, shrink=True),
    "celebamask_hq": DataSet(_CELEBAMASK_HQ_CLASSES, shrink=True),
}


def register(anatomy: Anatomy) -> None:
    """Has configs know classes of your own by their name.

    Args:
        anatomy: the classes.

    Raises:
        ValueError: other classes have this name.
    """
    if ANATOMIES.setdefault(anatomy.name, anatomy) != anatomy:
        raise ValueError(f"there are other classes {anatomy.name!r} already: choose another name")


def register_data_set(name: str, data_set: DataSet) -> None:
    """Has configs know a data set of your own by its name.

    Args:
        name: its name, that of its directory where TFDS keeps its data sets.
        data_set: its way into the frame and into the classes.

    Raises:
        ValueError: another data set has this name.
    """
    if DATA_SETS.setdefault(name, data_set) != data_set:
        raise ValueError(f"there is another data set {name!r} already: choose another name")


def get_anatomy(name: str) -> Anatomy:
    """The anatomy of a name.

    Raises:
        ValueError: there is none; the message lists those that are known.
    """
    if name not in ANATOMIES:
        raise ValueError(f"there are no classes {name!r}, only {', '.join(ANATOMIES)}")
    return ANATOMIES[name]


def data_set_class_ids(anatomy: Anatomy, name: str) -> tuple[int, ...]:
    """For each id of a data set the class that it becomes; what is in no class is background.

    Args:
        anatomy: whose classes are asked for.
        name: of the data set.

    Returns:
        Class ids, in the order of the data set's ids.

    Raises:
        ValueError: the data set is unknown, or does not label every class.
    """
    if name not in DATA_SETS:
        raise ValueError(f"dataset is {name!r}, but must be one of {', '.join(DATA_SETS)}")
    found = DATA_SETS[name].classes
    if lacking := [c for c in anatomy.classes if c not in found.values()]:
        raise ValueError(
            f"data set {name!r} does not label {', '.join(lacking)}, which the classes "
            f"{anatomy.name!r} hold; it labels {', '.join(found.values())}"
        )
    return tuple(anatomy.classes.index(c) if c in anatomy.classes else 0 for c in found.values())
