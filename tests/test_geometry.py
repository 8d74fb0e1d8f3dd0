import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_stn_icnn import geometry
from jax_stn_icnn.anatomy import NINE

FRAME = (48, 64)


def label_map_with(**pixels):
    label_map = np.zeros((1, *FRAME), np.int32)
    for name, (rows, columns) in pixels.items():
        label_map[0, rows, columns] = NINE.classes.index(name)
    return jnp.array(label_map)


def test_targets_equal_the_original(golden):
    z = golden("pipeline")
    frame = jnp.pad(jnp.array(z["labels9_uint8"]), ((0, 0), (256, 256), (256, 256)))
    centres = geometry.part_centres(frame)
    np.testing.assert_array_equal(geometry.class_centres(frame).yx, z["centroids_yx"])
    np.testing.assert_array_equal(centres.yx, z["part_points_yx"])
    assert centres.present.all()
    theta, _ = geometry.theta_target(frame, (81, 81))
    np.testing.assert_allclose(theta, z["theta_target"], rtol=0, atol=1e-7)


def test_absent_classes_take_no_part():
    frame = label_map_with(
        nose=(slice(4, 7), slice(10, 13)),
        upper_lip=(slice(20, 21), slice(30, 33)),
        lower_lip=(slice(30, 31), slice(30, 34)),
    )
    centres = geometry.part_centres(frame)
    names = [part.name for part in NINE.parts]
    assert dict(zip(names, centres.present[0].tolist(), strict=True)) == {
        name: name in ("nose", "mouth") for name in names
    }
    np.testing.assert_array_equal(centres.yx[0, names.index("nose")], [5, 11])
    # No inner mouth: the mean of two centres, (20, 31) and (30, 31.5 rounded down).
    np.testing.assert_array_equal(centres.yx[0, names.index("mouth")], [25, 31])
    np.testing.assert_array_equal(centres.yx[0, names.index("eye_1")], [24, 32])


def test_class_centres_equal_the_mean_pixel_rounded_down():
    label_map = np.asarray(jax.random.randint(jax.random.key(0), (2, 37, 53), 0, 9))
    centres = geometry.class_centres(jnp.array(label_map)).yx
    for image in range(2):
        for c in range(9):
            rows, columns = np.nonzero(label_map[image] == c)
            expected = [rows.sum() // rows.size, columns.sum() // columns.size]
            np.testing.assert_array_equal(centres[image, c], expected)


def test_centres_of_a_large_frame_do_not_overflow():
    corner = jnp.zeros((1, 2048, 2048), jnp.uint8).at[0, 1024:, 1024:].set(5)
    np.testing.assert_array_equal(geometry.class_centres(corner).yx[0, 5], [1535, 1535])


def test_windows_and_thetas_are_inverse_and_in_pixels():
    theta = geometry.theta_from_centres(jnp.array([[20.0, 30.0]]), FRAME, (9, 13))
    windows = geometry.windows_from_theta(theta, FRAME)
    np.testing.assert_allclose(windows, [[24, 16, 36, 24]], atol=1e-4)
    np.testing.assert_allclose(geometry.theta_from_windows(windows, FRAME), theta, atol=1e-6)


def followed(label_map, sizes):
    """Windows that follow their parts, by their definition; None for an absent part."""
    windows = []
    for part, size in zip(NINE.parts, sizes, strict=True):
        rows, columns = np.nonzero(np.isin(label_map, NINE.ids(part.classes)))
        if not rows.size:
            windows.append(None)
            continue
        span_y, span_x = size[0] - 1, size[1] - 1
        scale = max(np.ptp(rows) / span_y + 1 / 4, np.ptp(columns) / span_x + 1 / 4, 1 / 2)
        x = (columns.min() + columns.max()) // 2
        y = (rows.min() + rows.max()) // 2
        half_x, half_y = scale * span_x / 2, scale * span_y / 2
        windows.append((x - half_x, y - half_y, x + half_x, y + half_y))
    return windows


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_following_windows_hold_their_parts_and_absent_ones_are_as_large_as_the_patch(seed):
    rng = np.random.default_rng(seed)
    sizes = ((21, 43),) * 2 + ((17, 43),) * 2 + ((47, 39), (33, 51))
    label_map = np.zeros((4, 90, 120), np.int32)
    for face, c in np.ndindex(4, 9):
        if c and rng.random() < 0.7:
            (height, width), (top, left) = rng.integers(1, 50, 2), rng.integers(0, 60, 2)
            blob = label_map[face, top : top + height, left : left + width]
            blob[rng.random(blob.shape) < 0.3] = c
    theta, present = geometry.theta_target(jnp.array(label_map), sizes, following=True)
    fitted, there = geometry.theta_target(jnp.array(label_map), sizes)
    np.testing.assert_array_equal(present, there)
    assert not present.all()
    boxes = np.asarray(geometry.windows_from_theta(theta, label_map.shape[1:]))
    for face in range(4):
        windows = followed(label_map[face], sizes)
        assert present[face].tolist() == [window is not None for window in windows]
        for i, window in enumerate(windows):
            if window is None:
                np.testing.assert_array_equal(theta[face, i], fitted[face, i])
                continue
            np.testing.assert_allclose(boxes[face, i], window, atol=1e-3)
            member = np.isin(label_map[face], NINE.ids(NINE.parts[i].classes))
            rows, columns = np.nonzero(member)
            x0, y0, x1, y1 = boxes[face, i]
            assert x0 < columns.min() and columns.max() < x1
            assert y0 < rows.min() and rows.max() < y1
    scales = (theta / fitted)[..., [0, 1], [0, 1]][present]
    np.testing.assert_allclose(scales[:, 0], scales[:, 1], rtol=1e-5)
    assert scales.min() < 0.7 and scales.max() > 1.3


def test_a_following_window_is_at_least_half_its_patch():
    frame = label_map_with(nose=(slice(20, 21), slice(30, 32)))
    theta, _ = geometry.theta_target(frame, (9, 13), following=True)
    window = geometry.windows_from_theta(theta, FRAME)[0, NINE.num_parts - 2]
    np.testing.assert_allclose(window, [30 - 3, 20 - 2, 30 + 3, 20 + 2], atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_invert_and_compose(seed):
    theta = jax.random.normal(jax.random.key(seed), (4, 6, 2, 3)) + jnp.array(
        [[3.0, 0, 0], [0, 3.0, 0]]
    )
    identity = geometry.compose(theta, geometry.invert(theta))
    np.testing.assert_allclose(identity, jnp.broadcast_to(jnp.eye(2, 3), theta.shape), atol=1e-5)
    full = np.concatenate([theta, np.broadcast_to([[[[0, 0, 1.0]]]], (4, 6, 1, 3))], axis=-2)
    np.testing.assert_allclose(
        geometry.invert(theta), np.linalg.inv(full)[..., :2, :], rtol=1e-4, atol=1e-5
    )


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"label_map has shape \(4, 4\)"):
        geometry.part_centres(jnp.zeros((4, 4), jnp.int32))
    with pytest.raises(ValueError, match=r"labels 0\.\.12, but they must lie in 0\.\.8"):
        geometry.part_centres(jnp.zeros((1, 4, 4), jnp.int32).at[0, 0, 0].set(12))
    with pytest.raises(ValueError, match="theta has shape"):
        geometry.invert(jnp.zeros((6, 3, 3)))
