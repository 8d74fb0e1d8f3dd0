"""The stages of a run: what each trains, and the steps that it takes."""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from jax_stn_icnn.models.config import CENTROID

STAGES = ("coarse", "localizer", "fine", "joint", "distill")
NETWORKS = ("coarse", "localizer", "fine")
REGIONS = ("labels", "connected")
# Suffix of a term of the loss that compares the networks with the teacher.
DISTILLED = "_distilled"


@dataclasses.dataclass(frozen=True)
class Consensus:
    """Weights of the consensus loss (`consensus.mean_consensus_loss`); 0 turns it off.

    Attributes:
        coarse: Weight in the loss of the coarse network.
        fine: Weight in the loss of the fine networks.
        regions: One of REGIONS: all pixels of a label, or each connected region of a label.
        warmup_epochs: Epochs at the beginning of a stage over which the weights rise from 0.
    """

    coarse: float = 0.0
    fine: float = 0.0
    regions: str = "labels"
    warmup_epochs: float = 0.0


@dataclasses.dataclass(frozen=True)
class Edges:
    """Weights of the losses of edges between labels; 0 turns a loss off.

    Attributes:
        coarse: Weight of `losses.edge_cross_entropy` in the loss of the coarse network.
        fine: Weight of `losses.edge_cross_entropy` in the loss of the fine networks.
        task: Weight of `losses.edge_task_loss` in the loss of the coarse network.
    """

    coarse: float = 0.0
    fine: float = 0.0
    task: float = 0.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training, as the step and the optimiser need it.

    Attributes:
        name: One of STAGES.
        epochs: Number of epochs.
        learning_rates: Rate of each network that is trained; the others are frozen.
        loss_weights: Weight of each term of the loss: `coarse`, `localizer` and `fine`, and the
            same with the suffix DISTILLED.
        encoder_lr_factor: Rate of the coarse network's encoder over that of the rest of it.
        coarse_loss: One of `losses.PIXEL_LOSSES`.
        part_weights: Weight of each part in the fine term; None for weights of 1.
        true_windows: Whether patches are cropped from the true windows, not from the predicted.
        jitter: Largest shift of the true windows in pixels, along each axis.
        warmup_epochs: Epochs over which the rates of coarse network and localizer rise from 0.
        consensus: Weights of the consensus loss.
        edges: Weights of the losses of edges.
        ema_decay: Decay of the moving average of the variables at each step; 0 for no average. It
            is evaluated and saved, the next stage starts from it, and it is the teacher of
            self-distillation.
    """

    name: str
    epochs: int
    learning_rates: Mapping[str, float]
    loss_weights: Mapping[str, float]
    encoder_lr_factor: float = 1.0
    coarse_loss: str = "cross_entropy"
    part_weights: tuple[float, ...] | None = None
    true_windows: bool = False
    jitter: int = 0
    warmup_epochs: float = 0.0
    consensus: Consensus = Consensus()
    edges: Edges = Edges()
    ema_decay: float = 0.0

    @property
    def has_teacher(self) -> bool:
        """Whether the stage is one of self-distillation."""
        return self.name == "distill"


def make_stages(config: ConfigDict) -> list[Stage]:
    """Returns the stages of a config, without those of 0 epochs."""
    return [_make_stage(config, name) for name in config.stages if config[name].epochs > 0]


def _make_stage(config: ConfigDict, name: str) -> Stage:
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
        # A rate of 0 means frozen: otherwise BatchNorm's statistics would still change.
        {network: rate for network, rate in rates.items() if rate > 0},
        {term: weight for term, weight in weights.items() if weight > 0},
        encoder_lr_factor=config.coarse.encoder_lr_factor,
        coarse_loss=config.coarse.loss,
        part_weights=tuple(config.part_weights) or None,
        true_windows=name == "fine",
        jitter=config.fine.jitter if name == "fine" else 0,
        warmup_epochs=config.joint.warmup_epochs if name == "joint" else 0.0,
        consensus=Consensus(**config.consensus),
        edges=Edges(**config.edges),
        ema_decay=config.distill.decay if name == "distill" else config.ema_decay,
    )


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stage's place in the run: steps first + 1 .. last are its steps."""

    stage: Stage
    first: int
    last: int


def plan(config: ConfigDict, num_records: int) -> tuple[list[Phase], int]:
    """Returns the phases of a run, in order, and the number of steps of an epoch.

    Args:
        config: The run's config.
        num_records: Number of records of the training split. A last, smaller batch is completed by
            records of the next epoch.

    Returns:
        The phases, and the steps of an epoch.

    Raises:
        ValueError: The split has fewer records than a batch.
    """
    steps_per_epoch = num_records // config.batch_size
    if steps_per_epoch == 0:
        raise ValueError(
            f"dataset.train = {config.dataset.train!r} has {num_records} records, "
            f"fewer than batch_size = {config.batch_size}"
        )
    phases, step = [], 0
    for stage in make_stages(config):
        phases.append(Phase(stage, step, step + stage.epochs * steps_per_epoch))
        step = phases[-1].last
    return phases, steps_per_epoch
