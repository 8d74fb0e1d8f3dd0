"""Detection of exchanged sides, and their exchange."""

import numpy as np
import pytest

from tfds_builders import sides

# The builders have a job of their own (.ci/slow).
pytestmark = pytest.mark.slow

PAIRS = ((2, 3), (4, 5))


def label(**columns: int) -> np.ndarray:
    """Returns a row of background with one pixel per argument: class 2 in column c2, ..."""
    row = np.zeros((1, 20), np.uint8)
    for name, column in columns.items():
        row[0, column] = int(name[1:])
    return row


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (label(c2=1, c3=8), False),
        (label(c2=8, c3=1), True),
        (label(c2=8, c4=1), False),  # no pair
        (label(c2=8, c3=1, c4=9, c5=2), True),
        (label(c2=8, c3=1, c4=2, c5=9), False),  # undecided
        (label(c3=5), False),
        (label(), False),
    ],
)
def test_are_swapped(ids, expected):
    assert sides.are_swapped(ids, PAIRS) is expected


def test_are_swapped_compares_mean_columns():
    ids = np.array([[2, 0, 3, 0, 0, 2, 2, 2]], np.uint8)  # the mean of 2 is to the right of 3
    assert sides.are_swapped(ids, PAIRS)


def test_swap_exchanges_only_the_pairs():
    ids = np.arange(7, dtype=np.uint8)[None]
    swapped = sides.swap(ids, PAIRS)
    np.testing.assert_array_equal(swapped, [[0, 1, 3, 2, 5, 4, 6]])
    assert swapped.dtype == np.uint8
    np.testing.assert_array_equal(sides.swap(swapped, PAIRS), ids)
