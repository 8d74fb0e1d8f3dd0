import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.anatomy import NINE, NINETEEN
from jax_stn_icnn.data import augment
from jax_stn_icnn.data.keys import example_keys
from jax_stn_icnn.ops import IDENTITY

SIZE, COUNT = (48, 48), 40
IDENTITY = np.array(IDENTITY, np.float32)
VARIANTS = np.arange(COUNT, dtype=np.int32) % augment.NUM_VARIANTS

# Compiled once for all tests.
apply = jax.jit(augment.augment)
choose = jax.jit(jax.vmap(augment.choose_operations))
draw_warps = jax.jit(jax.vmap(augment.random_warp))


def keys_of(count=COUNT, seed=0):
    return example_keys(seed, 0, jnp.arange(count))


def batch_of(count=COUNT, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    label_map = rng.integers(0, 9, (count, *size), dtype=np.uint8)
    return frame, label_map, np.tile(IDENTITY, (count, 1, 1))


def warp_of(angle=0.0, shift=(0.0, 0.0), scale=1.0):
    return augment.Warp(jnp.float32(angle), jnp.array(shift, jnp.float32), jnp.float32(scale))


def pulled_from(warp, size, window):
    """Returns the (rows, columns) that each output pixel reads, in pixels and float64."""
    left, top, right, bottom = window
    centre = np.array([(left + right) / 2, (top + bottom) / 2])
    angle = np.deg2rad(float(warp.angle))
    # Clockwise as seen, since y points down: from the output to the input.
    back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = np.asarray(warp.shift, np.float64) * [right - left, bottom - top]
    rows, columns = np.mgrid[: size[0], : size[1]]
    xy = np.stack([columns, rows], axis=-1) - centre - shift
    xy = xy @ back.T / float(warp.scale) + centre
    return xy[..., 1], xy[..., 0]


WARPS = {
    "all": warp_of(13.0, (0.07, -0.04), 1.15),
    "clockwise": warp_of(-9.0, (-0.03, 0.1), 0.9),
    "rotation": warp_of(angle=15.0),
    "shift": warp_of(shift=(0.3, -0.2125)),  # whole pixels of 161, exact for nearest
    "scale": warp_of(scale=0.8),
}
WINDOWS = {"full": (0, 0, 47, 47), "padded": (6, 11, 40, 36)}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("warp", WARPS.values(), ids=WARPS)
def test_warp_matches_scipy(warp, window):
    image = ndimage.gaussian_filter(np.random.default_rng(0).random(SIZE), 1.0).astype(np.float32)
    region = geometry.theta_from_windows(jnp.array(window), SIZE)
    theta = augment.warp_matrix(warp, region, SIZE)
    warped = ops.crop_bilinear(image[None, ..., None], theta[None], SIZE)[0, ..., 0]
    wanted = ndimage.map_coordinates(
        image, pulled_from(warp, SIZE, window), order=1, mode="grid-constant"
    )
    # A few roundings of float32 coordinates, each 2**-24 of 24 pixels, on slopes below one.
    np.testing.assert_allclose(warped, wanted, atol=1e-5)


def test_warp_of_an_oblong_frame_is_isotropic_in_pixels():
    size, window = (33, 61), (0, 0, 60, 32)
    theta = augment.warp_matrix(WARPS["all"], jnp.array(IDENTITY), size)
    grid = ops.affine_grid(theta, size)
    rows, columns = pulled_from(WARPS["all"], size, window)
    np.testing.assert_allclose(geometry.unit_to_pixel(grid[..., 0], 61), columns, atol=1e-4)
    np.testing.assert_allclose(geometry.unit_to_pixel(grid[..., 1], 33), rows, atol=1e-4)


@pytest.mark.parametrize("warp", WARPS.values(), ids=WARPS)
def test_image_and_labels_move_to_the_same_place(warp):
    size, centre, radius = (161, 161), np.array([71.3, 92.6]), 17.0
    x, y = np.meshgrid(np.arange(161), np.arange(161))
    disc = np.hypot(x - centre[0], y - centre[1]) < radius
    frame = np.repeat(disc[None, ..., None], 3, axis=-1).astype(np.float32)
    theta = augment.warp_matrix(warp, jnp.array(IDENTITY), size)[None]
    image = ops.crop_bilinear(frame, theta, size)[0, ..., 0]
    label_map = ops.crop_nearest(np.uint8(5) * disc[None, ..., None], theta, size)[0]
    of_image = np.array([np.average(x, weights=image), np.average(y, weights=image)])
    member = np.asarray(label_map)[..., 0] == 5
    of_labels = np.array([x[member].mean(), y[member].mean()])
    np.testing.assert_allclose(of_image, of_labels, atol=0.1)
    # The place is the right one: rotated counterclockwise, scaled, then shifted.
    angle = np.deg2rad(float(warp.angle))
    forward = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    start = np.array([x[disc].mean(), y[disc].mean()])
    wanted = 80 + float(warp.scale) * forward @ (start - 80) + 160 * np.asarray(warp.shift)
    np.testing.assert_allclose(of_image, wanted, atol=0.02)


def test_augmented_image_and_labels_stay_aligned():
    x, y = np.meshgrid(np.arange(121), np.arange(121))
    disc = np.hypot(x - 53.3, y - 68.6) < 17
    label_map = np.tile(np.uint8(5) * disc, (COUNT, 1, 1))
    frame = np.repeat(51 * label_map[..., None], 3, axis=-1)
    image, warped = apply(keys_of(), frame, label_map, batch_of()[2], VARIANTS)
    rotated, _, scaled, noisy = np.asarray(choose(keys_of(), VARIANTS)).T
    # A shift alone moves labels by whole pixels only, up to half a pixel from the image.
    compared = np.flatnonzero((rotated | scaled) & ~noisy)
    assert len(compared) > 8
    weights = np.asarray(image)[compared, ..., 0]
    member = np.asarray(warped)[compared] == 5
    for axis in (x, y):
        of_image = (axis * weights).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
        of_labels = (axis * member).sum(axis=(1, 2)) / member.sum(axis=(1, 2))
        # Nearest sampling rounds each example, without a bias.
        assert abs(np.mean(of_image - of_labels)) < 0.05
        np.testing.assert_allclose(of_image, of_labels, atol=0.25)
    assert set(np.unique(warped)) == {0, 5}


@pytest.mark.parametrize("variant", range(augment.NUM_VARIANTS))
def test_variant_applies_as_many_operations(variant):
    count = 2000
    chosen = np.asarray(choose(keys_of(count), np.full(count, variant)))
    assert chosen.shape == (count, 4) and chosen.dtype == bool
    np.testing.assert_array_equal(chosen.sum(axis=1), variant)
    # Each operation is as likely as the others: four standard deviations.
    share = variant / 4
    deviation = np.sqrt(share * (1 - share) / count)
    np.testing.assert_allclose(chosen.mean(axis=0), share, atol=4 * deviation)


@pytest.mark.parametrize("variant", range(1, augment.NUM_VARIANTS))
def test_ranges(variant):
    count = 2000
    keys = keys_of(count, seed=variant)
    chosen = choose(keys, np.full(count, variant))
    warp = draw_warps(keys, chosen)
    lowest, highest = (0.8, 1.5) if variant == 1 else (0.9, 1.2)
    reach = 0.3 if variant == 1 else 0.1
    rotated, shifted, scaled, _ = np.asarray(chosen).T
    angle, shift, scale = (np.asarray(values) for values in warp)
    for values, low, high in (
        (angle[rotated], -15, 15),
        (shift[shifted], -reach, reach),
        (scale[scaled], lowest, highest),
    ):
        margin = 0.03 * (high - low)  # reached by hundreds of draws
        assert low - 1e-6 <= values.min() < low + margin
        assert high - margin < values.max() <= high + 1e-6
    assert not np.any(angle[~rotated]) and not np.any(shift[~shifted])
    np.testing.assert_array_equal(scale[~scaled], 1)


@pytest.mark.slow
def test_noise_level_and_independence():
    chosen = jnp.array([False, False, False, True])
    noise = np.asarray(
        jax.vmap(lambda key: augment.random_noise(key, chosen, (64, 64)))(keys_of(60))
    )
    levels = noise.std(axis=(1, 2, 3))
    assert 0 < levels.min() < 0.01 and 0.04 < levels.max() < 0.0515
    scaled = noise / levels[:, None, None, None]
    assert abs(scaled.mean()) < 5 / np.sqrt(scaled.size)
    assert abs((scaled[..., 0] * scaled[..., 1]).mean()) < 5 / np.sqrt(scaled[..., 0].size)
    assert abs((scaled[:, 1:] * scaled[:, :-1]).mean()) < 5 / np.sqrt(scaled[:, 1:].size)
    assert not np.any(augment.random_noise(keys_of(1)[0], ~chosen, (8, 8)))


@pytest.mark.slow
def test_noise_touches_only_the_image():
    frame, label_map, region = batch_of()
    variant = np.ones(COUNT, np.int32)
    only_noise = np.asarray(choose(keys_of(), variant))[:, 3]
    assert 2 < only_noise.sum() < 25
    image, warped = apply(keys_of(), frame, label_map, region, variant)
    np.testing.assert_array_equal(np.asarray(warped)[only_noise], label_map[only_noise])
    difference = np.abs(np.asarray(image) - frame / 255.0)[only_noise]
    assert np.all(difference.max(axis=(1, 2, 3)) > 1e-4)
    # All four operations: the labels follow from the geometry alone.
    variant = np.full(COUNT, 4, np.int32)
    _, warped = apply(keys_of(), frame, label_map, region, variant)
    theta = augment.warp_matrix(draw_warps(keys_of(), np.ones((COUNT, 4), bool)), region, SIZE)
    geometric = ops.crop_nearest(label_map[..., None], theta, SIZE)[..., 0]
    np.testing.assert_array_equal(warped, geometric)


def test_mirrored_faces_are_rotated_in_both_directions():
    """Folding in an index gives the key of a split: the draws must be independent all the same."""
    count = 64
    keys = keys_of(count)
    angle = np.asarray(draw_warps(keys, np.ones((count, 4), bool)).angle)
    frame, label_map, _ = batch_of(count, (4, 4))
    region = np.tile(np.array([[1, 0, 0.5], [0, 1, 0]], np.float32), (count, 1, 1))
    mirrored = np.asarray(
        augment.random_mirror(keys, frame, label_map, jnp.array(region), NINE.mirror_ids)[2]
    )
    for side in (mirrored[:, 0, 2] < 0, mirrored[:, 0, 2] > 0):
        assert 0.3 < np.mean(angle[side] > 0) < 0.7


def test_no_warp_mirrors():
    count = 250
    keys, variant = keys_of(count), np.arange(count) % augment.NUM_VARIANTS
    warp = draw_warps(keys, choose(keys, variant))
    theta = np.asarray(augment.warp_matrix(warp, np.tile(IDENTITY, (count, 1, 1)), SIZE))
    determinant = np.linalg.det(theta[..., :2])
    np.testing.assert_allclose(determinant, 1 / np.asarray(warp.scale) ** 2, rtol=1e-5)
    assert determinant.min() > 0
    assert theta[:, 0, 0].min() > 0 and theta[:, 1, 1].min() > 0


def test_variant_zero_changes_no_bit():
    frame, label_map, region = batch_of(2, (512, 512))
    image, same = apply(keys_of(2), frame, label_map, region, np.zeros(2, np.int32))
    assert image.dtype == jnp.float32 and same.dtype == jnp.int32
    np.testing.assert_array_equal(image, ops.to_float(jnp.asarray(frame)))
    np.testing.assert_array_equal(same, label_map)


def test_padding_stays_black_and_region_true():
    left, top, right, bottom = WINDOWS["padded"]
    frame, label_map, _ = batch_of()
    inside = np.zeros(SIZE, bool)
    inside[top : bottom + 1, left : right + 1] = True
    frame, label_map = frame * inside[..., None], label_map * inside
    region = geometry.theta_from_windows(jnp.tile(jnp.array(WINDOWS["padded"]), (COUNT, 1)), SIZE)
    image, warped = map(np.asarray, apply(keys_of(), frame, label_map, region, VARIANTS))
    assert not np.any(image[:, ~inside]) and not np.any(warped[:, ~inside])
    assert image[:, inside].any(axis=(1, 2)).all()
    np.testing.assert_array_equal(warped[VARIANTS == 0], label_map[VARIANTS == 0])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["eager", "vmap", "alone"])
def test_jit_vmap_and_eager_agree(how):
    arguments = (keys_of(), *batch_of(), VARIANTS)
    image, label_map = apply(*arguments)
    if how == "eager":
        other = augment.augment(*arguments)
    elif how == "vmap":
        mapped = jax.jit(jax.vmap(augment.augment))(*(a[:, None] for a in arguments))
        other = [a[:, 0] for a in mapped]
    else:
        each = [apply(*(a[i : i + 1] for a in arguments)) for i in range(COUNT)]
        other = [np.concatenate(a) for a in zip(*each, strict=True)]
    # Fused multiplications round differently; labels do not mix pixels.
    np.testing.assert_allclose(other[0], image, atol=2e-5)
    np.testing.assert_array_equal(other[1], label_map)


def test_any_number_of_devices_agrees():
    arguments = (keys_of(), *batch_of(), VARIANTS)
    image, label_map = apply(*arguments)
    devices = jax.sharding.Mesh(np.array(jax.devices()[:4]), "data")
    sharding = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec("data"))
    spread = apply(*(jax.device_put(a, sharding) for a in arguments))
    assert len(spread[0].sharding.device_set) == 4
    np.testing.assert_allclose(spread[0], image, atol=2e-5)
    np.testing.assert_array_equal(spread[1], label_map)


def test_example_keys_depend_on_seed_step_and_position_only():
    positions = jnp.arange(16)
    expected = jax.random.key_data(example_keys(3, 7, positions))
    # Two processes, each with every other place.
    for process in (0, 1):
        share = example_keys(3, 7, positions[process::2])
        np.testing.assert_array_equal(jax.random.key_data(share), expected[process::2])
    jitted = jax.jit(example_keys)(3, 7, positions)
    np.testing.assert_array_equal(jax.random.key_data(jitted), expected)
    many = np.concatenate(
        [
            jax.random.key_data(example_keys(seed, step, positions))
            for seed in (0, 3)
            for step in (0, 7, 8)
        ]
    )
    assert len(np.unique(many, axis=0)) == len(many)


def test_random_variants_are_spread_evenly():
    variants = np.asarray(augment.random_variants(keys_of(5000)))
    assert variants.dtype == np.int32
    # Four standard deviations of a binomial of 5000 draws at one fifth.
    np.testing.assert_allclose(np.bincount(variants, minlength=5) / 5000, 0.2, atol=0.023)


@pytest.mark.slow
def test_compiles_once_for_all_batches():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step_of(step, frame, label_map, region):
        keys = example_keys(0, step, jnp.arange(COUNT))
        return augment.augment(keys, frame, label_map, region, augment.random_variants(keys))

    results = [step_of(step, *batch_of())[0] for step in range(4)]
    assert len({np.asarray(image).tobytes() for image in results}) == 4


def test_wrong_arguments():
    frame, label_map, region = batch_of(2)
    variant = jnp.zeros(2, jnp.int32)
    with pytest.raises(ValueError, match="label_map"):
        augment.augment(keys_of(2), frame, label_map[:, :-1], region, variant)
    with pytest.raises(ValueError, match="keys"):
        augment.augment(keys_of(3), frame, label_map, region, variant)


def test_a_random_half_is_mirrored_with_its_sides_swapped():
    batch, size = 64, 8
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
    label_map = rng.integers(0, 19, (batch, size, size), np.uint8)
    region = jnp.tile(jnp.array([[[0.5, 0, 0.25], [0, 1, 0]]], jnp.float32), (batch, 1, 1))
    keys = jax.random.split(jax.random.key(0), batch)
    got = augment.random_mirror(
        keys, jnp.array(frame), jnp.array(label_map), region, NINETEEN.mirror_ids
    )
    mirrored = np.asarray(got[2])[:, 0, 2] < 0
    assert 20 < mirrored.sum() < 44
    swap = np.array(NINETEEN.mirror_ids)
    for i in range(batch):
        step = -1 if mirrored[i] else 1
        np.testing.assert_array_equal(got[0][i], frame[i, :, ::step])
        expected = swap[label_map[i]] if mirrored[i] else label_map[i]
        np.testing.assert_array_equal(got[1][i], expected[:, ::step])
    assert got[0].dtype == np.uint8 and got[1].dtype == np.uint8
    alone = frame[5:6], jnp.array(label_map[5:6]), region[:1]
    again = augment.random_mirror(keys[5:6], *alone, NINETEEN.mirror_ids)
    np.testing.assert_array_equal(again[0][0], got[0][5])  # for any neighbours
