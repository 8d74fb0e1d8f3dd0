"""The program that parses the first photos while the optimized one is compiled."""

import threading

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import BROWS, random_variables, small_model
from flax import linen as nn

from jax_stn_icnn.inference import extension
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.inference.programs import LazyProgram, ModelProgram, QuickStart
from jax_stn_icnn.models.layers import ConvNorm, fold_norms
from jax_stn_icnn.ops.platform import use_platform

S = 64


class FakeProgram(LazyProgram):
    """A program that returns its name, compiled when `permission` is set, in `threads`."""

    def __init__(self, name):
        self.permission, self.threads = threading.Event(), []

        def compile():
            self.threads.append(threading.current_thread())
            assert self.permission.wait(60)
            return lambda: name

        super().__init__(compile)


@pytest.fixture
def quick():
    program = FakeProgram("quick")
    program.permission.set()
    return program


@pytest.fixture
def optimized():
    program = FakeProgram("optimized")
    yield program
    program.permission.set()  # so that no thread waits


def parse(program, num_faces=1):
    """Calls a program for each face of a photo; returns what the calls return."""
    program.start_photo()
    return [program() for _ in range(num_faces)]


def test_the_second_photo_compiles_the_optimized_program_in_the_background(quick, optimized):
    program = QuickStart(quick, optimized, lambda: False)
    assert parse(program, num_faces=2) == ["quick"] * 2
    assert optimized.threads == []  # A process that parses one photo does not wait for it.
    assert parse(program) + parse(program) == ["quick"] * 2
    optimized.permission.set()
    (thread,) = optimized.threads
    assert thread is not threading.current_thread()
    thread.join(60)
    assert parse(program, num_faces=2) == ["optimized"] * 2
    assert len(quick.threads) == len(optimized.threads) == 1


def test_the_process_waits_for_a_compilation_that_a_daemon_started(quick, optimized):
    """As the threads of FastAPI, which else abort the process at its end."""
    program = QuickStart(quick, optimized, lambda: False)
    server = threading.Thread(target=lambda: [parse(program), parse(program)], daemon=True)
    server.start()
    server.join(60)
    optimized.permission.set()
    (thread,) = optimized.threads
    assert not thread.daemon


def test_a_cached_program_is_used_at_once(quick, optimized):
    optimized.permission.set()
    assert parse(QuickStart(quick, optimized, lambda: True)) == ["optimized"]
    assert quick.threads == []


def test_a_program_that_a_stream_has_compiled_is_used_at_once(quick, optimized):
    optimized.permission.set()
    optimized.prepare()
    assert parse(QuickStart(quick, optimized, lambda: False)) == ["optimized"]
    assert quick.threads == []


@pytest.mark.parametrize("below", [False, True])
def test_folded_norms_give_the_same_features(below):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 9, 7)).astype(np.float32)
    features = rng.normal(size=(2, 4, 5, 4)).astype(np.float32) if below else None
    layer = ConvNorm(6, nn.tanh)
    variables = random_variables(layer, x, below=features, seed=1)
    expected = layer.apply(variables, x, False, features)
    folded = fold_norms(variables)
    assert set(folded["params"]) == {"conv"} and not folded["batch_stats"]
    for platform in ("cpu", "cpu_quick"):  # The latter convolves an upsampled image.
        with use_platform(platform):
            found = layer.apply(folded, x, False, features)
        np.testing.assert_allclose(found, expected, atol=2e-6)
    assert set(variables["params"]) == {"conv", "norm"}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"coarse_network": "unet"}, {"dtype": "bfloat16"}])
def test_the_quick_program_equals_the_optimized_one(options):
    model = small_model(anatomy=BROWS, wide=True, cropper="centroid", coarse_size=32, **options)
    parser = FaceParser(random_variables(model, seed=3), model, S, quick_start=False)
    frames = [
        np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)
        for i, shape in enumerate(parser._reader.frame_shapes(1))
    ]
    program = parser._describe_program(1)
    quick = program.compile_quickly()
    found, expected = (p(parser.variables, *frames) for p in (quick, program.compile()))
    tolerance = 1e-4 if model.config.dtype == "float32" else 0.1
    for name in ("scores", "wide_scores", "windows"):
        atol = tolerance * (S if name == "windows" else 1)
        np.testing.assert_allclose(found[name], expected[name], atol=atol, err_msg=name)
    far = extension.far_program(model, parser.variables).compile()
    quick_far = extension.FarFromParse(quick, frames[0].shape)
    wide = np.asarray(expected["wide_scores"])
    for one, other in zip(
        quick_far(parser.variables, wide, frames[1]),
        far(parser.variables, wide, frames[1]),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=tolerance)


def test_single_photos_start_quickly_and_streams_do_not(small_parser, monkeypatch):
    compiled = []
    for name in ("compile", "compile_quickly"):

        def compile(program, name=name):
            compiled.append(name)
            return lambda _, frames: {
                "scores": jnp.zeros((len(frames), len(small_parser.classes), S, S)),
                "coarse_labels": jnp.zeros((len(frames), 16, 16), jnp.uint8),
                "windows": jnp.zeros((len(frames), 6, 4)),
            }

        monkeypatch.setattr(ModelProgram, name, compile)
    monkeypatch.setattr(ModelProgram, "is_cached", lambda _: False)
    photo = np.zeros((S, S, 3), np.uint8)
    for quick_start, expected in ((True, ["compile_quickly"]), (False, ["compile"])):
        parser = FaceParser(small_parser.variables, small_parser.model, S, quick_start=quick_start)
        parser(photo, detect=False)
        assert compiled == expected
        compiled.clear()
    parser = FaceParser(small_parser.variables, small_parser.model, S)
    list(parser.stream([photo], detect=False))
    parser([photo], detect=False)
    assert compiled == ["compile"]
