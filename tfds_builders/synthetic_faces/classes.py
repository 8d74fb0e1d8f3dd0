"""The classes of HELEN, by name and by id."""

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
) = range(len(CLASSES))
