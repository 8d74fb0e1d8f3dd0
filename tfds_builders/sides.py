"""Left and right: detects and fixes faces whose annotation has the two exchanged.

About 7 % of CelebAMask-HQ's faces have the names of all their paired parts exchanged. The exchange
always concerns all pairs of a face, never a single pair.
"""

from collections.abc import Sequence

import numpy as np
from absl import logging

from tfds_builders.archive import abbreviate

Pairs = Sequence[tuple[int, int]]
"""Class ids of paired parts: the one on the viewer's left, the one on the viewer's right."""


def are_swapped(label: np.ndarray, pairs: Pairs) -> bool:
    """Returns whether most pairs have left and right exchanged, by the parts' mean columns.

    Args:
      label: class ids, (H, W).
      pairs: the classes to compare. A pair with an absent part does not count.

    Returns:
      Whether more pairs are exchanged than not.
    """
    wrong = 0
    for left, right in pairs:
        offset = _mean_column(label == left) - _mean_column(label == right)
        wrong += int(offset > 0) - int(offset < 0)  # both are false if a part is absent: nan
    return wrong > 0


def swap(label: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Exchanges the two classes of each pair; applied twice, returns the original.

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
    """Logs the faces whose left and right were exchanged and fixed, if any.

    Args:
      names: the names of their records.
    """
    if names:
        logging.warning(
            "%d faces had left and right exchanged, which is fixed (sides_swapped): %s",
            len(names),
            abbreviate(names),
        )


def _mean_column(mask: np.ndarray) -> float:
    """Returns the mean column of a mask's true pixels, (H, W); nan if there are none."""
    counts = mask.sum(axis=0)
    total = counts.sum()
    return float(counts @ np.arange(len(counts)) / total) if total else float("nan")
