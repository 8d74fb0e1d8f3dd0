"""Measures a trained trial: the time of a training step, and of parsing one face."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from jax_stn_icnn import FaceParser
from jax_stn_icnn.data.loader import loader_over, open_source
from jax_stn_icnn.io.weights import WEIGHTS, load_weights
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.stages import plan
from jax_stn_icnn.train.state import enter_stage, new_state
from jax_stn_icnn.train.step import AXIS, compile_train_step

REPEATS = 10


def parse_ms(directory: Path) -> float:
    """Returns the milliseconds of parsing a photo that consists of one face of the frame's size.

    Args:
        directory: the directory of the training run.

    Returns:
        The median of ten parses.
    """
    parser = FaceParser.load(directory)
    face = np.zeros((parser.frame_size, parser.frame_size, 3), np.uint8)
    return _median_ms(lambda: parser(face, detect=False))


def step_ms(config: ConfigDict, directory: Path) -> float:
    """Returns the milliseconds of a training step of a run's last stage, on labeled faces.

    Args:
        config: the run's config.
        directory: the run's directory, for its weights; nothing is written to it.

    Returns:
        The median of ten steps.
    """
    model = configs.make_model(config).clone(axis_name=AXIS)
    dataset = config.dataset
    source = open_source(dataset.data_dir, dataset.name, dataset.train)
    loader = loader_over(
        source,
        dataset.name,
        model.config.anatomy,
        frame_size=dataset.frame_size,
        batch_size=config.batch_size,
        seed=config.seed,
        train=True,
    )
    batches = itertools.cycle(list(itertools.islice(loader, 2)))
    phases, steps_per_epoch = plan(config, len(source))
    stage, schedule = phases[-1].stage, (steps_per_epoch, config.halve_every_epochs)
    variables = load_weights(directory / WEIGHTS).variables
    state = enter_stage(new_state(variables), make_optimizer(stage, *schedule), stage.ema_decay > 0)
    step = compile_train_step(
        model,
        stage,
        *schedule,
        state,
        next(batches),
        seed=config.seed,
        augmentation=configs.make_augmentation(config),
    )

    def train_step() -> None:
        nonlocal state
        state, _ = step(state, next(batches))
        jax.block_until_ready(state)

    return _median_ms(train_step)


def _median_ms(call: Callable[[], object]) -> float:
    """Returns the median time of the calls after the first, which compiles."""
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[1:]))
