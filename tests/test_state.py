import grain
import jax
import numpy as np
import pytest
from conftest import random_variables, small_model

from jax_stn_icnn.anatomy import ELEVEN
from jax_stn_icnn.io import weights
from jax_stn_icnn.io.weights import WEIGHTS
from jax_stn_icnn.train.checkpoints import Checkpoints
from jax_stn_icnn.train.state import TrainState, load_variables

FRAME = 32


def make_state(step, seed=0):
    rng = np.random.default_rng(seed)
    return TrainState(
        np.int32(step),
        {"coarse": {"w": rng.random((3, 2), np.float32)}},
        {"coarse": {"mean": rng.random(2, np.float32)}},
        ({"mu": rng.random((3, 2), np.float32), "count": np.int32(step)},),
    )


def make_iterator():
    order = grain.MapDataset.range(100).seed(3).shuffle().repeat().batch(2)
    return iter(order.to_iter_dataset())


def test_a_checkpoint_restores_everything_exactly(tmp_path):
    iterator = make_iterator()
    for _ in range(5):
        next(iterator)
    checkpoints = Checkpoints(tmp_path)
    state, record = make_state(5, seed=1), {"stage": "coarse", "seed": 7}
    checkpoints.save(state, iterator, record, rank=0.5)
    expected = [next(iterator) for _ in range(3)]
    checkpoints.close()

    checkpoints, iterator = Checkpoints(tmp_path), make_iterator()
    assert checkpoints.latest_step == 5
    assert checkpoints.read_record(5) == record
    restored = checkpoints.restore(5, make_state(0), iterator)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    np.testing.assert_array_equal([next(iterator) for _ in range(3)], expected)


def test_the_latest_two_and_the_best_are_stored(tmp_path):
    checkpoints, iterator = Checkpoints(tmp_path), make_iterator()
    ranks = {1: 0.1, 2: 0.9, 3: 0.3, 4: None, 5: 0.4, 6: None}
    for step, rank in ranks.items():
        checkpoints.save(make_state(step), iterator, {}, rank)
    checkpoints.close()
    assert {int(path.name) for path in (tmp_path / "checkpoints").iterdir()} == {2, 5, 6}


def test_an_incomplete_checkpoint_is_ignored(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make_state(3), make_iterator(), {}, 0.5)
    checkpoints.close()
    half = tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step == 3
    checkpoints.close()


@pytest.fixture(scope="module")
def parser():
    model = small_model(cropper="centroid")
    return model, random_variables(model)


def test_weights_are_loaded_from_a_file_and_from_a_run(parser, tmp_path):
    model, variables = parser
    weights.save_weights(tmp_path / WEIGHTS, variables, model.config, FRAME)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]
    for source in (tmp_path, tmp_path / WEIGHTS):
        loaded = load_variables(str(source), model, variables)
        jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_weights_of_another_model_are_refused(parser, tmp_path):
    model, variables = parser
    other = small_model(cropper="vgg9")
    weights.save_weights(tmp_path / WEIGHTS, random_variables(other), other.config, FRAME)
    with pytest.raises(ValueError, match="cropper 'vgg9', but .* model.cropper='centroid'"):
        load_variables(str(tmp_path), model, variables)
    eleven = small_model(cropper="centroid", anatomy=ELEVEN)
    with pytest.raises(ValueError, match="has the classes 'nine', but .* model.anatomy='eleven'"):
        load_variables(str(tmp_path), eleven, random_variables(eleven))
    weights.save_weights(tmp_path / WEIGHTS, {"params": variables["params"]}, model.config, FRAME)
    with pytest.raises(ValueError, match="missing: batch_stats"):
        load_variables(str(tmp_path), model, variables)
    with pytest.raises(FileNotFoundError, match="init_from"):
        load_variables(str(tmp_path / "nothing"), model, variables)


def test_some_networks_of_another_model_can_be_loaded(parser, tmp_path):
    model, variables = parser
    weights.save_weights(tmp_path / WEIGHTS, variables, model.config, FRAME)
    eleven = small_model(cropper="centroid", anatomy=ELEVEN)
    fresh = random_variables(eleven, seed=1)
    loaded = load_variables(str(tmp_path), eleven, fresh, ("fine",))
    for collection in ("params", "batch_stats"):
        jax.tree.map(
            np.testing.assert_array_equal, loaded[collection]["fine"], variables[collection]["fine"]
        )
        jax.tree.map(
            np.testing.assert_array_equal, loaded[collection]["coarse"], fresh[collection]["coarse"]
        )


def test_what_an_option_adds_to_loaded_networks_is_initialized(tmp_path):
    options = {"coarse_network": "unet", "coarse_channels": (4, 16)}
    plain = small_model(**options)
    attending = small_model(**options, attention=1, edge_head=True)
    variables, fresh = random_variables(plain), random_variables(attending, seed=1)
    weights.save_weights(tmp_path / WEIGHTS, variables, plain.config, FRAME)
    loaded = load_variables(str(tmp_path), attending, fresh)
    added = loaded["params"]["coarse"].pop("attention_1")
    jax.tree.map(np.testing.assert_array_equal, added, fresh["params"]["coarse"]["attention_1"])
    edges = loaded["params"]["coarse"].pop("edges")
    jax.tree.map(np.testing.assert_array_equal, edges, fresh["params"]["coarse"]["edges"])
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    weights.save_weights(tmp_path / WEIGHTS, fresh, attending.config, FRAME)
    with pytest.raises(ValueError, match="unknown: params/coarse/attention_1"):
        load_variables(str(tmp_path), plain, variables)
