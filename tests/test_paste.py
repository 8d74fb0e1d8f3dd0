"""The inverse sampler: its definition, its implementations, and hard cases."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from windows import part_scores, random_theta, whole_pixel_theta

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.ops.platform import use_platform


@pytest.mark.parametrize("frame", [(64, 64), (80, 50)])
def test_paste_of_crop_is_the_frame_inside_the_windows(frame):
    label_map = jnp.zeros((1, *frame), jnp.int32)
    centres = [(12, 12), (12, 36), (28, 12), (28, 36), (40, 24), (54, 24)]
    for part, (y, x) in zip(NINE.parts, centres, strict=True):
        for offset, c in enumerate(NINE.ids(part.classes)):
            label_map = label_map.at[0, y - 2 + 2 * offset : y + 2 * offset, x - 3 : x + 3].set(c)
    theta = whole_pixel_theta([[(float(y), float(x)) for y, x in centres]], frame, (9, 9))
    patches = ops.crop_part_labels(label_map, theta, (9, 9))
    scores = [
        jax.nn.one_hot(patch, NINE.networks[part.network])
        for patch, part in zip(patches, NINE.parts, strict=True)
    ]
    pasted = jnp.argmax(ops.paste(scores, theta, frame), axis=-1)
    np.testing.assert_array_equal(pasted, label_map)


@pytest.mark.slow
def test_paste_equals_its_definition_pixel_by_pixel():
    frame, patch = (20, 26), (7, 7)
    theta = random_theta(jax.random.key(5), (1, 6), scale=0.3, shift=1.2)
    scores = part_scores(jax.random.key(6), 1, patch)
    pasted = np.asarray(ops.paste(scores, theta, frame))[0]
    inverse = np.asarray(geometry.invert_theta(theta))[0]
    for row, column in np.ndindex(frame):
        unit = np.array([2 * column / (frame[1] - 1) - 1, 2 * row / (frame[0] - 1) - 1, 1])
        background, expected = 1.0, {}
        for i, part in enumerate(NINE.parts):
            x, y = np.round((inverse[i] @ unit + 1) / 2 * (patch[0] - 1)).astype(int)
            inside = 0 <= x < patch[1] and 0 <= y < patch[0]
            score = (
                np.asarray(scores[i])[0, y, x] if inside else np.eye(1, len(part.classes) + 1)[0]
            )
            background *= score[0]
            expected |= dict(zip(NINE.ids(part.classes), score[1:], strict=True))
        row_of_scores = [background, *(expected[c] for c in range(1, 9))]
        np.testing.assert_allclose(pasted[row, column], row_of_scores, atol=1e-6)


# From next to nothing to the patch's own scale, one tile each; up to twice and six times its scale.
@pytest.mark.slow
@pytest.mark.parametrize(("largest", "shear"), [(10 / 59, 0.0), (20 / 59, 0.1), (0.9, 0.1)])
def test_tiles_equal_sampling_the_whole_frame(largest, shear):
    frame, patch, faces = (45, 60), (9, 11), 5
    theta = random_theta(jax.random.key(7), (faces, 6), scale=largest - 0.2, shear=shear, shift=2.2)
    scores = part_scores(jax.random.key(8), faces, patch)

    def paste(platform):
        with use_platform(platform):
            return ops.paste(scores, theta, frame)

    in_tiles, in_frame = paste("cpu"), paste("gpu")
    np.testing.assert_array_equal(in_tiles, in_frame)
    assert jnp.mean(jnp.any(in_tiles[..., 1:] > 0, axis=(1, 2))) > 0.5


@pytest.mark.slow
def test_faces_of_a_batch_are_pasted_by_their_own_windows():
    frame, patch = (45, 60), (9, 11)
    theta = random_theta(jax.random.key(7), (3, 6), scale=0.4, shear=0.0)
    scores = part_scores(jax.random.key(8), 3, patch)
    together = ops.paste(scores, theta, frame)
    for i in range(3):
        alone = ops.paste([part[i : i + 1] for part in scores], theta[i : i + 1], frame)
        np.testing.assert_array_equal(together[i : i + 1], alone)


@pytest.mark.slow
def test_paste_has_a_gradient_for_scores_and_none_for_theta():
    theta = whole_pixel_theta([[[16.0, 16.0]] * 6], (33, 33), (9, 9))
    scores = part_scores(jax.random.key(0), 1, (9, 9))
    d_scores, d_theta = jax.grad(
        lambda s, t: jnp.sum(ops.paste(s, t, (33, 33)) ** 2), argnums=(0, 1)
    )(scores, theta)
    assert all(jnp.all(jnp.abs(d).sum((1, 2)) > 0) for d in d_scores)
    np.testing.assert_array_equal(d_theta, jnp.zeros_like(theta))


@pytest.mark.slow
def test_paste_of_windows_outside_the_frame_is_background():
    theta = whole_pixel_theta([[[500.0, -300.0]] * 6], (32, 32), (9, 9))
    scores = ops.paste(part_scores(jax.random.key(0), 1, (9, 9)), theta, (32, 32))
    np.testing.assert_array_equal(scores, jax.nn.one_hot(jnp.zeros((1, 32, 32), int), 9))


def test_degenerate_theta_pastes_nothing_and_no_nan():
    scores = part_scores(jax.random.key(0), 1, (9, 9))
    pasted = ops.paste(scores, jnp.zeros((1, 6, 2, 3)), (16, 16))
    chex.assert_tree_all_finite(pasted)


@pytest.mark.slow
def test_no_plane_of_the_frame_is_written_out_in_the_program():
    theta = whole_pixel_theta([[[16.0, 16.0]] * 6], (64, 48), (9, 9))
    scores = part_scores(jax.random.key(0), 1, (9, 9))
    program = jax.jit(lambda s, t: ops.paste(s, t, (64, 48))).lower(scores, theta).compile()
    assert "64,48]" in program.as_text()
    assert not re.search(r"64,48\]\S* constant\(", program.as_text())
