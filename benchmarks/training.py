"""Coarse and joint training steps, from a uint8 batch on the host to the new parameters."""

from collections.abc import Callable
from functools import partial
from types import ModuleType

import jax
import numpy as np

from benchmarks import work
from benchmarks.inputs import BATCH, FRAME, LOSS_WEIGHTS, PATCH, RATES
from benchmarks.rows import MakeRow, Row, Settings, random_model, training_batch
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.stages import Stage
from jax_stn_icnn.train.state import TrainState
from jax_stn_icnn.train.step import AXIS, Step, compile_train_step

CONFIG = ModelConfig(patch_size=PATCH)
# Steps per epoch, and number of epochs after which the learning rates are halved.
SCHEDULE = (1000, 5)
STAGES = {
    "coarse": Stage("coarse", 1, {"coarse": 1e-3}, {"coarse": 1.0}),
    "localizer": Stage("localizer", 1, {"localizer": 1e-3}, {"localizer": 1.0}),
    "fine": Stage("fine", 1, {"fine": 1e-3}, {"fine": 1.0}, true_windows=True),
    "joint": Stage("joint", 1, RATES, LOSS_WEIGHTS),
}


def rows(settings: Settings) -> list[MakeRow]:
    """Returns the steps of the coarse and the joint stage."""
    batch = settings.batch(BATCH)
    return [
        partial(_row, name, batch, dtype)
        for name in ("coarse", "joint")
        for dtype in settings.dtypes
    ]


def _row(name: str, batch: int, dtype: str) -> Row:
    networks = work.networks(
        *random_model(CONFIG, FRAME), batch, STAGES[name].learning_rates, training=True
    )
    row = Row(
        f"{name} training step, batch {batch}, frame {FRAME}, P {PATCH}",
        {"ours": ours(name, batch, CONFIG.replace(dtype=dtype))},
        networks + work.Work(0, batch * FRAME**2 * 4),  # frames and labels
        dtype,
        images=batch,
    )
    row.add_torch(_in_torch(name, batch, dtype, compiled=False))
    row.add_torch(_in_torch(name, batch, dtype, compiled=True), "torch.compile")
    return row


def ours(
    name: str,
    batch: int,
    config: ModelConfig = CONFIG,
    devices: list[jax.Device] | None = None,
) -> Callable[[], object]:
    """Returns a call that takes a step of a stage, without augmentation.

    Args:
        name: Name of the stage.
        batch: Number of faces.
        config: Options of the model.
        devices: Devices to run on; one by default.
    """
    step, state, inputs = compile_step(name, batch, config, devices)

    def call() -> float:
        nonlocal state
        state, metrics = step(state, inputs)
        jax.block_until_ready(state)
        return float(metrics["loss"][0])

    call()  # The first state is on the host, later ones are on the device.
    return call


def compile_step(
    name: str,
    batch: int,
    config: ModelConfig = CONFIG,
    devices: list[jax.Device] | None = None,
) -> tuple[Step, TrainState, dict[str, np.ndarray]]:
    """Returns the compiled step that `ours` takes, its first state, and a batch."""
    stage = STAGES[name]
    model, variables = random_model(config, FRAME, AXIS)
    tx = make_optimizer(stage, *SCHEDULE)
    devices = devices or jax.devices()[:1]
    params, inputs = variables["params"], training_batch(batch, FRAME)
    state = TrainState(np.int32(0), params, variables["batch_stats"], tx.init(params))
    step = compile_train_step(model, stage, *SCHEDULE, state, inputs, seed=0, devices=devices)
    return step, state, inputs


def _in_torch(
    name: str, batch: int, dtype: str, compiled: bool
) -> Callable[[ModuleType], Callable[[], object]]:
    def make(peer: ModuleType) -> Callable[[], object]:
        model = peer.STNiCNN(CONFIG)
        peer.load(model, random_model(CONFIG, FRAME)[1])
        stage = STAGES[name]
        training = peer.Training(
            model.to(peer.DEVICE), stage.learning_rates, stage.loss_weights, dtype
        )
        if compiled:
            training.loss = peer.torch.compile(training.loss)
        inputs = training_batch(batch, FRAME)
        return lambda: training.step(inputs["frame"], inputs["labels"])

    return make
