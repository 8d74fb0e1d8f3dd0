"""Synthetic portraits: people in wide pictures, with the exact class of every pixel."""

from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_builders import drawn
from tfds_builders.synthetic_faces import classes, portrait


class Builder(drawn.DrawnBuilder):
    """Builds a data set of drawn portraits; downloads nothing."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    SPLIT_SIZES: ClassVar[dict[str, int]] = {"train": 600, "validation": 100, "test": 100}
    SIZE = portrait.SIZE
    CLASSES = classes.PORTRAIT_CLASSES
    draw = staticmethod(portrait.draw_portrait)
