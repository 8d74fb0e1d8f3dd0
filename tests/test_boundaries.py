import numpy as np
import pytest
import scipy.ndimage

from jax_stn_icnn.evaluation import boundaries


def blobs(seed, shape=(40, 56), classes=4):
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 2, 2))
    return smooth.argmax(axis=0).astype(np.uint8)


def edge_pixels(mask):
    """Yields the edge pixels of a mask, in a loop."""
    height, width = mask.shape
    for y, x in zip(*np.nonzero(mask), strict=True):
        around = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        inside = ((v, u) for v, u in around if 0 <= v < height and 0 <= u < width)
        if not all(mask[v, u] for v, u in inside):
            yield y, x


@pytest.mark.parametrize("within", [0, 1, 2, 3])
def test_counts_equal_a_loop(within):
    truth, prediction = blobs(0), blobs(1)
    prediction[:, :30] = truth[:, :30]
    counts = boundaries.edge_counts(truth, prediction, 5, within)
    for c in range(4):
        true = np.array(list(edge_pixels(truth == c)))
        predicted = np.array(list(edge_pixels(prediction == c)))
        apart = np.linalg.norm(true[:, None] - predicted[None], axis=-1) <= within
        expected = len(predicted), apart.any(axis=0).sum(), len(true), apart.any(axis=1).sum()
        np.testing.assert_array_equal(counts[c], expected)
    assert not counts[4].any()


def test_boundary_f_is_the_harmonic_mean():
    counts = np.array([[10, 5, 20, 20], [4, 0, 4, 0], [0, 0, 7, 0], [0, 0, 0, 0], [3, 3, 5, 5]])
    score = boundaries.boundary_f(counts)
    np.testing.assert_allclose(score[[0, 1, 2, 4]], [2 * 0.5 * 1 / 1.5, 0, 0, 1])
    assert np.isnan(score[3])


def test_stray_regions_have_no_true_pixel_of_their_class():
    truth = np.zeros((8, 12), np.uint8)
    truth[1:4, 1:4], truth[5:7, 6:9] = 1, 2
    prediction = truth.copy()
    assert boundaries.stray_regions(truth, prediction, 3) == 0
    prediction[0, 11] = prediction[7, 0] = 1  # two regions of one class
    prediction[2, 2] = 2  # a hole in region 1, stray as class 2
    prediction[4, 4] = 1  # touches its class at a corner only
    prediction[0, :4] = 1  # exceeds its edge, but contains true pixels
    assert boundaries.stray_regions(truth, prediction, 3) == 4
    prediction[:] = 0  # background is not counted
    assert boundaries.stray_regions(truth, prediction, 3) == 0


@pytest.mark.parametrize("score", [boundaries.edge_counts, boundaries.stray_regions])
def test_shapes_are_checked(score):
    with pytest.raises(
        ValueError, match=r"prediction has shape \(4, 5\), but must have shape \(4, 4\)"
    ):
        score(np.zeros((4, 4)), np.zeros((4, 5)), 3)
