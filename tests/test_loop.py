import contextlib
import dataclasses
import json
import os
import signal
import threading

import jax
import numpy as np
import pytest
from conftest import BROWS, SMALL
from PIL import Image

from configs import common, full_face
from jax_stn_icnn import anatomy
from jax_stn_icnn.anatomy import ELEVEN
from jax_stn_icnn.evaluation.report import Report
from jax_stn_icnn.io import weights
from jax_stn_icnn.train import batches, loop
from jax_stn_icnn.train.state import Checkpoints, load_variables

SIZE, RECORDS, BATCH = 48, 12, 4
LAST = 2 * RECORDS // BATCH  # Two epochs of one stage.


def make_config():
    """Of the whole face: it goes through all that the paper's nine classes do, and more."""
    config = full_face.apply(common.get_config())
    config.model.anatomy = "eleven"
    config.dataset.frame_size = SIZE
    config.model.patch_size = 15
    config.model.cropper = "vgg9"
    config.model.update(SMALL)
    config.photo.grayscale, config.photo.noise, config.photo.rotation = 0.5, 0.1, 20.0
    config.batch_size = BATCH
    config.stages = ("localizer",)
    config.localizer.epochs = 2
    config.checkpoint.every_steps = 2
    config.pictures = 0
    return config


def make_records():
    rng = np.random.default_rng(0)
    for index in range(RECORDS):
        label = np.zeros((SIZE, SIZE, 1), np.uint8)
        for helen_class in range(2, 10):
            y, x = rng.integers(0, SIZE - 6, 2)
            label[y : y + 6, x : x + 6] = helen_class
        image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        yield {"image": image, "label": label, "name": f"record {index}"}


def make_report(*_, **__):
    parts = ELEVEN.num_parts
    counts = np.eye(11, dtype=np.int32)[None]
    present = np.ones((1, parts), bool)
    return Report(ELEVEN, np.zeros(1), counts, counts, np.ones((1, parts)), present, ~present, 1.0)


@pytest.fixture(scope="module")
def compiled():
    """The real step of each stage, compiled once for all runs of this module."""
    return {}


@pytest.fixture
def hooks(monkeypatch, compiled):
    """Hooks that see every step: (step, metrics) -> metrics."""
    hooks = []
    compile_step = loop.compile_train_step

    def compile_train_step(model, stage, *given, **options):
        if stage.name not in compiled:
            devices = jax.devices()[:1]
            compiled[stage.name] = compile_step(model, stage, *given, devices=devices, **options)

        def take_step(state, batch):
            state, metrics = compiled[stage.name](state, batch)
            for hook in hooks:
                metrics = hook(int(state.step), metrics)
            return state, metrics

        return take_step

    monkeypatch.setattr(loop, "compile_train_step", compile_train_step)
    return hooks


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small data, no evaluation."""
    records = list(make_records())
    monkeypatch.setattr(batches, "open_source", lambda *_: records)
    monkeypatch.setattr(loop.evaluator, "evaluate", make_report)


def kill(step, metrics):
    raise KeyboardInterrupt(f"killed at step {step}")


def terminate(step, metrics):
    os.kill(os.getpid(), signal.SIGTERM)
    return metrics


def at(when, action):
    return lambda step, metrics: action(step, metrics) if step == when else metrics


def last_step(workdir):
    checkpoints = Checkpoints(workdir, 2)
    step = checkpoints.latest_step
    checkpoints.close()
    return step


@pytest.fixture(scope="module")
def undisturbed():
    """Holds the final state of the first run, which nothing stops."""
    return {}


def final_state(workdir):
    run = loop.Run(make_config(), workdir)
    run.close()
    return run.state


@pytest.mark.parametrize(
    ("when", "action", "error"),
    [
        (None, None, None),
        pytest.param(1, kill, KeyboardInterrupt, marks=pytest.mark.slow),
        (3, kill, KeyboardInterrupt),
        pytest.param(4, kill, KeyboardInterrupt, marks=pytest.mark.slow),
        pytest.param(3, terminate, loop.Interrupted, marks=pytest.mark.slow),
        pytest.param(6, terminate, loop.Interrupted, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_stopped_ends_like_an_undisturbed_one(
    hooks, undisturbed, tmp_path, when, action, error
):
    if action:
        hooks.append(at(when, action))
        with pytest.raises(error):
            loop.train_and_evaluate(make_config(), tmp_path)
        hooks.clear()
    loop.train_and_evaluate(make_config(), tmp_path)
    state = final_state(tmp_path)
    assert int(state.step) == LAST
    expected = undisturbed.setdefault("state", state)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(record["step"], record["epoch"]) for record in records] == [(3, 1), (6, 2)]
    written = weights.load_weights(tmp_path / "weights_localizer.safetensors")
    assert (written.model.config.anatomy, written.frame_size) == (ELEVEN, SIZE)
    assert written.model.config.patch_sizes == ELEVEN.fitted_sizes(15)


@pytest.mark.slow
def test_self_distillation_goes_on_to_the_bit_and_keeps_the_average(hooks, monkeypatch, tmp_path):
    monkeypatch.setitem(anatomy.ANATOMIES, "brows", BROWS)
    (tmp_path / "photos").mkdir()
    for seed in range(5):
        picture = np.random.default_rng(seed).integers(0, 256, (60, 50, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{seed}.png")
    config = make_config()
    config.model.anatomy, config.part_weights = "brows", (1.0, 1.0)
    config.model.cropper = "centroid"
    config.model.bridge = True
    config.stages = ("distill",)
    config.distill.epochs, config.distill.lr_coarse = 2, 1e-3
    config.dataset.unlabelled = str(tmp_path / "photos")
    loop.train_and_evaluate(config, tmp_path / "undisturbed")
    hooks.append(at(3, terminate))
    with pytest.raises(loop.Interrupted):
        loop.train_and_evaluate(config, tmp_path / "stopped")
    hooks.clear()
    loop.train_and_evaluate(config, tmp_path / "stopped")
    states = []
    for name in ("undisturbed", "stopped"):
        run = loop.Run(config, tmp_path / name)
        run.close()
        states.append(run.state)
    assert int(states[0].step) == LAST
    jax.tree.map(np.testing.assert_array_equal, *states)
    kept = weights.load_weights(tmp_path / "stopped" / "weights_distill.safetensors").variables
    jax.tree.map(np.testing.assert_array_equal, kept, states[0].ema_variables)
    average, now = (tree["coarse"]["bridge"]["kernel"] for tree in (
        kept["params"], states[0].params))  # fmt: skip
    assert np.any(average != now)
    (tmp_path / "photos" / "4.png").unlink()  # Another number of them has another order.
    with pytest.raises(ValueError, match="on 5 pictures without labels, but .* has 4 now"):
        loop.Run(config, tmp_path / "stopped")


def test_sigterm_saves_and_says_where(hooks, tmp_path):
    hooks.append(at(1, terminate))
    with pytest.raises(loop.Interrupted, match="SIGTERM after step 1, saved in .*checkpoints/1;"):
        loop.train_and_evaluate(make_config(), tmp_path)
    assert last_step(tmp_path) == 1


def test_nan_stops_and_names_step_stage_and_checkpoint(hooks, tmp_path):
    def poison(step, metrics):
        return metrics | {"loss": metrics["loss"] * np.nan}

    hooks.append(at(5, poison))
    with pytest.raises(loop.Diverged, match="step 5, stage localizer: .*nan.*checkpoints/4"):
        loop.train_and_evaluate(make_config(), tmp_path)
    assert last_step(tmp_path) == 4


def test_another_config_is_refused_and_free_fields_are_not(hooks, tmp_path):
    hooks.append(at(3, terminate))
    with pytest.raises(loop.Interrupted):
        loop.train_and_evaluate(make_config(), tmp_path)
    config = make_config()
    config.seed, config.localizer.lr = 1, 0.5
    with pytest.raises(ValueError, match=r"(?s)localizer\.lr: was 0\.0017, is 0\.5.*seed: was 0"):
        loop.train_and_evaluate(config, tmp_path)
    config = make_config()
    config.eval_batch_size, config.checkpoint.keep = 3, 5
    loop.Run(config, tmp_path).close()
    assert json.loads((tmp_path / "config.json").read_text())["eval_batch_size"] == 3


def test_other_faces_under_the_same_name_are_refused(hooks, monkeypatch, tmp_path):
    hooks.append(at(3, terminate))
    with pytest.raises(loop.Interrupted):
        loop.train_and_evaluate(make_config(), tmp_path)
    fewer = list(make_records())[:-1]
    monkeypatch.setattr(batches, "open_source", lambda *_: fewer)
    message = f"on {RECORDS} training faces, but dataset.train has {RECORDS - 1} now"
    with pytest.raises(ValueError, match=message):
        loop.train_and_evaluate(make_config(), tmp_path)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_that_is_not_there_is_noticed_before_training(split, monkeypatch, tmp_path):
    def open_source(data_dir, name, of):
        if of == "no_such":
            raise ValueError(f"unknown split {of}")
        return list(make_records())

    monkeypatch.setattr(batches, "open_source", open_source)
    config = make_config()
    config.dataset[split] = "no_such"
    with pytest.raises(ValueError, match="unknown split no_such"):
        loop.Run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_stage_starts_from_the_weights_of_another_run(hooks, tmp_path):
    loop.train_and_evaluate(make_config(), tmp_path / "first")
    config = make_config()
    config.init_from, config.seed = str(tmp_path / "first"), 5
    run = loop.Run(config, tmp_path / "second")
    state = run.state
    expected = load_variables(config.init_from, run.model, state.variables)
    run.close()
    jax.tree.map(np.testing.assert_array_equal, state.variables, expected)


def test_evaluation_batches_that_processes_cannot_share_are_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(ValueError, match="eval_batch_size is 16, .* processes, 3"):
        loop.train_and_evaluate(make_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide_is_refused_first(tmp_path):
    config = make_config()
    config.batch_size = 6
    with pytest.raises(ValueError, match="batch_size is 6"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Compiler:
    """Stands in for the compiler: notes stage and thread, and makes steps that only count."""

    def __init__(self):
        self.asked, self.steps, self.fails = [], 0, None

    def __call__(self, model, stage, *given, **options):
        self.asked.append((stage.name, threading.current_thread()))
        if stage.name == self.fails:
            raise RuntimeError(f"cannot compile {stage.name}")

        def take_step(state, batch):
            self.steps += 1
            return dataclasses.replace(state, step=state.step + 1), {"loss": np.ones(1)}

        return take_step


@pytest.fixture
def compiler(monkeypatch):
    compiler = Compiler()
    monkeypatch.setattr(loop, "compile_train_step", compiler)
    return compiler


def make_two_stages():
    config = make_config()
    config.stages = ("localizer", "fine")
    config.fine.epochs = 1
    return config


@pytest.mark.slow
def test_a_later_stage_is_compiled_while_one_trains(compiler, monkeypatch, tmp_path):
    taken_before, began = [], threading.Event()

    def compile_train_step(model, stage, *given, **options):
        taken_before.append(compiler.steps)
        if stage.name == "fine":
            began.set()
        take_step = compiler(model, stage, *given, **options)

        def last_one_waits(state, batch):
            # Were the next stage compiled only once this one has ended, this would be in vain.
            assert int(state.step) != LAST - 1 or began.wait(30)
            return take_step(state, batch)

        return last_one_waits

    monkeypatch.setattr(loop, "compile_train_step", compile_train_step)
    loop.train_and_evaluate(make_two_stages(), tmp_path)
    (first, here), (second, elsewhere) = compiler.asked
    assert (first, second) == ("localizer", "fine")
    assert here is threading.main_thread() is not elsewhere
    assert taken_before[0] == 0 < taken_before[1]  # A run begins to train soon.


@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        pytest.param("gpu", contextlib.nullcontext(), marks=pytest.mark.slow),
        pytest.param("cpu", jax.default_matmul_precision("highest"), marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_compiled_beside_training_waits_for_its_stage(
    backend, settings, compiler, monkeypatch, tmp_path
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with settings:
        loop.train_and_evaluate(make_two_stages(), tmp_path)
    main = threading.main_thread()
    assert compiler.asked == [("localizer", main), ("fine", main)]


def test_a_program_that_cannot_be_compiled_ends_the_run_at_its_stage(compiler, tmp_path):
    compiler.fails = "fine"
    with pytest.raises(RuntimeError, match="cannot compile fine"):
        loop.train_and_evaluate(make_two_stages(), tmp_path)
    assert (tmp_path / "weights_localizer.safetensors").exists()
    assert last_step(tmp_path) == LAST
