"""The stages of a run, as the step and the optimiser need them, and their places in the run."""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from jax_stn_icnn import anatomy
from jax_stn_icnn.models.config import CENTROID

STAGES = ("coarse", "localizer", "fine", "joint", "distill")
NETWORKS = ("coarse", "localizer", "fine")
# Behind the name of a term of the loss: its counterpart in self-distillation.
DISTILLED = "_distilled"
PIXEL_LOSSES = ("cross_entropy", "binary_cross_entropy", "balanced_cross_entropy")
REGIONS = ("labels", "connected")


@dataclasses.dataclass(frozen=True)
class Consensus:
    """What structure via consensus adds to a loss (`consensus.mean_consensus_loss`).

    Attributes:
        coarse: its weight beside the coarse network's loss of pixels; 0 leaves it out.
        fine: likewise beside that of the fine networks.
        regions: one of REGIONS.
        alpha: weight of the regions' likelihood.
        beta: weight of the disagreement within regions.
        warmup_epochs: of a stage, over which the weights rise from 0.
    """

    coarse: float = 0.0
    fine: float = 0.0
    regions: str = "labels"
    alpha: float = 10.0
    beta: float = 5.0
    warmup_epochs: float = 0.0


@dataclasses.dataclass(frozen=True)
class Edges:
    """What is asked of the edges between labels.

    Attributes:
        coarse: weight of `losses.edge_cross_entropy` beside the coarse network's loss of pixels.
        fine: likewise beside that of the fine networks.
        within: how near an edge the pixels lie that weigh more.
        task: weight of `losses.edge_task_loss` beside the coarse network's.
    """

    coarse: float = 0.0
    fine: float = 0.0
    within: int = 2
    task: float = 0.0


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Learning from an average of the networks' own earlier weights.

    Attributes:
        weight: of `losses.distillation_loss` and its like beside each term of the loss.
        decay: of the average, at each step.
    """

    weight: float
    decay: float


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training, as the step and the optimiser need it.

    Attributes:
        name: one of STAGES.
        epochs: how many.
        learning_rates: of each network that learns; the others are frozen.
        loss_weights: of each term of the loss: `coarse`, `localizer`, `fine`, and with DISTILLED
            behind.
        coarse_loss: one of PIXEL_LOSSES.
        part_weights: of the parts in the fine term.
        true_windows: whether patches are cut around the true centres, rather than by the cropper.
        jitter: how far the true windows are moved at most, in pixels along each axis.
        warmup_epochs: over which the rates of coarse network and localizer rise from 0.
        consensus: what structure via consensus adds.
        edges: what is asked of edges.
        distillation: how the networks learn from their own average, if they do.
    """

    name: str
    epochs: int
    learning_rates: Mapping[str, float]
    loss_weights: Mapping[str, float]
    coarse_loss: str = "cross_entropy"
    part_weights: tuple[float, ...] = (1.0,) * anatomy.NINE.num_parts
    true_windows: bool = False
    jitter: int = 0
    warmup_epochs: float = 0.0
    consensus: Consensus = Consensus()
    edges: Edges = Edges()
    distillation: Distillation | None = None


def make_stages(config: ConfigDict) -> list[Stage]:
    """The stages of a run, those without epochs left out."""
    return [_stage(config, name) for name in config.stages if config[name].epochs > 0]


def _stage(config: ConfigDict, name: str) -> Stage:
    if name in ("joint", "distill"):
        joint = config.joint
        networks = [n for n in NETWORKS if n != "localizer" or config.model.cropper != CENTROID]
        rates = {network: config[name][f"lr_{network}"] for network in networks}
        weights = {"fine": 1.0, "coarse": joint.coarse_weight}
        if "localizer" in networks:
            weights["localizer"] = joint.localizer_weight
        if name == "distill":
            share = config.distill.weight
            weights |= {term + DISTILLED: weight * share for term, weight in weights.items()}
    else:
        rates, weights = {name: config[name].lr}, {name: 1.0}
    return Stage(
        name,
        config[name].epochs,
        # A rate of 0 is a frozen network: BatchNorm's statistics would move on otherwise.
        {network: rate for network, rate in rates.items() if rate > 0},
        {term: weight for term, weight in weights.items() if weight > 0},
        coarse_loss=config.coarse.loss,
        part_weights=tuple(config.part_weights),
        true_windows=name == "fine",
        jitter=config.fine.jitter if name == "fine" else 0,
        warmup_epochs=config.joint.warmup_epochs if name == "joint" else 0.0,
        consensus=Consensus(**config.consensus),
        edges=Edges(**config.edges),
        distillation=(
            Distillation(config.distill.weight, config.distill.decay) if name == "distill" else None
        ),
    )


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stage's place in the run: steps first + 1 .. last are its own."""

    stage: Stage
    first: int
    last: int


def plan(config: ConfigDict, num_records: int) -> tuple[list[Phase], int]:
    """Lays the stages one after another.

    Args:
        config: the run's.
        num_records: of the training split.

    Returns:
        The phases, and how many steps an epoch has; a last, smaller batch is left to the next
        epoch.

    Raises:
        ValueError: the split does not fill one batch.
    """
    steps_per_epoch = num_records // config.batch_size
    if steps_per_epoch == 0:
        raise ValueError(
            f"dataset.train = {config.dataset.train!r} holds {num_records} records, "
            f"fewer than batch_size = {config.batch_size}"
        )
    phases, step = [], 0
    for stage in make_stages(config):
        phases.append(Phase(stage, step, step + stage.epochs * steps_per_epoch))
        step = phases[-1].last
    return phases, steps_per_epoch
