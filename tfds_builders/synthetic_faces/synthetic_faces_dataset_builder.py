"""Synthetic faces: images drawn by a program, with the exact class of every pixel."""

from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_builders import drawn

from . import classes, face


class Builder(drawn.DrawnBuilder):
    """Builds a data set of drawn faces; downloads nothing."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    SPLIT_SIZES: ClassVar[dict[str, int]] = {"train": 2000, "validation": 200, "test": 200}
    SIZE = face.SIZE
    CLASSES = classes.CLASSES
    draw = staticmethod(face.draw_face)
