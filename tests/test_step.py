import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import BROWS, random_variables, small_model

from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import ELEVEN
from jax_stn_icnn.data.config import AugmentConfig
from jax_stn_icnn.data.examples import region_theta
from jax_stn_icnn.data.inputs import make_inputs
from jax_stn_icnn.io.convert_torch import convert_icnn
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.icnn import ICNN
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import losses, objective, step
from jax_stn_icnn.train.consensus import mean_consensus_loss
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.stages import Consensus, Edges, Stage
from jax_stn_icnn.train.state import TrainState, new_state

GOLDEN = Path(__file__).parent / "golden"
STEPS = 4
STAGE = Stage("localizer", 1, {"localizer": 1e-3}, {"localizer": 1.0})
STAGE_OF_COARSE = Stage("coarse", 1, {"coarse": 1e-3}, {"coarse": 1.0})


def make_batch(seed, batch=4, size=48, num_classes=9):
    rng = np.random.default_rng(seed)
    label_map = np.zeros((batch, size, size), np.uint8)
    for example in range(batch):
        # Example k lacks the first 2 k classes: devices have different numbers of parts.
        for c in range(1 + 2 * example, num_classes):
            y, x = rng.integers(4, size - 8, 2)
            label_map[example, y : y + 5, x : x + 5] = c
    return {
        "frame": rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8),
        "labels": label_map,
        "region": np.tile(region_theta(0, 0, size, size, size), (batch, 1, 1)),
        "position": np.arange(batch, dtype=np.int32),
        "index": np.arange(batch, dtype=np.int32),
        "mask": np.ones(batch, bool),
    }


@pytest.fixture(scope="module")
def runs():
    """A few steps of the localizer stage on one device and on four."""
    model = small_model(anatomy=BROWS, cropper="vgg9", coarse_size=32).clone(axis_name=step.AXIS)
    variables = random_variables(model)
    # Plain gradient descent: where a gradient is rounding error only, Adam normalizes it, and two
    # equal runs would differ by the learning rate.
    tx = optax.sgd(1e-2)
    results, traces = {}, []

    def count_traces(*args, **options):
        traces.append(1)
        return make_inputs(*args, **options)

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(step, "make_inputs", count_traces)
    monkeypatch.setattr(step, "make_optimizer", lambda *_: tx)
    for count in (1, 4):
        state = new_state(variables)
        state = dataclasses.replace(state, opt_state=tx.init(state.params))
        take_step = step.compile_train_step(
            model,
            STAGE,
            1,
            1,
            jax.eval_shape(lambda state: state, state),
            make_batch(0, num_classes=4),
            seed=1,
            augmentation=AugmentConfig(variants=True),
            devices=jax.devices()[:count],
        )
        found = []
        for i in range(STEPS):
            state, metrics = take_step(state, make_batch(i, num_classes=4))
            found.append(np.asarray(metrics["loss"]))
        results[count] = jax.device_get(state), np.array(found)
    monkeypatch.undo()
    return variables, results, len(traces)


def test_a_stage_is_compiled_once(runs):
    *_, traces = runs
    assert traces == 2  # one for each number of devices


def test_one_device_and_four_agree(runs):
    _, results, _ = runs
    (one, one_losses), (four, four_losses) = results[1], results[4]
    assert np.ptp(four_losses, axis=1).max() == 0
    # Sums over another number of devices round differently.
    np.testing.assert_allclose(four_losses[:, 0], one_losses[:, 0], rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4),
        (one.params, one.batch_stats),
        (four.params, four.batch_stats),
    )


def test_global_labels_are_where_global_logits_are_mapped_to():
    size = 128
    config = ModelConfig(anatomy=ELEVEN, coarse_network="unet", coarse_stride=2, coarse_size=32)
    columns = np.arange(1, size)  # first column of class 1, in one example each
    batch = make_batch(0, batch=len(columns), size=size)
    batch["labels"] = np.uint8(np.arange(size) >= columns[:, None, None]) * np.ones(
        (size, 1), np.uint8
    )

    @jax.jit
    def labels_of(batch):
        inputs = make_inputs(batch, None, config)
        member = jnp.float32(inputs.global_labels == 1)[..., None]
        return inputs.coarse_labels, ops.upsample_bilinear(member, (size, size))[..., 0]

    coarse, found = labels_of(batch)
    np.testing.assert_array_equal(coarse, batch["labels"][:, ::4, ::4])  # the original's rule
    away = size - np.sum(found[:, 0], axis=1) - columns
    # Taken as the coarse labels are, they would be half a pixel away on average.
    assert np.max(np.abs(away)) < 1.1 and abs(np.mean(away)) < 0.05


def test_parameters_and_statistics_of_frozen_networks_do_not_change_by_a_bit(runs):
    before, results, _ = runs
    after = results[4][0]
    for network in ("coarse", "fine"):
        for collection, now in (("params", after.params), ("batch_stats", after.batch_stats)):
            jax.tree.map(np.testing.assert_array_equal, now[network], before[collection][network])
    for tree, collection in ((after.params, "params"), (after.batch_stats, "batch_stats")):
        pairs = zip(
            jax.tree.leaves(tree["localizer"]),
            jax.tree.leaves(before[collection]["localizer"]),
            strict=True,
        )
        assert any(np.any(a != b) for a, b in pairs)
    assert int(after.step) == STEPS


def test_a_batch_that_cannot_be_divided_is_refused_before_compiling():
    model = STNiCNN(ModelConfig(patch_size=15), axis_name=step.AXIS)
    batch = make_batch(0, batch=6)
    with pytest.raises(ValueError, match="batch_size is 6, but must be a multiple .* 4"):
        step.compile_train_step(model, STAGE, 1, 1, None, batch, seed=0)
    with pytest.raises(ValueError, match="multiple"):
        step.check_batch_size(6, 4)


@pytest.mark.parametrize(
    ("examples", "patch_size", "save_memory"),
    # Each of two examples on a device has a coarse segmentation of 16,384 pixels and six patches.
    [(8, 53, False), (8, 137, False), (8, 139, True)],
)
def test_only_a_large_batch_is_scheduled_for_memory(examples, patch_size, save_memory, monkeypatch):
    found = []

    def cached_program(name, key, lower, compile, devices):
        found.append(compile.keywords)

    monkeypatch.setattr(step, "cached_program", cached_program)
    model = STNiCNN(ModelConfig(patch_size=patch_size), axis_name=step.AXIS)
    batch = make_batch(0, batch=examples)
    step.compile_train_step(model, STAGE, 1, 1, {}, batch, seed=0)
    assert found == [{"save_memory": save_memory}]


@pytest.fixture(scope="module")
def joint_inputs():
    """A small model, its variables, the inputs of a batch, and keys."""
    model = small_model(anatomy=BROWS, cropper="centroid", coarse_size=32)
    batch, keys = make_batch(0, batch=2, num_classes=4), jax.random.split(jax.random.key(0), 2)
    inputs = make_inputs(batch, keys, model.config)
    return model, random_variables(model), inputs, keys


def joint_stage(edges=None, **consensus):
    weights = {"coarse": 1.0, "fine": 1.0}
    return Stage(
        "joint", 1, weights, weights, consensus=Consensus(**consensus), edges=edges or Edges()
    )


@pytest.mark.slow
def test_consensus_is_added_by_its_weight_and_share(joint_inputs):
    model, variables, inputs, keys = joint_inputs

    @jax.jit  # one program, which runs the networks once
    def means(variables):
        def terms(share=1.0, **consensus):
            given = variables, inputs, keys, joint_stage(**consensus), share
            found, _ = model.apply(*given, method=objective.loss_terms, mutable=["batch_stats"])
            return {name: term.mean for name, term in found.items()}

        (logits, *_), _ = model.apply(
            variables,
            inputs.coarse_image,
            train=True,
            method=model.coarse_stage,
            mutable=["batch_stats"],
        )
        alone = mean_consensus_loss(logits, inputs.coarse_labels)
        return terms(), terms(0.5, coarse=0.5, fine=2.0), alone

    plain, added, alone = means(variables)
    np.testing.assert_allclose(added["coarse"] - plain["coarse"], alone / 4, rtol=1e-4)
    assert added["fine"] > plain["fine"] + 0.1


@pytest.mark.slow
def test_part_weights_weight_the_parts_of_the_fine_term(joint_inputs):
    model, variables, inputs, keys = joint_inputs

    @jax.jit
    def fine_terms(variables):
        def fine(part_weights):
            stage = dataclasses.replace(joint_stage(), part_weights=part_weights)
            given = variables, inputs, keys, stage
            terms, _ = model.apply(*given, method=objective.loss_terms, mutable=["batch_stats"])
            return terms["fine"].mean

        return [fine(weights) for weights in (None, (1.0, 0.0), (0.0, 1.0), (2.0, 3.0))]

    plain, first, second, both = fine_terms(variables)
    np.testing.assert_allclose(first + second, plain, rtol=1e-6)
    np.testing.assert_allclose(both, 2 * first + 3 * second, rtol=1e-6)


@pytest.mark.slow
def test_without_weights_consensus_and_edges_do_not_change_the_program(joint_inputs):
    model, variables, inputs, keys = joint_inputs

    def lowered(stage):
        def loss(variables, share):
            out = model.apply(variables, inputs, keys, stage, share, method=objective.loss_terms,
                              mutable=["batch_stats"])  # fmt: skip
            return out[0]

        return jax.jit(loss, keep_unused=True).lower(variables, 1.0).as_text()

    off = lowered(joint_stage(warmup_epochs=2.0))
    assert off == lowered(joint_stage())
    assert off != lowered(joint_stage(fine=0.1)) != lowered(joint_stage(Edges(fine=0.1)))


def test_consensus_has_a_warmup_in_each_stage():
    consensus = Consensus(coarse=1.0, warmup_epochs=0.5)
    params = {"coarse": {"w": np.ones(1, np.float32)}, "fine": {"w": np.ones(1, np.float32)}}
    tx = make_optimizer(STAGE_OF_COARSE, 8, 5)
    state, shares = tx.init(params), []
    for _ in range(5):
        shares.append(float(step.consensus_share(consensus, state, 8)))
        _, state = tx.update(params, state, params)
    assert shares == [0.25, 0.5, 0.75, 1, 1]
    assert step.consensus_share(Consensus(warmup_epochs=0.5), state, 8) == 1
    assert step.consensus_share(Consensus(coarse=1.0), state, 8) == 1


@pytest.mark.slow
def test_six_adam_steps_follow_pytorch():
    weights, adam = np.load(GOLDEN / "icnn.npz"), np.load(GOLDEN / "adam.npz")
    state = {k.removeprefix("state/"): weights[k] for k in weights if k.startswith("state/")}
    variables = convert_icnn(state, 9)
    image = jnp.asarray(weights["x"].transpose(0, 2, 3, 1))
    label_map = jnp.asarray(weights["y_int64"].astype(np.int32))
    network = ICNN(9, axis_name=step.AXIS)
    stage = Stage("coarse", 1, {"coarse": float(adam["learning_rate"])}, {"coarse": 1.0})
    tx = make_optimizer(stage, 1000, 5)

    def loss_of(variables):
        inner = {collection: tree["coarse"] for collection, tree in variables.items()}
        logits, updated = network.apply(inner, image, train=True, mutable=["batch_stats"])
        loss = losses.cross_entropy(logits, label_map)
        return loss, ({"loss": loss}, {"coarse": updated["batch_stats"]})

    take_step = jax.pmap(
        lambda state, _: step.gradient_step(state, loss_of, tx, ["coarse"]),
        axis_name=step.AXIS,
        in_axes=(None, 0),
        out_axes=(None, 0),
        devices=jax.devices()[:1],
    )
    params = {"coarse": variables["params"]}
    stats = {"coarse": variables["batch_stats"]}
    state, found = TrainState(np.int32(0), params, stats, tx.init(params)), []
    for _ in adam["losses"]:
        state, metrics = take_step(state, np.zeros(1))
        found.append(float(metrics["loss"][0]))
    np.testing.assert_allclose(found, adam["losses"], rtol=1e-3)


def test_the_mean_over_devices_is_that_over_all_parts():
    """Two devices with 1 and 3 parts."""
    terms = {"localizer": objective.Term(jnp.array([8.0, 4.0]), jnp.array([1.0, 3.0]))}

    def on_device(terms):
        return objective.weighted_sum(terms, STAGE, "axis")

    loss, _ = jax.vmap(on_device, axis_name="axis")(terms)
    assert float(jnp.mean(loss)) == pytest.approx((8.0 + 3 * 4.0) / 4)


def test_jitter_shifts_each_window_by_whole_pixels():
    size, jitter = 48, 3
    theta = jnp.zeros((8, 6, 2, 3))
    keys = jax.random.split(jax.random.key(0), 8)
    moved = np.asarray(objective.jitter_windows(theta, keys, jitter, size))
    pixels = moved[..., 2] * (size - 1) / 2
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-4)
    assert set(np.round(pixels).ravel()) == set(range(-jitter, jitter + 1))
    assert not np.any(moved[..., :2])
    still = objective.jitter_windows(theta, keys, 0, size)
    np.testing.assert_array_equal(still, theta)


def test_a_trained_network_is_updated_by_optax_adam():
    params = {"coarse": {"w": np.array([1.0, -2.0], np.float32)}, "fine": {"w": np.float32(3)}}
    stage = Stage("coarse", 1, {"coarse": 0.1}, {"coarse": 1.0})
    tx = make_optimizer(stage, 10, 5)

    def loss_of(variables):
        loss = jnp.sum(variables["params"]["coarse"]["w"] ** 2)
        return loss, ({"loss": loss}, variables["batch_stats"])

    state = TrainState(np.int32(0), params, {}, tx.init(params))
    take_step = jax.vmap(
        lambda state, _: step.gradient_step(state, loss_of, tx, ["coarse"]),
        axis_name=step.AXIS,
        in_axes=(None, 0),
        out_axes=(None, 0),
    )
    state, metrics = take_step(state, jnp.zeros(2))
    adam = optax.adam(0.1)
    gradient = 2 * params["coarse"]["w"]
    update, _ = adam.update(gradient, adam.init(params["coarse"]["w"]))
    np.testing.assert_allclose(state.params["coarse"]["w"], params["coarse"]["w"] + update)
    assert state.params["fine"]["w"] == 3
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(gradient), rtol=1e-6)
