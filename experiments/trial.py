"""A parser trained for an experiment, and what is measured of it.

Both are kept in the trial's directory, so what is there already is neither trained nor measured
again, and a trial that was stopped goes on.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments import speed
from jax_stn_icnn.data.loader import loader_over, open_source
from jax_stn_icnn.evaluation.evaluator import evaluate
from jax_stn_icnn.io.weights import CONFIG, WEIGHTS, load_weights
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train import loop
from tfds_builders.prepare import prepare

TRIALS = "trials"
LOG = "log.txt"

Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is trained.

    Attributes:
        name: of its directory; the same name in several experiments is the same trial.
        config: as for `train.py`, but for where data lies.
        start: the trial whose weights it starts from, or a file in that trial's directory; empty:
            random parameters.
    """

    name: str
    config: ConfigDict
    start: str = ""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is measured on the test split.

    Attributes:
        weights: the file in the trial's directory.
        cropper: if not the model's own.
        occlude: how many parts of each face are covered before it is parsed.
        dataset: whose test split, if not the trial's own.
        frame_size: side of the frames that its pictures become, if not the trial's own.
    """

    weights: str = WEIGHTS
    cropper: str = ""
    occlude: int = 0
    dataset: str = ""
    frame_size: int = 0


class Runner:
    """Trains and measures the trials of experiments, in one directory."""

    def __init__(self, folder: Path, data_dir: Path, manual_dir: Path | None):
        """Says where things lie.

        Args:
            folder: gets a directory for each trial.
            data_dir: where TFDS keeps its data sets.
            manual_dir: where archives lie that have to be fetched by hand; None: TFDS's default.
        """
        self.folder = folder
        self._data_dir, self._manual_dir = data_dir, manual_dir

    def train(self, trial: Trial) -> None:
        """Trains a trial, or what is left of it; its words go to a file beside its weights.

        Raises:
            Interrupted: by SIGTERM or SIGINT; it has saved, and goes on the next time.
            ValueError: the directory holds a trial of that name with another config.
        """
        directory = self._directory(trial.name)
        config = self._complete(trial)
        if (directory / "test.json").exists():
            earlier = json.loads((directory / CONFIG).read_text())
            if changed := configs.differences(config, earlier):
                raise ValueError(
                    f"{directory} holds a trial with another config; name another --workdir, or "
                    "remove it:\n  " + "\n  ".join(changed)
                )
            return
        prepare(config.dataset.name, self._data_dir, self._manual_dir, "array_record")
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / LOG, "a") as log, contextlib.redirect_stdout(log):
            loop.train_and_evaluate(config, directory)
        jax.clear_caches()  # Of the next trial every program is another one.

    def evaluate(self, trial: Trial, evaluation: Evaluation) -> Found:
        """Scores a trial on the test split: `Report.as_json`."""
        fields = dataclasses.asdict(evaluation)
        name = "_".join(str(value) for value in fields.values() if value)

        def measure() -> Found:
            loaded = load_weights(self._directory(trial.name) / evaluation.weights)
            dataset = self._complete(trial).dataset
            of = evaluation.dataset or dataset.name
            source = open_source(dataset.data_dir, of, dataset.test)
            model = loaded.model
            loader = loader_over(
                source,
                of,
                model.anatomy,
                frame_size=evaluation.frame_size or dataset.frame_size,
                batch_size=trial.config.eval_batch_size,
                seed=trial.config.seed,
                train=False,
            )
            report = evaluate(
                model.clone(cropper=evaluation.cropper or model.cropper),
                loaded.variables,
                loader,
                images=len(source),
                occlude=evaluation.occlude,
                edges=True,
            )
            return report.as_json()

        return self._kept(trial, f"test_{name}.json", measure)

    def times(self, trial: Trial) -> Found:
        """Milliseconds of a training step of the last stage, and of a parse of one face."""
        config, directory = self._complete(trial), self._directory(trial.name)

        def measure() -> Found:
            step_ms, parse_ms = speed.step_ms(config, directory), speed.parse_ms(directory)
            # Its programs are some 8,000 mappings of memory, of 65,530 that Linux allows a process.
            jax.clear_caches()
            return {"step_ms": step_ms, "parse_ms": parse_ms}

        return self._kept(trial, "times.json", measure)

    def _kept(self, trial: Trial, name: str, measure: Callable[[], Found]) -> Found:
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
        """The config, with where things lie."""
        config = trial.config.copy_and_resolve_references()
        config.dataset.data_dir = str(self._data_dir)
        config.dataset.manual_dir = str(self._manual_dir or "")
        config.pictures = 0
        if trial.start:
            config.init_from = str(self._directory(trial.start))
        return config


def score(found: Found, name: str) -> float:
    """A score of `Runner.evaluate` by its name; NaN where it does not exist."""
    value = found["f1"].get(name, found.get(name))
    return float("nan") if value is None else float(value)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; numbers below 10 with three places, larger ones with none."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
        return str(value)

    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(text, line)) + " |" for line in lines)
