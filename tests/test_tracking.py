"""Faces that are followed through frames: their identities, steady frames and smoothed scores."""

import itertools

import cv2
import numpy as np
import pytest

from jax_stn_icnn.faces import framing
from jax_stn_icnn.faces.detectors import Detections, make_single_view_detector
from jax_stn_icnn.inference.locating import LocatedFace
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.inference.temporal import ScoreSmoother
from jax_stn_icnn.inference.tracking import FaceTracker
from tfds_builders.synthetic_faces.face import draw_face

S = 64
UPRIGHT = np.array([(-20.0, -15), (20, -15), (0, 5), (-15, 25), (15, 25)])  # around the nose


def face(x, y=100.0, scale=1.0):
    landmarks = UPRIGHT * scale + (x, y)
    return LocatedFace(np.zeros(4), framing.frame_from_landmarks(landmarks, S))


def numbers(pictures):
    tracker = FaceTracker(S)
    return [[track.number for track in tracker.follow(faces)] for faces in pictures]


class TestIdentities:
    def test_faces_keep_their_number_in_any_order(self):
        pictures = [[face(100 + i), face(400 - i)][:: 1 if i % 2 else -1] for i in range(10)]
        found = numbers(pictures)
        assert all(one == ([0, 1] if i % 2 == 0 else [1, 0]) for i, one in enumerate(found))

    @pytest.mark.parametrize("hidden", [(), range(26, 35)])
    def test_people_who_cross_keep_their_numbers(self, hidden):
        """The second one is not detected while the first one is before it."""
        pictures = [
            [face(100 + 10 * i)] + ([face(700 - 10 * i, 110)] if i not in hidden else [])
            for i in range(60)
        ]
        for i, found in enumerate(numbers(pictures)):
            assert found == ([0] if i in hidden else [0, 1])

    def test_a_hidden_person_does_not_take_the_number_of_the_visible_one(self):
        """Who is where the hidden person is expected is more likely the one who was visible."""
        pictures = [[face(100 + 10 * i), face(700 - 10 * i, 120)] for i in range(26)]
        pictures += [[face(100 + 10 * i)] for i in range(26, 30)]
        pictures += [[face(100 + 10 * 30, 120)]]
        assert numbers(pictures)[-1] == [0]

    def test_a_new_face_has_a_new_number(self):
        assert numbers([[face(100)], [face(100), face(300)], [face(300)]]) == [[0], [0, 1], [1]]
        assert numbers([[face(100)], [face(500)]]) == [[0], [1]]  # a cut
        assert numbers([[face(100)], [face(100, scale=3)]]) == [[0], [1]]

    @pytest.mark.parametrize(("gap", "number"), [(30, 0), (31, 1)])
    def test_a_hidden_face_is_remembered(self, gap, number):
        assert numbers([[face(100)], *[[]] * gap, [face(100)]])[-1] == [number]


class TestSteadyFrames:
    def test_a_frame_stands_still_while_landmarks_jitter(self):
        rng, tracker = np.random.default_rng(0), FaceTracker(S)
        first = face(100).matrix
        for _ in range(20):
            (track,) = tracker.follow([face(*(100 + rng.normal(0, 1, 2)))])
            assert np.abs(track.matrix - first).max() < 4

    def test_a_frame_follows_a_face_that_moves(self):
        tracker = FaceTracker(S)
        for x in range(100, 300):
            moved = face(x)
            (track,) = tracker.follow([moved])
            # At most .05 sides of the frame, of 160 pixels.
            assert np.abs(track.matrix - moved.matrix).max() <= 8


class TestSmoothing:
    MATRIX = np.array([[1.0, 0, 0], [0, 1, 0]])
    PHOTO = np.full((S, S, 3), 100, np.uint8)

    def test_scores_of_a_still_picture_are_averaged(self):
        rng, smoother = np.random.default_rng(0), ScoreSmoother()
        noisy = rng.normal(0.5, 0.1, (8, 2, S, S)).astype(np.float32)
        smoothed = [smoother(self.PHOTO, self.MATRIX, scores) for scores in noisy]
        for count in (1, 2, 8):
            np.testing.assert_allclose(
                smoothed[count - 1], noisy[:count].mean(axis=0), rtol=0, atol=1e-6
            )

    def test_what_changes_does_not_lag(self):
        """A part of the picture changes; the rest is still averaged."""
        smoother = ScoreSmoother()
        before, after = np.zeros((2, S, S), np.float32), np.ones((2, S, S), np.float32)
        for _ in range(5):
            smoother(self.PHOTO, self.MATRIX, before)
        changed = self.PHOTO.copy()
        changed[:32] += 20
        smoothed = smoother(changed, self.MATRIX, after)
        np.testing.assert_array_equal(smoothed[:, :32], 1)
        np.testing.assert_allclose(smoothed[:, 35:], 1 / 6, atol=1e-6)

    def test_another_frame_starts_again(self):
        smoother = ScoreSmoother()
        smoother(self.PHOTO, self.MATRIX, np.zeros((2, S, S), np.float32))
        scores = np.ones((2, S, S), np.float32)
        assert smoother(self.PHOTO, self.MATRIX + 0.1, scores) is scores

    def test_results_before_do_not_change(self):
        smoother, scores = ScoreSmoother(), np.ones((2, S, S), np.float32)
        first = smoother(self.PHOTO, self.MATRIX, scores)
        smoother(self.PHOTO, self.MATRIX, 0 * scores)
        np.testing.assert_array_equal(first, 1)


BACKGROUND = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
BACKGROUND = BACKGROUND.repeat(8, axis=0).repeat(8, axis=1)
SIGMA = 6


@pytest.fixture
def parser(small_parser, monkeypatch):
    """The small parser, with a detector of faces whose places are at the top left of a picture."""

    def detect(image):
        count = image[0, 0, 0]
        places = image[0, 1 : 1 + 2 * count, 0].reshape(-1, 2)
        return Detections([UPRIGHT + place for place in places], [0.9] * count)

    monkeypatch.setattr(small_parser, "detector", detect)
    return small_parser


def picture(places, rng=None, shift=0):
    """Returns a picture that tells `parser` where its faces are."""
    image = np.roll(BACKGROUND, shift, axis=1).astype(float)
    if rng is not None:
        image += rng.normal(0, SIGMA, image.shape)
    image = np.clip(image, 0, 255).astype(np.uint8)
    image[0, 0] = len(places)
    for i, value in enumerate(itertools.chain(*places)):
        image[0, 1 + i] = value
    return image


def changes(results):
    labels = [result.labels for result in results]
    return np.mean([(one != other).mean() for one, other in itertools.pairwise(labels)])


def test_labels_of_a_still_face_flicker_less(parser):
    rng = np.random.default_rng(0)
    # The places that the detector returns jitter by a pixel.
    pictures = [picture([(150 + i % 2, 120 + i // 2 % 2)], rng) for i in range(8)]
    single = list(parser.stream(pictures, batch_size=1))
    followed = list(parser.track(pictures, batch_size=1))
    assert changes(followed) < changes(single) / 5
    assert (followed[-1].labels == single[-1].labels).mean() > 0.9


def test_labels_of_a_moving_face_are_those_of_single_photos(parser):
    pictures = [picture([(60 + 12 * i, 120)], shift=12 * i) for i in range(4)]
    for image, followed in zip(pictures, parser.track(pictures, batch_size=1), strict=True):
        single = parser(image)
        np.testing.assert_array_equal(followed.labels, single.labels)
        np.testing.assert_array_equal(followed.faces[0].scores(), single.faces[0].scores())


def test_results_have_the_numbers_of_their_faces(parser):
    places = [[(60 + i, 120), (200 - i, 120)] for i in range(4)]
    places[2] = places[2][::-1]
    pictures = [picture(one) for one in places]
    results = list(parser.track(iter(pictures), batch_size=1))
    assert [[face.track for face in result.faces] for result in results] == [
        [0, 1] if i != 2 else [1, 0] for i in range(4)
    ]
    for result, one in zip(results, places, strict=True):
        assert [tuple(face.landmarks[2] - (0, 5)) for face in result.faces] == one
    assert [face.track for face in parser(pictures[0]).faces] == [None, None]
    assert [
        len(result.faces) for result in parser.track(pictures[:2], largest=True, batch_size=1)
    ] == [1] * 2


def test_few_frames_wait(parser):
    """So that what is shown of a camera is not old."""
    requested = []
    pictures = (requested.append(i) or picture([(150, 120)]) for i in range(8))
    for taken, _ in enumerate(parser.track(pictures, batch_size=1)):
        assert len(requested) - taken <= 2
    assert taken == 7


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"max_faces": 0}])
def test_invalid_arguments_are_named(parser, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        parser.track([], **wrong)


def crossing(count=60, size=(150, 320)):
    """Returns pictures of two drawn people who cross, and the x of the middle of each face."""
    people = [draw_face("train", index) for index in (4, 7)]
    pictures, middles = [], []
    for i in range(count):
        image = np.full((*size, 3), 200, np.uint8)
        xs = [40 + 240 * i / (count - 1), 280 - 240 * i / (count - 1)]
        for (drawn, labels), x in zip(people, xs, strict=True):
            scale = 140 / len(drawn)
            matrix = np.array([[scale, 0, x - 70], [0, scale, 5]])
            head = cv2.warpAffine(np.uint8(labels > 0), matrix, size[::-1])[..., None] > 0
            image = np.where(head, cv2.warpAffine(drawn, matrix, size[::-1]), image)
        pictures.append(image)
        middles.append(xs)
    return pictures, middles


@pytest.mark.slow
def test_numbers_of_drawn_people_who_cross(small_parser):
    """With YuNet, which does not find the face behind the other one."""
    pictures, middles = crossing()
    parser = FaceParser(small_parser.variables, small_parser.model, S, make_single_view_detector())
    results = list(parser.track(pictures, batch_size=1))
    first = {face.track: int(face.landmarks[2, 0] > 160) for face in results[0].faces}
    assert sorted(first.values()) == [0, 1]
    for result, xs in zip(results, middles, strict=True):
        for face in result.faces:
            assert abs(face.landmarks[2, 0] - xs[first[face.track]]) < 30
    assert {len(result.faces) for result in results} == {1, 2}
    assert len(results[-1].faces) == 2
