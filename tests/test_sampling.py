"""The sampler and its inverse: golden arrays, independent references, and hard cases."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from windows import part_scores, random_theta, whole_pixel_theta

from jax_stn_icnn import geometry, ops

PATCH = (9, 11)


class TestGolden:
    def test_grid(self, golden):
        z = golden("sampler")
        grid = ops.affine_grid(jnp.array(z["theta"]), PATCH)
        np.testing.assert_allclose(grid, z["grid_xy"], rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        ("theta", "crop"), [("theta", "crop_bilinear"), ("theta_full", "crop_full")]
    )
    def test_bilinear(self, golden, theta, crop):
        z = golden("sampler")
        patches = ops.crop_bilinear(jnp.array(z.nhwc("image")), jnp.array(z[theta]), PATCH)
        np.testing.assert_allclose(patches, z.nhwc(crop), rtol=0, atol=1e-6)

    def test_nearest(self, golden):
        z = golden("sampler")
        patches = ops.crop_nearest(jnp.array(z.nhwc("image")), jnp.array(z["theta"]), PATCH)
        np.testing.assert_array_equal(patches, z.nhwc("crop_nearest"))

    def test_gradients(self, golden):
        z = golden("sampler")

        def total(image, theta, theta_full):
            crop = ops.crop_bilinear(image, theta, PATCH) * z.nhwc("cotangent_crop")
            full = ops.crop_bilinear(image, theta_full, PATCH) * z.nhwc("cotangent_full")
            return jnp.sum(crop) + jnp.sum(full)

        arguments = [jnp.array(a) for a in (z.nhwc("image"), z["theta"], z["theta_full"])]
        d_image, d_theta, d_theta_full = jax.grad(total, argnums=(0, 1, 2))(*arguments)
        np.testing.assert_allclose(d_image, z.nhwc("grad_image"), rtol=0, atol=1e-5)
        # A gradient of theta sums 297 terms and reaches 124, where a float32 step is 7.6e-6: the
        # array itself lies 3e-5 from the exact sum of its own terms: four such steps.
        ulps = 4 * np.finfo(np.float32).eps
        np.testing.assert_allclose(d_theta, z["grad_theta"], rtol=ulps, atol=1e-5)
        np.testing.assert_allclose(d_theta_full, z["grad_theta_full"], rtol=ulps, atol=1e-5)

    def test_paste(self, golden):
        z = golden("mapback")
        scores = ops.paste(
            [jnp.array(z.nhwc(f"probs_{i}")) for i in range(6)], jnp.array(z["theta"]), (1024, 1024)
        )
        np.testing.assert_allclose(
            scores[:, ::8, ::8], z.nhwc("scores_every_8th"), rtol=0, atol=1e-6
        )
        np.testing.assert_array_equal(jnp.argmax(scores, -1), z["labels_uint8"])

    def test_coarse_image(self, golden):
        z = golden("pipeline")
        image = jnp.array(z.nhwc("image_uint8"), jnp.float32) / 255
        small = ops.resize_bilinear(image, (128, 128))
        np.testing.assert_allclose(small, z.nhwc("small_image"), rtol=0, atol=1e-5)


def map_coordinates(image, theta, size, dtype=jnp.float32):
    """The same crop by JAX's own interpolation, one image and one patch."""
    grid = ops.affine_grid(theta.astype(dtype), size)
    # Zero beyond the image is a border of one zero pixel for linear interpolation.
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    x = geometry.unit_to_pixel(grid[..., 0], image.shape[1]) + 1
    y = geometry.unit_to_pixel(grid[..., 1], image.shape[0]) + 1
    return jnp.stack(
        [
            jax.scipy.ndimage.map_coordinates(padded[..., c], [y, x], order=1, mode="constant")
            for c in range(image.shape[-1])
        ],
        axis=-1,
    )


@pytest.mark.parametrize("frame", [(17, 23), (32, 32), (2, 2), (1, 9), (9, 1)])
@pytest.mark.parametrize("shear", [0.0, 0.4])
def test_equals_map_coordinates_in_value_and_gradient(x64, frame, shear):
    keys = jax.random.split(jax.random.key(3), 3)
    image = jax.random.normal(keys[0], (2, *frame, 3), jnp.float64)
    theta = random_theta(keys[1], (2, 4), shear=shear, shift=1.0).astype(jnp.float64)
    weight = jax.random.normal(keys[2], (2, 4, *PATCH, 3), jnp.float64)

    def ours(image, theta):
        return jnp.sum(ops.crop_bilinear(image, theta, PATCH) * weight)

    def reference(image, theta):
        one = functools.partial(map_coordinates, size=PATCH, dtype=jnp.float64)
        return jnp.sum(jax.vmap(jax.vmap(one, in_axes=(None, 0)))(image, theta) * weight)

    # Compiled whole: faster than one operation after the other.
    expected, gradients = jax.jit(jax.value_and_grad(reference, argnums=(0, 1)))(image, theta)
    value, own = jax.jit(jax.value_and_grad(ours, argnums=(0, 1)))(image, theta)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(own[0], gradients[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(own[1], gradients[1], rtol=1e-11, atol=1e-11)


def test_hand_written_gradients_equal_numerical_ones(x64):
    keys = jax.random.split(jax.random.key(0), 2)
    image = jax.random.normal(keys[0], (1, 13, 11, 2), jnp.float64)
    theta = random_theta(keys[1], (1, 3)).astype(jnp.float64)
    crop = functools.partial(ops.crop_bilinear, size=(5, 7))
    check_grads(crop, (image, theta), order=1, modes=["rev"], atol=1e-7, rtol=1e-7, eps=1e-7)


def test_gradient_at_whole_pixels_is_the_slope_to_the_right_and_below():
    y, x = jnp.mgrid[:33, :33].astype(jnp.float32)
    image = (x**2 + 3 * y**2)[None, ..., None]
    theta = whole_pixel_theta([[[16.0, 16.0]]], (33, 33), (1, 1))
    gradient = jax.grad(lambda t: jnp.sum(ops.crop_bilinear(image, t, (1, 1))))(theta)
    # d/dtx of x**2 at x = 16, forwards: (17**2 - 16**2) pixels**-1 * 16 pixels.
    expected = [[0, 0, (17**2 - 16**2) * 16], [0, 0, 3 * (17**2 - 16**2) * 16]]
    np.testing.assert_allclose(gradient[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("side", "patch"), [(1024, 81), (512, 127), (256, 63), (100, 9), (4096, 255)]
)
def test_odd_patch_at_whole_pixels_equals_slicing_to_the_bit(side, patch):
    image = jax.random.uniform(jax.random.key(1), (1, side, side, 1))
    half = patch // 2
    for centre in (half, side // 3, side // 2, side - 1 - half):
        theta = whole_pixel_theta(
            [[float(centre), float(side - 1 - centre)]], (side, side), (patch, patch)
        )
        crop = ops.crop_bilinear(image, theta, (patch, patch))[0]
        y, x = centre - half, side - 1 - centre - half
        np.testing.assert_array_equal(crop, image[0, y : y + patch, x : x + patch])


def test_identity_returns_the_image():
    image = jax.random.uniform(jax.random.key(0), (2, 31, 47, 3))
    np.testing.assert_array_equal(ops.resize_bilinear(image, (31, 47)), image)


def test_nearest_rounds_halves_to_even():
    row = jnp.arange(9.0)[None, None, :, None]
    # The patch's pixels fall on 0, 0.5, 1, ..., 8.
    patch = ops.crop_nearest(row, jnp.array([[[1.0, 0, 0], [0, 1, 0]]]), (1, 17))
    np.testing.assert_array_equal(patch.ravel(), np.round(np.arange(17) / 2))


@pytest.mark.slow
class TestSameUnderTransformations:
    """jit, vmap, several devices and low precision change nothing but rounding."""

    image = jax.random.uniform(jax.random.key(0), (4, 20, 24, 3))
    theta = random_theta(jax.random.key(1), (4, 6))

    @staticmethod
    def value_and_gradients(image, theta):
        def total(image, theta):
            return jnp.sum(ops.crop_bilinear(image, theta, PATCH) ** 2)

        return jax.value_and_grad(total, argnums=(0, 1))(image, theta)

    def per_image(self, transform):
        def one(image, theta):
            return self.value_and_gradients(image[None], theta[None])

        return transform(one)(self.image, self.theta)

    def test_jit(self):
        chex.assert_trees_all_close(
            jax.jit(self.value_and_gradients)(self.image, self.theta),
            self.value_and_gradients(self.image, self.theta),
            rtol=1e-5,
            atol=1e-4,  # of gradients up to 108: a millionth
        )

    def test_vmap(self):
        value, (d_image, d_theta) = self.per_image(jax.vmap)
        expected, (e_image, e_theta) = self.value_and_gradients(self.image, self.theta)
        np.testing.assert_allclose(value.sum(), expected, rtol=1e-6)
        np.testing.assert_allclose(d_image[:, 0], e_image, atol=1e-5)
        np.testing.assert_allclose(d_theta[:, 0], e_theta, rtol=1e-4, atol=1e-4)

    def test_two_devices(self):
        devices = jax.devices()[:2]
        assert len(devices) == 2
        crop = functools.partial(ops.crop_bilinear, size=PATCH)
        patches = jax.pmap(crop, devices=devices)(
            self.image.reshape(2, 2, 20, 24, 3), self.theta.reshape(2, 2, 6, 2, 3)
        )
        chex.assert_trees_all_close(
            patches.reshape(4, 6, *PATCH, 3), crop(self.image, self.theta), atol=1e-6
        )

    def test_bfloat16_image_keeps_float32_coordinates(self):
        image = jax.random.uniform(jax.random.key(0), (1, 1024, 1024, 1)).astype(jnp.bfloat16)
        theta = whole_pixel_theta([[700.0, 301.0]], (1024, 1024), (81, 81))
        patch = ops.crop_bilinear(image, theta, (81, 81))
        assert patch.dtype == jnp.bfloat16
        np.testing.assert_array_equal(patch[0], image[0, 660:741, 261:342])
        gradient = jax.grad(
            lambda t: jnp.sum(ops.crop_bilinear(image, t, (81, 81)).astype(jnp.float32))
        )(theta)
        assert gradient.dtype == jnp.float32


@pytest.mark.parametrize("shift", [1.0, 3.0, 1e6, 1e30, -1e30])
def test_windows_outside_the_frame_are_zero_and_finite(shift):
    image = jnp.ones((1, 16, 16, 2))
    theta = jnp.array([[[0.25, 0, shift], [0, 0.25, shift / 2]]])

    def total(image, theta):
        return jnp.sum(ops.crop_bilinear(image, theta, (5, 5)))

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(image, theta)
    chex.assert_tree_all_finite((value, gradients))
    if shift != 1.0:  # at 1.0 half of the window is inside
        assert value == 0
        chex.assert_trees_all_equal(gradients, jax.tree.map(jnp.zeros_like, gradients))


def test_theta_that_is_not_a_number_shows():
    theta = jnp.full((1, 2, 3), jnp.nan)
    assert jnp.isnan(ops.crop_bilinear(jnp.ones((1, 16, 16, 2)), theta, (5, 5))).all()


def test_image_gradient_is_absent_when_only_theta_is_asked_for():
    image, theta = jnp.ones((1, 64, 64, 3)), jnp.ones((1, 6, 2, 3))

    def total(image, theta):
        return jnp.sum(ops.crop_bilinear(image, theta, PATCH) ** 2)

    def program(argnums):
        return jax.jit(jax.grad(total, argnums)).lower(image, theta).compile().as_text()

    assert "scatter" in program(0)  # the image's gradient is a scatter: the word would be there
    assert "scatter" not in program(1)


@pytest.mark.parametrize(
    ("image", "theta", "message"),
    [
        ((8, 8, 3), (1, 2, 3), "image has shape"),
        ((1, 8, 8, 3), (1, 3, 3), "theta has shape"),
        ((1, 8, 8, 3), (2, 3), "theta has shape"),
        ((2, 8, 8, 3), (1, 6, 2, 3), "agree in their first axis"),
    ],
)
@pytest.mark.parametrize("crop", [ops.crop_bilinear, ops.crop_nearest])
def test_wrong_shapes_are_named(crop, image, theta, message):
    with pytest.raises(ValueError, match=message):
        crop(jnp.zeros(image), jnp.zeros(theta), (3, 3))


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match="floating point, not uint8"):
        ops.crop_bilinear(jnp.zeros((1, 8, 8, 3), jnp.uint8), jnp.zeros((1, 2, 3)), (3, 3))
    with pytest.raises(ValueError, match=r"labels 0\.\.9.*0\.\.8"):
        label_map = jnp.zeros((1, 8, 8), jnp.int32).at[0, 0, 0].set(9)
        ops.crop_part_labels(label_map, jnp.zeros((1, 6, 2, 3)), (3, 3))
    with pytest.raises(ValueError, match="6 parts, not 5"):
        scores = part_scores(jax.random.key(0), 1, (9, 9))[:5]
        ops.paste(scores, jnp.zeros((1, 6, 2, 3)), (16, 16))
    with pytest.raises(ValueError, match="scores of mouth"):
        scores = part_scores(jax.random.key(0), 1, (9, 9))[:5] + [jnp.zeros((1, 9, 9, 2))]
        ops.paste(scores, jnp.zeros((1, 6, 2, 3)), (16, 16))
