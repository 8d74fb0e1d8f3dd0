"""Draws the picture of drawn portraits and of a drawn group, each beside its labels.

python docs/make_portraits.py [--out docs/portraits.jpg]
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from jax_stn_icnn.anatomy import NINETEEN
from tfds_builders.synthetic_faces.group import draw_group
from tfds_builders.synthetic_faces.portrait import draw_portrait

# Indices of portraits of the training split, and the seed of the group.
PORTRAITS = (8, 20, 32, 40)
GROUP = 12
SIDE = 200


def sheet() -> np.ndarray:
    """Returns portraits above a group, uint8 (height, width, 3)."""
    palette = np.array(NINETEEN.colours, np.uint8)
    portraits = [draw_portrait("train", index, SIDE) for index in PORTRAITS]
    pairs = [np.hstack([image, palette[label]]) for image, label in portraits]
    half = len(PORTRAITS) * SIDE
    # Drawn at twice the size at which it is shown, so that its lines are smooth.
    image, label, owner = draw_group(GROUP, size=(2 * 2 * half // 3, 2 * half))
    del owner
    smooth = np.asarray(Image.fromarray(image).reduce(2))
    return np.vstack([np.hstack(pairs), np.hstack([smooth, palette[label[::2, ::2]]])])


def main() -> None:
    """Runs the command."""
    command = argparse.ArgumentParser(description="Draws portraits and a group.")
    command.add_argument("--out", type=Path, default=Path(__file__).with_name("portraits.jpg"))
    Image.fromarray(sheet()).save(command.parse_args().out, quality=80)


if __name__ == "__main__":
    main()
