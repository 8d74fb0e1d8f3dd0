"""Classes of a face, its parts with their windows, sides, score groups and colours.

An `Anatomy` holds all of these; models, losses, scores, loader, augmentation, drawings and parser
take them from it. `register` and `register_data_set` add an anatomy and a data set of your own; a
config file is the place to call them.

Plain Python: every other module may import this one, and it imports none of them. Side 1 is on the
viewer's left, side 2 on the viewer's right, whatever a data set calls left.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

# Side of the paper's square window on CelebAMask-HQ, to which `Part.window` refers, in pixels.
SQUARE = 127

Colour = tuple[int, int, int]


class Part(NamedTuple):
    """A part of the face with a window and a fine network.

    Attributes:
        name: Name of the part.
        classes: Names of its classes, in the order of its network's labels 1, 2, ...; label 0 is
            the background of the patch.
        network: Name of the fine network that segments it.
        mirrored: Whether its patch is mirrored before and after the network.
        window: (height, width) of a window that fits the part, in pixels of CelebAMask-HQ at 512 x
            512, where the paper's square window has a side of 127.
    """

    name: str
    classes: tuple[str, ...]
    network: str
    mirrored: bool
    window: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """Classes of a face, and what belongs to them.

    Attributes:
        name: Name of the anatomy in configs and weight files.
        classes: Class names by id; 0 is background.
        parts: Parts with a window.
        pairs: Classes that swap in a mirror image. Mirroring a label map without swapping them is
            the best-known bug of public face parsers.
        groups: Groups that papers score beside single classes: name -> classes merged into one.
        colours: RGB 0..255 of each class.

    Raises:
        ValueError: A field is of another type, a name is unknown or used twice, a color is not in
            0..255, or a window is empty.
    """

    name: str
    classes: tuple[str, ...]
    parts: tuple[Part, ...]
    pairs: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    colours: tuple[Colour, ...]

    def __post_init__(self) -> None:
        """Validates types, names and numbers."""
        for field, kind in get_type_hints(Anatomy).items():
            if not _has_type(getattr(self, field), kind):
                raise ValueError(f"anatomy {self.name!r}: {field} must be of the type {kind}")
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
        if not all(0 <= value <= 255 for colour in self.colours for value in colour):
            raise ValueError(f"anatomy {self.name!r}: colours must be in 0..255")
        if wrong := [part for part in self.parts if not all(0 < n <= 512 for n in part.window)]:
            raise ValueError(
                f"anatomy {self.name!r}: the window of {wrong[0].name} is {wrong[0].window}, but "
                "must have 1..512 pixels a side"
            )
        for network in {part.network for part in self.parts}:
            kinds = {(len(p.classes), p.window) for p in self.parts if p.network == network}
            if len(kinds) > 1:
                raise ValueError(
                    f"anatomy {self.name!r}: the parts of network {network!r} must have equally "
                    f"many classes and equal windows, but have {sorted(kinds)}"
                )

    def ids(self, names: Sequence[str]) -> tuple[int, ...]:
        """Returns the ids of classes.

        Args:
            names: Names of classes.

        Returns:
            Their ids, in the same order.

        Raises:
            ValueError: A name is unknown; the message lists the known ones.
        """
        if unknown := [name for name in names if name not in self.classes]:
            raise ValueError(
                f"there is no class {', '.join(map(repr, unknown))}: "
                f"the classes are {', '.join(self.classes)}"
            )
        return tuple(self.classes.index(name) for name in names)

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return len(self.parts)

    @property
    def networks(self) -> dict[str, int]:
        """Fine network -> number of its labels, background included."""
        return {part.network: len(part.classes) + 1 for part in self.parts}

    @property
    def part_ids(self) -> tuple[tuple[int, ...], ...]:
        """Ids of each part's classes."""
        return tuple(self.ids(part.classes) for part in self.parts)

    @property
    def part_class_ids(self) -> tuple[int, ...]:
        """Ids of the part classes, in order."""
        return tuple(sorted(i for ids in self.part_ids for i in ids))

    @property
    def global_ids(self) -> tuple[int, ...]:
        """Ids of the global classes, those of no part, in order; background is the first."""
        return tuple(i for i in range(self.num_classes) if i not in self.part_class_ids)

    @property
    def mirror_ids(self) -> tuple[int, ...]:
        """Id that each class has in the mirror image."""
        other = {a: b for pair in self.pairs for a, b in (pair, pair[::-1])}
        return self.ids([other.get(name, name) for name in self.classes])

    @property
    def group_ids(self) -> dict[str, tuple[int, ...]]:
        """Score group -> ids of its classes."""
        return {name: self.ids(members) for name, members in self.groups}

    @property
    def mask_groups(self) -> dict[str, tuple[str, ...]]:
        """Groups of classes that masks are of: name -> those of its classes that exist here.

        Groups without classes are left out, and so are those with the name of a class.
        """
        groups = {
            name: tuple(c for c in members if c in self.classes)
            for name, members in (*MASK_GROUPS.items(), ("person", self.classes[1:]))
        }
        return {k: members for k, members in groups.items() if members and k not in self.classes}

    def mask_ids(self, names: Sequence[str]) -> tuple[int, ...]:
        """Returns the ids of classes and groups of classes.

        Args:
            names: Names of classes or of `mask_groups`, at least one.

        Returns:
            Ids of the classes, ascending, each once.

        Raises:
            ValueError: No name is given, or one is unknown; the message lists the known ones.
        """
        groups = self.mask_groups
        known = f"{', '.join(self.classes)}; the groups are {', '.join(groups)}"
        if not names:
            raise ValueError(f"name a class: one or more of {known}")
        if unknown := [name for name in names if name not in (*self.classes, *groups)]:
            raise ValueError(
                f"there is no class {', '.join(map(repr, unknown))}: the classes are {known}"
            )
        return tuple(sorted({i for name in names for i in self.ids(groups.get(name, (name,)))}))

    def patch_labels(self, part: Part) -> tuple[int, ...]:
        """Returns each class's label in a part's patch: 0 for classes of other parts."""
        return tuple(
            1 + part.classes.index(name) if name in part.classes else 0 for name in self.classes
        )

    def fitted_sizes(self, side: int) -> tuple[tuple[int, int], ...]:
        """Returns the sizes of windows that fit their parts.

        Args:
            side: Side of the square window that they replace, in pixels.

        Returns:
            (height, width) of each part's window, odd, so that windows fall on whole pixels.
        """
        return tuple(
            (_odd(part.window[0] * side / SQUARE), _odd(part.window[1] * side / SQUARE))
            for part in self.parts
        )


def _has_type(value: Any, kind: Any) -> bool:
    """Whether a value has a type: str, int, bool, a tuple of types, or a `NamedTuple`."""
    if kind in (str, int, bool):
        return type(value) is kind
    if not isinstance(value, tuple):
        return False
    kinds = get_args(kind) or tuple(get_type_hints(kind).values())
    if kinds[1:] == (...,):
        return all(_has_type(item, kinds[0]) for item in value)
    return len(value) == len(kinds) and all(map(_has_type, value, kinds))


def _odd(length: float) -> int:
    """Returns the nearest odd number, at least 3."""
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
# Paired classes have warm colours on side 1 and cool ones on side 2.
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
    """Returns the paper's nine classes followed by others, so that ids agree between anatomies."""
    classes = ("background", *_EIGHT, *more)
    colours = tuple(_COLOURS[c] for c in classes)
    groups = _GROUPS + tuple((c, (c,)) for c in more)
    return Anatomy(name, classes, _PARTS, pairs, groups, colours)


# Groups of classes that masks are of; `Anatomy.mask_groups` adds `person`, all but background.
_FACE = (*_EIGHT, "skin", "glasses")
MASK_GROUPS: dict[str, tuple[str, ...]] = {
    "lips": ("upper_lip", "lower_lip"),
    "mouth": _LIPS,
    "brows": ("brow_1", "brow_2"),
    "eyes": ("eye_1", "eye_2"),
    "ears": ("ear_1", "ear_2"),
    "face": _FACE,
    "head": (*_FACE, "hair", "ear_1", "ear_2", "hat", "earring"),
}

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


FRAMINGS = ("resize", "pad", "face", "resize_wide", "face_wide", "resize_far", "face_far")


class DataSet(NamedTuple):
    """How a data set maps to frames and classes.

    Attributes:
        classes: The data set's own names, in the order of its ids -> names of classes here. A name
            may be a union of classes, `skin+neck`, or `ignore`, any class.
        framing: How its images become frames, one of FRAMINGS: `resize` downsamples square images,
            in which all faces have about the same place; `pad` centers images without resizing
            them; `face` crops the square around the face that the parser would crop. `resize_wide`
            and `face_wide` are the wide frames of `resize` and `face`, and `resize_far` and
            `face_far` their far frames, see `wide_frame`.
        ignore: Whether its masks contain the id 255, which stands for any class.
    """

    classes: Mapping[str, str]
    framing: str
    ignore: bool = False

    @property
    def extensions(self) -> int:
        """How often its frames are extended: 1 for wide frames, 2 for far frames.

        In these, parts are too small for the fine networks.
        """
        return 1 if self.framing.endswith("_wide") else 2 if self.framing.endswith("_far") else 0

    @property
    def has_unknown_pixels(self) -> bool:
        """Whether pixels of its frames may have the label 255: by choice, or outside the image."""
        return self.ignore or self.framing not in ("resize", "pad")


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
    "helen": DataSet(_HELEN_CLASSES, framing="pad"),
    "lapa": DataSet(_HELEN_CLASSES, framing="face"),
    "synthetic_faces": DataSet(_HELEN_CLASSES, framing="resize"),
    "celebamask_hq": DataSet(_CELEBAMASK_HQ_CLASSES, framing="resize"),
}


def register(anatomy: Anatomy) -> None:
    """Makes an anatomy known to configs by its name.

    Args:
        anatomy: The anatomy.

    Raises:
        ValueError: A different anatomy has this name.
    """
    if ANATOMIES.setdefault(anatomy.name, anatomy) != anatomy:
        raise ValueError(
            f"another anatomy is registered as {anatomy.name!r} already: choose another name"
        )


def register_data_set(name: str, data_set: DataSet) -> None:
    """Makes a data set known to configs by its name.

    Args:
        name: Its name, that of its directory in TFDS's data directory.
        data_set: How it maps to frames and classes.

    Raises:
        ValueError: Its framing is unknown, or a different data set has this name.
    """
    if data_set.framing not in FRAMINGS:
        raise ValueError(
            f"data set {name!r} has framing {data_set.framing!r}, "
            f"but must have one of {', '.join(FRAMINGS)}"
        )
    if DATA_SETS.setdefault(name, data_set) != data_set:
        raise ValueError(f"another data set is registered as {name!r} already: choose another name")


def get_anatomy(name: str) -> Anatomy:
    """Returns the anatomy of a name.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.
    """
    if name not in ANATOMIES:
        raise ValueError(f"there is no anatomy {name!r}, only {', '.join(ANATOMIES)}")
    return ANATOMIES[name]
