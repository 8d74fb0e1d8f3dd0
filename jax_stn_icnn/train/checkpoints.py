"""The checkpoints of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jax_stn_icnn.train.state import TrainState

CHECKPOINTS = "checkpoints"
NUM_LATEST = 2  # number of latest checkpoints that are not deleted


class Checkpoints:
    """The checkpoints of a run: the latest two, and the best by validation.

    A checkpoint contains the state, the position of the data iterator, and a record in JSON that
    describes the run and its progress.
    """

    def __init__(self, workdir: Path):
        """Opens the checkpoints of a run's directory, which may have none yet."""
        self._manager = ocp.CheckpointManager(
            (workdir / CHECKPOINTS).absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(n=NUM_LATEST),
                        policies.BestN(
                            get_metric_fn=lambda metrics: metrics["rank"],
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                # `save` is called for the steps to save only.
                save_decision_policy=policies.FixedIntervalPolicy(1),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the latest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def path(self, step: int) -> Path:
        """Returns the directory of the checkpoint of a step."""
        return Path(self._manager.directory) / str(step)

    def save(
        self,
        state: TrainState,
        iterator: grain.DatasetIterator,
        record: Mapping[str, Any],
        rank: float | None = None,
    ) -> None:
        """Saves in the background; the state may be donated as soon as this returns.

        Args:
            state: The state.
            iterator: The iterator of the training data.
            record: Anything that JSON can hold.
            rank: Rank of the state by validation, the higher the better; None without validation.
        """
        # Copied, since on a CPU the host's arrays may be the device's buffers, which the next step
        # overwrites.
        host_state = jax.tree.map(np.array, jax.device_get(state))
        self._manager.save(
            int(host_state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(host_state),
                data=grain.checkpoint.CheckpointSave(iterator),
                record=ocp.args.JsonSave(dict(record)),
            ),
            metrics=None if rank is None else {"rank": rank},
        )

    def read_record(self, step: int) -> dict[str, Any]:
        """Returns the record of the checkpoint of a step."""
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["record"]

    def restore(
        self, step: int, shapes: TrainState, iterator: grain.DatasetIterator | None = None
    ) -> TrainState:
        """Returns the state of a checkpoint, and sets the iterator's position.

        Args:
            step: The step of the checkpoint.
            shapes: A state of the same stage, or its shapes.
            iterator: The iterator of the training data, of as many processes and workers as the
                saved one; None if its position is not restored.

        Returns:
            The state, on the host.
        """
        empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
        items: dict[str, Any] = {"state": ocp.args.StandardRestore(empty)}
        if iterator is not None:
            items["data"] = grain.checkpoint.CheckpointRestore(iterator)
        return self._manager.restore(step, args=ocp.args.Composite(**items))["state"]

    def preempted(self, step: int) -> bool:
        """Returns whether all processes are to stop after a step, since one received SIGTERM."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees resources."""
        self._manager.close()
