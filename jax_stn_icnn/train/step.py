"""The training step: pure functions, and the one place that maps them by `jax.pmap`."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_stn_icnn.compilation.cache import cached_program, shapes_and_types
from jax_stn_icnn.compilation.compile import compile_program
from jax_stn_icnn.data.augment import example_keys
from jax_stn_icnn.data.inputs import make_inputs
from jax_stn_icnn.data.photometric import OFF, Strengths
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.ops.platform import current_implementations
from jax_stn_icnn.train import objective
from jax_stn_icnn.train.distillation import update_teacher
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.stages import Consensus, Stage
from jax_stn_icnn.train.state import TrainState

AXIS = "batch"
# What the device needs of a batch, and for self-distillation besides, if it is there.
INPUTS = ("frame", "labels", "region", "position")
UNLABELLED = ("unlabelled", "unlabelled_region")
# Pixels of a device's batch up to which a step's buffers are small enough to be ordered for speed:
# of a joint step, by measure, some 3 KB a pixel then, against 2 ordered for memory.
SMALL_BATCH = 2**18

Metrics = dict[str, jax.Array]
Variables = dict[str, Any]
Loss = Callable[[Variables], tuple[jax.Array, tuple[Metrics, Any]]]
Step = Callable[[TrainState, Mapping[str, np.ndarray]], tuple[TrainState, Metrics]]


def check_batch_size(batch_size: int, num_devices: int) -> None:
    """Checks that a global batch divides over all devices.

    Args:
        batch_size: examples in the global batch.
        num_devices: of all processes together.

    Raises:
        ValueError: it does not divide.
    """
    if batch_size % num_devices:
        raise ValueError(
            f"batch_size is {batch_size}, but must be a multiple of the number of devices, "
            f"{num_devices}"
        )


def compile_train_step(
    model: STNiCNN,
    stage: Stage,
    steps_per_epoch: int,
    halve_every_epochs: float,
    state: TrainState,
    batch: Mapping[str, np.ndarray],
    *,
    seed: int,
    augmented: bool,
    mirrored: bool = False,
    photo: Strengths = OFF,
    devices: Sequence[jax.Device] | None = None,
) -> Step:
    """Compiles a stage's step for all devices, once for all of its batches.

    Args:
        model: the parser, its `axis_name` AXIS.
        stage: the stage.
        steps_per_epoch: of the training split; with the next, see `make_optimizer`.
        halve_every_epochs: of the learning rates.
        state: a state of the stage, or the shapes of one.
        batch: a batch of this process; all others have its shapes.
        seed: of augmentation and jitter.
        augmented: whether examples are augmented.
        mirrored: whether every second one, at random, is mirrored.
        photo: how strongly examples are made like photos as people take them.
        devices: where to run; all devices by default.

    Returns:
        State and batch of this process -> the state after the step, whose old buffers are given
        away, and the metrics of the global batch: float32, one value for each local device, alike.

    Raises:
        ValueError: the batch does not divide over the devices; also when the step is called.
    """
    used = list(jax.local_devices() if devices is None else devices)
    names = INPUTS + UNLABELLED if stage.distillation else INPUTS
    shards = shard(batch, len(used), names)
    mapped = map_train_step(
        model,
        stage,
        steps_per_epoch,
        halve_every_epochs,
        augmented=augmented,
        mirrored=mirrored,
        photo=photo,
        devices=devices,
    )
    # An input of the program, not a part of it: runs of other seeds find it in the cache.
    of_run = np.uint32(seed)
    run: Callable = mapped
    # What is compiled ahead does not join the batches of several processes.
    if jax.process_count() == 1:
        # A call of `mapped` would compile for the host's arrays, and again for those that the step
        # returns.
        given = shapes_and_types((state, shards))
        num_pixels = _num_pixels(shards["frame"].shape[1], model)
        run = cached_program(
            "training step",
            (
                model,
                current_implementations(),
                stage,
                steps_per_epoch,
                halve_every_epochs,
                (augmented, mirrored, photo),
                given,
            ),
            lambda: mapped.lower(state, shards, of_run),
            functools.partial(compile_program, save_memory=num_pixels > SMALL_BATCH),
            used,
        )
    return lambda state, batch: run(state, shard(batch, len(used), names), of_run)


def map_train_step(
    model: STNiCNN,
    stage: Stage,
    steps_per_epoch: int,
    halve_every_epochs: float,
    *,
    augmented: bool,
    mirrored: bool = False,
    photo: Strengths = OFF,
    devices: Sequence[jax.Device] | None = None,
) -> Any:
    """Maps a stage's step over devices, without compiling it.

    Args:
        model: as the others, of `compile_train_step`.
        stage: likewise.
        steps_per_epoch: likewise.
        halve_every_epochs: likewise.
        augmented: likewise.
        mirrored: likewise.
        photo: likewise.
        devices: likewise; also those of a machine that is only described.

    Returns:
        The mapped step, of a state, what `shard` makes of a batch, and the seed, uint32; it can be
        called or lowered.
    """
    step = functools.partial(
        train_step,
        # No loss depends on the second pass of a frozen coarse network.
        model=model.clone(config=model.config.replace(flip_test=False)),
        tx=make_optimizer(stage, steps_per_epoch, halve_every_epochs),
        stage=stage,
        steps_per_epoch=steps_per_epoch,
        augmented=augmented,
        mirrored=mirrored,
        photo=photo,
    )
    # The state goes in and comes out as one, not stacked by device; the batch is split.
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0, None),
        out_axes=(None, 0),
        devices=devices,
        donate_argnums=(0,),
    )


def _num_pixels(num_examples: int, model: STNiCNN) -> int:
    """What the networks see of so many examples, coarse images and patches, in pixels."""
    config = model.config
    return num_examples * (config.coarse_size**2 + sum(map(math.prod, config.patch_sizes)))


def shard(
    batch: Mapping[str, np.ndarray], num_devices: int, names: Sequence[str] = INPUTS
) -> dict[str, np.ndarray]:
    """What the device needs of a batch.

    Args:
        batch: arrays (examples, ...) of this process, `position` among them.
        num_devices: how many devices of this process share it.
        names: of what is needed; what the batch lacks is left out.

    Returns:
        Name -> array (devices, examples of a device, ...).

    Raises:
        ValueError: the batch does not divide over the devices.
    """
    check_batch_size(len(batch["position"]), num_devices)
    return {
        name: batch[name].reshape(num_devices, -1, *batch[name].shape[1:])
        for name in names
        if name in batch
    }


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    seed: jax.Array,
    *,
    model: STNiCNN,
    tx: optax.GradientTransformation,
    stage: Stage,
    steps_per_epoch: int,
    augmented: bool,
    mirrored: bool,
    photo: Strengths,
) -> tuple[TrainState, Metrics]:
    """One step on this device's share of a batch, within a mapped axis AXIS.

    Args:
        state: before the step, the same on all devices.
        batch: INPUTS, and in self-distillation UNLABELLED if there are any: arrays (examples, ...).
        seed: of augmentation and jitter, a scalar.
        model: the parser, its `axis_name` AXIS.
        tx: the stage's optimiser.
        stage: the stage.
        steps_per_epoch: of the training split.
        augmented: whether examples are augmented.
        mirrored: whether every second one, at random, is mirrored.
        photo: how strongly examples are made like photos as people take them.

    Returns:
        The state after the step, and the metrics of the global batch, scalars: each term of the
        loss, `loss` and `grad_norm`. Both are the same on all devices.
    """
    keys = example_keys(seed, jnp.asarray(state.step), batch["position"])
    distilling = stage.distillation
    inputs = make_inputs(
        batch, keys, model.config, augmented, mirrored, photo, with_teacher=distilling is not None
    )
    share = consensus_share(stage.consensus, state.opt_state, steps_per_epoch)

    def loss_of(variables: Variables) -> tuple[jax.Array, tuple[Metrics, Any]]:
        arguments = inputs, keys, stage, share, state.ema_variables if distilling else None
        terms, updated = model.apply(
            variables, *arguments, method=objective.loss_terms, mutable=["batch_stats"]
        )
        loss, metrics = objective.weighted_sum(terms, stage, AXIS)
        return loss, (metrics | {"loss": loss}, updated["batch_stats"])

    after, metrics = descend(state, loss_of, tx, list(stage.learning_rates))
    if distilling:
        now = {"params": after.params, "batch_stats": after.batch_stats}
        ema_variables = update_teacher(state.ema_variables, now, distilling)
        after = dataclasses.replace(after, ema_variables=ema_variables)
    return after, metrics


def consensus_share(
    consensus: Consensus, opt_state: Any, steps_per_epoch: int
) -> jax.Array | float:
    """How much of the consensus' weights counts at a step of a stage: it rises from 0 to 1.

    Args:
        consensus: the stage's.
        opt_state: of `make_optimizer`; Adam counts the stage's steps.
        steps_per_epoch: of the training split.

    Returns:
        A share in 0..1; 1 where there is no warm-up.
    """
    warmup = round(consensus.warmup_epochs * steps_per_epoch)
    if warmup == 0 or not (consensus.coarse or consensus.fine):
        return 1.0
    taken = optax.tree.get_all_with_path(opt_state, "count")[0][1]
    return jnp.minimum((taken + 1) / warmup, 1.0)


def descend(
    state: TrainState, loss_of: Loss, tx: optax.GradientTransformation, networks: Sequence[str]
) -> tuple[TrainState, Metrics]:
    """Takes one step down a loss, averaged over the mapped axis AXIS.

    Args:
        state: before.
        loss_of: variables -> the loss here, and (metrics, batch statistics after it).
        tx: the optimiser.
        networks: those that learn; the others' parameters stay as they are, to the bit.

    Returns:
        The state after, and the metrics, with `grad_norm` among them.
    """

    def loss_of_learning(learning: dict[str, Any]) -> tuple[jax.Array, tuple[Metrics, Any]]:
        variables = {"params": {**state.params, **learning}, "batch_stats": state.batch_stats}
        return loss_of(variables)

    learning = {network: state.params[network] for network in networks}
    (_, (metrics, batch_stats)), grads = jax.value_and_grad(loss_of_learning, has_aux=True)(
        learning
    )
    grads, metrics = jax.lax.pmean((grads, metrics), AXIS)
    metrics["grad_norm"] = optax.tree.norm(grads)
    nothing = {
        network: jax.tree.map(jnp.zeros_like, params)
        for network, params in state.params.items()
        if network not in networks
    }
    updates, opt_state = tx.update({**nothing, **grads}, state.opt_state, state.params)
    learnt = optax.apply_updates(learning, {network: updates[network] for network in networks})
    after = dataclasses.replace(
        state,
        step=state.step + 1,
        params={**state.params, **learnt},
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return after, metrics
