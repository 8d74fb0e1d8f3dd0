"""Counts classes: the fraction of pixels of each class, and how often it is missing.

    python -m tfds_builders.synthetic_faces.class_shares --split train --count 2000

The command draws the faces itself and needs no prepared data set.
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from .classes import CLASSES
from .face import SPLITS, draw_face


class ClassShares(NamedTuple):
    """One value per class, in the order of CLASSES; all in [0, 1]."""

    pixels: np.ndarray
    """Fraction of all pixels."""
    missing: np.ndarray
    """Fraction of the label maps without a pixel of the class."""


def class_shares(labels: Iterable[np.ndarray]) -> ClassShares:
    """Returns the fraction of pixels and of missing occurrences of each class.

    Args:
      labels: label maps, uint8 (H, W), with values below `len(CLASSES)`.

    Returns:
      The fractions.

    Raises:
      ValueError: if there are no label maps.
    """
    counts = [np.bincount(label.ravel(), minlength=len(CLASSES)) for label in labels]
    if not counts:
        raise ValueError("there are no label maps to count")
    table = np.stack(counts)
    return ClassShares(table.sum(axis=0) / table.sum(), (table == 0).mean(axis=0))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Args:
      argv: the arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(description="Counts the classes of drawn faces.")
    parser.add_argument("--split", choices=SPLITS, default="train", help="split of the faces")
    parser.add_argument("--count", type=int, default=200, help="number of faces to draw")
    args = parser.parse_args(argv)
    if args.count < 1:
        parser.error(f"--count must be positive; got {args.count}")
    indices = tqdm.trange(args.count, unit=" faces")
    shares = class_shares(draw_face(args.split, index).label for index in indices)
    print(f"{'class':12}  pixels   missing from")
    for name, pixels, missing in zip(CLASSES, *shares, strict=True):
        print(f"{name:12} {pixels:6.2%}  {missing:6.1%} of the faces")


if __name__ == "__main__":
    main()
