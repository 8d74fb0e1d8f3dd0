"""Labels as sets of classes: which sets data sets label, their mirror images, and their names."""

import dataclasses

import numpy as np
import pytest

from jax_stn_icnn import label_sets as sets_of
from jax_stn_icnn.anatomy import DATA_SETS, NINE, NINETEEN, DataSet
from jax_stn_icnn.label_sets import LabelSets, class_sets, label_table, make_label_sets

HAIR = DataSet({"other": "background+skin", "hair": "hair"}, framing="resize", ignore=True)
SIDED = DataSet({"left": "eye_1+brow_2+skin", "rest": "ignore"}, framing="pad")


def ids(*names):
    return tuple(sorted(NINETEEN.ids(names)))


def test_single_classes_come_first_and_all_classes_last():
    found = make_label_sets(NINETEEN, [DATA_SETS["celebamask_hq"], HAIR, HAIR])
    assert found.sets == (
        *((c,) for c in range(19)),
        ids("background", "skin"),
        tuple(range(19)),
    )
    assert (found.num_labels, found.ignored, found.absent) == (21, 20, ())
    np.testing.assert_array_equal(found.members.sum(axis=1), [1] * 19 + [2, 19])


def test_a_data_set_of_single_classes_needs_no_other_label():
    assert make_label_sets(NINETEEN, [DATA_SETS["celebamask_hq"]]) == LabelSets(19)


def test_classes_that_no_data_set_labels_by_themselves_are_absent():
    found = make_label_sets(NINETEEN, [HAIR])
    assert found.absent == tuple(c for c in range(19) if c != NINETEEN.classes.index("hair"))


def test_mirror_images_of_sets_are_labels():
    found = make_label_sets(NINETEEN, [SIDED])
    swapped = found.mirror_ids(NINETEEN)
    label = found.label(ids("eye_1", "brow_2", "skin"))
    assert found.sets[swapped[label]] == ids("eye_2", "brow_1", "skin")
    assert [swapped[i] for i in swapped] == list(range(found.num_labels))
    assert swapped[found.ignored] == found.ignored


def test_ids_of_a_data_set_map_to_labels():
    found = make_label_sets(NINETEEN, [HAIR, SIDED])
    table = label_table(NINETEEN, HAIR, found)
    assert found.sets[table[0]] == ids("background", "skin")
    assert found.sets[table[1]] == ids("hair")
    assert table[255] == found.ignored


def test_a_class_that_the_anatomy_lacks_is_background():
    assert class_sets(NINE, HAIR) == ((0,), (0,))
    assert class_sets(NINE, SIDED) == ((0, 2, 3), tuple(range(9)))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("hair",), "hair"),
        (("skin", "neck"), "skin+neck"),
        (tuple(c for c in NINETEEN.classes if c != "hair"), "all but hair"),
        (NINETEEN.classes, "ignore"),
    ],
)
def test_names(names, expected):
    found = LabelSets(19, (ids("skin", "neck"), ids(*set(NINETEEN.classes) - {"hair"})))
    found = dataclasses.replace(found, unions=(*found.unions, tuple(range(19))))
    assert found.names(NINETEEN)[found.label(ids(*names))] == expected


def test_names_of_labels_define_a_data_set_that_is_not_registered():
    found = sets_of.get_data_set("figaro", ["ignore", "skin+neck", "hair"])
    assert (found.framing, found.ignore) == ("face", True)
    assert class_sets(NINETEEN, found)[1:] == (ids("skin", "neck"), ids("hair"))
    with pytest.raises(ValueError, match="'figaro' has the class 'fur', which no registered"):
        sets_of.get_data_set("figaro", ["background", "skin+fur"])


def test_names_of_a_registered_data_set_must_agree():
    names = list(DATA_SETS["helen"].classes)
    assert sets_of.get_data_set("helen", names) is DATA_SETS["helen"]
    with pytest.raises(ValueError, match="data set 'helen' has the labels"):
        sets_of.get_data_set("helen", names[1:])
