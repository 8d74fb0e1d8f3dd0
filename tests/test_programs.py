import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import find_path, small_model
from test_step import make_batch

from jax_stn_icnn.compilation import cache as programs
from jax_stn_icnn.compilation.cache import cached_program, cached_value, enable_cache
from jax_stn_icnn.data.config import AugmentConfig
from jax_stn_icnn.models.pipeline import STNiCNN, init_variables, variable_shapes
from jax_stn_icnn.train import step
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.stages import Stage
from jax_stn_icnn.train.state import TrainState

NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def cached_as_outside_of_tests(monkeypatch):
    """Caches nothing that other tests share, and everything that the package caches."""
    before = jax.config.values["jax_compilation_cache_dir"]
    monkeypatch.setattr(programs, "_path", find_path)
    enable_cache("")
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def directory(tmp_path):
    """The directory of the cache during a test, JAX's own included."""
    from jax.experimental.compilation_cache import compilation_cache

    before = {name: jax.config.values[name] for name in NAMES}
    enable_cache(str(tmp_path / "cache"))
    compilation_cache.reset_cache()
    yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


class Counted:
    """A function that counts its calls."""

    def __init__(self, value):
        self.value, self.calls = value, 0

    def __call__(self):
        self.calls += 1
        return self.value


def test_by_default_programs_are_cached_and_jax_caches_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    x = np.ones(3, np.float32)
    lower = Counted(jax.jit(double).lower(x))
    for _ in range(2):
        cached_program("double", (), lower, jax.stages.Lowered.compile, jax.devices()[:1])(x)
    assert lower.calls == 1
    (entry,) = filter(Path.is_file, tmp_path.rglob("*"))
    assert entry.parent == tmp_path / ".cache" / "jax_stn_icnn" / programs.FOLDER


def test_nothing_is_cached_for_a_user_without_a_home(monkeypatch):
    monkeypatch.setattr(programs.os.path, "expanduser", lambda path: path)
    jax.config.update("jax_compilation_cache_dir", None)
    make = Counted(1)
    for calls in (1, 2):
        assert cached_value("what", (7,), make) == 1
        assert make.calls == calls


def test_nothing_is_cached_if_turned_off():
    make = Counted({"a": 1})
    for calls in (1, 2):
        assert cached_value("what", (7,), make) == {"a": 1}
        assert make.calls == calls


def test_a_value_is_computed_once(directory):
    make = Counted({"a": (1, np.float32)})
    for _ in range(2):
        assert cached_value("what", (7,), make) == {"a": (1, np.float32)}
    assert make.calls == 1
    cached_value("what else", (7,), make)
    cached_value("what", (8,), make)
    assert make.calls == 3


class Foreign(STNiCNN):
    """A model of another package, which may change without this one."""


@pytest.mark.parametrize(("model", "calls"), [(STNiCNN, 1), (Foreign, 2)])
def test_nothing_is_cached_for_a_class_of_another_package(model, calls, directory):
    make = Counted(1)
    for _ in range(2):
        cached_value("what", (model(),), make)
    assert make.calls == calls


@pytest.mark.parametrize("changed", ["_source", "_processor"])
def test_another_source_or_processor_is_another_key(changed, directory, monkeypatch):
    make = Counted(1)
    cached_value("what", (7,), make)
    monkeypatch.setattr(programs, changed, lambda: "another")
    cached_value("what", (7,), make)
    assert make.calls == 2


def test_other_settings_are_another_key(directory, monkeypatch):
    make = Counted(1)
    cached_value("what", (7,), make)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    cached_value("what", (7,), make)
    assert make.calls == 2
    with jax.default_matmul_precision("highest"):
        cached_value("what", (7,), make)
    assert make.calls == 3
    with jax.enable_x64(True):
        cached_value("what", (7,), make)
    assert make.calls == 4


def test_a_damaged_file_is_told_and_made_anew(directory, caplog):
    make = Counted(list(range(1000)))
    cached_value("what", (7,), make)
    (path,) = (directory / programs.FOLDER).iterdir()
    path.write_bytes(path.read_bytes()[:50])
    assert cached_value("what", (7,), make) == make.value
    assert str(path) in caplog.text
    assert cached_value("what", (7,), make) == make.value
    assert make.calls == 2


def test_a_directory_that_cannot_be_written_to_is_told_and_ends_nothing(directory, caplog):
    directory.mkdir()
    (directory / programs.FOLDER).write_text("in the way")
    make = Counted(1)
    for calls in (1, 2):
        assert cached_value("what", (), make) == 1
        assert make.calls == calls
    assert "cannot be written" in caplog.text


def double(x):
    return jnp.sort(x)[::-1] * 2 + jnp.cumsum(x)


def test_a_program_is_lowered_once(directory):
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    lower = Counted(jax.jit(double).lower(x))
    found = [
        cached_program("double", (), lower, jax.stages.Lowered.compile, jax.devices()[:1])(x)
        for _ in range(2)
    ]
    assert lower.calls == 1
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], np.sort(x)[::-1] * 2 + np.cumsum(x), rtol=1e-4, atol=1e-4)


def test_what_jax_found_in_its_own_cache_is_not_written_again(directory):
    x = np.ones(3, np.float32)
    lower = Counted(jax.jit(double).lower(x))
    compile, devices = jax.stages.Lowered.compile, jax.devices()[:1]
    cached_program("one name", (), lower, compile, devices)
    for calls in (2, 3):
        cached_program("another", (), lower, compile, devices)
        assert lower.calls == calls


def test_what_another_thread_compiles_meanwhile_does_not_count(directory):
    x = np.ones(3, np.float32)
    compile, devices = jax.stages.Lowered.compile, jax.devices()[:1]
    cached_program("one name", (), lambda: jax.jit(double).lower(x), compile, devices)

    def compile_beside(lowered):
        other = threading.Thread(target=jax.jit(lambda x: double(x) + 1).lower(x).compile)
        other.start()
        other.join()
        return lowered.compile()

    lower = Counted(jax.jit(double).lower(x))
    for calls in (1, 2):
        cached_program("another", (), lower, compile_beside, devices)
        assert lower.calls == calls


def untraced(*_, **__):
    raise AssertionError("traced")


@pytest.mark.slow
def test_a_training_step_from_disk_is_the_same_to_the_bit_and_serves_all_seeds(
    directory, monkeypatch
):
    model = small_model().clone(axis_name=step.AXIS)
    stage = Stage("localizer", 1, {"localizer": 1e-3}, {"localizer": 1.0})
    variables = init_variables(model, 0)
    found = []
    for seed in (1, 1, 2):
        params = variables["params"]
        opt_state = make_optimizer(stage, 4, 5).init(params)
        state = TrainState(np.int32(0), params, variables["batch_stats"], opt_state)
        devices = jax.devices()[:4]
        take_step = step.compile_train_step(
            model,
            stage,
            4,
            5,
            state,
            make_batch(0),
            seed=seed,
            augmentation=AugmentConfig(variants=True),
            devices=devices,
        )
        for i in range(2):
            state, metrics = take_step(state, make_batch(i))
        found.append(jax.device_get((state, metrics)))
        # From the second time on nothing is to be traced.
        monkeypatch.setattr(step, "train_step", untraced)
    jax.tree.map(np.testing.assert_array_equal, *found[:2])
    assert np.all(found[1][1]["loss"] != found[2][1]["loss"])


@pytest.mark.parametrize("cropper", ["vgg9", "centroid"])
def test_shapes_of_variables_are_those_of_a_parse(cropper, directory):
    model = small_model(cropper=cropper)
    expected = dict(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    for _ in range(2):  # traced, and from disk
        assert variable_shapes(model) == expected
