"""The training step: pure functions, and their mapping over devices by `jax.pmap`."""

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
from jax_stn_icnn.compilation.inlining import not_inlined, prevent_inlining
from jax_stn_icnn.data.config import AugmentConfig
from jax_stn_icnn.data.inputs import NO_AUGMENTATION, make_inputs
from jax_stn_icnn.data.keys import example_keys
from jax_stn_icnn.label_sets import LabelSets
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import objective
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.stages import Consensus, Stage
from jax_stn_icnn.train.state import TrainState, update_average

AXIS = "batch"
# Arrays of a batch that the device needs. Those of a mixture of data sets, whose labels are sets,
# and those of self-distillation may be missing.
INPUTS = ("frame", "labels", "region", "position")
MIXED = ("has_parts",)
UNLABELLED = ("unlabelled", "unlabelled_region")
# Pixels of a device's batch up to which a step is scheduled for speed, since its buffers are small:
# those of a joint step take 3 KB per pixel then, and 2 KB if it is scheduled for memory.
SMALL_BATCH = 2**18

Metrics = dict[str, jax.Array]
Variables = dict[str, Any]
Loss = Callable[[Variables], tuple[jax.Array, tuple[Metrics, Any]]]
Step = Callable[[TrainState, Mapping[str, np.ndarray]], tuple[TrainState, Metrics]]


def check_batch_size(batch_size: int, num_devices: int) -> None:
    """Checks that a batch can be divided over devices.

    Args:
        batch_size: Number of examples.
        num_devices: Number of devices.

    Raises:
        ValueError: It cannot be divided.
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
    augmentation: AugmentConfig = NO_AUGMENTATION,
    label_sets: LabelSets | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Step:
    """Compiles the step of a stage for all devices.

    Args:
        model: The model, with `axis_name=AXIS`.
        stage: The stage.
        steps_per_epoch: Number of steps of an epoch; as for `make_optimizer`.
        halve_every_epochs: As for `make_optimizer`.
        state: A state in the stage, or its shapes.
        batch: A batch of this process; all others have its shapes.
        seed: Seed of augmentation and jitter.
        augmentation: Options of the augmentation.
        label_sets: The classes of each label; None if labels are class ids.
        devices: The devices to run on; all by default.

    Returns:
        A function of a state, whose buffers are donated, and a batch of this process. It returns
        the state after the step, and the metrics of the global batch: float32, with one value for
        each local device, all the same.

    Raises:
        ValueError: The batch cannot be divided over the devices; the function raises it, too.
    """
    used = list(jax.local_devices() if devices is None else devices)
    names = INPUTS + (MIXED if label_sets else ()) + (UNLABELLED if stage.has_teacher else ())
    shards = shard(batch, len(used), names)
    options = model, stage, steps_per_epoch, halve_every_epochs, augmentation, label_sets
    mapped = map_train_step(*options, devices=devices)
    # The seed is an input of the program, so that runs of all seeds share a cached program.
    seed_array = np.uint32(seed)
    run: Callable = mapped
    # A program compiled ahead of time does not merge the batches of several processes.
    if jax.process_count() == 1:
        # A call of `mapped` would compile for the host's arrays, and again for those that the step
        # returns.
        num_pixels = _num_pixels(shards["frame"].shape[1], model.config)
        run = cached_program(
            "training step",
            (*options, shapes_and_types((state, shards))),
            lambda: prevent_inlining(mapped.lower(state, shards, seed_array)),
            functools.partial(compile_program, save_memory=num_pixels > SMALL_BATCH),
            used,
        )

    def take_step(state: TrainState, batch: Mapping[str, np.ndarray]) -> tuple[TrainState, Metrics]:
        leaves, metrics = run(state, shard(batch, len(used), names), seed_array)
        return jax.tree.unflatten(jax.tree.structure(state), leaves), metrics

    return take_step


def map_train_step(
    model: STNiCNN,
    stage: Stage,
    steps_per_epoch: int,
    halve_every_epochs: float,
    augmentation: AugmentConfig = NO_AUGMENTATION,
    label_sets: LabelSets | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
) -> Any:
    """Maps the step of a stage over devices, without compiling it.

    Args:
        model: As for `compile_train_step`, like the others.
        stage: The stage.
        steps_per_epoch: Number of steps of an epoch.
        halve_every_epochs: As for `make_optimizer`.
        augmentation: Options of the augmentation.
        label_sets: The classes of each label; None if labels are class ids.
        devices: The devices, possibly of a topology that is only described; all by default.

    Returns:
        The mapped function of a state, the shards of a batch as `shard` returns them, and the seed,
        uint32; it can be called or lowered. It returns the leaves of the state after the step, as
        a tuple, which the cache can store, and the metrics.
    """
    step = functools.partial(
        train_step,
        # No loss depends on the mirror image's pass through a frozen coarse network.
        model=model.clone(config=model.config.replace(flip_test=False)),
        tx=make_optimizer(stage, steps_per_epoch, halve_every_epochs),
        stage=stage,
        steps_per_epoch=steps_per_epoch,
        augmentation=augmentation,
        label_sets=label_sets,
    )

    def take_step(
        state: TrainState, batch: dict[str, jax.Array], seed: jax.Array
    ) -> tuple[tuple[jax.Array, ...], Metrics]:
        state, metrics = step(state, batch, seed)
        return tuple(jax.tree.leaves(state)), metrics

    # The state has no axis of devices, neither as input nor as output; the batch has.
    return jax.pmap(
        take_step,
        axis_name=AXIS,
        in_axes=(None, 0, None),
        out_axes=(None, 0),
        devices=devices,
        donate_argnums=(0,),
    )


def _num_pixels(num_examples: int, config: ModelConfig) -> int:
    """Returns the number of pixels of the examples' coarse segmentations and patches."""
    return num_examples * (config.coarse_size**2 + sum(map(math.prod, config.patch_sizes)))


def shard(
    batch: Mapping[str, np.ndarray], num_devices: int, names: Sequence[str] = INPUTS
) -> dict[str, np.ndarray]:
    """Returns the shards of a batch.

    Args:
        batch: Arrays (examples, ...) of this process, `position` included.
        num_devices: Number of this process's devices.
        names: Names of the arrays to return; missing ones are omitted.

    Returns:
        Name -> array (devices, examples of a device, ...).

    Raises:
        ValueError: The batch cannot be divided over the devices.
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
    augmentation: AugmentConfig,
    label_sets: LabelSets | None = None,
) -> tuple[TrainState, Metrics]:
    """Takes one step on this device's shard of a batch, within the mapped axis AXIS.

    Args:
        state: The state before the step, the same on all devices.
        batch: Arrays (examples, ...): INPUTS, and possibly MIXED and UNLABELLED.
        seed: Seed of augmentation and jitter, a scalar.
        model: The model, with `axis_name=AXIS`.
        tx: The stage's optimiser.
        stage: The stage.
        steps_per_epoch: Number of steps of an epoch.
        augmentation: Options of the augmentation.
        label_sets: The classes of each label; None if labels are class ids.

    Returns:
        The state after the step, and the metrics of the global batch, scalars: each term of the
        loss, `loss` and `grad_norm`. Both are the same on all devices.
    """
    keys = example_keys(seed, jnp.asarray(state.step), batch["position"])
    inputs = make_inputs(
        batch,
        keys,
        model.config,
        augmentation,
        with_teacher=stage.has_teacher,
        label_sets=label_sets,
    )
    share = consensus_share(stage.consensus, state.opt_state, steps_per_epoch)
    teacher = state.ema_variables if stage.has_teacher else None

    def loss_fn(variables: Variables) -> tuple[jax.Array, tuple[Metrics, Any]]:
        terms, updated = model.apply(
            variables,
            *(inputs, keys, stage, share, teacher),
            method=objective.loss_terms,
            mutable=["batch_stats"],
        )
        loss, metrics = objective.weighted_sum(terms, stage, AXIS)
        return loss, (metrics | {"loss": loss}, updated["batch_stats"])

    new_state, metrics = gradient_step(state, loss_fn, tx, list(stage.learning_rates))
    if stage.ema_decay:
        variables = {"params": new_state.params, "batch_stats": new_state.batch_stats}
        ema_variables = update_average(state.ema_variables, variables, stage.ema_decay)
        new_state = dataclasses.replace(new_state, ema_variables=ema_variables)
    return new_state, metrics


def consensus_share(
    consensus: Consensus, opt_state: Any, steps_per_epoch: int
) -> jax.Array | float:
    """Returns the factor of the consensus loss's weights, which rises from 0 to 1 in a stage.

    Args:
        consensus: The stage's weights of the consensus loss.
        opt_state: State of the stage's optimiser, which counts the stage's steps.
        steps_per_epoch: Number of steps of an epoch.

    Returns:
        A factor in 0..1; 1 without a warm-up.
    """
    warmup = round(consensus.warmup_epochs * steps_per_epoch)
    if warmup == 0 or not (consensus.coarse or consensus.fine):
        return 1.0
    taken = optax.tree.get_all_with_path(opt_state, "count")[0][1]
    return jnp.minimum((taken + 1) / warmup, 1.0)


def gradient_step(
    state: TrainState, loss_fn: Loss, tx: optax.GradientTransformation, networks: Sequence[str]
) -> tuple[TrainState, Metrics]:
    """Takes one step along a loss's gradient, averaged over the mapped axis AXIS.

    Args:
        state: The state before the step.
        loss_fn: Variables -> the loss on this device, and (metrics, new batch statistics).
        tx: The optimiser.
        networks: The networks to train; the parameters of the others do not change by a bit.

    Returns:
        The state after the step, and the metrics, with `grad_norm`.
    """

    def loss_of_trained(trained: dict[str, Any]) -> tuple[jax.Array, tuple[Metrics, Any]]:
        return loss_fn({"params": {**state.params, **trained}, "batch_stats": state.batch_stats})

    trained = {network: state.params[network] for network in networks}
    grad_fn = jax.value_and_grad(loss_of_trained, has_aux=True)
    (_, (metrics, batch_stats)), grads = grad_fn(trained)
    grads, metrics = jax.lax.pmean((grads, metrics), AXIS)

    # A function of its own, since its thousands of small operations would slow down loading.
    def update(grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any, jax.Array]:
        zeros = {
            network: jax.tree.map(jnp.zeros_like, own)
            for network, own in params.items()
            if network not in networks
        }
        updates, opt_state = tx.update({**zeros, **grads}, opt_state, params)
        trained = {network: params[network] for network in networks}
        new = optax.apply_updates(trained, {network: updates[network] for network in networks})
        return new, opt_state, optax.tree.norm(grads)

    params, opt_state, metrics["grad_norm"] = not_inlined(update)(
        grads, state.opt_state, state.params
    )
    new_state = dataclasses.replace(
        state,
        step=state.step + 1,
        params={**state.params, **params},
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return new_state, metrics
