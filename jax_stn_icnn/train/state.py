"""The state of training."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jax_stn_icnn.io.efficientnet import load_imagenet


@struct.dataclass
class TrainState:
    """The state that a training step updates.

    Attributes:
        step: Number of steps since the run began, over all stages, int32 ().
        params: Network -> its parameters.
        batch_stats: Network -> its running statistics.
        opt_state: State of the stage's optimiser.
        ema_variables: The moving average of the variables, if the stage has one; else ().
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
    state: TrainState, tx: optax.GradientTransformation, has_average: bool
) -> TrainState:
    """Returns the state in which a stage starts.

    Args:
        state: The state after the stage before.
        tx: The stage's optimiser.
        has_average: Whether the stage averages the variables.

    Returns:
        A state with the variables of `state`, or with their moving average, if it has one; with a
        new state of the optimiser; and with a moving average that equals the variables, if the
        stage has one.
    """
    variables = state.ema_variables or {"params": state.params, "batch_stats": state.batch_stats}
    # The step donates the variables and their average.
    ema_variables: Any = jax.tree.map(jnp.copy, variables) if has_average else ()
    return TrainState(
        state.step,
        variables["params"],
        variables["batch_stats"],
        tx.init(variables["params"]),
        ema_variables,
    )


def update_average(
    average: Mapping[str, Any], variables: Mapping[str, Any], decay: float
) -> Mapping[str, Any]:
    """Returns the moving average of parameters and statistics after a step.

    Args:
        average: The average before the step.
        variables: The networks' variables after the step.
        decay: The decay of the average.

    Returns:
        decay * average + (1 - decay) * variables.
    """
    return optax.incremental_update(variables, average, 1 - decay)


def load_encoder(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns variables with the coarse network's encoder as trained on ImageNet.

    Args:
        variables: Variables of a model whose coarse network has an encoder.

    Returns:
        `{"params": ..., "batch_stats": ...}`.

    Raises:
        ModuleNotFoundError: The package with the weights is not installed.
        ValueError: Its file is damaged.
    """
    encoder = load_imagenet()
    return {
        collection: {**trees, "coarse": {**trees["coarse"], "encoder": encoder[collection]}}
        for collection, trees in variables.items()
    }
