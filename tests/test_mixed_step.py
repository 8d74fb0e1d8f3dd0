"""Training steps and runs on a mixture of data sets, some of which do not label the parts."""

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from conftest import BROWS, random_variables, small_model
from test_step import make_batch

from configs import common
from jax_stn_icnn.data.config import AugmentConfig
from jax_stn_icnn.data.inputs import make_inputs
from jax_stn_icnn.label_sets import LabelSets
from jax_stn_icnn.train import objective, step
from jax_stn_icnn.train.stages import Stage
from jax_stn_icnn.train.state import new_state

# Labels 4 and 5: skin or a brow, and any class.
SETS = LabelSets(4, ((1, 2, 3), (0, 1, 2, 3)))
HAS_PARTS = np.array([True, False, True, False])


def mixed_batch(seed):
    batch = make_batch(seed, num_classes=4)
    label_map = batch["labels"].copy()
    unions = np.where(label_map[~HAS_PARTS] > 0, 4, 0)
    unions[:, :8] = 5
    label_map[~HAS_PARTS] = unions
    return batch | {"labels": label_map, "has_parts": HAS_PARTS}


@pytest.mark.slow
def test_fine_networks_learn_only_from_examples_with_parts():
    model = small_model(anatomy=BROWS, cropper="centroid", coarse_size=32)
    variables = random_variables(model)
    weights = {"coarse": 1.0, "fine": 1.0}
    stage = Stage("joint", 1, {}, weights)  # Frozen, so that examples do not share statistics.
    batch, keys = mixed_batch(0), jax.random.split(jax.random.key(0), 4)

    @jax.jit
    def terms_of(batch, keys):
        inputs = make_inputs(batch, keys, model.config, label_sets=SETS)
        return model.apply(variables, inputs, keys, stage, method=objective.loss_terms)

    with_parts = {name: array[HAS_PARTS] for name, array in batch.items()}
    found, expected = terms_of(batch, keys), terms_of(with_parts, keys[HAS_PARTS])
    np.testing.assert_allclose(found["fine"].mean, expected["fine"].mean, rtol=1e-5)
    assert (found["fine"].size, found["coarse"].size) == (4, 4)
    assert abs(found["coarse"].mean - expected["coarse"].mean) > 1e-3


@pytest.mark.slow
def test_one_device_and_four_agree(monkeypatch):
    model = small_model(anatomy=BROWS, cropper="centroid", coarse_size=32)
    model = model.clone(axis_name=step.AXIS)
    variables, tx = random_variables(model), optax.sgd(1e-2)
    monkeypatch.setattr(step, "make_optimizer", lambda *_: tx)
    stage = Stage("joint", 1, {"coarse": 1e-3, "fine": 1e-3}, {"coarse": 1.0, "fine": 1.0})
    results = {}
    for count in (1, 4):
        state = new_state(variables)
        state = dataclasses.replace(state, opt_state=tx.init(state.params))
        shapes = jax.eval_shape(lambda state: state, state)
        take_step = step.compile_train_step(
            model,
            stage,
            1,
            1,
            shapes,
            mixed_batch(0),
            seed=1,
            augmentation=AugmentConfig(mirror=True),
            label_sets=SETS,
            devices=jax.devices()[:count],
        )
        losses = []
        for i in range(3):
            state, metrics = take_step(state, mixed_batch(i))
            losses.append(np.asarray(metrics["loss"])[0])
        results[count] = jax.device_get(state.params), losses
    np.testing.assert_allclose(results[1][1], results[4][1], rtol=1e-4)
    jax.tree.map(
        lambda one, four: np.testing.assert_allclose(one, four, rtol=0, atol=1e-4),
        results[1][0],
        results[4][0],
    )


# A run whose process is killed after its fourth step; see tests/test_loop.py.
KILLED = """
import os, signal, sys
import pytest
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
import test_loop, test_mixed_step

with pytest.MonkeyPatch.context() as monkeypatch:
    test_mixed_step.replace_data(monkeypatch)
    steps = test_loop.FakeSteps()
    steps.hook = test_loop.at(4, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    test_loop.train(test_mixed_step.make_config(), Path({workdir!r}), steps)
"""


def replace_data(monkeypatch):
    import test_loop

    from jax_stn_icnn import anatomy
    from jax_stn_icnn.anatomy import DataSet
    from jax_stn_icnn.data import opening
    from jax_stn_icnn.evaluation import draw
    from jax_stn_icnn.train import loop

    monkeypatch.setitem(anatomy.ANATOMIES, "brows", BROWS)
    names = anatomy.DATA_SETS["synthetic_faces"].classes
    unions = {name: "ignore" if "brow" in name else "background+skin" for name in names}
    monkeypatch.setitem(anatomy.DATA_SETS, "hairy", DataSet(unions, "resize"))
    monkeypatch.setattr(loop, "init_variables", lambda m, seed: random_variables(m, seed=seed))
    monkeypatch.setattr(draw, "curves", lambda path, metrics, anatomy: path.touch())
    count = {"synthetic_faces": 12, "hairy": 5}
    monkeypatch.setattr(
        opening, "open_source", lambda _, name, __: test_loop.make_records(count[name])
    )


def make_config():
    import test_loop

    config = test_loop.make_config("coarse", "fine", checkpoint_every_steps=2)
    config.dataset.sources.hairy = common.source("hairy", weight=0.5)
    return config


@pytest.mark.slow
def test_a_run_on_a_mixture_that_is_killed_resumes_to_the_bit(tmp_path, monkeypatch):
    import test_loop

    folder = Path(__file__).parent
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = KILLED.format(tests=str(folder), root=str(folder.parent), workdir=str(killed))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    replace_data(monkeypatch)
    assert test_loop.latest_step(killed) == 2
    for workdir in (whole, killed):
        test_loop.train(make_config(), workdir, test_loop.FakeSteps())
    found, expected = (test_loop.final_state(make_config(), one) for one in (killed, whole))
    assert int(expected.step) == 12
    jax.tree.map(np.testing.assert_array_equal, found, expected)
