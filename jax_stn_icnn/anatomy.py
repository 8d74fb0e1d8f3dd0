"""The words of face parsing: classes, parts, sides, and each data set's way into the nine classes.

Plain Python on purpose: everything else may import this, and it imports nothing of ours. Side 1 is
on the viewer's left, side 2 on the viewer's right, whatever a data set itself calls left.
"""

from typing import NamedTuple

CLASSES: tuple[str, ...] = (
    "background",
    "brow_1",
    "brow_2",
    "eye_1",
    "eye_2",
    "nose",
    "upper_lip",
    "inner_mouth",
    "lower_lip",
)
NUM_CLASSES = len(CLASSES)


class Part(NamedTuple):
    """A part of the face that gets a window of its own.

    Attributes:
        name: the part's name.
        classes: the classes it fills, in the order of its network's labels 1, 2, ... (label 0 is
            the background of the patch).
        network: the fine network that parses it.
        mirrored: whether its patch goes through the network left-right mirrored.
    """

    name: str
    classes: tuple[int, ...]
    network: str
    mirrored: bool


PARTS: tuple[Part, ...] = (
    Part("brow_1", (1,), "brow", False),
    Part("brow_2", (2,), "brow", True),
    Part("eye_1", (3,), "eye", False),
    Part("eye_2", (4,), "eye", True),
    Part("nose", (5,), "nose", False),
    Part("mouth", (6, 7, 8), "mouth", False),
)
NUM_PARTS = len(PARTS)

# Fine network -> number of labels of its patches, background included.
NETWORKS: dict[str, int] = {part.network: len(part.classes) + 1 for part in PARTS}

# What each class becomes in a mirrored picture. Mirroring a label map without this swap is the
# best-known bug of public face parsers.
MIRRORED_CLASSES: tuple[int, ...] = (0, 2, 1, 4, 3, 5, 6, 7, 8)

# The groups that papers score; the classes of a group count as one.
SCORE_GROUPS: dict[str, tuple[int, ...]] = {
    "brows": (1, 2),
    "eyes": (3, 4),
    "nose": (5,),
    "upper_lip": (6,),
    "inner_mouth": (7,),
    "lower_lip": (8,),
    "mouth": (6, 7, 8),
    "overall": (1, 2, 3, 4, 5, 6, 7, 8),
}

# One colour a class, RGB 0..255: warm for side 1, cool for side 2.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0),
    (230, 159, 0),
    (0, 114, 178),
    (240, 228, 66),
    (86, 180, 233),
    (0, 158, 115),
    (213, 94, 0),
    (255, 255, 255),
    (204, 121, 167),
)

# Each data set's own classes, in the order of its ids, as the nine-class id they become. HELEN's
# left is the viewer's left; CelebAMask-HQ's `l_` is the subject's left, the viewer's right.
HELEN_TO_NINE: dict[str, int] = {
    "background": 0,
    "skin": 0,
    "left_brow": 1,
    "right_brow": 2,
    "left_eye": 3,
    "right_eye": 4,
    "nose": 5,
    "upper_lip": 6,
    "inner_mouth": 7,
    "lower_lip": 8,
    "hair": 0,
}
CELEBAMASK_HQ_TO_NINE: dict[str, int] = {
    "background": 0,
    "skin": 0,
    "nose": 5,
    "eye_g": 0,
    "l_eye": 4,
    "r_eye": 3,
    "l_brow": 2,
    "r_brow": 1,
    "l_ear": 0,
    "r_ear": 0,
    "mouth": 7,
    "u_lip": 6,
    "l_lip": 8,
    "hair": 0,
    "hat": 0,
    "ear_r": 0,
    "neck_l": 0,
    "neck": 0,
    "cloth": 0,
}
TO_NINE: dict[str, dict[str, int]] = {
    "helen": HELEN_TO_NINE,
    "synthetic_faces": HELEN_TO_NINE,
    "celebamask_hq": CELEBAMASK_HQ_TO_NINE,
}
