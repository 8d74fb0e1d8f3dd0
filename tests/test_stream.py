"""Streams of photos: order, errors, bounds on what is in memory, threads."""

import gc
import itertools
import os
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jax_stn_icnn.inference import batching, finishing
from jax_stn_icnn.inference.batching import MAX_FACES, THREADS
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.inference.programs import ModelProgram
from jax_stn_icnn.inference.results import FaceResult
from jax_stn_icnn.inference.threads import NICENESS, background_threads
from jax_stn_icnn.photos.reading import PhotoError

S = 64


def photo(seed, faces):
    """Returns a photo whose first pixel is the number of faces that `detector` returns for it."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (80 + seed % 40, 100, 3), np.uint8)
    image[0, 0] = faces
    return image


def detector(image):
    return [(5.0 + 9 * i, 10.0, 40 + 9 * i, 50) for i in range(image[0, 0, 0])]


@pytest.fixture
def parser(small_parser, monkeypatch):
    monkeypatch.setattr(small_parser, "detector", detector)
    return small_parser


PHOTOS = [photo(seed, faces) for seed, faces in enumerate((1, 0, 3, 2, 0, 6, 1, 1, 0))]


def test_results_are_those_of_single_photos_in_the_same_order(parser):
    results = list(parser.stream(iter(PHOTOS), batch_size=4))
    assert [len(result.faces) for result in results] == [1, 0, 3, 2, 0, 6, 1, 1, 0]
    for image, result in zip(PHOTOS, results, strict=True):
        single = parser(image)
        np.testing.assert_array_equal(result.image, image)
        assert (result.labels == single.labels).mean() > 0.999
        assert [face.box for face in result.faces] == [face.box for face in single.faces]
        for face, expected in zip(result.faces, single.faces, strict=True):
            np.testing.assert_allclose(face.scores(), expected.scores(), atol=1e-4)
    for result, expected in zip(parser(PHOTOS), results, strict=True):
        np.testing.assert_array_equal(result.labels, expected.labels)


@pytest.mark.slow
def test_the_result_of_a_face_does_not_depend_on_its_batch(parser):
    results = list(parser.stream(PHOTOS, batch_size=4))
    for i in (0, 2, 5):
        (single,) = parser.stream([PHOTOS[i]], batch_size=4)
        np.testing.assert_array_equal(single.labels, results[i].labels)
        np.testing.assert_array_equal(single.faces[0].scores(), results[i].faces[0].scores())


def test_errors_end_the_stream_or_replace_the_result(parser, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    photos = [PHOTOS[0], tmp_path / "bad.png", tmp_path / "none.png", PHOTOS[3]]
    first, bad, none, last = parser.stream(photos, errors="yield")
    assert len(first.faces) == 1 and len(last.faces) == 2
    assert isinstance(bad, PhotoError) and isinstance(none, FileNotFoundError)
    results = parser.stream(photos)
    assert len(next(results).faces) == 1
    with pytest.raises(PhotoError, match="bad.png"):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": 2.5}, {"errors": "ignore"}])
def test_invalid_arguments_are_named(parser, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        parser.stream([], **wrong)


@pytest.mark.parametrize("one", ["photo.jpg", Path("photo.jpg"), Image.new("RGB", (9, 9))])
def test_a_single_photo_is_not_a_stream(parser, one):
    with pytest.raises(ValueError, match="photos is one photo, .*, but must be photos"):
        parser.stream(one)


def test_a_detector_is_called_by_one_thread_at_a_time(parser, monkeypatch):
    inside = threading.Lock()

    def exclusive(image):
        assert inside.acquire(blocking=False), "called by two threads"
        threading.Event().wait(0.005)
        inside.release()
        return detector(image)

    monkeypatch.setattr(parser, "detector", exclusive)
    assert len(list(parser.stream(PHOTOS))) == len(PHOTOS)


class FakeNetworks:
    """Replaces the compiled networks; records the number of faces in each batch."""

    def __init__(self, num_classes, num_parts):
        self.num_classes, self.num_parts = num_classes, num_parts
        self.faces, self.scores = [], []

    def __call__(self, variables, frames):
        self.faces.append(int(frames.any((1, 2, 3)).sum()))
        scores = np.ones((len(frames), self.num_classes, S, S), np.float32)
        self.scores.append(weakref.ref(scores))
        return {
            "scores": scores,
            "coarse_labels": np.zeros((len(frames), 16, 16), np.uint8),
            "windows": np.zeros((len(frames), self.num_parts, 4), np.float32),
        }


class TestBounds:
    """Photos of 10 x 10 pixels and fake networks; `reads` counts the photos that were read."""

    @pytest.fixture
    def networks(self, small_parser, monkeypatch):
        anatomy = small_parser.model.config.anatomy
        networks = FakeNetworks(anatomy.num_classes, len(anatomy.parts))
        monkeypatch.setattr(ModelProgram, "compile", lambda _: networks)
        return networks

    @pytest.fixture
    def stream(self, small_parser, networks):
        """Returns a function (photos, faces per photo, batch size) -> (results, reads)."""

        def stream(photos, faces=1, batch_size=4):
            reads = []

            def count(image):
                reads.append(1)
                return [(1, 1, 8, 8)] * faces

            parser = FaceParser(small_parser.variables, small_parser.model, S, count)
            image = np.full((10, 10, 3), 255, np.uint8)
            return parser.stream((image for _ in photos), batch_size=batch_size), reads

        return stream

    @pytest.mark.slow
    @pytest.mark.parametrize("faces", [0, 1, 5])
    def test_photos_are_requested_as_results_are_taken(self, stream, faces):
        requested = []
        results, _ = stream((requested.append(i) for i in range(300)), faces)
        assert not requested
        for taken, _ in enumerate(results, 1):
            assert len(requested) - taken <= MAX_FACES + THREADS
        assert taken == len(requested) == 300

    def most_in_memory(self, results, reads):
        return max(len(reads) - taken for taken, _ in enumerate(results, 1))

    @pytest.mark.slow
    def test_few_photos_of_many_faces_are_in_memory(self, stream, monkeypatch):
        monkeypatch.setattr(batching, "MAX_FACES", 12)
        # Three photos have 15 faces; the others are read ahead.
        assert self.most_in_memory(*stream(range(50), faces=5)) <= 3 + THREADS

    def test_few_large_photos_are_in_memory(self, stream, monkeypatch):
        monkeypatch.setattr(batching, "MAX_PIXELS", 250)
        # Three photos have 300 pixels; the others are read ahead.
        assert self.most_in_memory(*stream(range(50))) <= 3 + THREADS

    def test_large_batches_are_full(self, stream, networks, monkeypatch):
        monkeypatch.setattr(batching, "MAX_FACES", 4)
        results, _ = stream(range(32), batch_size=8)
        assert [len(result.faces) for result in results] == [1] * 32
        assert networks.faces == [8] * 4

    def test_the_last_batch_is_padded(self, stream, networks):
        results, _ = stream(range(3), faces=11)
        assert [len(result.faces) for result in results] == [11] * 3
        assert networks.faces == [4] * 8 + [1]

    @pytest.mark.slow
    def test_a_face_result_does_not_keep_its_batch_in_memory(self, stream, networks):
        results, _ = stream([0], faces=4)
        face = next(results).faces[2]
        results.close()
        gc.collect()
        assert face.scores().shape[:2] == (10, 10)
        assert networks.scores[0]() is None

    def test_closing_ends_the_threads(self, stream):
        before = set(threading.enumerate())
        results, _ = stream(itertools.count())
        next(results)
        assert set(threading.enumerate()) > before
        results.close()
        assert not set(threading.enumerate()) - before

    @pytest.mark.parametrize("step", ["detector", "networks", "from_frame", "merge_faces"])
    def test_an_unexpected_error_in_any_step_is_raised(
        self, small_parser, networks, monkeypatch, step
    ):
        def fail(*_, **__):
            raise ZeroDivisionError

        parser = FaceParser(small_parser.variables, small_parser.model, S, detector)
        if step == "detector":
            monkeypatch.setattr(parser, "detector", fail)
        elif step == "networks":
            monkeypatch.setattr(ModelProgram, "compile", lambda _: fail)
        elif step == "from_frame":
            monkeypatch.setattr(FaceResult, step, fail)
        else:
            monkeypatch.setattr(finishing, step, fail)
        with pytest.raises(ZeroDivisionError):
            list(parser.stream(PHOTOS))


@pytest.mark.skipif(sys.platform != "linux", reason="niceness of single threads is Linux's")
def test_background_threads_have_lower_priority():
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    with background_threads(1) as pool:
        assert pool.submit(niceness).result() == min(before + NICENESS, 19)
    assert niceness() == before
