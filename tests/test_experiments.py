import importlib
import json
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from test_data import Uniform

from experiments import plots, run, scales, sources, tanh_warp, trial
from experiments.trial import Evaluation, Runner, Trial
from jax_stn_icnn.data import opening
from jax_stn_icnn.data.framing import IGNORE
from jax_stn_icnn.faces import framing
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train import loop

# The experiments have a job of their own (.ci/slow).
pytestmark = pytest.mark.slow


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """A runner that records its calls instead of training and measuring."""
    runner = Runner(tmp_path, tmp_path / "data", None)
    runner.trained, runner.measured = [], []

    def train_and_evaluate(config, directory):
        configs.check(config)
        runner.trained.append(directory.name)
        (directory / "config.json").write_text(configs.to_json(config))
        (directory / "test.json").write_text("{}")
        print("output of the loop")

    def evaluated(self, one, evaluation):
        runner.measured.append((one.name, evaluation))
        return {
            "f1": {"overall": 0.5 + len(runner.measured) / 1000},
            "coarse_f1": dict.fromkeys(sources.CLASSES, 0.5),
            "boundary_f": None,
        }

    monkeypatch.setattr(trial, "prepare", lambda *_: "")
    monkeypatch.setattr(loop, "train_and_evaluate", train_and_evaluate)
    monkeypatch.setattr(Runner, "evaluate", evaluated)
    monkeypatch.setattr(Runner, "times", lambda *_: {"step_ms": 1234.0, "parse_ms": 56.0})
    return runner


@pytest.mark.parametrize("scale", scales.SCALES)
@pytest.mark.parametrize("name", run.NAMES)
def test_experiment_trains_each_trial_once_and_returns_a_table(name, scale, runner, capsys):
    text = run.run(name, scale, runner)
    head, rule, *rows = text.splitlines()
    assert {line.count("|") for line in (head, rule, *rows)} == {head.count("|")}
    assert (runner.folder / f"{name}.md").read_text() == text + "\n"
    trials = importlib.import_module(f"experiments.{name}").trials(scale)
    assert runner.trained == [one.name for one in trials]
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(trials) and printed[0].startswith(f"{name} 1/{len(trials)}: ")
    # A trial's initial weights are trained before it.
    for number, one in enumerate(trials):
        if one.start:
            assert one.start.partition("/")[0] in [previous.name for previous in trials[:number]]
    run.run(name, scale, runner)
    assert len(runner.trained) == len(trials)


def test_equal_names_are_equal_trials():
    for scale in scales.SCALES:
        by_name = {}
        for name in run.NAMES:
            for one in importlib.import_module(f"experiments.{name}").trials(scale):
                text = configs.to_json(one.config), one.start
                assert by_name.setdefault(one.name, text) == text


def test_a_trial_of_another_config_is_refused(runner):
    config = scales.paper("small")
    runner.train(Trial("mine", config))
    config.seed = 7
    with pytest.raises(ValueError, match="mine contains a trial with another config.*\n.*seed"):
        runner.train(Trial("mine", config))


def test_measurements_are_cached(tmp_path):
    runner = Runner(tmp_path, tmp_path, None)
    one = Trial("one", scales.paper("small"))
    directory = tmp_path / trial.TRIALS / "one"
    directory.mkdir(parents=True)
    (directory / "test_weights.safetensors_centroid_2.json").write_text(json.dumps({"f1": {}}))
    assert runner.evaluate(one, Evaluation(cropper="centroid", occlude=2)) == {"f1": {}}


def test_evaluation_on_another_data_set_uses_its_frame_size(tmp_path, monkeypatch):
    frames = []

    def evaluate(model, variables, loader, **_):
        frames.append(next(iter(loader))["frame"].shape[1])
        return SimpleNamespace(as_json=lambda: {"f1": {}})

    loaded = SimpleNamespace(model=configs.make_model(scales.paper("small")), variables={})
    monkeypatch.setattr(trial, "load_weights", lambda _: loaded)
    monkeypatch.setattr(opening, "open_source", lambda *_: Uniform(2, (64, 64)))
    monkeypatch.setattr(trial, "evaluate", evaluate)
    one = Trial("one", scales.paper("small"))
    one.config.dataset.frame_size = 64
    (tmp_path / trial.TRIALS / "one").mkdir(parents=True)
    runner = Runner(tmp_path, tmp_path, None)
    runner.evaluate(one, Evaluation())
    runner.evaluate(one, Evaluation(dataset="celebamask_hq", frame_size=32))
    assert frames == [64, 32]


def test_scores_and_tables():
    found = {"f1": {"overall": 0.5}, "boundary_f": None, "window_error_px": 3.0}
    assert trial.score(found, "overall") == 0.5
    assert trial.score(found, "window_error_px") == 3
    assert math.isnan(trial.score(found, "boundary_f"))
    assert trial.table(["a", "b"], [["x", 0.12345], ["y", 123.4]]).splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| x | 0.123 |",
        "| y | 123 |",
    ]


def test_curves_are_written(tmp_path):
    plots.curves(tmp_path / "plot.png", [1, 2], {"a": [0.1, 0.2], "b": [0.3, 0.1]}, "x", "F1")
    assert (tmp_path / "plot.png").stat().st_size > 1000


@pytest.mark.parametrize("angle", [0, 40])
@pytest.mark.parametrize("point", [(0, 0), (0.9, -0.9), (-2.0, 1.5)])
def test_a_point_is_warped_to_the_tanh_of_its_place_in_the_box(angle, point):
    box = np.array([160.0, 150.0, 239.0, 229.0])  # 80 pixels a side
    center = np.array([199.5, 189.5])
    turn = cv2.getRotationMatrix2D(tuple(center), angle, 1.0)
    frame = framing.frame_from_box(box, 127)
    turned = turn[:, :2] @ frame + np.array([[0, 0, turn[0, 2]], [0, 0, turn[1, 2]]])
    x, y = np.round((turn[:, :2] @ np.array(point)) * 40 + center).astype(int)
    photo = np.zeros((400, 400, 3), np.uint8)
    cv2.circle(photo, (int(x), int(y)), 4, (255, 255, 255), -1)
    labels = (photo[..., 0] > 0).astype(np.uint8)
    in_box = turn[:, :2].T @ ([x, y] - center) / 40
    expected = (np.tanh(in_box) + 1) * tanh_warp.SIDE / 2 - 0.5

    warped = tanh_warp.warp(photo, turned, 127)
    warped_labels = tanh_warp.warp_labels(labels, turned, 127)
    for image in (warped[..., 0] > 127, warped_labels == 1):
        rows, columns = np.nonzero(image)
        assert [columns.mean(), rows.mean()] == pytest.approx(expected, abs=1)
    scores = np.stack([warped_labels != 1, warped_labels == 1]).astype(np.float32)
    back = tanh_warp.unwarp_labels(scores, turned, 127, labels.shape)
    ys, xs = np.nonzero(back)
    assert [xs.mean(), ys.mean()] == pytest.approx([x, y], abs=1)
    assert back.sum() == pytest.approx(labels.sum(), rel=0.5)


def test_outside_of_the_photo_warped_labels_are_unknown():
    frame = framing.frame_from_box(np.array([0.0, 0.0, 31.0, 31.0]), 64)
    labels = tanh_warp.warp_labels(np.zeros((64, 64), np.uint8), frame, 64)
    assert labels[0, 0] == IGNORE and labels[-1, 0] == IGNORE
    assert labels[128, 128] == 0 and (labels == IGNORE).mean() == pytest.approx(0.5, abs=0.3)
