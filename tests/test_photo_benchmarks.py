"""The counts of the benchmarks on whole photos."""

import numpy as np

from benchmarks import straight_cuts, whole_photos
from jax_stn_icnn.anatomy import NINETEEN
from jax_stn_icnn.faces import framing
from jax_stn_icnn.inference.results import FaceResult

SETS = ((0, 3), (2,), (1, 4), (0, 1, 2, 3, 4))  # background or cloth, hair, skin or neck, ignore


def test_counts_of_labels_that_are_sets():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 4, (20, 30), np.uint8), rng.integers(0, 5, (20, 30))
    truth[:2] = 255
    found = whole_photos.count(prediction.astype(np.uint8), truth, SETS)
    for label, classes in enumerate(SETS):
        # A pixel counts as wrong if its class is not in the set of its label.
        right = np.array(
            [t == 255 or p in SETS[t] for t, p in zip(truth.flat, prediction.flat, strict=True)]
        )
        is_label, in_set = truth.ravel() == label, np.isin(prediction.ravel(), classes)
        assert found.tp[label] == (is_label & in_set).sum()
        assert found.fn[label] == (is_label & ~right).sum()
        assert found.fp[label] == (~right & in_set).sum()
    assert found.fn[3] == 0 and found.f1().shape == (4,)


def test_the_edge_of_the_photo_is_no_boundary():
    mask = np.zeros((8, 8), bool)
    mask[2:, 3:] = True
    expected = np.zeros_like(mask)
    expected[2, 3:] = expected[2:, 3] = True
    np.testing.assert_array_equal(straight_cuts.boundary(mask), expected)


def test_pixels_near_the_edges_of_both_frames():
    frame = framing.frame_from_box(np.array([60.0, 60, 99, 99]), 32)
    face = FaceResult.from_frame(
        scores=np.zeros((19, 32, 32), np.float32),
        windows=np.zeros((6, 4)),
        coarse_labels=np.zeros((1, 1), np.uint8),
        anatomy=NINETEEN,
        box=np.zeros(4),
        matrix=frame,
        photo_size=(200, 220),
        wide_scores=[np.zeros((11, 16, 16), np.float32)],
    )
    near = straight_cuts.is_near_edge(face, (200, 220))
    expected = np.zeros_like(near)
    for matrix in (frame, framing.wide_frame(frame, 32)):
        corners = matrix @ np.array([[-0.5, 31.5], [-0.5, 31.5], [1, 1]])
        (x0, x1), (y0, y1) = corners
        y, x = np.indices(near.shape)
        outside = np.maximum(np.maximum(x0 - x, x - x1), np.maximum(y0 - y, y - y1))
        expected |= np.abs(outside) <= 2
    np.testing.assert_array_equal(near, expected)
