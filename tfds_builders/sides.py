"""Left and right: faces on which an archive's annotators exchanged the two, put right.

About 7 % of CelebAMask-HQ's faces name all their paired parts from the other side. A whole face is
exchanged, never a single pair of it.
"""

from collections.abc import Sequence

import numpy as np
from absl import logging

from tfds_builders.archive import some_of

Pairs = Sequence[tuple[int, int]]
"""Class ids of paired parts: the one on the viewer's left, the one on the viewer's right."""


def are_swapped(label: np.ndarray, pairs: Pairs) -> bool:
    """Tells whether most pairs lie the wrong way round, by their mean columns.

    Args:
      label: class ids, (H, W).
      pairs: the classes to look at. A pair of which a part is absent does not count.

    Returns:
      Whether more pairs are the wrong way round than the right one.
    """
    wrong = 0
    for left, right in pairs:
        offset = _mean_column(label == left) - _mean_column(label == right)
        wrong += int(offset > 0) - int(offset < 0)  # neither, where a part is absent: nan
    return wrong > 0


def swap(label: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Exchanges the two classes of each pair; twice gives the label back.

    Args:
      label: uint8 class ids, (H, W).
      pairs: the classes to exchange.

    Returns:
      uint8 class ids, (H, W).
    """
    table = np.arange(256, dtype=np.uint8)
    for left, right in pairs:
        table[[left, right]] = right, left
    return table[label]


def report(names: list[str]) -> None:
    """Logs the faces whose sides were exchanged, if there are any.

    Args:
      names: the names of their records.
    """
    if names:
        logging.warning(
            "%d faces had left and right exchanged, now put right (sides_swapped): %s",
            len(names),
            some_of(names),
        )


def _mean_column(mask: np.ndarray) -> float:
    """Returns the mean column of the marked pixels of a mask (H, W); nan if there are none."""
    counts = mask.sum(axis=0)
    total = counts.sum()
    return float(counts @ np.arange(len(counts)) / total) if total else float("nan")
