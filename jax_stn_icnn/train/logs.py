"""Logs of a run: progress bars, averages of metrics, `metrics.jsonl`, and TensorBoard."""

import functools
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from tqdm import tqdm

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.atomic import write_text
from jax_stn_icnn.evaluation.metrics import part_mean_title
from jax_stn_icnn.evaluation.report import Report

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

METRICS = "metrics.jsonl"


class Logs:
    """Writes a record of each epoch as a line of JSON, and its numbers to TensorBoard."""

    def __init__(self, workdir: Path, step: int):
        """Opens the logs of a run.

        Args:
            workdir: The run's directory.
            step: The step at which the run resumes; records of later steps, from a run that was
                killed between its log and its checkpoint, are removed.

        Raises:
            ValueError: `metrics.jsonl` is damaged.
        """
        self._path = workdir / METRICS
        try:
            lines = _complete_lines(self._path)
            lines = [line for line in lines if json.loads(line)["step"] <= step]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise ValueError(
                f"{self._path} is damaged ({error}): restore it from a copy, or remove it"
            ) from error
        write_text(self._path, "".join(lines))
        self._tensorboard, self._step = workdir / "tensorboard", step

    @functools.cached_property
    def _writer(self) -> "EventsWriter":
        # Imported on first use: tensorboardX imports PyTorch if that is installed, which takes
        # longer than the rest of a start. Its `SummaryWriter` writes in a thread, where errors are
        # lost.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._tensorboard.mkdir(exist_ok=True)
        writer = EventsWriter(str(self._tensorboard / "events"))
        # TensorBoard omits the events of later steps that a killed run wrote.
        start = SessionLog(status=SessionLog.START)
        writer.write_event(Event(wall_time=time.time(), step=self._step + 1, session_log=start))
        return writer

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes a record, which has a `step`; NaN becomes null.

        Raises:
            OSError: The disk is full.
        """
        clean = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in record.items()
        }
        with self._path.open("a") as file:
            file.write(json.dumps(clean) + "\n")
        self._write_events(clean)

    def _write_events(self, record: Mapping[str, Any]) -> None:
        """Writes the numbers of a record to TensorBoard."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in record.items():
            if isinstance(value, int | float) and name != "step":
                event = Event(wall_time=time.time(), step=record["step"])
                event.summary.CopyFrom(scalar(name, value))
                self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Closes the files."""
        if "_writer" in vars(self):
            self._writer.close()


class EpochMetrics:
    """Averages the metrics of an epoch's steps, and shows a progress bar that counts faces.

    Metrics are read from the device one step late, so that the device always has a next step.

    Attributes:
        sums: Name -> sum of the metric over the steps of the epoch whose metrics have been read.
        count: Number of those steps.
    """

    def __init__(
        self,
        title: str,
        num_steps: int,
        batch_size: int,
        sums: Mapping[str, float],
        count: int,
        *,
        shown: bool,
    ):
        """Starts the clock and the bar.

        Args:
            title: Title of the bar.
            num_steps: Number of steps of the epoch.
            batch_size: Number of faces of a step.
            sums: The sums before the run resumed; empty at the beginning of an epoch.
            count: The number of steps in them.
            shown: Whether there is a bar.
        """
        self._bar = tqdm(
            total=num_steps * batch_size,
            initial=count * batch_size,
            desc=title,
            unit="face",
            disable=not shown,
            leave=False,
        )
        self._batch_size = batch_size
        self._unread: tuple[int, Mapping[str, jax.Array]] | None = None
        self.sums, self.count = dict(sums), count
        self._first = count
        self._start, self._waited = time.perf_counter(), 0.0

    def add_wait(self, seconds: float) -> None:
        """Adds a time during which the loop waited for the loader."""
        self._waited += seconds

    def append(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Adds the metrics of a step, after those of the step before have been read.

        Args:
            step: The step.
            metrics: Name -> values, one for each local device, all the same.

        Raises:
            FloatingPointError: A metric of the step before is not finite.
        """
        self.read()
        self._unread = step, metrics

    def read(self) -> None:
        """Reads the metrics of the last step.

        Raises:
            FloatingPointError: A metric is not finite; the message names the step.
        """
        if self._unread is None:
            return
        step, metrics = self._unread
        self._unread = None
        values = {name: float(value[0]) for name, value in jax.device_get(metrics).items()}
        if not all(map(math.isfinite, values.values())):
            raise FloatingPointError(f"step {step}: {values}")
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self._bar.update(self._batch_size)
        self._bar.set_postfix(loss=f"{values['loss']:.4f}")

    def means(self) -> dict[str, float]:
        """Returns the mean of each metric, the speed, and the share of time spent waiting."""
        self.read()
        seconds = time.perf_counter() - self._start
        means = {name: value / self.count for name, value in self.sums.items()}
        return means | {
            "faces_per_second": (self.count - self._first) * self._batch_size / seconds,
            "loader_share": self._waited / seconds,
        }

    def close(self) -> None:
        """Removes the bar."""
        self._bar.close()


def epoch_line(record: Mapping[str, Any], epochs: int, anatomy: Anatomy) -> str:
    """Returns a line that summarizes an epoch.

    Args:
        record: The epoch's record, as `Logs` writes it: `stage`, `epoch`, `step`, `loss`,
            `faces_per_second`, and the `scores` of the validation.
        epochs: Number of epochs of the stage.
        anatomy: The classes.

    Returns:
        The line, without an end of line.
    """
    mean = f"mean of all {record['f1_mean']:.3f}, " if "f1_mean" in record else ""
    of_parts = f"{part_mean_title(anatomy)} {record['f1_mean_of_eight']:.3f}"
    return (
        f"{record['stage']:>9} {record['epoch']}/{epochs}  step {record['step']}  "
        f"loss {record['loss']:.4f}  {record['faces_per_second']:.1f} faces/s  validation: "
        f"overall {record['f1_overall']:.3f}, {of_parts}, "
        f"{mean}coarse segmentation {record['coarse_f1_overall']:.3f}, "
        f"window error {record['window_error_px']:.1f} px"
    )


def scores(report: Report) -> dict[str, float]:
    """Returns the scores of a report under flat names, for the logs."""
    flat = {f"f1_{name}": score for name, score in report.f1.items()}
    flat |= {f"coarse_f1_{name}": score for name, score in report.coarse_f1.items()}
    return flat | {"window_error_px": report.window_error_px}


def _complete_lines(path: Path) -> list[str]:
    """Returns the lines of a file; a last line without an end is omitted."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
