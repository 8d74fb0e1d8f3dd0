import dataclasses
import functools
from io import BytesIO

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jax_stn_icnn.data import augment, photometric
from jax_stn_icnn.data.config import AugmentConfig
from tfds_builders.synthetic_faces.face import draw_face

IMAGE = draw_face("train", 3)[0][64:192, 64:192]
SMALL = jnp.float32(IMAGE[::2, ::2]) / 255
FLOATS = jnp.float32(IMAGE) / 255
REGION = jnp.array([[[1.0, 0, 0], [0, 1, 0]]])
ALL = AugmentConfig(
    grayscale=0.3,
    colour=0.3,
    gamma=0.4,
    contrast=0.4,
    occlusion=0.3,
    blur=0.01,
    resolution=2,
    noise=0.05,
    jpeg=2,
)


random_occlusion = jax.jit(photometric.random_occlusion)


def several(count):
    return (
        jax.random.split(jax.random.key(0), count),
        jnp.broadcast_to(SMALL, (count, *SMALL.shape)),
        jnp.broadcast_to(REGION, (count, 2, 3)),
    )


@functools.partial(jax.jit, static_argnums=3)
def changed(keys, frames, region, config):
    return photometric.random_photometric(keys, frames, region, config)


class TestOneOperation:
    def test_grayscale_equals_pillow(self):
        expected = np.asarray(Image.fromarray(IMAGE).convert("L"))
        got = np.asarray(photometric.grayscale(FLOATS)) * 255
        assert np.abs(got - expected[..., None]).max() <= 1

    @pytest.mark.parametrize("sigma", [1.0, 4.0])
    def test_blur_equals_opencv(self, sigma):
        got = photometric.downsample(FLOATS, 1.0, sigma)
        expected = cv2.GaussianBlur(np.asarray(FLOATS), (0, 0), sigma)
        inner = slice(20, -20)  # They differ beyond the edges.
        np.testing.assert_allclose(got[inner, inner], expected[inner, inner], atol=0.01)

    def test_low_resolution_equals_opencv(self):
        small = photometric.downsample(FLOATS, 4.0, 0.0)
        area = cv2.resize(np.asarray(FLOATS), (32, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(small[:32, :32] - area).mean() < 0.02
        expected = cv2.resize(np.asarray(small[:32, :32]), (128, 128))
        np.testing.assert_allclose(photometric.upsample(small, 4.0), expected, atol=1e-5)

    @pytest.mark.parametrize(("quality", "level"), [(50, 1.0), (25, 2.0), (10, 5.0)])
    def test_jpeg_equals_pillow(self, quality, level):
        file = BytesIO()
        Image.fromarray(IMAGE).save(file, "JPEG", quality=quality, subsampling=0)
        expected = np.asarray(Image.open(file), np.float32)
        got = np.asarray(photometric.jpeg(FLOATS, level)) * 255
        # A decoder rounds, and clips to 0..255.
        assert np.abs(got - expected).mean() < 1
        assert np.abs(IMAGE - expected).mean() > 2

    def test_gamma_and_contrast(self):
        np.testing.assert_allclose(photometric.adjust_gamma(FLOATS, 2.0), FLOATS**2, rtol=1e-5)
        assert np.all(np.isfinite(photometric.adjust_gamma(FLOATS - 0.5, 0.7)))
        got = photometric.adjust_contrast(FLOATS, 0.5)
        assert np.isclose(got.mean(), FLOATS.mean(), atol=1e-5)
        assert np.isclose(got.std(), FLOATS.std() / 2, rtol=1e-4)

    @pytest.mark.parametrize("seed", range(4))
    def test_an_occlusion_is_one_patch_of_at_most_its_size(self, seed):
        image = jnp.linspace(0, 1, 100 * 100 * 3).reshape(100, 100, 3)
        got = random_occlusion(jax.random.key(seed), image, 0.3)
        rows, columns = np.nonzero(np.any(got != image, axis=-1))
        assert len(rows)
        assert max(np.ptp(rows), np.ptp(columns)) < 0.3 * 100 * np.sqrt(2)
        unchanged = random_occlusion(jax.random.key(seed), image, 0.0)
        np.testing.assert_array_equal(unchanged, image)


def test_occlusions_are_in_both_halves_of_the_frame():
    keys, frames, region = several(64)
    got = changed(keys, frames, region, AugmentConfig(occlusion=0.3))
    height = frames.shape[1]
    rows = [
        np.nonzero(np.abs(a - b).max(axis=(1, 2)) > 1e-5)[0]
        for a, b in zip(got, frames, strict=True)
    ]
    middles = np.array([each.mean() for each in rows if len(each)])
    assert len(middles) > 16
    assert 0.25 < np.mean(middles > (height - 1) / 2) < 0.75


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, 0.5) for name in dataclasses.asdict(ALL) if getattr(ALL, name)],
)
def test_each_strength_changes_some_examples_and_leaves_others(name, value):
    keys, frames, region = several(16)
    got = changed(keys, frames, region, AugmentConfig(**{name: value}))
    differ = np.abs(got - frames).max(axis=(1, 2, 3)) > 1e-5
    assert 2 <= differ.sum() <= 14


def test_without_strengths_the_array_is_the_same():
    keys, frames, region = several(2)
    assert photometric.random_photometric(keys, frames, region, AugmentConfig()) is frames
    geometric = AugmentConfig(variants=True, mirror=True, rotation=20.0, zoom=0.2)
    assert photometric.random_photometric(keys, frames, region, geometric) is frames


@pytest.mark.slow
def test_an_example_depends_on_its_key_only():
    keys, frames, region = several(8)
    together = changed(keys, frames, region, ALL)
    shuffled = changed(keys[::-1], frames, region, ALL)
    np.testing.assert_array_equal(together, shuffled[::-1])
    assert np.abs(together[2] - together[3]).max() > 0.1


def test_the_padding_stays_black():
    keys, frames, region = several(8)
    region = region.at[:, 0, 0].set(0.5)  # the middle half of the columns
    got = changed(keys, frames, region, ALL)
    assert not np.any(got[:, :, :15])
    assert not np.any(got[:, :, -15:])
    assert np.any(got[:, :, 32])


@pytest.mark.parametrize("given", [{"grayscale": 1.5}, {"noise": -0.1}])
def test_the_message_names_impossible_strengths(given):
    with pytest.raises(ValueError, match=f"{next(iter(given))} is"):
        AugmentConfig(**given)


@pytest.mark.slow
def test_rotation_and_zoom_widen_the_warp():
    keys, _, region = several(64)
    frames = jnp.broadcast_to(jnp.uint8(IMAGE), (64, *IMAGE.shape))
    # A wedge that points to the right from the middle; its direction is the rotation.
    y, x = np.mgrid[-64:64, -64:64] + 0.5
    wedge = jnp.broadcast_to(jnp.uint8((abs(y) < x / 4) & (x < 40)), (64, 128, 128))
    none = jnp.zeros(64, jnp.int32)
    rotated = jax.jit(augment.augment, static_argnums=(5, 6))
    _, labels = rotated(keys, frames, wedge, region, none, 40.0, 0.5)
    weights = np.asarray(labels, float)
    area = weights.sum(axis=(1, 2))
    angles = np.degrees(np.arctan2(-(weights * y).sum((1, 2)), (weights * x).sum((1, 2))))
    assert 20 <= np.sum(np.abs(angles) > 2) <= 44
    assert 25 < np.abs(angles).max() < 41
    scale = np.sqrt(area / np.asarray(wedge[0]).sum())
    assert 0.58 < scale.min() < 0.8
    assert 1.2 < scale.max() < 1.68
