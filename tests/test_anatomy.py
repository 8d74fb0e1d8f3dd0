"""What a face consists of; and that a new anatomy needs nothing but to be registered."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_variables, small_model
from test_data import Single, Uniform

from jax_stn_icnn import anatomy, ops
from jax_stn_icnn.anatomy import (
    ANATOMIES,
    DATA_SETS,
    ELEVEN,
    NINE,
    NINETEEN,
    Anatomy,
    DataSet,
    Part,
)
from jax_stn_icnn.data import loader
from jax_stn_icnn.data.loader import loader_over
from jax_stn_icnn.evaluation import metrics
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.io import weights
from jax_stn_icnn.label_sets import LabelSets, class_sets, make_label_sets

EVERY = pytest.mark.parametrize("each", ANATOMIES.values(), ids=list(ANATOMIES))


@EVERY
def test_parts_and_what_has_no_window_are_all_classes(each):
    assert sorted((*each.part_class_ids, *each.global_ids)) == list(range(each.num_classes))
    assert each.global_ids[0] == 0
    assert {"brow": 2, "eye": 2, "nose": 2, "mouth": 4} == each.networks


@EVERY
def test_an_id_means_the_same_in_each(each):
    assert NINETEEN.classes[: each.num_classes] == each.classes
    assert each.colours == NINETEEN.colours[: each.num_classes]
    assert len(set(each.colours)) == each.num_classes


@EVERY
def test_mirroring_swaps_the_sides_and_undoes_itself(each):
    swap = each.mirror_ids
    assert [swap[c] for c in swap] == list(range(each.num_classes))
    for c, name in enumerate(each.classes):
        other = {"1": "2", "2": "1"}.get(name[-1], name[-1])
        assert each.classes[swap[c]] == name[:-1] + other


def test_every_data_set_knows_the_viewers_left():
    # HELEN's left is the viewer's; CelebAMask-HQ's l_ is the subject's, the viewer's right.
    assert DATA_SETS["helen"].classes["left_eye"] == "eye_1"
    assert DATA_SETS["celebamask_hq"].classes["l_eye"] == "eye_2"
    assert DATA_SETS["celebamask_hq"].classes["l_ear"] == "ear_2"
    assert DATA_SETS["celebamask_hq"].classes["l_lip"] == "lower_lip"
    for name, data_set in DATA_SETS.items():
        for each in (NINE, ELEVEN):
            assert set(class_sets(each, data_set)) == {(c,) for c in range(each.num_classes)}, name
    assert make_label_sets(NINETEEN, [DATA_SETS["celebamask_hq"]]) == LabelSets(19)


def test_a_data_set_that_lacks_classes_is_refused():
    options = {"frame_size": 8, "batch_size": 1, "seed": 0, "train": False}
    with pytest.raises(ValueError, match="'helen' does not label ear_1.*'nineteen'.*labels backg"):
        loader_over(Uniform(1), "helen", NINETEEN, **options)
    with pytest.raises(ValueError, match="dataset is 'lapo', but must be one of helen"):
        loader_over(Uniform(1), "lapo", NINE, **options)
    with pytest.raises(ValueError, match="no anatomy 'ten', only nine, eleven, nineteen"):
        anatomy.get_anatomy("ten")


@pytest.mark.parametrize("side", [127, 81, 53, 15])
def test_fitted_windows_are_odd_and_in_proportion(side):
    for (height, width), part in zip(NINE.fitted_sizes(side), NINE.parts, strict=True):
        assert height % 2 == width % 2 == 1
        assert abs(height - part.window[0] * side / 127) <= 1
        assert abs(width - part.window[1] * side / 127) <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": (*NINE.classes, "nose")}, "classes name nose twice"),
        ({"parts": (), "groups": ()}, "no part with a window"),
        ({"parts": NINE.parts[:1] * 2}, "parts name brow_1 twice"),
        ({"pairs": (("brow_1", "brow_3"),)}, "no class 'brow_3': the classes are background"),
        ({"groups": (("ears", ("ear_1",)),)}, "no class 'ear_1'"),
        ({"colours": NINE.colours[:3]}, "9 classes, but 3 colours"),
        (
            {"parts": (NINE.parts[0], NINE.parts[1]._replace(window=(3, 3)))},
            "the parts of network 'brow'",
        ),
        ({"parts": (NINE.parts[0]._replace(classes=("background",)),)}, "is the background"),
        ({"name": 9}, "anatomy 9: name must be of the type <class 'str'>"),
        ({"classes": list(NINE.classes)}, "classes must be of the type tuple"),
        ({"parts": (NINE.parts[0]._replace(network=1.5),)}, "parts must be of the type tuple"),
        ({"parts": (NINE.parts[0]._replace(window=(0, 9)),)}, r"the window of brow_1 is \(0, 9\)"),
        ({"colours": ((0, 0, 256), *NINE.colours[1:])}, r"colours must be in 0\.\.255"),
    ],
)
def test_what_does_not_fit_together_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(NINE, **changes)


MINE = Anatomy(
    name="mine",
    # The classes of the one part lie apart, and others between them.
    classes=("nothing", "pupil", "left", "white", "right"),
    parts=(Part("eye", ("white", "pupil"), "eye", False, (127, 161)),),
    pairs=(("left", "right"),),
    groups=(("eye", ("pupil", "white")),),
    colours=((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)),
)


OWN = DataSet(
    {"none": "nothing", "l": "left", "r": "right", "p": "pupil", "w": "white"}, framing="pad"
)


@pytest.fixture
def tables(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(anatomy, "ANATOMIES", dict(ANATOMIES))
    monkeypatch.setattr(anatomy, "DATA_SETS", known := dict(DATA_SETS))
    monkeypatch.setattr(loader, "DATA_SETS", known)


@pytest.mark.usefixtures("tables")
class TestRegistered:
    def test_twice_the_same_is_once(self):
        for _ in range(2):
            anatomy.register(MINE)
            anatomy.register_data_set("my_set", OWN)
        assert anatomy.get_anatomy("mine") is MINE
        assert class_sets(MINE, anatomy.DATA_SETS["my_set"]) == ((0,), (2,), (4,), (1,), (3,))

    def test_another_of_the_name_is_refused(self):
        with pytest.raises(ValueError, match="another anatomy is registered as 'nine' already"):
            anatomy.register(dataclasses.replace(MINE, name="nine"))
        with pytest.raises(ValueError, match="another data set is registered as 'helen' already"):
            anatomy.register_data_set("helen", OWN)


@pytest.mark.slow
class TestAMadeUpOne:
    """From the loader to a file of weights and a photo."""

    @pytest.fixture(autouse=True)
    def registered(self, tables):
        anatomy.register(MINE)
        anatomy.register_data_set("my_set", OWN)

    def test_loads(self):
        label = np.arange(20, dtype=np.uint8).reshape(4, 5) % 5
        source = Single(np.zeros((4, 5, 3), np.uint8), label)
        options = {"frame_size": 5, "batch_size": 1, "seed": 0, "train": False}
        (batch,) = loader_over(source, "my_set", MINE, **options)
        expected = np.array([0, 2, 4, 1, 3])[label]
        np.testing.assert_array_equal(batch["labels"][0, :4], expected)

    def test_parses(self, tmp_path):
        model = small_model(
            anatomy=MINE, cropper="vgg9", windows="fitted", coarse_network="unet", coarse_stride=2
        )
        weights.save_weights(tmp_path / "w", random_variables(model), model.config, 40)
        parser = FaceParser.load(tmp_path / "w", quick_start=False)
        assert parser.classes == MINE.classes
        photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
        parse = parser(photo, detect=False)
        assert parse.faces[0].windows.keys() == {"eye"}
        assert parse.mask("left").shape == (40, 40)
        assert parse.faces[0].scores().shape == (40, 40, 5)

    def test_scores_and_pastes(self):
        counts = np.eye(5, dtype=np.int64)
        found = metrics.f1_scores(counts, MINE)
        assert found == {"eye": 1.0, "overall": 1.0, "mean_of_eight": 1.0, "mean": 1.0}
        scores = jax.nn.softmax(jax.random.normal(jax.random.key(0), (1, 3, 3, 3)))
        whole = jax.nn.softmax(jax.random.normal(jax.random.key(1), (1, 9, 9, 3)))
        theta = jnp.array([[[[0.25, 0, 0], [0, 0.25, 0]]]])
        pasted = np.asarray(ops.paste([scores], theta, (9, 9), MINE, whole))[0]
        np.testing.assert_array_equal(
            pasted[0, 0], [whole[0, 0, 0, 0], 0, whole[0, 0, 0, 1], 0, whole[0, 0, 0, 2]]
        )
        background, white, pupil = scores[0, 1, 1]
        middle = background * whole[0, 4, 4]
        expected = [middle[0], pupil, middle[1], white, middle[2]]
        np.testing.assert_allclose(pasted[4, 4], expected, rtol=1e-6)
