"""The state of a run, where it comes from, and its checkpoints."""

import dataclasses
import math
import os
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
from jax_stn_icnn.models.pipeline import STNiCNN, variable_shapes
from jax_stn_icnn.train.stages import NETWORKS

CHECKPOINTS = "checkpoints"
# The standard deviation of a standard normal distribution cut off at -2 and 2.
CUT_OFF_DEVIATION = 0.87962566103423978
NEUTRAL = {"bias": 0, "scale": 1, "mean": 0, "var": 1, "share": 0}
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
        earlier: in self-distillation, the average of earlier variables; else ().
    """

    step: jax.Array | np.int32
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: optax.OptState
    earlier: Any = ()

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes, on the host: what is scored and kept of this state."""
        now = {"params": self.params, "batch_stats": self.batch_stats}
        return jax.device_get(self.earlier or now)


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
    earlier: Any = ()
    if distilling:
        now = {"params": state.params, "batch_stats": state.batch_stats}
        earlier = jax.tree.map(jnp.copy, now)  # Both will be overwritten in place.
    return dataclasses.replace(state, opt_state=tx.init(state.params), earlier=earlier)


def init_variables(model: STNiCNN, seed: int) -> dict[str, Any]:
    """Random parameters and neutral statistics, as Flax's own defaults.

    `model.init` would compile a program of its own for every kernel, which takes longer than short
    runs do; here all kernels are cut from one draw.

    Args:
        model: the parser.
        seed: of the parameters.

    Returns:
        `{"params": ..., "batch_stats": ...}`: kernels from a normal distribution cut off at two
        standard deviations, of variance 1 / fan-in (`lecun_normal`); scales and variances one;
        biases and means zero.
    """
    flat = traverse_util.flatten_dict(variable_shapes(model))
    total = sum(leaf.size for path, leaf in flat.items() if path[-1] == "kernel")
    draw = np.asarray(jax.random.truncated_normal(jax.random.key(seed), -2.0, 2.0, (total,)))
    variables, used = {}, 0
    for path, leaf in flat.items():
        if path[-1] == "kernel":
            deviation = CUT_OFF_DEVIATION * np.sqrt(math.prod(leaf.shape[:-1]))
            kernel = draw[used : used + leaf.size].reshape(leaf.shape) / deviation
            variables[path], used = kernel.astype(leaf.dtype), used + leaf.size
        else:
            variables[path] = np.full(leaf.shape, NEUTRAL[path[-1]], leaf.dtype)
    return traverse_util.unflatten_dict(variables)


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
    _check_same_kind(path, found.model, model, networks)
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


def _check_same_kind(path: Path, found: STNiCNN, wanted: STNiCNN, networks: Sequence[str]) -> None:
    """Checks that what the networks to be taken see and say is the same."""
    if "coarse" in networks and found.anatomy != wanted.anatomy:
        raise ValueError(
            f"{path} has the classes {found.anatomy.name!r}, but the config has "
            f"classes={wanted.anatomy.name!r}; of such weights only "
            "init_networks=('localizer', 'fine') can be taken"
        )
    if found.anatomy.parts != wanted.anatomy.parts:
        raise ValueError(
            f"{path} has the parts {', '.join(part.name for part in found.anatomy.parts)}, but the "
            f"classes {wanted.anatomy.name!r} of the config have other ones, or other windows"
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


def export_weights(
    path: Path, variables: Mapping[str, Any], model: STNiCNN, frame_size: int
) -> None:
    """Writes weights so that the file is whole at any moment, the old one or the new.

    Args:
        path: the file; its folder must exist.
        variables: `{"params": ..., "batch_stats": ...}` of the model.
        model: the parser.
        frame_size: side of the frame that it was trained at, in pixels.
    """
    partial = path.with_name(f".{path.name}.partial")
    weights.save_weights(partial, variables, model, frame_size)
    os.replace(partial, path)


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
