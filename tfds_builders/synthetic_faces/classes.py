"""Classes: those that are painted, and those of the label maps of faces and of portraits."""

import numpy as np

from tfds_builders.helen_classes import CLASSES as CLASSES

(
    BACKGROUND,
    SKIN,
    LEFT_BROW,
    RIGHT_BROW,
    LEFT_EYE,
    RIGHT_EYE,
    NOSE,
    UPPER_LIP,
    INNER_MOUTH,
    LOWER_LIP,
    HAIR,
    LEFT_EAR,
    RIGHT_EAR,
    GLASSES,
    HAT,
    NECK,
    CLOTH,
) = range(len(CLASSES) + 6)

PORTRAIT_CLASSES = (
    "background",
    "brow_1",
    "brow_2",
    "eye_1",
    "eye_2",
    "nose",
    "upper_lip",
    "inner_mouth",
    "lower_lip",
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
)
"""The classes of portraits and groups, which have no earrings and necklaces. 1 is the viewer's
left."""

_PAINTED = (
    "background",
    "skin",
    "brow_1",
    "brow_2",
    "eye_1",
    "eye_2",
    "nose",
    "upper_lip",
    "inner_mouth",
    "lower_lip",
    "hair",
    "ear_1",
    "ear_2",
    "glasses",
    "hat",
    "neck",
    "cloth",
)
FACE_IDS = np.array([*range(len(CLASSES)), *[BACKGROUND] * 6], np.uint8)
"""Painted class -> index of CLASSES; ears, neck and clothes are background, as in HELEN."""
PORTRAIT_IDS = np.array([PORTRAIT_CLASSES.index(name) for name in _PAINTED], np.uint8)
"""Painted class -> index of PORTRAIT_CLASSES."""
