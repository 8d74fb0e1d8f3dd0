"""The optimiser of a stage: Adam with a learning rate for each network, none for frozen ones."""

from collections.abc import Mapping
from typing import Any

import optax

from jax_stn_icnn.train.stages import NETWORKS, Stage


def make_optimizer(
    stage: Stage, steps_per_epoch: int, halve_every_epochs: float
) -> optax.GradientTransformation:
    """Returns the optimiser of a stage, which counts steps from the stage's first.

    Args:
        stage: The stage.
        steps_per_epoch: Number of steps of an epoch.
        halve_every_epochs: Epochs after which learning rates are halved: 5 in the paper, a fraction
            in short runs.

    Returns:
        An `optax.partition` by network, and by whether a parameter is the encoder's if that has a
        rate of its own. A frozen network has no state and no update.
    """

    def network_optimizer(network: str, factor: float = 1.0) -> optax.GradientTransformation:
        if network not in stage.learning_rates:
            return optax.set_to_zero()
        warmup_epochs = 0.0 if network == "fine" else stage.warmup_epochs
        return optax.adam(
            learning_rate(
                factor * stage.learning_rates[network],
                max(round(halve_every_epochs * steps_per_epoch), 1),
                round(warmup_epochs * steps_per_epoch),
            )
        )

    def labels(params: Mapping[str, Any]) -> dict[str, Any]:
        # A prefix of the parameters' tree: everything inside a network belongs to it.
        found: dict[str, Any] = {network: network for network in params}
        if stage.encoder_lr_factor != 1:
            found["coarse"] = {
                module: "encoder" if module == "encoder" else "coarse"
                for module in params["coarse"]
            }
        return found

    optimizers = {network: network_optimizer(network) for network in NETWORKS}
    if stage.encoder_lr_factor != 1:
        optimizers["encoder"] = network_optimizer("coarse", stage.encoder_lr_factor)
    return optax.partition(optimizers, labels)


def learning_rate(rate: float, halve_every: int, warmup: int) -> optax.Schedule:
    """Returns a schedule that halves in stairs, after a linear warm-up.

    Args:
        rate: The rate before it is halved.
        halve_every: Number of steps of a stair.
        warmup: Number of steps of the warm-up: step 0 has rate / warmup, step warmup - 1 the full
            rate; 0 for none.

    Returns:
        Step -> rate.
    """
    stairs = optax.exponential_decay(rate, halve_every, 0.5, staircase=True)
    if warmup <= 1:
        return stairs
    rise = optax.linear_schedule(1 / warmup, 1.0, warmup - 1)
    return lambda step: stairs(step) * rise(step)
