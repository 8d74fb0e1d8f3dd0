"""Draws the picture of the page on data sets with different labels, after its code blocks have run.

    python docs/make_mixed_labels.py FULL HAIR

`mixed_labels.jpg`: training pictures beside their masks, above those of the folder FULL with eleven
classes, below those of the folder HAIR with two values.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from jax_stn_icnn.anatomy import ELEVEN

DOCS = Path(__file__).parent
SIDE = 200
COUNT = 4


def _mask(path: Path, colours: np.ndarray) -> np.ndarray:
    mask = np.asarray(Image.open(path).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    return colours[mask]


def row(folder: Path, colours: np.ndarray) -> np.ndarray:
    """Returns pictures of the training split, each beside its mask, uint8 (SIDE, width, 3)."""
    found = []
    for path in sorted((folder / "images/train").iterdir())[:COUNT]:
        found.append(np.asarray(Image.open(path).resize((SIDE, SIDE))))
        found.append(_mask(folder / "masks/train" / f"{path.stem}.png", colours))
    return np.hstack(found)


def main() -> None:
    """Runs the command."""
    command = argparse.ArgumentParser(description="Draws the picture of the page.")
    command.add_argument("full", type=Path)
    command.add_argument("hair", type=Path)
    args = command.parse_args()
    names = (args.full / "classes.txt").read_text().split()
    colours = np.array([ELEVEN.colours[i] for i in ELEVEN.ids(names)], np.uint8)
    gray = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    picture = np.vstack([row(args.full, colours), row(args.hair, gray)])
    Image.fromarray(picture).save(DOCS / "mixed_labels.jpg", quality=85)


if __name__ == "__main__":
    main()
