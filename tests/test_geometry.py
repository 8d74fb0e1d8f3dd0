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


@pytest.mark.slow
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


@pytest.mark.slow
def test_centres_of_a_large_frame_do_not_overflow():
    corner = jnp.zeros((1, 2048, 2048), jnp.uint8).at[0, 1024:, 1024:].set(5)
    np.testing.assert_array_equal(geometry.class_centres(corner).yx[0, 5], [1535, 1535])


def test_windows_and_thetas_are_inverse_and_in_pixels():
    theta = geometry.theta_from_centres(jnp.array([[20.0, 30.0]]), FRAME, (9, 13))
    windows = geometry.windows_from_theta(theta, FRAME)
    np.testing.assert_allclose(windows, [[24, 16, 36, 24]], atol=1e-4)
    np.testing.assert_allclose(geometry.theta_from_windows(windows, FRAME), theta, atol=1e-6)


def test_bounding_boxes():
    mask = np.zeros((2, 8, 9), bool)
    mask[0, 2:5, 3:7] = True
    mask[0, 3, 4] = False
    np.testing.assert_array_equal(geometry.bounding_boxes(mask), [[3, 2, 6, 4], [0, 0, 8, 7]])


def test_part_sizes():
    assert geometry.part_sizes((9, 11), 2) == ((9, 11), (9, 11))
    assert geometry.part_sizes([(9, 11), (3, 5)], 2) == ((9, 11), (3, 5))
    with pytest.raises(ValueError, match="for 2 parts, but there are 3"):
        geometry.part_sizes(((9, 11), (3, 5)), 3)


@pytest.mark.parametrize("seed", range(3))
def test_invert_and_compose(seed):
    theta = jax.random.normal(jax.random.key(seed), (4, 6, 2, 3)) + jnp.array(
        [[3.0, 0, 0], [0, 3.0, 0]]
    )
    identity = geometry.compose_theta(theta, geometry.invert_theta(theta))
    np.testing.assert_allclose(identity, jnp.broadcast_to(jnp.eye(2, 3), theta.shape), atol=1e-5)
    full = np.concatenate([theta, np.broadcast_to([[[[0, 0, 1.0]]]], (4, 6, 1, 3))], axis=-2)
    np.testing.assert_allclose(
        geometry.invert_theta(theta), np.linalg.inv(full)[..., :2, :], rtol=1e-4, atol=1e-5
    )


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"label_map has shape \(4, 4\)"):
        geometry.part_centres(jnp.zeros((4, 4), jnp.int32))
    with pytest.raises(ValueError, match=r"labels 0\.\.12, but they must lie in 0\.\.8"):
        geometry.part_centres(jnp.zeros((1, 4, 4), jnp.int32).at[0, 0, 0].set(12))
    with pytest.raises(ValueError, match="theta has shape"):
        geometry.invert_theta(jnp.zeros((6, 3, 3)))
