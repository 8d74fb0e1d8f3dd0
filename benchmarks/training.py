"""The training step, coarse and joint, from a uint8 batch on the host to the new parameters."""

from collections.abc import Callable, Iterator
from types import ModuleType

import jax
import numpy as np

from benchmarks import work
from benchmarks.inputs import BATCH, FRAME, LOSS_WEIGHTS, PATCH, RATES
from benchmarks.rows import Row, Settings, parser, training_batch
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.geometry import COARSE_SIZE, Sizes
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.stages import Stage
from jax_stn_icnn.train.state import TrainState
from jax_stn_icnn.train.step import AXIS, compile_train_step

# Steps in an epoch, and epochs after which the rates are halved.
SCHEDULE = (1000, 5)
STAGES = {
    "coarse": Stage("coarse", 1, {"coarse": 1e-3}, {"coarse": 1.0}),
    "localizer": Stage("localizer", 1, {"localizer": 1e-3}, {"localizer": 1.0}),
    "fine": Stage("fine", 1, {"fine": 1e-3}, {"fine": 1.0}, true_windows=True),
    "joint": Stage("joint", 1, RATES, LOSS_WEIGHTS),
}


def rows(settings: Settings) -> Iterator[Row]:
    """The steps of the coarse and the joint stage."""
    batch = settings.batch(BATCH)
    for name in ("coarse", "joint"):
        for dtype in settings.dtypes:
            row = Row(
                f"{name} training step, batch {batch}, frame {FRAME}, P {PATCH}",
                {"ours": ours(name, batch, dtype)},
                _work(name, batch),
                dtype,
                images=batch,
            )
            row.add_torch(in_torch(name, batch, dtype))
            yield row


def ours(
    name: str,
    batch: int,
    dtype: str = "float32",
    devices: list[jax.Device] | None = None,
    patch_size: int | Sizes = PATCH,
) -> Callable[[], object]:
    """A step of a stage, as training takes it, without augmentation; one device by default."""
    stage = STAGES[name]
    model, variables = parser(patch_size, FRAME, dtype, AXIS)
    tx = make_optimizer(stage, *SCHEDULE)
    devices = devices or jax.devices()[:1]
    params, inputs = variables["params"], training_batch(batch, FRAME)
    state = TrainState(np.int32(0), params, variables["batch_stats"], tx.init(params))
    step = compile_train_step(
        model, stage, *SCHEDULE, state, inputs, seed=0, augmented=False, devices=devices
    )

    def call() -> float:
        nonlocal state
        state, metrics = step(state, inputs)
        jax.block_until_ready(state)
        return float(metrics["loss"][0])

    call()  # Its state comes from the host, those of later steps from the device.
    return call


def in_torch(
    name: str, batch: int, dtype: str = "float32"
) -> Callable[[ModuleType], Callable[[], object]]:
    """Makes the same step in PyTorch."""

    def make(peer: ModuleType) -> Callable[[], object]:
        model = peer.STNiCNN(PATCH)
        peer.load(model, parser(PATCH, FRAME)[1])
        stage = STAGES[name]
        training = peer.Training(
            model.to(peer.DEVICE), stage.learning_rates, stage.loss_weights, dtype
        )
        inputs = training_batch(batch, FRAME)
        return lambda: training.step(inputs["frame"], inputs["labels"])

    return make


def _work(name: str, batch: int) -> work.Work:
    """That of the networks, from the uint8 batch."""
    model, variables = parser(PATCH, FRAME)
    bound = model.bind(variables)
    shapes = {
        "coarse": (batch, *COARSE_SIZE, 3),
        "localizer": (batch, *COARSE_SIZE, NINE.num_classes),
        "fine": (batch, NINE.num_parts, PATCH, PATCH, 3),
    }
    needed = work.Work(0, batch * FRAME**2 * 4)
    for network in STAGES[name].learning_rates:
        module = getattr(bound, network).unbind()[0]
        macs = work.macs(module, jax.ShapeDtypeStruct(shapes[network], np.float32), train=False)
        needed += work.network(macs, variables["params"][network], 0, training=True)
    return needed
