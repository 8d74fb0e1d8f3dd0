"""Runs of training: most tests replace the compiled steps by a cheap one, and the evaluation."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from conftest import BROWS, random_variables
from PIL import Image

from configs import common
from jax_stn_icnn import anatomy
from jax_stn_icnn.data import opening
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.evaluation.report import Report
from jax_stn_icnn.io import efficientnet, weights
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train import loop
from jax_stn_icnn.train.checkpoints import CHECKPOINTS, CHECKSUMS, Checkpoints
from jax_stn_icnn.train.logs import METRICS, Logs
from jax_stn_icnn.train.step import compile_train_step
from jax_stn_icnn.train.transfer import load_variables

SIZE, RECORDS, BATCH = 32, 12, 4
EPOCHS = 2
STEPS = RECORDS // BATCH  # of an epoch
LAST = EPOCHS * STEPS


def make_config(*stages, epochs=EPOCHS, checkpoint_every_steps=0):
    config = common.get_config()
    config.model.update(
        anatomy="brows",
        cropper="centroid",
        patch_size=9,
        coarse_channels=(4, 4),
        coarse_size=32,
        fine_channels=(4, 4),
        interlinks=1,
    )
    config.dataset.frame_size = SIZE
    config.augment, config.photo.noise = False, 0.1
    config.batch_size = BATCH
    config.stages = stages or ("coarse",)
    for stage in config.stages:
        config[stage].epochs = epochs
    config.checkpoint_every_steps = checkpoint_every_steps
    config.validation_images = 0
    return config


def make_records(count=RECORDS):
    rng = np.random.default_rng(0)
    records = []
    for index in range(count):
        label = np.zeros((SIZE, SIZE, 1), np.uint8)
        for helen_class in (1, 2, 3):  # skin and brows
            y, x = rng.integers(0, SIZE - 6, 2)
            label[y : y + 6, x : x + 6] = helen_class
        image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        records.append({"image": image, "label": label, "name": f"record {index}"})
    return records


@pytest.fixture(autouse=True)
def data(monkeypatch):
    """Two brows as classes, a few records for every split, no compiled initialization, no plots."""
    monkeypatch.setitem(anatomy.ANATOMIES, "brows", BROWS)
    monkeypatch.setattr(
        loop, "init_variables", lambda model, seed: random_variables(model, seed=seed)
    )
    monkeypatch.setattr(draw, "curves", lambda path, metrics, anatomy: path.touch())
    records = make_records()
    monkeypatch.setattr(opening, "open_source", lambda *_: records)


def evaluate(*_, **__):
    counts = np.eye(BROWS.num_classes, dtype=np.int32)[None]
    present = np.ones((1, BROWS.num_parts), bool)
    errors = np.ones((1, BROWS.num_parts))
    return Report(BROWS, np.zeros(1), counts, counts, errors, present, ~present, 1.0)


class FakeSteps:
    """Replaces `compile_train_step`: its steps change every leaf of the state, by the batch.

    Attributes:
        compiled: Stage and thread of each compilation.
        taken: Number of steps taken.
        hook: Is called with each step's number and metrics, and returns the metrics.
        fails: Stage whose compilation fails.
    """

    def __init__(self):
        self.compiled, self.taken, self.hook, self.fails = [], 0, None, None

    def __call__(self, model, stage, *_, **__):
        self.compiled.append((stage.name, threading.current_thread()))
        if stage.name == self.fails:
            raise RuntimeError(f"cannot compile {stage.name}")

        def take_step(state, batch):
            self.taken += 1
            mean = np.float32(batch["frame"].mean() + batch.get("unlabelled", np.zeros(1)).mean())

            def change(leaf):
                # Not commutative: the result depends on the order of the batches.
                return leaf / 2 + mean if leaf.dtype == np.float32 else leaf + 1

            return jax.tree.map(change, state), self.call_hook(state, {"loss": mean[None]})

        return take_step

    def call_hook(self, state, metrics):
        return self.hook(int(state.step) + 1, metrics) if self.hook else metrics


class RealSteps(FakeSteps):
    """Compiles the real step for one device, once for all runs."""

    programs = {}

    def __call__(self, model, stage, *args, **options):
        if stage.name not in self.programs:
            devices = jax.devices()[:1]
            step = compile_train_step(model, stage, *args, devices=devices, **options)
            self.programs[stage.name] = step
        step = self.programs[stage.name]

        def take_step(state, batch):
            number = int(state.step) + 1
            state, metrics = step(state, batch)
            return state, self.hook(number, metrics) if self.hook else metrics

        return take_step


@pytest.fixture
def steps():
    return FakeSteps()


def train(config, workdir, steps):
    return loop.train_and_evaluate(config, workdir, compile_step=steps, evaluate=evaluate)


def kill(step, metrics):
    raise KeyboardInterrupt(f"killed at step {step}")


def terminate(step, metrics):
    os.kill(os.getpid(), signal.SIGTERM)
    return metrics


def at(when, action):
    return lambda step, metrics: action(step, metrics) if step == when else metrics


def train_interrupted(config, workdir, steps, when, action):
    steps.hook = at(when, action)
    error = KeyboardInterrupt if action is kill else loop.Interrupted
    with pytest.raises(error):
        train(config, workdir, steps)
    steps.hook = None


def latest_step(workdir):
    checkpoints = Checkpoints(workdir)
    step = checkpoints.latest_step
    checkpoints.close()
    return step


def final_state(config, workdir):
    run = loop.Run(config, workdir)
    run.close()
    return run.state


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Returns the final state of a run that is not interrupted, by its steps and stages."""
    states = {}

    def final(steps_class, config):
        key = steps_class, config.stages
        if key not in states:
            workdir = tmp_path_factory.mktemp("undisturbed")
            train(config, workdir, steps_class())
            states[key] = final_state(config, workdir)
        return states[key]

    return final


@pytest.mark.parametrize(
    ("steps_class", "when", "action"),
    [
        (FakeSteps, 3, kill),
        (FakeSteps, 3, terminate),
        (FakeSteps, 1, kill),
        (FakeSteps, 4, kill),
        (FakeSteps, 6, terminate),
        pytest.param(RealSteps, 3, kill, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_an_undisturbed_one_to_the_bit(
    undisturbed, tmp_path, steps_class, when, action
):
    config = make_config(checkpoint_every_steps=2)
    expected = undisturbed(steps_class, config)
    assert int(expected.step) == LAST
    train_interrupted(config, tmp_path, steps_class(), when, action)
    train(config, tmp_path, steps_class())
    jax.tree.map(np.testing.assert_array_equal, final_state(config, tmp_path), expected)
    records = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [(record["step"], record["epoch"]) for record in records] == [(3, 1), (6, 2)]
    saved = weights.load_weights(tmp_path / "weights_coarse.safetensors")
    assert (saved.model.config.anatomy, saved.frame_size) == (BROWS, SIZE)
    jax.tree.map(np.testing.assert_array_equal, saved.variables, expected.variables)


@pytest.mark.parametrize(
    "steps_class", [FakeSteps, pytest.param(RealSteps, marks=pytest.mark.slow)]
)
def test_self_distillation_resumes_to_the_bit_and_saves_the_average(
    undisturbed, tmp_path, steps_class
):
    config = make_config("distill")
    config.distill.lr_coarse = 1e-3
    config.dataset.unlabelled = "helen/train"
    expected = undisturbed(steps_class, config)
    workdir = tmp_path / "interrupted"
    train_interrupted(config, workdir, steps_class(), 3, terminate)
    train(config, workdir, steps_class())
    state = final_state(config, workdir)
    assert int(state.step) == LAST
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    saved = weights.load_weights(workdir / "weights_distill.safetensors").variables
    jax.tree.map(np.testing.assert_array_equal, saved, state.ema_variables)
    if steps_class is RealSteps:
        average, current = (tree["coarse"] for tree in (saved["params"], state.params))
        assert any(
            np.any(a != b)
            for a, b in zip(jax.tree.leaves(average), jax.tree.leaves(current), strict=True)
        )


def test_a_run_of_another_number_of_processes_resumes_to_the_bit(
    undisturbed, steps, monkeypatch, tmp_path
):
    config = make_config(checkpoint_every_steps=2)
    expected = undisturbed(FakeSteps, config)
    train_interrupted(config, tmp_path, steps, 3, terminate)
    read_record = Checkpoints.read_record

    def of_two_processes(self, step):
        return read_record(self, step) | {"process_count": 2}

    monkeypatch.setattr(Checkpoints, "read_record", of_two_processes)
    train(config, tmp_path, steps)
    saved = weights.load_weights(tmp_path / "weights_coarse.safetensors")
    jax.tree.map(np.testing.assert_array_equal, saved.variables, expected.variables)


def test_another_number_of_unlabelled_photos_is_refused(steps, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(5):
        image = np.random.default_rng(seed).integers(0, 256, (60, 50, 3), dtype=np.uint8)
        Image.fromarray(image).save(photos / f"{seed}.png")
    config = make_config("distill")
    config.dataset.data_dir = str(tmp_path)  # exists, as after any data set was prepared
    config.dataset.unlabelled = str(photos)
    train_interrupted(config, tmp_path / "run", steps, 1, terminate)
    (photos / "4.png").unlink()  # Another number of images has another order.
    with pytest.raises(ValueError, match=r"on 5 images of dataset\.unlabelled, which now has 4"):
        loop.Run(config, tmp_path / "run")


def test_a_run_writes_its_files(steps, tmp_path, capsys):
    train(make_config("coarse", "fine", epochs=1), tmp_path, steps)
    assert {path.name for path in tmp_path.iterdir()} == {
        ".lock",
        "checkpoints",
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "tensorboard",
        "test.json",
        "weights.safetensors",
        "weights_coarse.safetensors",
        "weights_fine.safetensors",
    }
    assert json.loads((tmp_path / "test.json").read_text())["f1"]["overall"] == 1
    *_, record = (json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines())
    assert (record["stage"], record["epoch"], record["f1_mean"]) == ("fine", 1, 1)
    assert record["loss"] > 0 and 0 <= record["loader_share"] <= 1
    assert f"fine 1/1  step {2 * STEPS}  loss" in capsys.readouterr().out


@pytest.mark.slow
def test_the_logged_loss_of_an_interrupted_epoch_is_that_of_an_undisturbed_one(steps, tmp_path):
    config = make_config(epochs=1, checkpoint_every_steps=1)
    train_interrupted(config, tmp_path / "run", steps, 3, kill)
    losses = []
    for name in ("run", "undisturbed"):
        train(config, tmp_path / name, steps)
        losses.append(json.loads((tmp_path / name / METRICS).read_text())["loss"])
    assert losses[0] == losses[1]


def empty(path):
    path.write_bytes(b"")


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_version_resumes(undisturbed, steps, monkeypatch, tmp_path):
    config = make_config(checkpoint_every_steps=2)
    expected = undisturbed(FakeSteps, config)
    train_interrupted(config, tmp_path, steps, 3, kill)
    (tmp_path / CHECKPOINTS / "2" / CHECKSUMS).unlink()
    read_record = Checkpoints.read_record

    def without_sums(self, step):
        return {k: v for k, v in read_record(self, step).items() if k != "sums"}

    monkeypatch.setattr(Checkpoints, "read_record", without_sums)
    losses = []
    steps.hook = lambda step, metrics: losses.append(float(metrics["loss"][0])) or metrics
    train(config, tmp_path, steps)
    records = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert records[0]["loss"] == losses[0]  # of step 3 alone
    saved = weights.load_weights(tmp_path / "weights_coarse.safetensors")
    jax.tree.map(np.testing.assert_array_equal, saved.variables, expected.variables)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_restored(
    undisturbed, steps, tmp_path, capfd
):
    config = make_config(checkpoint_every_steps=2)
    train_interrupted(config, tmp_path, steps, 5, kill)
    for path in (tmp_path / CHECKPOINTS / "4").glob("state/ocdbt.process_0/d/*"):
        empty(path)
    train(config, tmp_path, steps)
    output, errors = capfd.readouterr()
    assert f"{tmp_path / CHECKPOINTS / '4'} is damaged: state/" in output
    assert "resumes after step 3" in output and "Traceback" not in errors
    expected = undisturbed(FakeSteps, config)
    jax.tree.map(np.testing.assert_array_equal, final_state(config, tmp_path), expected)


UNAWAITED = """
import logging, sys
from pathlib import Path
from jax_stn_icnn.train.checkpoints import Checkpoints

class Read:
    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise self.error

Checkpoints(Path(sys.argv[1])).close()
log = logging.getLogger("asyncio")
for error, message in (("Event loop is closed", "tensorstore_spec"), ("other", "other message")):
    Read(RuntimeError(error))
    log.error(message)
"""


def test_errors_of_reads_that_nobody_awaits_are_not_printed(tmp_path):
    command = [sys.executable, "-c", UNAWAITED, str(tmp_path)]
    errors = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert "RuntimeError: other" in errors and "other message" in errors
    assert "closed" not in errors and "tensorstore" not in errors


@pytest.mark.parametrize("content", ["{\n", "[]\n", "{}\n", "[" * 100_000 + "\n"])
def test_a_damaged_log_is_named(content, tmp_path):
    (tmp_path / METRICS).write_text(content)
    with pytest.raises(ValueError, match=f"^{tmp_path}/{METRICS} is damaged"):
        Logs(tmp_path, 0)


def test_a_second_run_in_the_same_directory_is_refused(steps, tmp_path):
    def start_another(step, metrics):
        with pytest.raises(ValueError, match=f"process {os.getpid()} on .* trains in {tmp_path}"):
            train(make_config(), tmp_path, FakeSteps())
        return metrics

    steps.hook = at(2, start_another)
    train(make_config(), tmp_path, steps)
    train(make_config(), tmp_path, steps)  # The lock is released.


def test_training_in_a_thread_leaves_signals_to_the_program(steps, tmp_path):
    with ThreadPoolExecutor(1) as executor:
        executor.submit(train, make_config(), tmp_path, steps).result()
    assert latest_step(tmp_path) == LAST


def test_a_full_disk_ends_with_a_line_and_the_run_continues_later(
    undisturbed, steps, monkeypatch, tmp_path
):
    config = make_config(checkpoint_every_steps=2)
    free = shutil.disk_usage

    def fill(step, metrics):
        full = free(tmp_path)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
        return metrics

    steps.hook = at(3, fill)
    message = rf"^{tmp_path}/checkpoints/3: No space left.*; intact: the checkpoint of step 2 and"
    with pytest.raises(OSError, match=message):
        train(config, tmp_path, steps)
    steps.hook = None
    monkeypatch.setattr(shutil, "disk_usage", free)
    train(config, tmp_path, steps)
    expected = undisturbed(FakeSteps, config)
    jax.tree.map(np.testing.assert_array_equal, final_state(config, tmp_path), expected)


def test_an_error_of_a_log_names_the_directory(steps, tmp_path):
    steps.hook = at(1, lambda step, metrics: fill_disk(tmp_path / METRICS) or metrics)
    with pytest.raises(OSError, match=f"^{tmp_path}.*: No space left on device; intact: nothing"):
        train(make_config(), tmp_path, steps)


def fill_disk(path):
    path.unlink()
    path.symlink_to("/dev/full")


def test_sigterm_saves_the_state_and_the_message_names_it(steps, tmp_path):
    steps.hook = at(1, terminate)
    with pytest.raises(loop.Interrupted, match="SIGTERM after step 1, saved in .*checkpoints/1;"):
        train(make_config(), tmp_path, steps)
    assert latest_step(tmp_path) == 1


def test_nan_stops_and_the_message_names_step_stage_and_checkpoint(steps, tmp_path):
    steps.hook = at(5, lambda step, metrics: metrics | {"loss": metrics["loss"] * np.nan})
    with pytest.raises(loop.Diverged, match="stage coarse, step 5: .*nan.*checkpoints/4"):
        train(make_config(checkpoint_every_steps=2), tmp_path, steps)
    assert latest_step(tmp_path) == 4


def test_another_config_is_refused_and_free_fields_are_not(steps, tmp_path):
    train_interrupted(make_config(), tmp_path, steps, 1, terminate)
    config = make_config()
    config.seed, config.coarse.lr = 1, 0.5
    with pytest.raises(ValueError, match=r"(?s)coarse\.lr: was 0\.0023, is 0\.5.*seed: was 0"):
        train(config, tmp_path, steps)
    config = make_config()
    config.eval_batch_size = 3
    loop.Run(config, tmp_path).close()
    assert json.loads((tmp_path / "config.json").read_text())["eval_batch_size"] == 3


def test_other_faces_under_the_same_name_are_refused(steps, monkeypatch, tmp_path):
    train_interrupted(make_config(), tmp_path, steps, 1, terminate)
    fewer = make_records(RECORDS - 1)
    monkeypatch.setattr(opening, "open_source", lambda *_: fewer)
    message = rf"on {RECORDS} images of dataset\.train, which now has {RECORDS - 1}"
    with pytest.raises(ValueError, match=message):
        train(make_config(), tmp_path, steps)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_missing_split_is_reported_before_training(split, monkeypatch, tmp_path):
    def open_source(data_dir, name, split):
        if split == "no_such":
            raise ValueError(f"unknown split {split}")
        return make_records()

    monkeypatch.setattr(opening, "open_source", open_source)
    config = make_config()
    config.dataset[split] = "no_such"
    with pytest.raises(ValueError, match="unknown split no_such"):
        loop.Run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_empty_split_is_reported_before_training(monkeypatch, tmp_path):
    monkeypatch.setattr(opening, "open_source", lambda *args: make_records(args[2] != "test"))
    with pytest.raises(ValueError, match=r"dataset\.test is 'test', which has no records"):
        loop.Run(make_config(), tmp_path / "run")


def test_a_run_starts_from_the_weights_of_another_run(steps, tmp_path, capsys):
    train(make_config(epochs=1), tmp_path / "first", steps)
    config = make_config()
    config.model.fine_channels = (4, 8)
    config.init_from, config.seed = str(tmp_path / "first"), 5
    fresh = random_variables(configs.make_model(config), seed=5)
    run = loop.Run(config, tmp_path / "second")
    expected = load_variables(config.init_from, run.model, fresh)
    run.close()
    jax.tree.map(np.testing.assert_array_equal, run.state.variables, expected.variables)
    assert expected.summary in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_from_other_weights_resumes_to_the_bit(steps, tmp_path, capsys):
    train(make_config(epochs=1), tmp_path / "first", steps)
    config = make_config(checkpoint_every_steps=2)
    config.init_from, config.model.fine_channels = str(tmp_path / "first"), (4, 8)
    train(config, tmp_path / "undisturbed", steps)
    train_interrupted(config, tmp_path / "run", steps, 3, terminate)
    (tmp_path / "first" / weights.WEIGHTS).unlink()  # A resumed run does not read them again.
    assert "init_from" in capsys.readouterr().out
    train(config, tmp_path / "run", steps)
    assert "init_from" not in capsys.readouterr().out
    expected = final_state(config, tmp_path / "undisturbed")
    jax.tree.map(np.testing.assert_array_equal, final_state(config, tmp_path / "run"), expected)


@pytest.mark.slow
def test_a_run_starts_from_imagenet_weights_of_the_encoder(tmp_path):
    if not importlib.util.find_spec(efficientnet.PACKAGE):
        pytest.skip("needs the extra `encoder`")
    config = make_config()
    config.model.coarse_network, config.model.coarse_stride = "efficientnet_lite0", 2
    config.init_encoder = "imagenet"
    run = loop.Run(config, tmp_path / "run")
    state = run.state
    run.close()
    for name, expected in efficientnet.load_imagenet().items():
        coarse = state.variables[name]["coarse"]
        jax.tree.map(np.testing.assert_array_equal, coarse["encoder"], expected)
        assert coarse.keys() > {"encoder", "pyramid"}


def test_evaluation_batches_that_processes_cannot_share_are_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(ValueError, match="eval_batch_size is 16, .* processes, 3"):
        loop.train_and_evaluate(make_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_divided_over_devices_is_refused_first(tmp_path):
    config = make_config()
    config.batch_size = 6
    with pytest.raises(ValueError, match="batch_size is 6"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_later_stage_is_compiled_while_one_trains(steps, tmp_path):
    taken, started = [], threading.Event()

    def compile_step(model, stage, *args, **options):
        taken.append(steps.taken)
        if stage.name == "fine":
            started.set()
        take_step = steps(model, stage, *args, **options)

        def wait_at_the_end(state, batch):
            # The wait would fail if the next stage were compiled after the end of this one.
            assert int(state.step) != STEPS - 1 or started.wait(30)
            return take_step(state, batch)

        return wait_at_the_end

    train(make_config("coarse", "fine", epochs=1), tmp_path, compile_step)
    (first, first_thread), (second, second_thread) = steps.compiled
    assert (first, second) == ("coarse", "fine")
    assert first_thread is threading.main_thread() is not second_thread
    assert taken[0] == 0 < taken[1]  # The first step does not wait for a later stage.


def test_a_failed_compilation_ends_the_run_at_its_stage(steps, tmp_path):
    steps.fails = "fine"
    with pytest.raises(RuntimeError, match="cannot compile fine"):
        train(make_config("coarse", "fine", epochs=1), tmp_path, steps)
    assert (tmp_path / "weights_coarse.safetensors").exists()
    assert latest_step(tmp_path) == STEPS
