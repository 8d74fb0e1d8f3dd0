"""The state of training."""

import dataclasses
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
