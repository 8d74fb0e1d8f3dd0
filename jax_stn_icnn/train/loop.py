"""A whole run: stages in turn, validation and checkpoint after each epoch, the test at the end.

Everything random is a function of seed and step, and where a run stands follows from the step, so a
run that was killed goes on from its last checkpoint as if nothing had happened.
"""

import contextlib
import functools
import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from jax_stn_icnn.compilation.compile import release_memory
from jax_stn_icnn.data.loader import Batch, Source
from jax_stn_icnn.evaluation import draw, evaluator, report
from jax_stn_icnn.evaluation.metrics import MEAN, MEAN_OF_EIGHT
from jax_stn_icnn.io.weights import CONFIG, WEIGHTS, save_weights
from jax_stn_icnn.models.pipeline import init_variables
from jax_stn_icnn.train import batches
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train.compiled_steps import StageSteps
from jax_stn_icnn.train.logs import METRICS, Logs, Sums, epoch_line, progress_bar, scores
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.signals import catch_signals
from jax_stn_icnn.train.stages import Phase, plan
from jax_stn_icnn.train.state import (
    Checkpoints,
    TrainState,
    enter_stage,
    load_variables,
)
from jax_stn_icnn.train.step import AXIS, Step, check_batch_size, compile_train_step

# Of a checkpoint's record: the words for what is counted, and the field that says which.
_NUM_PICTURES = {
    "train_faces": ("training faces", "dataset.train"),
    "unlabelled_pictures": ("pictures without labels", "dataset.unlabelled"),
}


class Interrupted(Exception):
    """The run was asked to stop, and has saved."""


class Diverged(Exception):
    """The loss or its gradient is no longer a number."""


def train_and_evaluate(config: ConfigDict, workdir: Path) -> report.Report:
    """Trains, or goes on with, the run of a directory, and scores its best weights on the test.

    The directory gets `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `pictures/`,
    `weights.safetensors` (the best by validation so far), `weights_<stage>.safetensors` (as each
    stage left them), `curves.png` and `test.json`.

    Args:
        config: see `configs/common.py`.
        workdir: the run's directory.

    Returns:
        The report on the test split.

    Raises:
        ValueError: the config is wrong, or would change the run that the directory holds.
        FileNotFoundError: the data set is not prepared, or the weights to start from are not there.
        Interrupted: the run got SIGTERM, or, as a single process, SIGINT; it has saved and can go
            on.
        Diverged: the loss or its gradient is no longer a number.
    """
    configs.check(config)
    check_batch_size(config.batch_size, jax.device_count())
    if config.eval_batch_size % jax.process_count():
        raise ValueError(
            f"eval_batch_size is {config.eval_batch_size}, but must be a multiple of the number of "
            f"processes, {jax.process_count()}"
        )
    with contextlib.closing(Run(config, workdir)) as run, catch_signals() as interrupted:
        for phase in run.phases:
            run.train_stage(phase, interrupted)
        return run.test()


class Run:
    """What a run holds between its stages."""

    def __init__(self, config: ConfigDict, workdir: Path):
        """Opens the data, and the state: that of the last checkpoint, or a new one.

        Args:
            config: see `configs/common.py`.
            workdir: the run's directory; it is made if need be.

        Raises:
            ValueError: the config does not fit the data or the weights to start from, or would
                change the run that the directory holds.
            FileNotFoundError: the data set is not prepared, or the weights to start from are not
                there.
        """
        self.config = config
        self.workdir = workdir
        self.main = jax.process_index() == 0
        self.model = configs.make_model(config)
        source, *_ = (
            batches.open_split(config, split) for split in ("train", "validation", "test")
        )
        unlabelled = batches.open_unlabelled(config)
        self.num_pictures = {
            "train_faces": len(source),
            "unlabelled_pictures": 0 if unlabelled is None else len(unlabelled),
        }
        self.phases, self.steps_per_epoch = plan(config, len(source))
        distilling = [phase.first for phase in self.phases if phase.stage.distillation]
        self.iterator = iter(
            batches.training_batches(
                config,
                source,
                self.model.config.anatomy,
                unlabelled,
                unlabelled_from=min(distilling, default=0),
            )
        )
        workdir.mkdir(parents=True, exist_ok=True)
        self.checkpoints = Checkpoints(workdir, config.checkpoint.keep)
        self.best_rank = -math.inf
        variables = init_variables(self.model, config.seed)
        saved = self.checkpoints.latest_step
        self.state = self._begun(variables) if saved is None else self._restored(saved, variables)
        self.logs = Logs(workdir, int(self.state.step)) if self.main else None
        self.steps = StageSteps(self.phases, self._compiling)

    def close(self) -> None:
        """Waits for the last checkpoint, and ends the loader."""
        self.steps.close()
        self.checkpoints.close()
        self.iterator.close()
        if self.logs:
            self.logs.close()

    def train_stage(self, phase: Phase, interrupted: list[int]) -> None:
        """Trains what is left of a stage; the signals noticed so far end it.

        Args:
            phase: the stage, and its steps.
            interrupted: of `catch_signals`, which fills it meanwhile.

        Raises:
            Interrupted: a signal was noticed; the state is saved.
            Diverged: the loss or its gradient is no longer a number.
        """
        step = int(self.state.step)
        if step >= phase.last:
            return
        if step == phase.first:
            self.state = jax.device_get(self._entering(phase, self.state))
        for epoch in range((step - phase.first) // self.steps_per_epoch, phase.stage.epochs):
            losses = self._train_epoch(phase, epoch, interrupted)
            self._finish_epoch(phase, epoch, losses)
            self._stop_if(interrupted)

    def test(self) -> report.Report:
        """Scores the best weights on the test split, and draws the curves."""
        expected = self.state.variables
        best = load_variables(str(self.workdir / WEIGHTS), self.model, expected)
        found = self._evaluate(best, batches.open_split(self.config, "test"))
        if self.main:
            (self.workdir / "test.json").write_text(json.dumps(found.as_json(), indent=2) + "\n")
            draw.curves(self.workdir / "curves.png", self.workdir / METRICS)
            print(f"\ntest split, {found.images} faces\n{report.score_table({'parse': found})}")
            print(f"\n{report.class_table({'parse': found})}")
        return found

    def _train_epoch(self, phase: Phase, epoch: int, interrupted: list[int]) -> dict[str, float]:
        """Takes the steps left of an epoch; the mean of each metric over them, and their speed."""
        end = phase.first + (epoch + 1) * self.steps_per_epoch
        done = int(self.state.step)
        sums = Sums()
        started, waited = time.perf_counter(), 0.0
        title = f"{phase.stage.name} {epoch + 1}/{phase.stage.epochs}"
        batch_size = self.config.batch_size
        total, left = self.steps_per_epoch * batch_size, (end - done) * batch_size
        with progress_bar(title, total, total - left, self.main) as bar:
            pending = None
            for step in range(done + 1, end + 1):
                asked = time.perf_counter()
                batch = next(self.iterator)
                waited += time.perf_counter() - asked
                self.state, metrics = self.steps.step(phase, batch)(self.state, batch)
                # Looked at one step late, so that the device has the next one to work on.
                pending, due = (step, metrics), pending
                self._note(due, phase, sums, bar)
                if due:  # Not earlier: a run should begin to train soon.
                    self.steps.compile_later(phase, batch)
                # See `signals`: several processes have to agree on the step.
                if jax.process_count() > 1 and self.checkpoints.preempted(step):
                    interrupted.append(signal.SIGTERM)
                if step < end and (interrupted or self._is_due(step)):
                    self._note(pending, phase, sums, bar)
                    pending = None
                    self._save(phase, epoch)
                    self._stop_if(interrupted)
            self._note(pending, phase, sums, bar)
        seconds = time.perf_counter() - started
        speed = sums.count * self.config.batch_size / seconds
        return sums.means() | {"faces_per_second": speed, "loader_share": waited / seconds}

    def _compiling(self, phase: Phase, batch: Batch) -> Callable[[], Step]:
        """What compiles the step of a stage."""
        return functools.partial(
            compile_train_step,
            self.model.clone(axis_name=AXIS),
            phase.stage,
            self.steps_per_epoch,
            self.config.halve_every_epochs,
            self._shapes(phase),
            batch,
            seed=self.config.seed,
            augmented=self.config.augment,
            mirrored=self.config.mirror,
            photo=configs.make_strengths(self.config),
        )

    def _shapes(self, phase: Phase) -> TrainState:
        """The shapes of a state of a stage."""
        return jax.eval_shape(functools.partial(self._entering, phase), self.state)

    def _entering(self, phase: Phase, state: TrainState) -> TrainState:
        tx = make_optimizer(phase.stage, self.steps_per_epoch, self.config.halve_every_epochs)
        return enter_stage(state, tx, phase.stage.distillation is not None)

    def _note(
        self, due: tuple[int, dict[str, jax.Array]] | None, phase: Phase, sums: Sums, bar: tqdm
    ) -> None:
        """Takes in the metrics of a step.

        Raises:
            Diverged: one of them is not finite.
        """
        if due is None:
            return
        step, metrics = due
        values = {name: float(value[0]) for name, value in jax.device_get(metrics).items()}
        if not all(map(math.isfinite, values.values())):
            self.checkpoints.wait()
            saved = self.checkpoints.latest_step
            last = "there is no checkpoint" if saved is None else self.checkpoints.path(saved)
            raise Diverged(
                f"step {step}, stage {phase.stage.name}: {values}; last good checkpoint: {last}"
            )
        sums.add(values)
        bar.update(self.config.batch_size)
        bar.set_postfix(loss=f"{values['loss']:.4f}")

    def _finish_epoch(self, phase: Phase, epoch: int, losses: dict[str, float]) -> None:
        """Validates, writes down and saves what an epoch has come to."""
        variables = self.state.variables
        source = batches.open_split(self.config, "validation")
        found = self._evaluate(variables, source)
        rank = _rank(phase.stage.name, found)
        if self.logs:
            record = {"step": int(self.state.step), "stage": phase.stage.name, "epoch": epoch + 1}
            record |= losses | scores(found)
            self.logs.write(record)
            tqdm.write(epoch_line(record, phase.stage.epochs))
            self._draw_faces(variables, source)
            if rank > self.best_rank:
                self._export(WEIGHTS, variables)
            if record["step"] == phase.last:
                self._export(f"weights_{phase.stage.name}.safetensors", variables)
        self.best_rank = max(rank, self.best_rank)
        self._save(phase, epoch, rank)
        release_memory()

    def _evaluate(self, variables: dict[str, Any], source: Source) -> report.Report:
        # Each process sees its share, and so does its bar.
        images = math.ceil(len(source) / jax.process_count())
        loader = batches.evaluation_batches(self.config, source, self.model.config.anatomy)
        return evaluator.evaluate(self.model, variables, loader, images=images, progress=self.main)

    def _export(self, name: str, variables: dict[str, Any]) -> None:
        frame_size = self.config.dataset.frame_size
        save_weights(self.workdir / name, variables, self.model.config, frame_size)

    def _draw_faces(self, variables: dict[str, Any], source: Source) -> None:
        count = min(self.config.pictures, len(source))
        if count == 0:
            return
        # This process alone draws, so it reads the whole split.
        loader = batches.evaluation_batches(
            self.config, source, self.model.config.anatomy, shared=False
        )
        faces = evaluator.parse_faces(self.model, variables, loader, range(count))
        folder = self.workdir / "pictures"
        folder.mkdir(exist_ok=True)
        draw.parse_grid(
            folder / f"step_{int(self.state.step):06d}.png", faces, self.model.config.anatomy
        )

    def _is_due(self, step: int) -> bool:
        every = self.config.checkpoint.every_steps
        return every > 0 and step % every == 0

    def _save(self, phase: Phase, epoch: int, rank: float | None = None) -> None:
        step = int(self.state.step)
        record = {
            "step": step,
            "stage": phase.stage.name,
            "epoch": epoch + 1,
            "records_seen": step * self.config.batch_size,
            **self.num_pictures,
            "seed": self.config.seed,
            "best_rank": self.best_rank if math.isfinite(self.best_rank) else None,
            "process_count": jax.process_count(),
            "num_workers": self.config.dataset.num_workers,
            "config": json.loads(configs.to_json(self.config)),
        }
        self.checkpoints.save(self.state, self.iterator, record, rank)

    def _stop_if(self, interrupted: list[int]) -> None:
        """Ends the run where a signal asked for it, once what was saved is on disk."""
        if not interrupted:
            return
        self.checkpoints.wait()
        name, step = signal.Signals(interrupted[0]).name, int(self.state.step)
        raise Interrupted(
            f"stopped by {name} after step {step}, saved in "
            f"{self.checkpoints.path(step)}; the same command goes on from there"
        )

    def _begun(self, variables: dict[str, Any]) -> TrainState:
        """A new run's state, without an optimiser yet; its config is written down."""
        if self.config.init_from:
            networks = tuple(self.config.init_networks)
            variables = load_variables(self.config.init_from, self.model, variables, networks)
        self._write_config()
        return TrainState(np.int32(0), variables["params"], variables["batch_stats"], ())

    def _write_config(self) -> None:
        if self.main:
            (self.workdir / CONFIG).write_text(configs.to_json(self.config) + "\n")

    def _restored(self, step: int, variables: dict[str, Any]) -> TrainState:
        """The state of a checkpoint, the data at its position.

        Raises:
            ValueError: the config would change the run.
        """
        record = self.checkpoints.read_record(step)
        if changed := configs.differences(self.config, record["config"]):
            raise ValueError(
                f"{self.workdir} holds a run with another config; name another --workdir, or set "
                "these back:\n  " + "\n  ".join(changed)
            )
        for name, now in self.num_pictures.items():
            if (then := record.get(name, now)) != now:
                words, field = _NUM_PICTURES[name]
                raise ValueError(
                    f"{self.workdir} holds a run on {then} {words}, but {field} has {now} now; "
                    "name another --workdir"
                )
        phase = next(phase for phase in self.phases if phase.first < step <= phase.last)
        begun = TrainState(np.int32(0), variables["params"], variables["batch_stats"], ())
        like = jax.device_get(self._entering(phase, begun))
        self.best_rank = -math.inf if record["best_rank"] is None else record["best_rank"]
        state = self.checkpoints.restore(step, like, self._positioned(record))
        self._write_config()  # Where data lies and the like may have changed.
        return state

    def _positioned(self, record: dict[str, Any]) -> grain.DatasetIterator | None:
        """The iterator where the checkpoint can set it; else it is set here, and None returned.

        Raises:
            ValueError: the position is bound to a number of processes and workers that changed.
        """
        now = (jax.process_count(), self.config.dataset.num_workers)
        then = (record["process_count"], record["num_workers"])
        if now == then:
            return self.iterator
        if now[1] > 0:
            raise ValueError(
                f"the run was saved by {then[0]} processes with {then[1]} loader workers each, and "
                f"now has {now[0]} with {now[1]}; with dataset.num_workers = 0 it can go on"
            )
        # Without workers the position is the number of batches, in any number of processes.
        self.iterator.set_state({"next_index": record["records_seen"] // self.config.batch_size})
        return None


def _rank(stage: str, found: report.Report) -> float:
    """How good a state is: by what its stage trains, and later stages above earlier ones."""
    # Of the whole face where there is more than parts.
    mean = MEAN if MEAN in found.f1 else MEAN_OF_EIGHT
    if stage == "coarse":
        score = found.coarse_f1[mean]
    elif stage == "localizer":
        score = 1 / (1 + found.window_error_px)
    else:
        score = found.f1[mean]
    # Fine and joint stage train the same thing, so the better of the two wins.
    order = {"coarse": 0, "localizer": 1}.get(stage, 2)
    return order + (0.0 if math.isnan(score) else score)
