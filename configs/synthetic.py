"""Drawn faces, the whole face in eleven classes: all of training, short, nothing to download.

    python train.py

Expected result: not measured with these settings yet; docs/results.md has that of the nine classes.
"""

from ml_collections import ConfigDict

from configs import synthetic_nine, whole_face


def get_config() -> ConfigDict:
    """`synthetic_nine.py` with skin, hair and windows that fit."""
    config = whole_face.apply(synthetic_nine.get_config())
    config.classes = "eleven"
    config.model.detail = 1  # The frame has 192 pixels: 128 are enough.
    config.mirror = False  # There are faces enough for so short a stage.
    return config
