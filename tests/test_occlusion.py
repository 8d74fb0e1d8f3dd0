import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.data.occlusion import choose_parts, occlude_parts

SIZE = 64
# y0, y1, x0, x1 of each class, ends excluded; the three classes of the mouth touch.
BOXES = {
    1: (10, 14, 10, 22),
    2: (10, 14, 40, 52),
    3: (20, 26, 12, 22),
    4: (20, 26, 42, 52),
    5: (28, 40, 28, 36),
    6: (46, 49, 24, 42),
    7: (49, 52, 24, 42),
    8: (52, 55, 24, 42),
}
SKIN = np.array([0.8, 0.6, 0.5], np.float32)


def drawn_face(classes=tuple(BOXES)):
    label_map = np.zeros((SIZE, SIZE), np.uint8)
    frame = np.broadcast_to(SKIN, (SIZE, SIZE, 3)).copy()
    for c in classes:
        y0, y1, x0, x1 = BOXES[c]
        label_map[y0:y1, x0:x1] = c
        frame[y0:y1, x0:x1] = c / 10
    return frame, label_map


def keys(*seeds):
    return jax.vmap(jax.random.key)(jnp.array(seeds))


@pytest.mark.slow
@pytest.mark.parametrize("count", range(7))
def test_only_the_chosen_parts_are_occluded_by_skin(count):
    frame, label_map = drawn_face()
    out, occluded = occlude_parts(keys(count), frame[None], label_map[None], count)
    assert occluded.sum() == count
    out = np.asarray(out[0])
    for part, is_occluded in zip(NINE.parts, np.asarray(occluded[0]), strict=True):
        member = np.isin(label_map, part.classes)
        wanted = SKIN if is_occluded else frame[member]
        np.testing.assert_allclose(out[member], np.broadcast_to(wanted, out[member].shape), 1e-3)
    # The skin has one colour, so other occluded pixels do not change.
    np.testing.assert_allclose(out[label_map == 0], frame[label_map == 0], rtol=1e-2)


def test_the_filling_is_a_gradient_between_borders():
    ramp = np.broadcast_to(np.linspace(0, 1, SIZE, dtype=np.float32)[:, None], (SIZE, SIZE))
    frame = np.repeat(ramp[None], 3, 0).transpose(2, 1, 0)[None].copy()
    label_map = np.zeros((1, SIZE, SIZE), np.uint8)
    label_map[:, 28:40, 28:36] = 5
    smooth = frame.copy()
    frame[label_map == 5] = 9.0
    out, _ = occlude_parts(keys(0), frame, label_map, 1)
    # The nose is invisible, and the surrounding gradient continues.
    assert np.abs(np.asarray(out) - smooth).max() < 0.08


def test_only_present_parts_are_occluded():
    frame, label_map = drawn_face(classes=(1, 5, 7))
    _, occluded = occlude_parts(keys(0), frame[None], label_map[None], 6)
    names = {p.name for p, c in zip(NINE.parts, occluded[0], strict=True) if c}
    assert names == {"brow_1", "nose", "mouth"}


@pytest.mark.slow
def test_an_example_depends_on_its_key_only():
    frame, label_map = drawn_face()
    frames, maps = np.stack([frame] * 4), np.stack([label_map] * 4)
    together, occluded = occlude_parts(keys(0, 1, 2, 3), frames, maps, 2)
    alone, occluded_alone = occlude_parts(keys(2), frames[:1], maps[:1], 2)
    np.testing.assert_array_equal(together[2], alone[0])
    np.testing.assert_array_equal(occluded[2], occluded_alone[0])
    assert len({tuple(row) for row in np.asarray(occluded)}) > 1


def test_parts_are_equally_likely():
    chosen = jax.vmap(lambda key: choose_parts(key, jnp.ones(6, bool), 2))(keys(*range(600)))
    # Binomial, n 600 and p 1/3: mean 200, standard deviation 11.5.
    assert np.abs(np.asarray(chosen.sum(axis=0)) - 200).max() < 50


def test_part_at_the_edge_of_the_frame():
    frame, label_map = drawn_face(classes=())
    label_map[:6, :6] = 1
    frame[:6, :6] = 0.1
    out, _ = occlude_parts(keys(0), frame[None], label_map[None], 1)
    np.testing.assert_allclose(out[0], np.broadcast_to(SKIN, out[0].shape), rtol=0.05)


@pytest.mark.parametrize("count", [-1, 7])
def test_bad_count(count):
    frame, label_map = drawn_face()
    with pytest.raises(ValueError, match="0..6"):
        occlude_parts(keys(0), frame[None], label_map[None], count)
