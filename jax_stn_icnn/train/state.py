"""The state of a run, where it comes from, and its checkpoints."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import struct, traverse_util
from orbax.checkpoint import checkpoint_managers

from jax_stn_icnn.io import weights
from jax_stn_icnn.io.weights import WEIGHTS
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train.stages import NETWORKS

CHECKPOINTS = "checkpoints"
# Modules that a config can add to a network, by how their names begin.
ADDITIONS = ("attention_", "edges", "bridge")


@struct.dataclass
class TrainState:
    """What a step changes.

    Attributes:
        step: steps taken since the run began, over all stages, int32 ().
        params: network -> its parameters.
        batch_stats: network -> its running statistics.
        opt_state: of the stage's optimiser.
        ema_variables: In self-distillation, the moving average of the variables; else ().
    """

    step: jax.Array | np.int32
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: optax.OptState
    ema_variables: Any = ()

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes, on the host: what is scored and kept of this state."""
        now = {"params": self.params, "batch_stats": self.batch_stats}
        return jax.device_get(self.ema_variables or now)


def enter_stage(
    state: TrainState, tx: optax.GradientTransformation, distilling: bool
) -> TrainState:
    """A state as it enters a stage, with what only this stage needs.

    Args:
        state: as the stage before left it.
        tx: the stage's optimiser.
        distilling: whether the stage learns from an average of earlier weights.

    Returns:
        The state, its optimiser's anew, and the average, which begins at the weights as they are.
    """
    ema_variables: Any = ()
    if distilling:
        now = {"params": state.params, "batch_stats": state.batch_stats}
        ema_variables = jax.tree.map(jnp.copy, now)  # Both will be overwritten in place.
    return dataclasses.replace(state, opt_state=tx.init(state.params), ema_variables=ema_variables)


def load_variables(
    source: str, model: STNiCNN, variables: Mapping[str, Any], networks: Sequence[str] = NETWORKS
) -> dict[str, Any]:
    """Reads weights to start from.

    Args:
        source: a `.safetensors` file, or the working directory of a run that wrote one.
        model: the parser that they are for.
        variables: variables of that parser, kept where the file is not asked.
        networks: those that are taken from the file.

    Returns:
        `{"params": ..., "batch_stats": ...}`. What the config adds to a network of the file, such
        as self-attention, is as in `variables`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the weights are another parser's.
    """
    path = Path(source).expanduser()
    path = path / WEIGHTS if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"init_from: there is no file {path}")
    found = weights.load_weights(path)
    _check_same_kind(path, found.model.config, model.config, networks)
    kept = {
        collection: {name: part for name, part in tree.items() if name not in networks}
        for collection, tree in variables.items()
    }
    taken = {
        collection: {name: part for name, part in tree.items() if name in networks}
        for collection, tree in found.variables.items()
    }
    joined = {name: kept[name] | taken[name] for name in variables}
    joined = _with_additions(joined, variables)
    weights.check_entries(path, weights.shapes(joined), weights.shapes(variables))
    return joined


def _with_additions(found: Mapping[str, Any], initial: Mapping[str, Any]) -> dict[str, Any]:
    """What weights lack because a switch of the config adds it, as it is initialised."""
    has, whole = traverse_util.flatten_dict(dict(found)), traverse_util.flatten_dict(dict(initial))
    added = {
        path: value
        for path, value in whole.items()
        if any(name.startswith(ADDITIONS) for name in path)
    }
    return traverse_util.unflatten_dict({**added, **has})


def _check_same_kind(
    path: Path, found: ModelConfig, wanted: ModelConfig, networks: Sequence[str]
) -> None:
    """Checks that the networks to be loaded have the same inputs and outputs."""
    if "coarse" in networks and found.anatomy != wanted.anatomy:
        raise ValueError(
            f"{path} has the classes {found.anatomy.name!r}, but the config has "
            f"model.anatomy={wanted.anatomy.name!r}; of such weights only "
            "init_networks=('localizer', 'fine') can be loaded"
        )
    if found.anatomy.parts != wanted.anatomy.parts:
        raise ValueError(
            f"{path} has the parts {', '.join(part.name for part in found.anatomy.parts)}, but the "
            f"anatomy {wanted.anatomy.name!r} of the config has other parts or other windows"
        )
    if "coarse" in networks and found.coarse_network != wanted.coarse_network:
        raise ValueError(
            f"{path} has the coarse network {found.coarse_network!r}, but the config has "
            f"model.coarse_network={wanted.coarse_network!r}"
        )
    if found.cropper != wanted.cropper and "localizer" in networks:
        raise ValueError(
            f"{path} has the cropper {found.cropper!r}, but model.cropper={wanted.cropper!r}"
        )


class Checkpoints:
    """The checkpoints of a run: the last few, and the best by validation.

    Each holds the state, the data iterator's position, and a record in JSON, which says how the run
    was set up and how far it is.
    """

    def __init__(self, workdir: Path, keep: int):
        """Opens, or starts, a run's checkpoints.

        Args:
            workdir: the run's directory.
            keep: how many of the last ones to keep.
        """
        policies = checkpoint_managers
        self._manager = ocp.CheckpointManager(
            (workdir / CHECKPOINTS).absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(n=keep),
                        policies.BestN(
                            get_metric_fn=lambda scores: scores["rank"],
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                # Called on the steps to save only.
                save_decision_policy=policies.FixedIntervalPolicy(1),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the last checkpoint; None if there is none."""
        return self._manager.latest_step()

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return Path(self._manager.directory) / str(step)

    def save(
        self,
        state: TrainState,
        iterator: grain.DatasetIterator,
        record: Mapping[str, Any],
        rank: float | None = None,
    ) -> None:
        """Saves in the background; the state may be given away as soon as this returns.

        Args:
            state: the state.
            iterator: the training data's.
            record: anything that JSON can hold.
            rank: how good the state is, where it was validated.
        """
        # Copied: on a CPU the host's arrays may be the device's own buffers, soon overwritten.
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
        """The record of a checkpoint."""
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["record"]

    def restore(
        self, step: int, like: TrainState, iterator: grain.DatasetIterator | None = None
    ) -> TrainState:
        """Reads a state, and puts an iterator where it was.

        Args:
            step: of the checkpoint.
            like: a state, or the shapes of one, of the same stage.
            iterator: the training data's, in as many processes and workers as when saved; None
                leaves the position aside.

        Returns:
            The state, on the host.
        """
        empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        items: dict[str, Any] = {"state": ocp.args.StandardRestore(empty)}
        if iterator is not None:
            items["data"] = grain.checkpoint.CheckpointRestore(iterator)
        return self._manager.restore(step, args=ocp.args.Composite(**items))["state"]

    def preempted(self, step: int) -> bool:
        """Whether the processes of a run agree to stop after this step, one having got SIGTERM."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go."""
        self._manager.close()
