"""The optimiser of a stage: Adam with a rate for each network that learns, none for the others."""

from collections.abc import Mapping
from typing import Any

import optax

from jax_stn_icnn.train.stages import NETWORKS, Stage


def make_optimizer(
    stage: Stage, steps_per_epoch: int, halve_every_epochs: float
) -> optax.GradientTransformation:
    """Builds the optimiser of a stage; steps are counted from the stage's first.

    Args:
        stage: the stage.
        steps_per_epoch: of the training split.
        halve_every_epochs: the paper halves the rates every 5 epochs; a part of one for short runs.

    Returns:
        An `optax.partition` by network. A frozen network has no state and gets no update.
    """

    def of_network(network: str) -> optax.GradientTransformation:
        if network not in stage.learning_rates:
            return optax.set_to_zero()
        rises = network != "fine"
        return optax.adam(
            learning_rate(
                stage.learning_rates[network],
                max(round(halve_every_epochs * steps_per_epoch), 1),
                round(stage.warmup_epochs * steps_per_epoch) if rises else 0,
            )
        )

    def networks_of(params: Mapping[str, Any]) -> dict[str, str]:
        # A prefix of the parameters' tree: what is inside a network belongs to it.
        return {network: network for network in params}

    transforms = {network: of_network(network) for network in NETWORKS}
    return optax.partition(transforms, networks_of)


def learning_rate(rate: float, halve_every: int, warmup: int) -> optax.Schedule:
    """A rate that halves in stairs, and may rise linearly from 0 at the beginning.

    Args:
        rate: at the top.
        halve_every: in steps.
        warmup: in steps; step 0 then has rate / warmup, step warmup - 1 the full one.

    Returns:
        Step -> rate.
    """
    stairs = optax.exponential_decay(rate, halve_every, 0.5, staircase=True)
    if warmup == 0:
        return stairs
    rise = optax.linear_schedule(1 / warmup, 1.0, warmup - 1) if warmup > 1 else lambda step: 1.0
    return lambda step: stairs(step) * rise(step)
