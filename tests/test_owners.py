"""Owners of pixels in drawn groups, whose people overlap."""

import cv2
import numpy as np
import pytest

from jax_stn_icnn.anatomy import ELEVEN, NINETEEN
from jax_stn_icnn.faces.framing import frame_from_landmarks
from jax_stn_icnn.faces.owners import assign_owners
from tfds_builders.synthetic_faces.group import draw_group

FRAME = 512
SPREAD = ("hair", "neck", "cloth")


def matrices_of(group):
    """Returns the frame of each person's eyes and mouth, as far as they are visible."""

    def points(mine, *names):
        return np.argwhere(np.isin(mine, NINETEEN.ids(names)))[:, ::-1]

    matrices = []
    for person in range(group.owner.max() + 1):
        mine = np.where(group.owner == person, group.label, 0)
        lips = points(mine, "upper_lip", "inner_mouth", "lower_lip")
        left, right = lips[lips[:, 0].argmin()], lips[lips[:, 0].argmax()]
        centers = (points(mine, name).mean(axis=0) for name in ("eye_1", "eye_2", "nose"))
        matrices.append(frame_from_landmarks(np.array([*centers, left, right]), FRAME))
    return matrices


def correct(owners, group, *names):
    """Returns the share of the pixels of some classes whose owner is right."""
    inside = np.isin(group.label, NINETEEN.ids(names))
    return np.mean(owners[inside] == group.owner[inside])


def noisy(image):
    """Returns a blurred, noisy image that is lit from one side."""
    light = np.linspace(0.6, 1.2, image.shape[1])[:, None]
    noise = np.random.default_rng(0).normal(0, 12, image.shape)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.8) * light + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def group():
    return draw_group(0, size=(320, 480))


@pytest.fixture(scope="module")
def matrices(group):
    return matrices_of(group)


@pytest.fixture(scope="module")
def owners(group, matrices):
    return assign_owners(group.image, group.label, matrices, FRAME, NINETEEN)


def test_owners_of_a_group_are_right(group, owners):
    assert owners.shape == group.label.shape and owners.dtype == np.int16
    np.testing.assert_array_equal(owners < 0, group.label == 0)
    assert correct(owners, group, *SPREAD) > 0.97
    assert correct(owners, group, "skin", "nose", "eye_1", "eye_2", "upper_lip") > 0.99


def test_owners_are_right_in_a_poor_photo(group, matrices):
    owners = assign_owners(noisy(group.image), group.label, matrices, FRAME, NINETEEN)
    assert correct(owners, group, *SPREAD) > 0.93


def test_people_in_front_hide_others_where_colours_are_equal(group, matrices):
    owners = assign_owners(np.full_like(group.image, 128), group.label, matrices, FRAME, NINETEEN)
    assert correct(owners, group, *SPREAD) > 0.85


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_of_the_photo_rotates_owners(group, matrices, owners, turns):
    height, width = group.label.shape
    turned = []
    for matrix in matrices:
        size = np.array([width, height])
        for _ in range(turns):
            # np.rot90 moves (x, y) to (y, width - 1 - x).
            matrix = np.array([[0, 1], [-1, 0]]) @ matrix + [[0, 0, 0], [0, 0, size[0] - 1]]
            size = size[::-1]
        turned.append(matrix)
    photo, labels = (np.rot90(array, turns).copy() for array in (group.image, group.label))
    found = assign_owners(photo, labels, turned, FRAME, NINETEEN)
    assert np.mean(np.rot90(found, -turns) == owners) > 0.985


def test_permuted_faces_permute_owners(group, matrices, owners):
    order = np.random.default_rng(0).permutation(len(matrices))
    permuted = [matrices[index] for index in order]
    found = assign_owners(group.image, group.label, permuted, FRAME, NINETEEN)
    assert np.mean(np.append(order, -1)[found] == owners) > 0.999


def test_a_larger_photo_has_the_same_owners(group, matrices, owners):
    double = np.repeat(np.repeat(group.label, 2, axis=0), 2, axis=1)
    photo = cv2.resize(group.image, double.shape[::-1], interpolation=cv2.INTER_CUBIC)
    scaled = [2 * matrix + [[0, 0, 0.5], [0, 0, 0.5]] for matrix in matrices]
    found = assign_owners(photo, double, scaled, FRAME, NINETEEN)
    np.testing.assert_array_equal(found < 0, double == 0)
    assert np.mean(found[::2, ::2] == owners) > 0.985


@pytest.mark.parametrize("count", [2, 3])
def test_owners_of_few_people_are_right(count):
    group = draw_group(1, count, (240, 360))
    owners = assign_owners(group.image, group.label, matrices_of(group), FRAME, NINETEEN)
    assert correct(owners, group, *SPREAD) > 0.97


def test_a_single_face_owns_all_labelled_pixels(group, matrices):
    owners = assign_owners(group.image, group.label, matrices[:1], FRAME, NINETEEN)
    np.testing.assert_array_equal(owners, np.where(group.label > 0, 0, -1))


def test_without_faces_there_are_no_owners(group):
    owners = assign_owners(group.image, group.label, [], FRAME, NINETEEN)
    assert owners.dtype == np.int16 and (owners == -1).all()


def test_faces_without_labelled_pixels_own_nothing(group, matrices):
    labels = np.zeros_like(group.label)
    assert (assign_owners(group.image, labels, matrices, FRAME, NINETEEN) == -1).all()


def test_a_single_labelled_pixel_has_the_nearest_face(group, matrices):
    labels = np.zeros_like(group.label)
    x, y = np.round(matrices[3] @ [FRAME / 2, FRAME / 2, 1]).astype(int)
    labels[y, x] = NINETEEN.ids(["nose"])[0]
    owners = assign_owners(group.image, labels, matrices, FRAME, NINETEEN)
    assert owners[y, x] == 3 and (owners >= 0).sum() == 1


def test_opposite_faces_own_their_skin():
    """Two upright faces and one upside down, in an anatomy without neck and clothes."""
    labels, matrices = np.zeros((200, 600), np.uint8), []
    for column, sign in ((100, 1), (300, -1), (500, 1)):
        cv2.circle(labels, (column, 100), 50, ELEVEN.ids(["skin"])[0], -1)
        corner = np.array([column, 100]) - sign * 75
        matrices.append(np.array([[sign, 0, corner[0]], [0, sign, corner[1]]], float))
    photo = np.full((200, 600, 3), 128, np.uint8)
    owners = assign_owners(photo, labels, matrices, 151, ELEVEN)
    expected = np.where(labels > 0, np.arange(600) // 200, -1)
    np.testing.assert_array_equal(owners, expected)
