import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jax_stn_icnn.inference import stream
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.photos.reading import PhotoError

S = 64


def photo(seed, faces):
    """A picture whose first pixel says how many faces `detector` finds in it."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (80 + seed % 40, 100, 3), np.uint8)
    image[0, 0] = faces
    return image


def detector(image):
    return [(5.0 + 9 * i, 10.0, 40 + 9 * i, 50) for i in range(image[0, 0, 0])]


@pytest.fixture(scope="module")
def parser(small_parser):
    parser = FaceParser(small_parser._variables, small_parser.model, S, detector)
    parser._networks = small_parser._networks  # compiled already
    return parser


PHOTOS = [photo(seed, faces) for seed, faces in enumerate((1, 0, 3, 2, 0, 6, 1, 1, 0))]


def test_the_same_as_one_by_one_in_the_same_order(parser):
    parses = list(parser.stream(iter(PHOTOS), batch_size=4))
    assert [len(parse.faces) for parse in parses] == [1, 0, 3, 2, 0, 6, 1, 1, 0]
    for image, parse in zip(PHOTOS, parses, strict=True):
        single = parser(image)
        np.testing.assert_array_equal(parse.image, image)
        assert (parse.labels == single.labels).mean() > 0.999
        assert [face.box for face in parse.faces] == [face.box for face in single.faces]
        for face, expected in zip(parse.faces, single.faces, strict=True):
            np.testing.assert_allclose(face.scores(), expected.scores(), atol=1e-4)
    for parse, expected in zip(parser(PHOTOS), parses, strict=True):
        np.testing.assert_array_equal(parse.labels, expected.labels)


def test_a_face_s_result_does_not_depend_on_its_batch(parser):
    together = list(parser.stream(PHOTOS, batch_size=4))
    for number in (0, 2, 5):
        (alone,) = parser.stream([PHOTOS[number]], batch_size=4)
        np.testing.assert_array_equal(alone.labels, together[number].labels)
        np.testing.assert_array_equal(alone.faces[0].scores(), together[number].faces[0].scores())


def test_errors_end_the_stream_or_take_their_photo_s_place(parser, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    photos = [PHOTOS[0], tmp_path / "bad.png", tmp_path / "none.png", PHOTOS[3]]
    first, bad, none, last = parser.stream(photos, errors="yield")
    assert len(first.faces) == 1 and len(last.faces) == 2
    assert isinstance(bad, PhotoError) and isinstance(none, FileNotFoundError)
    results = parser.stream(photos)
    assert len(next(results).faces) == 1
    with pytest.raises(PhotoError, match="bad.png"):
        next(results)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": 2.5}, {"errors": "ignore"}])
def test_impossible_arguments_are_named(parser, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        parser.stream([], **wrong)


@pytest.mark.parametrize("one", ["photo.jpg", Path("photo.jpg"), Image.new("RGB", (9, 9))])
def test_a_stream_is_of_several_photos(parser, one):
    with pytest.raises(ValueError, match="photos is one photo, .*, but must be photos"):
        parser.stream(one)


def test_a_detector_is_never_called_by_two_threads(small_parser):
    inside = threading.Lock()

    def careful(image):
        assert inside.acquire(blocking=False), "called twice at once"
        threading.Event().wait(0.005)
        inside.release()
        return detector(image)

    parser = FaceParser(small_parser._variables, small_parser.model, S, careful)
    parser._networks = small_parser._networks
    assert len(list(parser.stream(PHOTOS))) == len(PHOTOS)


class TestBounds:
    def steps(self, held, faces=1, size=(10, 10)):
        """Steps that count the photos between reading and finishing."""
        image = np.zeros((*size, 3), np.uint8)
        frames = [np.zeros((4, 4, 3), np.uint8)] * faces

        def prepare(item):
            held.append(1)
            return stream.Prepared(image, frames, frames, frames)

        return stream.Steps(
            prepare, lambda batch: {"n": batch}, lambda *_: None, lambda prepared, faces: len(faces)
        )

    @pytest.mark.parametrize("faces", [0, 1, 5])
    def test_photos_are_asked_for_as_results_are_taken(self, faces):
        held, asked = [], []
        items = (asked.append(i) or i for i in range(300))
        for taken, _ in enumerate(stream.run(items, self.steps(held, faces), 4), 1):
            assert len(asked) - taken <= stream.FACES + stream.THREADS
        assert taken == 300

    def test_photos_of_many_faces_are_held_a_few_at_a_time(self, monkeypatch):
        monkeypatch.setattr(stream, "FACES", 12)
        held, most = [], 0
        for taken, _ in enumerate(stream.run(range(50), self.steps(held, faces=5), 4), 1):
            most = max(most, len(held) - taken)
        # Three have 15 faces; two more are being read.
        assert most <= 3 + stream.THREADS

    def test_large_batches_are_filled(self, monkeypatch):
        sizes = []
        steps = self.steps([], faces=1)

        def networks(batch):
            sizes.append(len(batch) - (batch == 0).all((1, 2, 3)).sum())
            return {"n": batch}

        frames = [np.ones((4, 4, 3), np.uint8)]
        steps = steps._replace(
            prepare=lambda _: stream.Prepared(np.zeros((10, 10, 3)), frames, frames, frames),
            networks=networks,
        )
        monkeypatch.setattr(stream, "FACES", 4)
        assert list(stream.run(range(32), steps, 8)) == [1] * 32
        assert sizes == [8] * 4

    def test_a_face_that_is_kept_does_not_keep_its_batch(self):
        steps = self.steps([], faces=4)._replace(finish_face=lambda _, number, rows: rows["n"])
        (kept,) = stream.run([0], steps._replace(finish=lambda _, faces: faces[0]), 4)
        assert kept.base is None

    def test_large_photos_are_held_a_few_at_a_time(self, monkeypatch):
        monkeypatch.setattr(stream, "PIXELS", 250)
        held, most = [], 0
        results = stream.run(range(50), self.steps(held), 4)
        for taken, _ in enumerate(results, 1):
            most = max(most, len(held) - taken)
        # Three are 300 pixels; two more are being read.
        assert most <= 3 + stream.THREADS

    def test_a_photo_of_more_faces_than_a_batch(self):
        assert list(stream.run(range(3), self.steps([], faces=11), 4)) == [11] * 3

    def test_closing_ends_the_threads(self):
        before = set(threading.enumerate())
        results = stream.run(range(1000), self.steps([]), 4)
        next(results)
        assert set(threading.enumerate()) > before
        results.close()
        assert not set(threading.enumerate()) - before

    def test_a_fault_in_a_step_is_raised(self):
        def fault(*_):
            raise ZeroDivisionError

        for broken in ("finish", "finish_face", "networks", "prepare"):
            steps = self.steps([])._replace(**{broken: fault})
            with pytest.raises(ZeroDivisionError):
                list(stream.run(range(9), steps, 4))


@pytest.mark.skipif(sys.platform != "linux", reason="only there a thread has a niceness of its own")
def test_threads_beside_the_networks_are_nicer_than_they():
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    with stream.threads(1) as pool:
        assert pool.submit(niceness).result() == min(before + stream.NICER, 19)
    assert niceness() == before
