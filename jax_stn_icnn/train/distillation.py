"""Self-distillation: the networks also learn from a moving average of their weights, the teacher.

After Han and Yoon (2024), whose fine-tuning against a network's own predictions helps most where
labels are few. The form is ours: the teacher is an exponential moving average (Tarvainen and
Valpola, Mean Teachers, 2017), whose inputs have no photometric augmentation. It needs no labels, so
that unlabelled images can be added to a batch.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jax_stn_icnn.data.inputs import Inputs
from jax_stn_icnn.models.coarse import CoarseOutput
from jax_stn_icnn.models.config import CENTROID
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import losses
from jax_stn_icnn.train.stages import DISTILLED

Variables = Mapping[str, Any]


def distillation_losses(
    model: STNiCNN,
    ema_variables: Variables,
    inputs: Inputs,
    coarse: CoarseOutput,
    theta: jax.Array,
    fine_logits: Sequence[jax.Array],
    part_weights: Sequence[float] | None = None,
) -> dict[str, jax.Array]:
    """Returns the distances between the networks' predictions and the teacher's.

    Args:
        model: The bound module.
        ema_variables: The teacher's variables.
        inputs: The inputs, `teacher` included.
        coarse: Output of the coarse network.
        theta: The windows, (batch, parts, 2, 3).
        fine_logits: Logits of the patches that these windows crop.
        part_weights: Weight of each part in the fine term; None for weights of 1.

    Returns:
        A float32 scalar for each term of the loss, its name with the suffix DISTILLED.
    """
    assert inputs.teacher is not None
    coarse_image, frame = inputs.teacher
    # An unbound copy: the networks of the bound module are those that are trained.
    apply: Any = partial(model.clone().apply, ema_variables)
    teacher = apply(coarse_image, method="coarse_stage")
    loss = losses.distillation_loss(coarse.logits, teacher.logits)
    if coarse.global_logits is not None and model.config.coarse_stride > 1:
        own, other = coarse.global_logits, teacher.global_logits
        loss += losses.distillation_loss(jnp.moveaxis(own, 1, -1), jnp.moveaxis(other, 1, -1))
    distances = {"coarse": loss}
    if model.config.cropper != CENTROID:
        probs = jax.nn.softmax(teacher.logits)
        target = apply(probs, frame.shape[1:3], method="localize")
        all_parts = jnp.ones(theta.shape[:2], bool)
        target = jax.lax.stop_gradient(target)
        distances["localizer"] = losses.smooth_l1(theta, target, all_parts)
    # Patches of the same windows, so that their pixels correspond.
    windows = jax.lax.stop_gradient(theta)
    _, targets = apply(frame, windows, teacher, inputs.region, method="fine_stage")
    by_part = jnp.stack(list(map(losses.distillation_loss, fine_logits, targets)))
    weights = 1.0 if part_weights is None else jnp.array(part_weights)
    distances["fine"] = jnp.sum(by_part * weights)
    return {name + DISTILLED: loss for name, loss in distances.items()}
