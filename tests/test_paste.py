"""The inverse sampler: its definition, its two ways of looking up, and hard cases."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from windows import part_scores, random_theta, whole_pixel_theta

from jax_stn_icnn import geometry, ops
from jax_stn_icnn.anatomy import NINE


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
        jax.nn.one_hot(patches[:, i], NINE.networks[part.network])
        for i, part in enumerate(NINE.parts)
    ]
    pasted = jnp.argmax(ops.paste(scores, theta, frame), axis=-1)
    np.testing.assert_array_equal(pasted, label_map)


def face_of_ellipses(factor):
    """Labels whose parts are ellipses, `factor` times their usual size."""
    y, x = np.mgrid[:88, :88]
    label_map = np.zeros((1, 88, 88), np.int32)
    shapes = {"brow_1": (10, 22, 4, 14), "brow_2": (10, 66, 4, 14), "eye_1": (26, 22, 4, 9)}
    shapes |= {"eye_2": (26, 66, 4, 9), "nose": (44, 44, 12, 11), "upper_lip": (70, 44, 7, 20)}
    shapes |= {"lower_lip": (73, 44, 7, 18), "inner_mouth": (72, 44, 3, 14)}
    for name, (row, column, height, width) in shapes.items():
        inside = ((y - row) / height) ** 2 + ((x - column) / width) ** 2 <= factor**2
        label_map[0, inside] = NINE.classes.index(name)
    return jnp.array(label_map)


PATCHES = ((17, 33),) * 2 + ((13, 33),) * 2 + ((35, 29), (25, 39))


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "smallest", "largest"), [(0.5, 0.6, 0.8), (1.2, 0.9, 1.5)])
def test_paste_of_crop_is_the_frame_where_windows_follow_their_parts(factor, smallest, largest):
    label_map, sizes = face_of_ellipses(factor), PATCHES
    theta, present = geometry.theta_target(label_map, sizes, following=True)
    scale = theta[..., 0, 0] / geometry.theta_target(label_map, sizes)[0][..., 0, 0]
    assert present.all()
    np.testing.assert_allclose((scale.min(), scale.max()), (smallest, largest), atol=0.1)
    patches = ops.crop_part_labels(label_map, theta, sizes)
    scores = [
        jax.nn.one_hot(patch, NINE.networks[part.network])
        for patch, part in zip(patches, NINE.parts, strict=True)
    ]
    pasted = np.asarray(jnp.argmax(ops.paste(scores, theta, label_map.shape[1:]), axis=-1))
    wrong = pasted != label_map
    if factor < 1:  # A patch has at least a pixel for each of the frame's.
        assert not wrong.any()
    # Otherwise some at edges, none where all neighbours are alike.
    inner = np.ones(label_map.shape, bool)
    for step in np.ndindex(3, 3):
        inner &= np.roll(label_map, np.array(step) - 1, (1, 2)) == label_map
    assert not (wrong & inner).any()
    assert wrong.sum() < 0.06 * np.sum(label_map > 0)


@pytest.mark.slow
def test_gradients_at_following_windows_are_finite():
    label_map, sizes = face_of_ellipses(1.2), PATCHES
    label_map = jnp.where(label_map == NINE.classes.index("nose"), 0, label_map)
    theta, _ = geometry.theta_target(label_map, sizes, following=True)
    frame = jax.random.normal(jax.random.key(3), (1, 88, 88, 3))

    def loss(frame, theta):
        return sum(jnp.sum(patch**2) for patch in ops.crop_parts(frame, theta, sizes))

    for gradient in jax.grad(loss, argnums=(0, 1))(frame, theta):
        assert np.all(np.isfinite(gradient))
    assert np.all(np.abs(gradient[..., [0, 1, 0, 1], [0, 1, 2, 2]]) > 0)


def test_paste_equals_its_definition_pixel_by_pixel():
    frame, patch = (20, 26), (7, 7)
    theta = random_theta(jax.random.key(5), (1, 6), scale=0.3, shift=1.2)
    scores = part_scores(jax.random.key(6), 1, patch)
    pasted = np.asarray(ops.paste(scores, theta, frame))[0]
    inverse = np.asarray(geometry.invert(theta))[0]
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


@pytest.mark.parametrize(
    ("largest", "shear"), [pytest.param(10 / 59, 0.0, marks=pytest.mark.slow), (0.1, 0.1)]
)
def test_paste_looks_up_the_same_in_blocks_and_in_the_whole_frame(largest, shear):
    frame, patch, faces = (45, 60), (9, 11), 5
    # From next to nothing to the patch's own scale; some windows reach beyond the frame.
    scale = largest - 0.2
    theta = random_theta(jax.random.key(7), (faces, 6), scale=scale, shear=shear, shift=2.2)
    scores = part_scores(jax.random.key(8), faces, patch)
    weights = jax.random.normal(jax.random.key(9), (faces, *frame, 9))
    # A window that fills the frame fits no block; it sends the whole batch the other way.
    theta_beside = theta.at[-1, 0].set(jnp.array(ops.IDENTITY))

    def weighed(scores, theta):
        pasted = ops.paste(scores, theta, frame)[:-1]
        return jnp.sum(pasted * weights[:-1]), pasted

    in_blocks, in_frame = (
        jax.grad(weighed, has_aux=True)(scores, t) for t in (theta, theta_beside)
    )
    chex.assert_trees_all_equal(in_blocks[1], in_frame[1])
    chex.assert_trees_all_close(in_blocks[0], in_frame[0], atol=1e-6)
    assert jnp.mean(jnp.any(in_blocks[1][..., 1:] > 0, axis=(1, 2))) > 0.5


def test_paste_has_a_gradient_for_scores_and_none_for_theta():
    theta = whole_pixel_theta([[[16.0, 16.0]] * 6], (33, 33), (9, 9))
    scores = part_scores(jax.random.key(0), 1, (9, 9))
    d_scores, d_theta = jax.grad(
        lambda s, t: jnp.sum(ops.paste(s, t, (33, 33)) ** 2), argnums=(0, 1)
    )(scores, theta)
    assert all(jnp.all(jnp.abs(d).sum((1, 2)) > 0) for d in d_scores)
    np.testing.assert_array_equal(d_theta, jnp.zeros_like(theta))


def test_paste_of_windows_outside_the_frame_is_background():
    theta = whole_pixel_theta([[[500.0, -300.0]] * 6], (32, 32), (9, 9))
    scores = ops.paste(part_scores(jax.random.key(0), 1, (9, 9)), theta, (32, 32))
    np.testing.assert_array_equal(scores, jax.nn.one_hot(jnp.zeros((1, 32, 32), int), 9))


def test_degenerate_theta_pastes_nothing_and_no_nan():
    scores = part_scores(jax.random.key(0), 1, (9, 9))
    pasted = ops.paste(scores, jnp.zeros((1, 6, 2, 3)), (16, 16))
    chex.assert_tree_all_finite(pasted)


def test_no_plane_of_the_frame_is_written_out_in_the_program():
    theta = whole_pixel_theta([[[16.0, 16.0]] * 6], (64, 48), (9, 9))
    scores = part_scores(jax.random.key(0), 1, (9, 9))
    program = jax.jit(lambda s, t: ops.paste(s, t, (64, 48))).lower(scores, theta).compile()
    assert "64,48]" in program.as_text()
    assert not re.search(r"64,48\]\S* constant\(", program.as_text())
