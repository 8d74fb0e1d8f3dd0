"""Self-distillation: the networks also learn from an average of their own weights, the teacher.

After Han and Yoon (2024), whose fine-tuning against a network's own earlier predictions helps most
where labels are few. The form is ours: the teacher is an exponential moving average (Tarvainen and
Valpola, Mean Teachers, 2017) and sees the faces without photometric augmentation. It needs no
labels, so that unlabelled images can be added to a batch.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jax_stn_icnn.data.inputs import Inputs
from jax_stn_icnn.models.config import CENTROID
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.models.unet import CoarseOutput
from jax_stn_icnn.train import losses
from jax_stn_icnn.train.stages import DISTILLED, Distillation

Variables = Mapping[str, Any]


def update_teacher(
    ema_variables: Variables, variables: Variables, settings: Distillation
) -> Variables:
    """Returns the moving average after a step, of parameters and statistics.

    Args:
        ema_variables: The average before the step.
        variables: The networks' variables after the step.
        settings: The decay of the average.

    Returns:
        decay * ema_variables + (1 - decay) * variables.
    """
    return optax.incremental_update(variables, ema_variables, 1 - settings.decay)


def distillation_losses(
    model: STNiCNN,
    ema_variables: Variables,
    inputs: Inputs,
    coarse: CoarseOutput,
    theta: jax.Array,
    fine_logits: Sequence[jax.Array],
    part_weights: Sequence[float],
) -> dict[str, jax.Array]:
    """Returns the distance between the networks' predictions and the teacher's.

    Args:
        model: The bound module.
        ema_variables: The teacher's variables.
        inputs: The inputs, `teacher` included.
        coarse: Output of the coarse network.
        theta: The windows, (batch, parts, 2, 3).
        fine_logits: Logits of the patches that these windows crop.
        part_weights: Weights of the parts in the fine term.

    Returns:
        A float32 scalar for each term of the loss, by its name followed by DISTILLED.
    """
    assert inputs.teacher is not None
    coarse_image, frame = inputs.teacher
    # An unbound copy: the networks of the bound module are those that learn.
    apply: Any = partial(model.clone().apply, ema_variables)
    teacher: CoarseOutput = apply(coarse_image, method="coarse_stage")
    loss = losses.distillation_loss(coarse.logits, teacher.logits)
    if coarse.global_logits is not None and model.config.coarse_stride > 1:
        own, other = (jnp.moveaxis(o.global_logits, 1, -1) for o in (coarse, teacher))
        loss += losses.distillation_loss(own, other)
    found = {"coarse": loss}
    if model.config.cropper != CENTROID:
        probs = jax.nn.softmax(teacher.logits)
        target = apply(probs, frame.shape[1:3], method="localize")
        everywhere = jnp.ones(theta.shape[:2], bool)
        found["localizer"] = losses.smooth_l1(theta, jax.lax.stop_gradient(target), everywhere)
    # Patches of the same windows, so that their pixels correspond.
    windows = jax.lax.stop_gradient(theta)
    _, targets = apply(frame, windows, teacher, inputs.region, method="fine_stage")
    by_part = [losses.distillation_loss(*pair) for pair in zip(fine_logits, targets, strict=True)]
    found["fine"] = jnp.sum(jnp.stack(by_part) * jnp.array(part_weights))
    return {name + DISTILLED: loss for name, loss in found.items()}
