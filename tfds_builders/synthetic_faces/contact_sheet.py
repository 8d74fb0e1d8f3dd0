"""Writes an image of drawn faces beside their classes.

    python -m tfds_builders.synthetic_faces.contact_sheet --out faces.png

The command draws the faces itself and needs no prepared data set.
"""

import argparse
from collections.abc import Sequence

import numpy as np
from PIL import Image

from .classes import CLASSES
from .face import SPLITS, draw_face

# One colour per class, in the order of CLASSES.
PALETTE = np.array(
    [
        (0, 0, 0),
        (232, 190, 160),
        (160, 82, 45),
        (240, 150, 40),
        (30, 110, 220),
        (80, 200, 240),
        (60, 170, 90),
        (220, 40, 80),
        (110, 10, 40),
        (250, 120, 160),
        (120, 80, 160),
    ],
    np.uint8,
)


def contact_sheet(split: str, indices: Sequence[int], columns: int) -> np.ndarray:
    """Returns an image of drawn faces, each with its classes in colours to its right.

    Args:
      split: split of the faces.
      indices: indices of the faces.
      columns: number of faces per row.

    Returns:
      uint8 (H, W, 3); black where the last row is short.
    """
    tiles = []
    for index in indices:
        image, label = draw_face(split, index)
        tiles.append(np.concatenate([image, PALETTE[label]], axis=1))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Args:
      argv: the arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(description="Writes an image of drawn faces.")
    parser.add_argument("--out", required=True, help="the PNG file to write")
    parser.add_argument("--split", choices=SPLITS, default="train", help="split of the faces")
    parser.add_argument("--first", type=int, default=0, help="index of the first face")
    parser.add_argument("--rows", type=int, default=5, help="number of rows")
    parser.add_argument("--columns", type=int, default=4, help="number of faces per row")
    args = parser.parse_args(argv)
    if min(args.first, args.rows - 1, args.columns - 1) < 0:
        parser.error("--first must not be negative, --rows and --columns must be positive")
    indices = range(args.first, args.first + args.rows * args.columns)
    Image.fromarray(contact_sheet(args.split, indices, args.columns)).save(args.out, "PNG")
    print(f"wrote {args.out}: {len(indices)} faces, {len(CLASSES)} classes")


if __name__ == "__main__":
    main()
