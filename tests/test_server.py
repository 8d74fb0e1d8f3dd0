"""Parsers in servers: threads, processes, copies, devices, and errors of single photos."""

import copy
import functools
import io
import multiprocessing
import pickle
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import cv2
import jax
import numpy as np
import pytest
from conftest import small_model
from PIL import Image

from jax_stn_icnn.compilation import cache
from jax_stn_icnn.faces.detectors import make_detector
from jax_stn_icnn.inference import programs
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.inference.results import FaceResult
from jax_stn_icnn.io import weights
from jax_stn_icnn.models.config import ModelConfig
from tfds_builders.synthetic_faces.face import draw_face

S = 64
SECONDS = 60  # after which a process or thread is taken to hang
PHOTOS = [
    np.random.default_rng(seed).integers(0, 256, (90 + seed, 100, 3), np.uint8) for seed in range(4)
]


def one_box(image):
    """A detector that pickles."""
    return [(5.0, 10.0, 40.0, 50.0)]


def make_parser(small_parser, detector=one_box, **options):
    options = {"quick_start": False} | options
    return FaceParser(small_parser.variables, small_parser.model, S, detector, **options)


@pytest.fixture(scope="module")
def parser(small_parser):
    return make_parser(small_parser)


@pytest.fixture(scope="module")
def expected(parser):
    return [parser(photo).labels for photo in PHOTOS]


def in_threads(calls):
    """Returns the results of calls that run at the same time."""
    start = threading.Barrier(len(calls))

    def run(call):
        start.wait(SECONDS)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(SECONDS) for future in [pool.submit(run, call) for call in calls]]


class TestThreads:
    def test_eight_threads_share_a_parser_and_compile_it_once(
        self, small_parser, expected, monkeypatch
    ):
        compiled = []

        compile = programs.ModelProgram.compile

        def compile_and_count(program):
            compiled.append(program)
            return compile(program)

        monkeypatch.setattr(programs.ModelProgram, "compile", compile_and_count)
        parser = make_parser(small_parser)
        found = in_threads([functools.partial(parser, PHOTOS[i % 4]) for i in range(8)])
        assert len(compiled) == 1
        for i, result in enumerate(found):
            np.testing.assert_array_equal(result.labels, expected[i % 4])

    @pytest.mark.parametrize("kind", ["function", "method"])
    def test_a_detector_that_parsers_share_is_called_by_one_thread_at_a_time(
        self, small_parser, expected, kind
    ):
        class Detector:
            inside = threading.Lock()

            def detect(self, image):
                assert self.inside.acquire(blocking=False), "called by two threads"
                threading.Event().wait(0.005)
                self.inside.release()
                return one_box(image)

        detector = Detector()
        function = detector.detect
        parsers = [
            make_parser(small_parser, function if kind == "function" else detector.detect)
            for _ in range(2)
        ]
        calls = [functools.partial(list, parser.stream(PHOTOS, batch_size=1)) for parser in parsers]
        first, second = in_threads(calls)
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one.labels, other.labels)

    def test_two_parsers_with_one_yunet(self, small_parser):
        yunet = make_detector("yunet")
        photo = draw_face("test", 3).image
        parsers = [make_parser(small_parser, yunet) for _ in range(2)]
        alone = make_parser(small_parser, "yunet")(photo)
        assert len(alone.faces) == 1 and 0.7 < alone.faces[0].score <= 1
        for result in in_threads([functools.partial(parser, photo) for parser in parsers * 2]):
            np.testing.assert_array_equal(result.labels, alone.labels)


def pickled(parser):
    return pickle.loads(pickle.dumps(parser))


class TestCopies:
    @pytest.mark.parametrize("copied", [pickled, copy.deepcopy])
    def test_a_copy_parses_equally(self, parser, expected, copied):
        np.testing.assert_array_equal(copied(parser)(PHOTOS[0]).labels, expected[0])

    @pytest.mark.parametrize("copied", [pickled, copy.deepcopy])
    def test_a_copy_has_the_same_options(self, small_parser, copied):
        options = {"min_face_size": 90, "min_score": 0.8, "device": "cpu:1"}
        parser = copied(make_parser(small_parser, "yunet", **options))
        assert jax.tree.leaves(parser.variables)[0].devices() == {jax.devices("cpu")[1]}
        assert parser.model == small_parser.model and parser.frame_size == S
        photo = draw_face("test", 3).image
        assert len(parser.detector(photo)) == len(make_detector("yunet")(photo)) == 1
        assert len(parser.detector(cv2.resize(photo, None, fx=0.5, fy=0.5))) == 0
        assert parser._locator.min_score == 0.8

    def test_a_detector_that_does_not_pickle_is_named(self, small_parser):
        with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
            pickle.dumps(make_parser(small_parser, lambda image: []))


def child_of_fork(work, connection):
    try:
        connection.send(work())
    except RuntimeError as error:
        connection.send(error)


def child_of_spawn(parser, photo, connection):
    connection.send(parser(photo).labels)


def run_process(context, target, *args):
    """Returns what a process sends; fails if it hangs."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*args, sender))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of JAX and Python, that forking may hang
        process.start()
    try:
        assert receiver.poll(SECONDS), "the process hangs"
        return receiver.recv()
    finally:
        process.kill()
        process.join()


FORKED = """
import multiprocessing, sys
import numpy as np
from jax_stn_icnn import FaceParser

parser = FaceParser.load(sys.argv[1])

def work():
    parser(np.zeros((80, 80, 3), np.uint8))

child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join(60)
print("exit code", child.exitcode)
child.kill()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forking is usual on Linux only")
class TestProcesses:
    @pytest.mark.parametrize("use", ["call", "stream", "pickle", "new"])
    def test_a_parser_of_the_parent_of_a_fork_is_an_error(self, parser, expected, use):
        work = {
            "call": lambda: parser(PHOTOS[0]),
            "stream": lambda: parser.stream(PHOTOS),
            "pickle": lambda: pickle.dumps(parser),
            "new": FaceParser.load,
        }[use]
        error = run_process(multiprocessing.get_context("fork"), child_of_fork, work)
        assert isinstance(error, RuntimeError)
        assert "create the parser after the fork" in str(error) and '"spawn"' in str(error)

    @pytest.mark.slow
    def test_a_fork_between_loading_and_parsing_is_an_error(self, small_parser, tmp_path):
        config = small_parser.model.config
        weights.save_weights(tmp_path / weights.WEIGHTS, small_parser.variables, config, S)
        done = subprocess.run(
            [sys.executable, "-c", FORKED, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=2 * SECONDS,
        )
        assert done.stdout == "exit code 1\n"
        assert "RuntimeError: this process was forked after a FaceParser" in done.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_a_parser_is_sent_to_a_new_process(self, parser, expected, method, monkeypatch):
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        context = multiprocessing.get_context(method)
        found = run_process(context, child_of_spawn, parser, PHOTOS[0])
        np.testing.assert_array_equal(found, expected[0])


class TestStream:
    def test_a_generator_may_reuse_its_buffer(self, parser, expected):
        def photos():
            buffer = np.empty((100, 100, 3), np.uint8)
            for photo in PHOTOS:
                view = buffer[: len(photo)]
                view[:] = photo
                yield view
            buffer[:] = 0

        for photo, labels, result in zip(
            PHOTOS, expected, parser.stream(photos(), batch_size=1), strict=True
        ):
            np.testing.assert_array_equal(result.image, photo)
            np.testing.assert_array_equal(result.labels, labels)

    def test_frames_of_one_pillow_image_and_a_damaged_one(self, parser, expected):
        file = io.BytesIO()
        first, *others = [Image.fromarray(photo[:90]) for photo in PHOTOS]
        first.save(file, "TIFF", save_all=True, append_images=others)

        def photos():
            with Image.open(file) as image:
                for frame in range(4):
                    image.seek(frame)
                    yield image
            png = io.BytesIO()
            first.save(png, "PNG")
            yield Image.open(io.BytesIO(png.getvalue()[:2000]))

        *results, error = parser.stream(photos(), batch_size=1, errors="yield")
        for photo, result in zip(PHOTOS, results, strict=True):
            np.testing.assert_array_equal(result.image, photo[:90])
        assert isinstance(error, ValueError) and "photo 4" in str(error)

    @pytest.mark.parametrize("step", ["detection", "resampling"])
    def test_an_error_of_opencv_is_one_of_its_photo(self, small_parser, monkeypatch, step):
        def fails(size):
            if size == PHOTOS[1].shape[:2]:
                cv2.resize(np.zeros((0, 0)), (1, 1))  # raises cv2.error

        def detector(image):
            if step == "detection":
                fails(image.shape[:2])
            return one_box(image)

        from_frame = FaceResult.from_frame

        def finish(**arguments):
            fails(arguments["photo_size"])
            return from_frame(**arguments)

        if step == "resampling":
            monkeypatch.setattr(FaceResult, "from_frame", finish)
        parser = make_parser(small_parser, detector)
        results = list(parser.stream(PHOTOS, batch_size=1, errors="yield"))
        assert [isinstance(result, ValueError) for result in results] == [False, True, False, False]
        assert str(results[1]).startswith("photo 1: OpenCV")
        with pytest.raises(ValueError, match="image: OpenCV"):
            parser(PHOTOS[1])

    def test_a_photo_without_faces_has_a_result(self, small_parser):
        result = make_parser(small_parser, lambda image: [])(PHOTOS[0])
        assert result.faces == [] and not result.labels.any()
        assert result  # so that `if result` does not mistake it for none
        assert repr(result) == "PhotoResult(faces=[])"


class TestDevice:
    @pytest.mark.parametrize("name", ["cpu", "cpu:2"])
    def test_variables_are_on_the_device(self, small_parser, name):
        device = jax.local_devices()[2 if ":" in name else 0]
        for given in (name, device):
            parser = make_parser(small_parser, device=given)
            assert jax.tree.leaves(parser.variables)[0].devices() == {device}

    @pytest.mark.slow
    def test_networks_run_on_the_device(self, small_parser, expected):
        parser = make_parser(small_parser, device="cpu:2")
        np.testing.assert_array_equal(parser(PHOTOS[0]).labels, expected[0])

    @pytest.mark.parametrize("name", ["npu", "tpu", "cpu:4", "cpu:-1", "cpu:one", "", 3])
    def test_an_unknown_device_is_named(self, small_parser, name):
        with pytest.raises(ValueError, match=rf"device is '?{name}'?, but must be .*cpu:0, cpu:1"):
            make_parser(small_parser, device=name)

    @pytest.fixture
    def run(self, small_parser, tmp_path):
        config = small_parser.model.config
        weights.save_weights(tmp_path / weights.WEIGHTS, small_parser.variables, config, S)
        return tmp_path

    @pytest.mark.slow
    def test_dtype(self, run, expected):
        parser = FaceParser.load(
            run, detector=one_box, device="cpu", dtype="bfloat16", quick_start=False
        )
        result = parser(PHOTOS[0])
        assert parser.model.config.dtype == "bfloat16"
        assert np.mean(result.labels == expected[0]) > 0.9
        assert result.faces[0].scores().dtype == np.float32

    def test_an_unknown_dtype_is_named(self, run):
        with pytest.raises(ValueError, match="dtype is 'float16', but must be .*bfloat16"):
            FaceParser.load(run, dtype="float16")


class TestAnnouncement:
    @pytest.fixture
    def compile(self, monkeypatch, tmp_path):
        """Returns a function that makes a small program, with this package's cache only."""
        before = jax.config.jax_compilation_cache_dir
        jax.config.update("jax_compilation_cache_dir", "")
        monkeypatch.setattr(cache, "_path", lambda name, key: tmp_path / name)
        model = small_model()
        double = jax.jit(lambda model, variables, x: x * variables, static_argnums=0)
        x = jax.numpy.full(3, 2.0)

        def compile(name):
            program = programs.ModelProgram(name, double, model, x, (x,))
            return program.compile()(x, x)

        yield compile
        jax.config.update("jax_compilation_cache_dir", before)

    def test_a_compilation_is_announced_unless_the_program_is_cached(self, compile, caplog):
        assert compile("a program").tolist() == [4, 4, 4]
        (record,) = caplog.records
        assert record.getMessage() == "Compiling the networks for cpu (a program) ..."
        assert compile("a program").tolist() == [4, 4, 4]
        assert len(caplog.records) == 1
        compile("another")
        assert len(caplog.records) == 2


def test_configs_pickle():
    assert pickle.loads(pickle.dumps(ModelConfig())) == ModelConfig()
