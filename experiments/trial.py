"""A parser trained for an experiment, and its measurements.

Both are stored in the trial's directory, so a finished trial is neither trained nor measured again,
and a stopped trial resumes.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments import speed
from jax_stn_icnn.data.loader import make_batches
from jax_stn_icnn.data.opening import open_examples
from jax_stn_icnn.evaluation.evaluator import evaluate
from jax_stn_icnn.io.weights import CONFIG, WEIGHTS, load_weights
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train import loop
from tfds_builders.prepare import prepare

TRIALS = "trials"
LOG = "log.txt"

Scores = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A training run.

    Attributes:
        name: name of its directory; the same name in several experiments is the same trial.
        config: training config without the directories of data.
        start: the trial with the initial weights, or a file in that trial's directory; empty for
            random parameters.
    """

    name: str
    config: ConfigDict
    start: str = ""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation.

    Attributes:
        weights: the weights file in the trial's directory.
        cropper: the cropper; empty for the model's.
        occlude: number of parts occluded in each face.
        dataset: the data set; empty for the trial's.
        split: the split; empty for the test split of the trial's data set.
        frame_size: side of the frames in pixels; 0 for the trial's.
    """

    weights: str = WEIGHTS
    cropper: str = ""
    occlude: int = 0
    dataset: str = ""
    frame_size: int = 0
    split: str = ""


class Runner:
    """Trains and measures the trials of experiments in one directory."""

    def __init__(self, folder: Path, data_dir: Path, manual_dir: Path | None):
        """Stores the directories.

        Args:
            folder: the directory of the trials' directories.
            data_dir: the directory of prepared data sets.
            manual_dir: the directory of manually downloaded archives; None for TFDS's default.
        """
        self.folder = folder
        self._data_dir, self._manual_dir = data_dir, manual_dir

    def train(self, trial: Trial) -> None:
        """Trains a trial, or resumes it; its output is written to a file beside its weights.

        Raises:
            Interrupted: on SIGTERM or SIGINT, after saving; the next call resumes.
            ValueError: if the directory contains a trial of that name with another config.
        """
        directory = self._directory(trial.name)
        config = self._complete(trial)
        if (directory / "test.json").exists():
            existing = json.loads((directory / CONFIG).read_text())
            if changed := configs.differences(config, existing):
                raise ValueError(
                    f"{directory} contains a trial with another config; set another --workdir, or "
                    "remove the directory:\n  " + "\n  ".join(changed)
                )
            return
        sources = [source.name for source in config.dataset.sources.values()]
        for name in dict.fromkeys((config.dataset.name, *sources)):
            prepare(name, self._data_dir, self._manual_dir, "array_record")
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / LOG, "a") as log, contextlib.redirect_stdout(log):
            loop.train_and_evaluate(config, directory)
        jax.clear_caches()  # The next trial uses other programs.

    def evaluate(self, trial: Trial, evaluation: Evaluation) -> Scores:
        """Returns the scores of an evaluation of a trial, as `Report.as_json`."""
        fields = dataclasses.asdict(evaluation)
        name = "_".join(str(value) for value in fields.values() if value)
        name = re.sub(r"[^\w.]+", "_", name)

        def measure() -> Scores:
            loaded = load_weights(self._directory(trial.name) / evaluation.weights)
            dataset = self._complete(trial).dataset
            model = loaded.model
            examples, label_sets = open_examples(
                dataset.data_dir,
                evaluation.dataset or dataset.name,
                evaluation.split or dataset.test,
                model.config.anatomy,
                evaluation.frame_size or dataset.frame_size,
                "" if evaluation.dataset else dataset.framing,
            )
            if evaluation.cropper:
                model = STNiCNN(model.config.replace(cropper=evaluation.cropper))
            loader = make_batches(
                examples,
                batch_size=trial.config.eval_batch_size,
                seed=trial.config.seed,
                train=False,
            )
            report = evaluate(
                model,
                loaded.variables,
                loader,
                images=len(examples),
                occlude=evaluation.occlude,
                edges=True,
                label_sets=label_sets,
            )
            return report.as_json()

        return self._cached(trial, f"test_{name}.json", measure)

    def times(self, trial: Trial) -> Scores:
        """Returns the milliseconds of a step of the last stage, and of parsing one face."""
        config, directory = self._complete(trial), self._directory(trial.name)

        def measure() -> Scores:
            step_ms, parse_ms = speed.step_ms(config, directory), speed.parse_ms(directory)
            # The programs use 8,000 memory mappings; Linux allows a process 65,530.
            jax.clear_caches()
            return {"step_ms": step_ms, "parse_ms": parse_ms}

        return self._cached(trial, "times.json", measure)

    def _cached(self, trial: Trial, name: str, measure: Callable[[], Scores]) -> Scores:
        """Returns the content of a file in the trial's directory; measures and writes it first."""
        path = self._directory(trial.name) / name
        if not path.exists():
            text = json.dumps(measure(), indent=2) + "\n"
            partial = path.with_name(f".{name}.partial")
            partial.write_text(text)
            partial.replace(path)
        return json.loads(path.read_text())

    def _directory(self, name: str) -> Path:
        return self.folder / TRIALS / name

    def _complete(self, trial: Trial) -> ConfigDict:
        """Returns the trial's config, with the directories of data."""
        config = trial.config.copy_and_resolve_references()
        config.dataset.data_dir = str(self._data_dir)
        config.dataset.manual_dir = str(self._manual_dir or "")
        config.validation_images = 0
        if trial.start:
            config.init_from = str(self._directory(trial.start))
        return config


def score(scores: Scores, name: str) -> float:
    """Returns a score of `Runner.evaluate` by its name; NaN if it does not exist."""
    value = scores["f1"].get(name, scores.get(name))
    return float("nan") if value is None else float(value)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table; numbers below 10 with three decimals, larger ones with none."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
        return str(value)

    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(text, line)) + " |" for line in lines)
