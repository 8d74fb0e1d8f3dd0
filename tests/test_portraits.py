"""Drawn portraits and groups; and that drawn faces stay as they were."""

import time

import numpy as np
import pytest
from scipy import ndimage

from jax_stn_icnn.anatomy import NINETEEN
from jax_stn_icnn.faces import detectors
from tfds_builders.synthetic_faces.classes import PORTRAIT_CLASSES
from tfds_builders.synthetic_faces.face import draw_face
from tfds_builders.synthetic_faces.group import draw_group
from tfds_builders.synthetic_faces.person import Person
from tfds_builders.synthetic_faces.portrait import draw_portrait

pytestmark = pytest.mark.slow

SIZE, COUNT = 160, 40
IDS = {name: index for index, name in enumerate(PORTRAIT_CLASSES)}
NOT_DRAWN = ("earring", "necklace")


@pytest.fixture(scope="module")
def portraits():
    return [draw_portrait("train", index, SIZE) for index in range(COUNT)]


@pytest.fixture(scope="module")
def group():
    return draw_group(1, size=(600, 900))


def center(label, *names, ids=IDS):
    """Returns the mean (row, column) of some classes."""
    return np.argwhere(np.isin(label, [ids[name] for name in names])).mean(axis=0)


def largest_part(mask):
    """Returns the fraction of a mask that its largest connected part has."""
    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.bincount(parts[mask]).max() / mask.sum()


def test_faces_are_unchanged(golden):
    frozen = golden("synthetic_faces")
    for split, index in (("train", 3), ("validation", 1), ("test", 5), ("test", 11)):
        image, label = draw_face(split, index, 64)
        # Other versions of numpy and Pillow may round differently.
        difference = np.abs(image.astype(int) - frozen[f"{split}_{index}/image"])
        assert np.mean(difference > 1) < 1e-3
        assert np.mean(label != frozen[f"{split}_{index}/label"]) < 1e-3


def test_portraits_have_the_nineteen_classes(portraits):
    assert PORTRAIT_CLASSES == NINETEEN.classes
    seen = np.zeros(len(PORTRAIT_CLASSES), int)
    for image, label in portraits:
        assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
        assert label.shape == (SIZE, SIZE) and label.dtype == np.uint8
        seen += np.bincount(label.ravel(), minlength=len(seen)) > 0
    assert [name for name, count in zip(PORTRAIT_CLASSES, seen, strict=True) if not count] == list(
        NOT_DRAWN
    )
    assert seen[[IDS["skin"], IDS["cloth"]]].min() == COUNT
    assert 0.05 < seen[IDS["hat"]] / COUNT < 0.35


def test_a_portrait_depends_only_on_split_and_index(portraits):
    again = draw_portrait("train", 7, SIZE)
    np.testing.assert_array_equal(again.image, portraits[7].image)
    np.testing.assert_array_equal(again.label, portraits[7].label)
    others = [draw_portrait(split, 7, SIZE) for split in ("validation", "test")]
    assert len({image.tobytes() for image, _ in [*portraits, *others]}) == COUNT + 2


@pytest.mark.parametrize(
    ("split", "index", "message"),
    [("dev", 0, "train, validation, test; got 'dev'"), ("test", -1, "not be negative; got -1")],
)
def test_unknown_split_and_negative_index(split, index, message):
    with pytest.raises(ValueError, match=message):
        draw_portrait(split, index)


def test_the_same_portrait_at_any_size(portraits):
    for index in (0, 20):
        label = draw_portrait("train", index, 2 * SIZE).label
        assert np.mean(label[::2, ::2] == portraits[index].label) > 0.97


def test_a_portrait_of_512_pixels_takes_less_than_a_second():
    start = time.process_time()
    draw_portrait("train", 1)
    assert time.process_time() - start < 1.0


def test_the_head_is_that_of_the_face():
    helen = {"eye_1": 4, "eye_2": 5, "nose": 6, "upper_lip": 7, "lower_lip": 9}
    lips = "upper_lip", "lower_lip"
    for index in (1, 4, 7, 32):
        shapes = []
        for draw, ids in ((draw_face, helen), (draw_portrait, IDS)):
            label = draw("train", index, 360).label
            left, right = (center(label, name, ids=ids) for name in ("eye_1", "eye_2"))
            apart = np.linalg.norm(right - left)
            below = [center(label, "nose", ids=ids), center(label, *lips, ids=ids)]
            shapes.append([(point - (left + right) / 2) / apart for point in below])
        np.testing.assert_allclose(*shapes, atol=0.03)


def test_hats_eyes_neck_and_clothes_are_below_each_other(portraits):
    for _, label in portraits:
        names = ("hat", "eye_1", "neck", "cloth")
        rows = [center(label, name)[0] for name in names if IDS[name] in label]
        assert rows == sorted(rows)


def test_a_person_is_connected_and_ends_at_the_lower_edge(portraits):
    for _, label in portraits:
        person = label != IDS["background"]
        assert largest_part(person) > 0.98
        assert person[-1].any()


def test_long_hair_reaches_below_the_chin(portraits):
    people = [Person.sample("train", index) for index in range(COUNT)]
    assert 0.2 < np.mean([person.long_hair is not None for person in people]) < 0.5
    for person, (_, label) in zip(people, portraits, strict=True):
        eyes = center(label, "eye_1", "eye_2", "brow_1", "brow_2")[0]
        chin, *_ = np.flatnonzero((label == IDS["skin"]).any(axis=1))[::-1]
        ends = np.flatnonzero((label == IDS["hair"]).any(axis=1))
        if person.long_hair:
            assert ends[-1] > chin
            if all(person.long_hair.sides):
                # Eyes and chin have a distance of about 1.1, with the brows.
                expected = eyes + 0.75 * person.long_hair.end * (chin - eyes)
                assert ends[-1] >= min(expected, SIZE - 1)
        elif person.head.hairstyle.back < 0.0 and len(ends):
            assert ends[-1] < chin


def test_owners_and_labels_of_a_group_agree(group):
    image, label, owner = group
    assert image.shape == (600, 900, 3) and label.shape == owner.shape == (600, 900)
    np.testing.assert_array_equal(owner >= 0, label != IDS["background"])
    assert set(np.unique(owner)) == set(range(-1, 8))
    for person in range(8):
        mine = owner == person
        assert largest_part(mine & (label == IDS["skin"])) > 0.7
        assert (
            center(np.where(mine, label, 0), "nose")[0]
            < center(np.where(mine, label, 0), "cloth")[0]
        )
    # Nobody stands in front of the last person.
    assert largest_part(owner == 7) > 0.98


def test_people_of_a_group_overlap(group):
    owner = group.owner
    beside = (owner[:, 1:] != owner[:, :-1]) & (owner[:, 1:] >= 0) & (owner[:, :-1] >= 0)
    assert beside.sum() > 1000


def test_a_group_depends_on_its_seed():
    first, again, other = (draw_group(seed, 3, (120, 180)) for seed in (4, 4, 5))
    for array, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(array, same)
        assert (array != different).any()


@pytest.mark.parametrize("count", [1, 2, 12])
def test_every_person_is_visible(count):
    owner = draw_group(0, count, (240, 360)).owner
    assert set(np.unique(owner)) == set(range(-1, count))


@pytest.mark.parametrize(
    ("arguments", "message"), [((-1,), "seed must.*got -1"), ((0, 0), "count must.*got 0")]
)
def test_unusable_seed_and_count(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_group(*arguments)


def test_yunet_detects_the_faces_of_a_group(group):
    found = detectors.make_detector("yunet")(group.image)
    columns, rows = np.round(found.mean(axis=1)).astype(int).T
    assert sorted(group.owner[rows, columns]) == list(range(8))
