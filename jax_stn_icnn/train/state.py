"""The state of training, and the weights that it starts from."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct, traverse_util

from jax_stn_icnn.io import weights
from jax_stn_icnn.io.weights import WEIGHTS
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train.stages import NETWORKS

# Prefixes of the modules that an option adds to a network.
ADDITIONS = ("attention_", "edges", "bridge")


@struct.dataclass
class TrainState:
    """The state that a training step updates.

    Attributes:
        step: Number of steps since the run began, over all stages, int32 ().
        params: Network -> its parameters.
        batch_stats: Network -> its running statistics.
        opt_state: State of the stage's optimiser.
        ema_variables: In self-distillation, the moving average of the variables; else ().
    """

    step: jax.Array | np.int32
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: optax.OptState = ()
    ema_variables: Any = ()

    @property
    def variables(self) -> dict[str, Any]:
        """The variables to evaluate and to save, on the host: the average, if there is one."""
        variables = {"params": self.params, "batch_stats": self.batch_stats}
        return jax.device_get(self.ema_variables or variables)


def new_state(variables: Mapping[str, Any]) -> TrainState:
    """Returns the state of a run before its first stage."""
    return TrainState(np.int32(0), variables["params"], variables["batch_stats"])


def enter_stage(
    state: TrainState, tx: optax.GradientTransformation, has_teacher: bool
) -> TrainState:
    """Returns a state with what a stage adds.

    Args:
        state: The state after the stage before.
        tx: The stage's optimiser.
        has_teacher: Whether the stage is one of self-distillation.

    Returns:
        The state, with a new state of the optimiser, and with a moving average that equals the
        variables.
    """
    ema_variables: Any = ()
    if has_teacher:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        ema_variables = jax.tree.map(jnp.copy, variables)  # The step donates both.
    return dataclasses.replace(state, opt_state=tx.init(state.params), ema_variables=ema_variables)


def load_variables(
    source: str, model: STNiCNN, variables: Mapping[str, Any], networks: Sequence[str] = NETWORKS
) -> dict[str, Any]:
    """Returns variables with some networks loaded from a file.

    Args:
        source: A `.safetensors` file, or the directory of a run.
        model: The model of the variables.
        variables: Variables of the model, for everything that is not loaded.
        networks: The networks to load.

    Returns:
        `{"params": ..., "batch_stats": ...}`. What an option of the config adds to a network, such
        as self-attention, is as in `variables` if the file lacks it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The weights are those of another model.
    """
    path = Path(source).expanduser()
    path = path / WEIGHTS if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"init_from: there is no file {path}")
    loaded = weights.load_weights(path)
    _check_networks(path, loaded.model.config, model.config, networks)
    merged = {
        collection: {
            name: loaded.variables[collection].get(name, {}) if name in networks else tree
            for name, tree in trees.items()
        }
        for collection, trees in variables.items()
    }
    merged = _add_initial(merged, variables)
    weights.check_entries(path, weights.shapes(merged), weights.shapes(variables))
    return merged


def _add_initial(loaded: Mapping[str, Any], initial: Mapping[str, Any]) -> dict[str, Any]:
    """Returns loaded variables with the initial ones of ADDITIONS that they lack."""
    additions = {
        path: value
        for path, value in traverse_util.flatten_dict(dict(initial)).items()
        if any(name.startswith(ADDITIONS) for name in path)
    }
    return traverse_util.unflatten_dict(additions | traverse_util.flatten_dict(dict(loaded)))


def _check_networks(
    path: Path, loaded: ModelConfig, model: ModelConfig, networks: Sequence[str]
) -> None:
    """Checks that the networks to load have the same inputs and outputs in both models."""
    if "coarse" in networks and loaded.anatomy != model.anatomy:
        raise ValueError(
            f"{path} has the classes {loaded.anatomy.name!r}, but the config has "
            f"model.anatomy={model.anatomy.name!r}; from such weights only "
            "init_networks=('localizer', 'fine') can be loaded"
        )
    if loaded.anatomy.parts != model.anatomy.parts:
        raise ValueError(
            f"{path} has the parts {', '.join(part.name for part in loaded.anatomy.parts)}, but "
            f"the config's anatomy {model.anatomy.name!r} has other parts or other windows"
        )
    if "coarse" in networks and loaded.coarse_network != model.coarse_network:
        raise ValueError(
            f"{path} has the coarse network {loaded.coarse_network!r}, but the config has "
            f"model.coarse_network={model.coarse_network!r}"
        )
    if "localizer" in networks and loaded.cropper != model.cropper:
        raise ValueError(
            f"{path} has the cropper {loaded.cropper!r}, but the config has "
            f"model.cropper={model.cropper!r}"
        )
