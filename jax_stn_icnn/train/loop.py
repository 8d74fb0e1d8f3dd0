"""Trains a run: stages in order, validation and a checkpoint after each epoch, a test at the end.

Everything random is a function of seed and step, and the step determines stage and epoch. A run
that was stopped therefore resumes from its latest checkpoint with the same result, to the bit.
"""

import contextlib
import functools
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from jax_stn_icnn.atomic import write_text
from jax_stn_icnn.compilation.compile import release_memory
from jax_stn_icnn.data.loader import Batch
from jax_stn_icnn.evaluation import evaluator
from jax_stn_icnn.evaluation.report import Report
from jax_stn_icnn.io.weights import CONFIG, WEIGHTS, first_lines
from jax_stn_icnn.models.pipeline import init_variables, variable_shapes
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train.batches import Data
from jax_stn_icnn.train.checkpoints import Checkpoints
from jax_stn_icnn.train.compiled_steps import StageSteps
from jax_stn_icnn.train.logs import EpochMetrics, Logs, epoch_line, scores
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.signals import catch_signals
from jax_stn_icnn.train.stages import Phase, plan
from jax_stn_icnn.train.state import TrainState, enter_stage, load_encoder, new_state
from jax_stn_icnn.train.step import AXIS, Step, check_batch_size, compile_train_step
from jax_stn_icnn.train.transfer import load_variables
from jax_stn_icnn.train.validation import Validation, rank
from jax_stn_icnn.train.workdir import lock_workdir, name_intact_files


class Interrupted(Exception):
    """The run received a signal, and has saved its state."""


class Diverged(Exception):
    """The loss or its gradient is not finite."""


def train_and_evaluate(
    config: ConfigDict,
    workdir: Path,
    *,
    compile_step: Callable[..., Step] = compile_train_step,
    evaluate: Callable[..., Report] = evaluator.evaluate,
) -> Report:
    """Trains or resumes the run of a directory, and evaluates its best weights on the test split.

    The directory contains `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `images/`
    (drawings of validation faces), `weights.safetensors` (the best by validation so far),
    `weights_<stage>.safetensors` (at the end of each stage), `curves.png` and `test.json`.

    Args:
        config: The config; see `configs/common.py`.
        workdir: The run's directory.
        compile_step: Compiles the step of a stage, as `compile_train_step`.
        evaluate: Evaluates a model on a split, as `evaluator.evaluate`.

    Returns:
        The report on the test split.

    Raises:
        ValueError: The config is wrong, or would change the run that the directory contains, all of
            its checkpoints are damaged, or another process trains in it.
        FileNotFoundError: The data set is not prepared, or there are no weights to start from.
        OSError: The disk is full or read-only; the message names what is intact.
        Interrupted: The run received SIGTERM, or, with a single process, SIGINT; it has saved its
            state and can be resumed.
        Diverged: The loss or its gradient is not finite.
    """
    configs.check(config)
    check_batch_size(config.batch_size, jax.device_count())
    if config.eval_batch_size % jax.process_count():
        raise ValueError(
            f"eval_batch_size is {config.eval_batch_size}, but must be a multiple of the number of "
            f"processes, {jax.process_count()}"
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(name_intact_files(workdir))
        if jax.process_index() == 0:
            stack.enter_context(lock_workdir(workdir))
        run = stack.enter_context(contextlib.closing(Run(config, workdir, compile_step, evaluate)))
        signals = stack.enter_context(catch_signals())
        for phase in run.phases:
            run.train_stage(phase, signals)
        return run.validation.test()


class Run:
    """A run: its data, state, checkpoints and logs."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        compile_step: Callable[..., Step] = compile_train_step,
        evaluate: Callable[..., Report] = evaluator.evaluate,
    ):
        """Opens the data, and creates the state or restores it from the latest intact checkpoint.

        Args:
            config: The config; see `configs/common.py`.
            workdir: The run's directory, created if missing.
            compile_step: As for `train_and_evaluate`.
            evaluate: As for `train_and_evaluate`.

        Raises:
            ValueError: The config does not match the data or the weights to start from, or would
                change the run that the directory contains.
            FileNotFoundError: The data set is not prepared, or there are no weights to start from.
        """
        self.config, self.workdir = config, workdir
        self.is_main = jax.process_index() == 0
        self.model = configs.make_model(config)
        self.data = Data(config, self.model.config.anatomy)
        self.phases, self.steps_per_epoch = plan(config, self.data.num_examples["dataset.train"])
        unlabelled_from = min((p.first for p in self.phases if p.stage.has_teacher), default=0)
        mixed = [(p.first, p.last) for p in self.phases if "coarse" in p.stage.learning_rates]
        self.iterator = iter(self.data.training_batches(mixed, unlabelled_from))
        workdir.mkdir(parents=True, exist_ok=True)
        self.validation = Validation(config, self.model, self.data, workdir, evaluate)
        self.best_rank = -math.inf
        self.sums: dict[str, float] = {}  # of the metrics of the epoch that the run resumes in
        self.checkpoints = Checkpoints(workdir)
        removed = self.checkpoints.remove_damaged()
        saved = self.checkpoints.latest_step
        self.state = self._new_state() if saved is None else self._restore_state(saved)
        if self.is_main and saved is not None:
            for line in removed:
                print(f"{line}; removed")
            print(f"{workdir}: resumes after step {saved}", flush=True)
        self._write_config()
        self.logs = Logs(workdir, int(self.state.step)) if self.is_main else None
        self.steps = StageSteps(self.phases, functools.partial(self._compile, compile_step))

    def close(self) -> None:
        """Waits for the latest checkpoint, and frees resources."""
        with contextlib.ExitStack() as stack:  # closes all, also after an error
            stack.callback(self.steps.close)
            stack.callback(self.checkpoints.close)
            stack.callback(self.iterator.close)
            if self.logs:
                stack.callback(self.logs.close)

    def train_stage(self, phase: Phase, signals: list[int]) -> None:
        """Trains the remaining epochs of a stage.

        Args:
            phase: The stage, and its steps.
            signals: Signals received so far, as `catch_signals` yields them.

        Raises:
            Interrupted: A signal was received; the state is saved.
            Diverged: The loss or its gradient is not finite.
        """
        step = int(self.state.step)
        if step >= phase.last:
            return
        if step == phase.first:
            self.state = jax.device_get(self._enter_stage(phase, self.state))
        for epoch in range((step - phase.first) // self.steps_per_epoch, phase.stage.epochs):
            metrics = self._train_epoch(phase, epoch, signals)
            self._finish_epoch(phase, epoch, metrics)
            self._stop_on(signals)

    def _train_epoch(self, phase: Phase, epoch: int, signals: list[int]) -> dict[str, float]:
        """Takes the remaining steps of an epoch; returns the means of their metrics."""
        first, end = int(self.state.step) + 1, phase.first + (epoch + 1) * self.steps_per_epoch
        metrics = EpochMetrics(
            f"{phase.stage.name} {epoch + 1}/{phase.stage.epochs}",
            num_steps=self.steps_per_epoch,
            batch_size=self.config.batch_size,
            sums=self.sums,
            # Without sums, the checkpoint is of an earlier version: the mean is over later steps.
            count=self.steps_per_epoch - (end + 1 - first) if self.sums else 0,
            shown=self.is_main,
        )
        self.sums = {}
        with contextlib.closing(metrics), self._report_divergence(phase):
            for step in range(first, end + 1):
                start = time.perf_counter()
                batch = next(self.iterator)
                metrics.add_wait(time.perf_counter() - start)
                self.state, values = self.steps.get(phase, batch)(self.state, batch)
                metrics.append(step, values)
                if step > first:  # not before the second step, so that training starts early
                    self.steps.compile_later_stages(phase, batch)
                if self._is_preempted(step):
                    signals.append(signal.SIGTERM)
                if step < end and (signals or self._is_due(step)):
                    metrics.read()
                    self._save(phase, epoch, sums=metrics.sums)
                    self._stop_on(signals)
            return metrics.means()

    def _finish_epoch(self, phase: Phase, epoch: int, metrics: dict[str, float]) -> None:
        """Validates the state after an epoch; writes logs, drawings, weights and a checkpoint."""
        step, variables = int(self.state.step), self.state.variables
        report = self.validation.evaluate(variables, "validation")
        new_rank = rank(phase.stage.name, report)
        if self.logs:
            record = {"step": step, "stage": phase.stage.name, "epoch": epoch + 1}
            record |= metrics | scores(report)
            self.logs.write(record)
            tqdm.write(epoch_line(record, phase.stage.epochs, self.model.config.anatomy))
            self.validation.draw_faces(variables, step)
            if new_rank > self.best_rank:
                self.validation.save_weights(WEIGHTS, variables)
            if step == phase.last:
                name = f"weights_{phase.stage.name}.safetensors"
                self.validation.save_weights(name, variables)
        self.best_rank = max(new_rank, self.best_rank)
        self._save(phase, epoch, new_rank)
        release_memory()

    @contextlib.contextmanager
    def _report_divergence(self, phase: Phase) -> Iterator[None]:
        """Raises `Diverged` if a metric is not finite."""
        try:
            yield
        except FloatingPointError as error:
            self.checkpoints.wait()
            saved = self.checkpoints.latest_step
            latest = "there is no checkpoint" if saved is None else self.checkpoints.path(saved)
            raise Diverged(
                f"stage {phase.stage.name}, {error}; last good checkpoint: {latest}"
            ) from error

    def _is_preempted(self, step: int) -> bool:
        """Returns whether all of several processes are to stop after a step; see `signals`."""
        return jax.process_count() > 1 and self.checkpoints.preempted(step)

    def _is_due(self, step: int) -> bool:
        """Returns whether a checkpoint is saved after a step within an epoch."""
        every = self.config.checkpoint_every_steps
        return every > 0 and step % every == 0

    def _stop_on(self, signals: Sequence[int]) -> None:
        """Stops the run if a signal was received, once its state is on disk."""
        if not signals:
            return
        self.checkpoints.wait()
        name, step = signal.Signals(signals[0]).name, int(self.state.step)
        raise Interrupted(
            f"stopped by {name} after step {step}, saved in {self.checkpoints.path(step)}; the "
            "same command resumes"
        )

    def _compile(self, compile_step: Callable[..., Step], phase: Phase, batch: Batch) -> Step:
        """Compiles the step of a stage; another thread may call it."""
        return compile_step(
            self.model.clone(axis_name=AXIS),
            phase.stage,
            self.steps_per_epoch,
            self.config.halve_every_epochs,
            self._state_shapes(phase),
            batch,
            seed=self.config.seed,
            augmentation=configs.make_augmentation(self.config),
            label_sets=self.data.label_sets,
        )

    def _enter_stage(self, phase: Phase, state: TrainState) -> TrainState:
        tx = make_optimizer(phase.stage, self.steps_per_epoch, self.config.halve_every_epochs)
        return enter_stage(state, tx, phase.stage.ema_decay > 0)

    def _state_shapes(self, phase: Phase) -> TrainState:
        """Returns the shapes of the state in a stage."""
        state = new_state(variable_shapes(self.model))
        return jax.eval_shape(functools.partial(self._enter_stage, phase), state)

    def _save(
        self,
        phase: Phase,
        epoch: int,
        new_rank: float | None = None,
        sums: Mapping[str, float] | None = None,
    ) -> None:
        """Saves a checkpoint in the background; within an epoch with the sums of its metrics."""
        step = int(self.state.step)
        record = {
            "step": step,
            "stage": phase.stage.name,
            "epoch": epoch + 1,
            "num_examples": self.data.num_examples,
            "best_rank": self.best_rank if math.isfinite(self.best_rank) else None,
            "sums": dict(sums or {}),
            "process_count": jax.process_count(),
            "num_workers": self.config.dataset.num_workers,
            "config": json.loads(configs.to_json(self.config)),
        }
        self.checkpoints.save(self.state, self.iterator, record, new_rank)

    def _new_state(self) -> TrainState:
        """Returns the state of a new run, before its first stage."""
        variables = init_variables(self.model, self.config.seed)
        if self.config.init_from:
            networks = tuple(self.config.init_networks)
            loaded = load_variables(self.config.init_from, self.model, variables, networks)
            variables = loaded.variables
            if self.is_main:
                print(loaded.summary, flush=True)
        if self.config.init_encoder:
            variables = load_encoder(variables)
        return new_state(variables)

    def _write_config(self) -> None:
        if self.is_main:
            write_text(self.workdir / CONFIG, configs.to_json(self.config) + "\n")

    def _restore_state(self, step: int) -> TrainState:
        """Returns the state of a checkpoint, and sets the iterator to its position.

        Raises:
            ValueError: The config or the data would change the run.
        """
        record = self.checkpoints.read_record(step)
        if changed := configs.differences(self.config, record["config"]):
            raise ValueError(
                f"{self.workdir} contains a run with another config; name another --workdir, or "
                "restore these fields:\n  " + "\n  ".join(first_lines(changed))
            )
        for field, count in self.data.num_examples.items():
            if (saved := record["num_examples"].get(field)) != count:
                raise ValueError(
                    f"{self.workdir} contains a run on {saved} images of {field}, which now has "
                    f"{count}; name another --workdir"
                )
        if record["best_rank"] is not None:
            self.best_rank = record["best_rank"]
        self.sums = record.get("sums", {})
        phase = next(phase for phase in self.phases if phase.first < step <= phase.last)
        iterator = self._iterator_to_restore(record)
        return self.checkpoints.restore(step, self._state_shapes(phase), iterator)

    def _iterator_to_restore(self, record: dict[str, Any]) -> grain.DatasetIterator | None:
        """Returns the iterator if the checkpoint can set its position; else sets it here.

        Raises:
            ValueError: The number of processes or workers changed, which the position depends on.
        """
        saved = record["process_count"], record["num_workers"]
        now = jax.process_count(), self.config.dataset.num_workers
        if now == saved:
            return self.iterator
        if now[1] > 0:
            raise ValueError(
                f"the run was saved by {saved[0]} processes with {saved[1]} loader workers each, "
                f"but now has {now[0]} with {now[1]}; dataset.num_workers = 0 can resume it"
            )
        # Without workers, the position is the number of batches, for any number of processes.
        self.iterator.set_state({"next_index": record["step"]})
        return None
