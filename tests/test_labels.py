from jax_stn_icnn import anatomy


def test_parts_fill_every_class_once():
    classes = [c for part in anatomy.PARTS for c in part.classes]
    assert sorted(classes) == list(range(1, anatomy.NUM_CLASSES))
    assert {"brow": 2, "eye": 2, "nose": 2, "mouth": 4} == anatomy.NETWORKS


def test_mirroring_swaps_the_sides_and_undoes_itself():
    swap = anatomy.MIRRORED_CLASSES
    assert [swap[c] for c in swap] == list(range(anatomy.NUM_CLASSES))
    for c, name in enumerate(anatomy.CLASSES):
        other = {"1": "2", "2": "1"}.get(name[-1], name[-1])
        assert anatomy.CLASSES[swap[c]] == name[:-1] + other


def test_every_data_set_knows_the_viewers_left():
    # HELEN's left is the viewer's; CelebAMask-HQ's l_ is the subject's, the viewer's right.
    assert anatomy.TO_NINE["helen"]["left_eye"] == anatomy.CLASSES.index("eye_1")
    assert anatomy.TO_NINE["celebamask_hq"]["l_eye"] == anatomy.CLASSES.index("eye_2")
    assert anatomy.TO_NINE["celebamask_hq"]["l_lip"] == anatomy.CLASSES.index("lower_lip")
    for name, mapping in anatomy.TO_NINE.items():
        assert set(mapping.values()) == set(range(9)), name


def test_palette_has_one_colour_a_class():
    assert len(set(anatomy.PALETTE)) == anatomy.NUM_CLASSES
