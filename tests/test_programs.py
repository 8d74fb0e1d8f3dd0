import errno
import os
import pickle
import threading
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import find_path, small_model
from test_step import make_batch

from jax_stn_icnn.compilation import cache as programs
from jax_stn_icnn.compilation import entries, source
from jax_stn_icnn.compilation.cache import cached_program, cached_value, enable_cache
from jax_stn_icnn.compilation.program import Program
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


@pytest.fixture
def entry(directory):
    """A value that costs a call if it is computed, and the path of its entry."""
    make = Counted(list(range(1000)))
    cached_value("what", (7,), make)
    (path,) = (directory / programs.FOLDER).iterdir()
    return make, path


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
    make = Counted({"a": [1, "float32"]})
    for _ in range(2):
        assert cached_value("what", (7,), make) == {"a": [1, "float32"]}
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


@pytest.mark.parametrize("changed", ["source_hash", "_processor"])
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


def test_a_process_that_may_have_older_source_caches_nothing(entry, monkeypatch, caplog):
    make, path = entry
    states = dict(source._AT_IMPORT)
    changed = source.PACKAGE / "geometry.py"
    states[changed] = (*states[changed][:-1], 0)
    monkeypatch.setattr(source, "_AT_IMPORT", states)
    for calls in (2, 3):  # neither read nor written
        cached_value("what", (7,), make)
        cached_value("what else", (7,), Counted(1))
        assert make.calls == calls
    assert list(path.parent.iterdir()) == [path]
    assert caplog.text.count("have changed since this process imported them") == 1


class Planted:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


DAMAGES = {
    "truncated": lambda data, _: data[:50],
    "empty": lambda data, _: b"",
    "a bit flipped": lambda data, _: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "planted": lambda data, trace: pickle.dumps(Planted(trace)),
    "planted, compressed": lambda data, trace: zlib.compress(pickle.dumps(Planted(trace))),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_computed_again_with_one_warning(damage, entry, tmp_path, caplog):
    make, path = entry
    path.write_bytes(damage(path.read_bytes(), tmp_path / "trace"))
    for _ in range(2):
        assert cached_value("what", (7,), make) == make.value
    assert make.calls == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is damaged; it is computed again"
    ]
    assert not (tmp_path / "trace").exists()


def test_an_entry_of_another_key_is_computed_again(entry, caplog):
    make, path = entry
    other = Counted([2])
    cached_value("what else", (7,), other)
    (other_path,) = set(path.parent.iterdir()) - {path}
    path.replace(other_path)
    assert cached_value("what else", (7,), other) == [2] and other.calls == 2
    assert f"{other_path} is damaged" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="modes tell nothing about others on Windows")
@pytest.mark.parametrize("shared", [".", "..", "../..", "entry"])
def test_nothing_is_read_where_others_can_write(shared, entry, caplog):
    make, path = entry
    culprit = path if shared == "entry" else path.parent.joinpath(shared).resolve()
    culprit.chmod(0o777)
    for calls in (2, 3):
        assert cached_value("what", (7,), make) == make.value
        if shared != "entry":  # An entry is replaced by one of this user.
            assert make.calls == calls
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{culprit} can be changed by other users")


@pytest.mark.skipif(os.name == "nt", reason="modes tell nothing about others on Windows")
def test_jax_caches_nothing_where_others_can_write(tmp_path, caplog):
    tmp_path.chmod(0o777)
    enable_cache(str(tmp_path / "programs"))
    assert jax.config.values["jax_compilation_cache_dir"] == ""
    assert f"{tmp_path} can be changed by other users" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="modes tell nothing about others on Windows")
def test_of_a_directory_like_tmp_others_cannot_change_the_entries(entry):
    make, path = entry
    path.parents[2].chmod(0o1777)
    cached_value("what", (7,), make)
    assert make.calls == 1


def test_the_entries_that_were_not_used_for_longest_are_removed(directory, monkeypatch):
    folder = directory / programs.FOLDER
    for i in range(3):
        cached_value("what", (i,), Counted(i))
        (new,) = (path for path in folder.iterdir() if path.stat().st_mtime > 1000)
        os.utime(new, (i, i))
    size = new.stat().st_size
    cached_value("what", (0,), Counted(None))  # Its use is more recent than that of 1 and 2.
    monkeypatch.setattr(entries, "MAX_BYTES", 3 * size)
    cached_value("what", (3,), Counted(3))
    for i, calls in ((0, 0), (3, 0), (2, 0), (1, 1)):
        make = Counted(i)
        cached_value("what", (i,), make)
        assert make.calls == calls


def test_a_directory_that_cannot_be_written_to_is_told_once(directory, caplog):
    (directory / programs.FOLDER).write_text("in the way")
    for name in ("what", "what else"):
        make = Counted(1)
        for calls in (1, 2):
            assert cached_value(name, (), make) == 1
            assert make.calls == calls
    (record,) = caplog.records
    assert "cannot be written to (File exists)" in record.getMessage()


def test_a_full_disk_leaves_no_partial_entry(directory, monkeypatch, caplog):
    def replace(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(entries.os, "replace", replace)
    assert cached_value("what", (), Counted(1)) == 1
    assert not list((directory / programs.FOLDER).iterdir())
    assert "No space left on device" in caplog.text


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


def test_a_program_that_jax_cannot_load_is_compiled_again(directory, caplog):
    x = np.ones(5, np.float32)  # compiled by no other test
    lower = Counted(jax.jit(double).lower(x))
    arguments = "double", (), lower, jax.stages.Lowered.compile, jax.devices()[:1]
    expected = cached_program(*arguments)(x)
    (path,) = (directory / programs.FOLDER).iterdir()
    entries.write(path, entries.read(path)[:-1000])
    np.testing.assert_array_equal(cached_program(*arguments)(x), expected)
    assert lower.calls == 2
    (record,) = caplog.records
    assert "cannot be loaded" in record.getMessage()


def test_a_program_from_disk_takes_and_returns_the_same_trees(directory):
    """On several devices, with arguments that are not used."""

    def step(state, batch, unused):
        total = jax.lax.psum(batch.sum(), "devices")
        return (state["a"] + total, {"b": batch * 2, "c": ()})

    mapped = jax.pmap(step, "devices", in_axes=(None, 0, None), out_axes=(None, 0))
    batch = np.arange(12, dtype=np.float32).reshape(4, 3)
    state, unused = {"a": np.ones(2, np.float32), "d": np.int32(1)}, np.zeros(5)
    found = []
    for _ in range(2):
        program = cached_program(
            "step",
            (),
            lambda: mapped.lower(state, batch, unused),
            jax.stages.Lowered.compile,
            jax.devices()[:4],
        )
        found.append(program(state, batch, unused))
    assert type(program) is Program
    assert jax.tree.structure(found[0]) == jax.tree.structure(found[1])
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        assert one.sharding == other.sharding and one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="the arrays must be"):
        program(state, batch.astype(np.int32), unused)


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


@pytest.mark.slow
@pytest.mark.parametrize("cropper", ["vgg9", "centroid"])
def test_shapes_of_variables_are_those_of_a_parse(cropper, directory):
    model = small_model(cropper=cropper)
    expected = dict(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    for _ in range(2):  # traced, and from disk
        assert variable_shapes(model) == expected
