"""What a run shows and writes down: bars, `metrics.jsonl`, and TensorBoard without TensorFlow."""

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from jax_stn_icnn.evaluation.report import Report

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

METRICS = "metrics.jsonl"


class Logs:
    """A record for each epoch, one JSON object a line, its numbers to TensorBoard as well."""

    def __init__(self, workdir: Path, step: int):
        """Opens a run's logs.

        Args:
            workdir: the run's directory.
            step: where the run goes on; records of later steps, from a run that was killed between
                its log and its checkpoint, are removed.
        """
        self._path = workdir / METRICS
        kept = [line for line in _whole_lines(self._path) if json.loads(line)["step"] <= step]
        self._path.write_text("".join(kept))
        self._tensorboard, self._step = workdir / "tensorboard", step

    @functools.cached_property
    def _writer(self) -> "SummaryWriter":
        # Imported when first needed: tensorboardX brings PyTorch in where that is installed, which
        # takes longer than all the rest of a start.
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self._tensorboard), purge_step=self._step + 1)

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes a record; it has a `step`. NaN becomes null."""
        clean = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in record.items()
        }
        with self._path.open("a") as file:
            file.write(json.dumps(clean) + "\n")
        for name, value in clean.items():
            if isinstance(value, int | float) and name != "step":
                self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()

    def close(self) -> None:
        """Closes the files."""
        if "_writer" in vars(self):
            self._writer.close()


class Sums:
    """Sums of metrics over steps."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, float] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Adds a step's."""
        self.count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """The mean of each over the steps added."""
        return {name: value / self.count for name, value in self._sums.items()}


def progress_bar(title: str, total: int, done: int, shown: bool) -> tqdm:
    """A bar that counts faces, with their speed and the time left.

    Args:
        title: stands in front.
        total: faces.
        done: faces before this run went on.
        shown: whether there is a bar at all.
    """
    return tqdm(total=total, initial=done, desc=title, unit="face", disable=not shown, leave=False)


def epoch_line(record: Mapping[str, Any], epochs: int) -> str:
    """One line on what an epoch has come to.

    Args:
        record: of the epoch, as `Logs` takes it: `stage`, `epoch`, `step`, `loss`,
            `faces_per_second`, and the `scores` of the validation.
        epochs: how many the stage has.

    Returns:
        The line, without an end of line.
    """
    return (
        f"{record['stage']:>9} {record['epoch']}/{epochs}  step {record['step']}  "
        f"loss {record['loss']:.4f}  {record['faces_per_second']:.1f} faces/s  validation: "
        f"overall {record['f1_overall']:.3f}, mean of eight {record['f1_mean_of_eight']:.3f}, "
        f"{_mean(record)}coarse segmentation {record['coarse_f1_overall']:.3f}, "
        f"windows off by {record['window_error_px']:.1f} px"
    )


def _mean(record: Mapping[str, Any]) -> str:
    return f"mean of all {record['f1_mean']:.3f}, " if "f1_mean" in record else ""


def scores(found: Report) -> dict[str, float]:
    """The scores of a report under flat names, for the logs."""
    flat = {f"f1_{name}": score for name, score in found.f1.items()}
    flat |= {f"coarse_f1_{name}": score for name, score in found.coarse_f1.items()}
    return flat | {"window_error_px": found.window_error_px}


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file without the last one where that was cut short."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
