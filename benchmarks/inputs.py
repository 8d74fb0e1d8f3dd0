"""Inputs that several benchmarks share, and the setting of joint training; needs only NumPy."""

import numpy as np

# Setting of joint training.
BATCH, FRAME, PATCH = 16, 512, 127
RATES = {"coarse": 1e-4, "localizer": 1e-4, "fine": 8e-4}
LOSS_WEIGHTS = {"fine": 1.0, "coarse": 1.0, "localizer": 10.0}
# (row, column) of the classes 1..8, in percent of the frame.
CENTRES = ((35, 35), (35, 65), (42, 35), (42, 65), (55, 50), (68, 50), (71, 50), (74, 50))


def random_frames(batch: int, size: int) -> np.ndarray:
    """Returns noise, uint8 (batch, size, size, 3)."""
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)


def drawn_labels(batch: int, size: int) -> np.ndarray:
    """Returns faces of rectangles, uint8 (batch, size, size): each class at a typical position."""
    label_map = np.zeros((batch, size, size), np.uint8)
    for label, (y, x) in enumerate(CENTRES, 1):
        top, left = size * y // 100, size * (x - 5) // 100
        label_map[:, top : top + max(size // 50, 1), left : left + size // 10] = label
    return label_map
