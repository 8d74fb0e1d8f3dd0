"""Evaluation within a run: scores, drawings and weights in the run's directory."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jax_stn_icnn.atomic import write_text
from jax_stn_icnn.evaluation import draw, evaluator
from jax_stn_icnn.evaluation.metrics import MEAN, MEAN_OF_EIGHT
from jax_stn_icnn.evaluation.report import Report, class_table, score_table
from jax_stn_icnn.io.weights import WEIGHTS, load_weights, save_weights
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train.batches import Data
from jax_stn_icnn.train.logs import METRICS

Variables = dict[str, Any]


class Validation:
    """Evaluates the variables of a run."""

    def __init__(
        self,
        config: ConfigDict,
        model: STNiCNN,
        data: Data,
        workdir: Path,
        evaluate: Callable[..., Report] = evaluator.evaluate,
    ):
        """Stores the arguments.

        Args:
            config: The run's config.
            model: The model.
            data: The run's data.
            workdir: The run's directory.
            evaluate: `evaluator.evaluate`, or a replacement in tests.
        """
        self._config, self._model, self._data = config, model, data
        self._workdir, self._evaluate = workdir, evaluate
        self._is_main = jax.process_index() == 0

    def evaluate(self, variables: Variables, split: str) -> Report:
        """Returns the report on a split, `validation` or `test`."""
        # Each process, and its bar, counts its share only.
        images = math.ceil(len(self._data.splits[split]) / jax.process_count())
        return self._evaluate(
            self._model,
            variables,
            self._data.evaluation_batches(split),
            images=images,
            progress=self._is_main,
            label_sets=self._data.evaluation_label_sets,
        )

    def test(self) -> Report:
        """Evaluates the best weights on the test split; writes and prints scores and curves."""
        best = load_weights(self._workdir / WEIGHTS).variables
        report = self.evaluate(best, "test")
        if self._is_main:
            write_text(self._workdir / "test.json", json.dumps(report.as_json(), indent=2) + "\n")
            anatomy = self._model.config.anatomy
            draw.curves(self._workdir / "curves.png", self._workdir / METRICS, anatomy)
            print(f"\ntest split, {report.images} faces\n{score_table({'parse': report})}")
            print(f"\n{class_table({'parse': report})}")
        return report

    def save_weights(self, name: str, variables: Variables) -> None:
        """Writes variables to a file of the run's directory."""
        frame_size = self._config.dataset.frame_size
        save_weights(self._workdir / name, variables, self._model.config, frame_size)

    def draw_faces(self, variables: Variables, step: int) -> None:
        """Draws the first faces of the validation split to a file named after the step."""
        count = min(self._config.validation_images, len(self._data.splits["validation"]))
        if count == 0:
            return
        # Only the main process draws, so it reads the split unshared.
        loader = self._data.evaluation_batches("validation", shared=False)
        faces = evaluator.parse_faces(self._model, variables, loader, range(count))
        folder = self._workdir / "images"
        folder.mkdir(exist_ok=True)
        draw.parse_grid(folder / f"step_{step:06d}.png", faces, self._model.config.anatomy)


def rank(stage: str, report: Report) -> float:
    """Returns the rank of a state among those of its run, the higher the better.

    Args:
        stage: Name of the stage that trained the state.
        report: Its report on the validation split.

    Returns:
        The score of what the stage trains, plus a number that increases with the stage. The stages
        from `fine` on train the same score, so the best of them wins.
    """
    # The mean over all classes, if the anatomy has others than those of the parts.
    mean = MEAN if MEAN in report.f1 else MEAN_OF_EIGHT
    if stage == "coarse":
        score = report.coarse_f1[mean]
    elif stage == "localizer":
        score = 1 / (1 + report.window_error_px)
    else:
        score = report.f1[mean]
    order = {"coarse": 0, "localizer": 1}.get(stage, 2)
    return order + (0.0 if math.isnan(score) else score)
