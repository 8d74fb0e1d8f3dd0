"""Self-distillation: the networks also learn what an average of their earlier weights says.

After Han and Yoon (2024), whose fine-tuning against a network's own earlier answers helps most
where labels are few. Ours is the form: the average is the exponential one of Tarvainen and Valpola
(Mean Teachers, 2017), and while it sees the faces as they are, those that learn see them made like
photos as people take them. It needs no labels: pictures without any may lie beside the others.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jax_stn_icnn.models.pipeline import CENTROID, STNiCNN
from jax_stn_icnn.models.unet import CoarseOutput
from jax_stn_icnn.train import losses
from jax_stn_icnn.train.stages import DISTILLED, Distillation
from jax_stn_icnn.train.views import Inputs

Variables = Mapping[str, Any]


def average(earlier: Variables, now: Variables, settings: Distillation) -> Variables:
    """The average after a step, of parameters and statistics alike.

    Args:
        earlier: the average before it.
        now: the networks' variables after it.
        settings: how fast the average moves.

    Returns:
        decay * earlier + (1 - decay) * now.
    """
    return optax.incremental_update(now, earlier, 1 - settings.decay)


def distances(
    parser: STNiCNN,
    earlier: Variables,
    views: Inputs,
    coarse: CoarseOutput,
    theta: jax.Array,
    fine_logits: Sequence[jax.Array],
    part_weights: Sequence[float],
) -> dict[str, jax.Array]:
    """How far the networks are from what the average of their earlier weights says.

    Args:
        parser: the bound module.
        earlier: the average.
        views: of `make_inputs`, with the faces as they are.
        coarse: what the networks say of the views, as the next two.
        theta: (batch, parts, 2, 3).
        fine_logits: of the patches that these windows cut.
        part_weights: of the parts in the fine term.

    Returns:
        A float32 scalar for each term of the loss, by its name with DISTILLED behind.
    """
    assert views.plain is not None
    coarse_image, frame = views.plain
    # By itself: within the bound module its networks would be those that learn.
    apply: Any = partial(parser.clone().apply, earlier)
    answer: CoarseOutput = apply(coarse_image, method="coarse_stage")
    distance = losses.distillation_loss(coarse.all, answer.all)
    if coarse.whole is not None and answer.whole is not None and parser.coarse_stride > 1:
        own, other = (jnp.moveaxis(logits, 1, -1) for logits in (coarse.whole, answer.whole))
        distance += losses.distillation_loss(own, other)
    found = {"coarse": distance}
    if parser.cropper != CENTROID:
        windows = jax.lax.stop_gradient(apply(jax.nn.softmax(answer.all), method="localize"))
        everywhere = jnp.ones(theta.shape[:2], bool)
        found["localizer"] = losses.smooth_l1(theta, windows, everywhere)
    # Patches of the same windows, so that pixels have their counterparts.
    windows = jax.lax.stop_gradient(theta)
    _, answers = apply(frame, windows, answer, views.region, method="fine_stage")
    by_part = [losses.distillation_loss(*pair) for pair in zip(fine_logits, answers, strict=True)]
    found["fine"] = jnp.sum(jnp.stack(by_part) * jnp.array(part_weights))
    return {name + DISTILLED: distance for name, distance in found.items()}
