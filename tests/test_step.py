from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_model

from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import ELEVEN
from jax_stn_icnn.data.inputs import make_inputs
from jax_stn_icnn.data.loader import region_theta
from jax_stn_icnn.io.convert_torch import convert_icnn
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.icnn import ICNN
from jax_stn_icnn.models.pipeline import STNiCNN, init_variables
from jax_stn_icnn.train import losses, objective, step
from jax_stn_icnn.train.consensus import mean_consensus_loss
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.stages import Consensus, Edges, Stage
from jax_stn_icnn.train.state import TrainState

GOLDEN = Path(__file__).parent / "golden"
STEPS = 10
STAGE = Stage("localizer", 1, {"localizer": 1e-3}, {"localizer": 1.0})
STAGE_OF_COARSE = Stage("coarse", 1, {"coarse": 1e-3}, {"coarse": 1.0})


def make_batch(seed, batch=4, size=48, num_classes=9):
    rng = np.random.default_rng(seed)
    label_map = np.zeros((batch, size, size), np.uint8)
    for example in range(batch):
        # Example k lacks the first 2 k classes: devices must not count their parts alike.
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
    """Ten steps of the localizer stage on one device and on four."""
    # An untrained mask is all but constant, the more so of fewer layers, and BatchNorm blows its
    # rounding errors up.
    model = small_model(interlinks=3).clone(axis_name=step.AXIS)
    variables = jax.tree.map(np.array, init_variables(model, 0))
    variables["params"]["coarse"]["head_3"]["kernel"] *= 30
    # Plain descent: Adam divides by the gradient's size, so that where a gradient is nothing but
    # rounding, two runs of the same thing part by the learning rate.
    tx = optax.sgd(1e-4)
    results, traces = {}, []
    traced = make_inputs

    def counted(*args, **options):
        traces.append(1)
        return traced(*args, **options)

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(step, "make_inputs", counted)
    monkeypatch.setattr(step, "make_optimizer", lambda *_: tx)
    for count in (1, 4):
        params, batch_stats = variables["params"], variables["batch_stats"]
        state = TrainState(np.int32(0), params, batch_stats, tx.init(params))
        shapes, devices = jax.eval_shape(lambda state: state, state), jax.devices()[:count]
        take_step = step.compile_train_step(
            model, STAGE, 1, 1, shapes, make_batch(0), seed=1, augmented=True, devices=devices
        )
        found = []
        for i in range(STEPS):
            state, metrics = take_step(state, make_batch(i))
            found.append(np.asarray(metrics["loss"]))
        results[count] = jax.device_get(state), np.array(found)
    monkeypatch.undo()
    return variables, results, len(traces)


def test_a_stage_is_compiled_once(runs):
    *_, traces = runs
    assert traces == 2  # for one device and for four


def test_one_device_and_four_agree(runs):
    _, results, _ = runs
    (one, one_losses), (four, four_losses) = results[1], results[4]
    assert np.ptp(four_losses, axis=1).max() == 0
    # Sums of other shares of the batch round otherwise, by up to 1.1e-5 on one kind of processor;
    # where devices do not share BatchNorm's statistics, losses part by 2e-2 to 3e-1.
    np.testing.assert_allclose(four_losses[:, 0], one_losses[:, 0], rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4),
        (one.params, one.batch_stats),
        (four.params, four.batch_stats),
    )


def test_finer_labels_lie_where_the_parse_puts_them():
    size = 128
    config = ModelConfig(anatomy=ELEVEN, coarse_network="unet", coarse_stride=2, coarse_size=32)
    columns = np.arange(1, size)  # where class 1 begins, in one example each
    batch = make_batch(0, batch=len(columns), size=size)
    batch["labels"] = np.uint8(np.arange(size) >= columns[:, None, None]) * np.ones(
        (size, 1), np.uint8
    )

    @jax.jit
    def carried(batch):
        inputs = make_inputs(batch, None, config, augmented=False, mirrored=False)
        whole = jnp.float32(inputs.global_labels == 1)[..., None]
        return inputs.coarse_labels, ops.upsample_bilinear(whole, (size, size))[..., 0]

    coarse, found = carried(batch)
    np.testing.assert_array_equal(coarse, batch["labels"][:, ::4, ::4])  # as in the original
    away = size - np.sum(found[:, 0], axis=1) - columns
    # Read at floor(i * 48 / 24), like the rough mask's, they are up to 1.47 away, .51 on average.
    assert np.max(np.abs(away)) < 1.1 and abs(np.mean(away)) < 0.05


def test_frozen_networks_do_not_change_by_a_bit(runs):
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


def test_a_batch_that_does_not_divide_is_refused_before_anything_compiles():
    model = STNiCNN(ModelConfig(patch_size=15), axis_name=step.AXIS)
    batch = make_batch(0, batch=6)
    with pytest.raises(ValueError, match="batch_size is 6, but must be a multiple .* 4"):
        step.compile_train_step(model, STAGE, 1, 1, None, batch, seed=0, augmented=False)
    with pytest.raises(ValueError, match="multiple"):
        step.check_batch_size(6, 4)


@pytest.mark.parametrize(
    ("examples", "patch_size", "save_memory"),
    # 16,384 pixels of coarse image and six patches for each of two examples on a device.
    [(8, 53, False), (8, 137, False), (8, 139, True)],
)
def test_only_a_large_batch_is_ordered_for_memory(examples, patch_size, save_memory, monkeypatch):
    asked = []

    def kept(name, made_from, lower, compile, devices):
        asked.append(compile.keywords)

    monkeypatch.setattr(step, "cached_program", kept)
    model = STNiCNN(ModelConfig(patch_size=patch_size), axis_name=step.AXIS)
    batch = make_batch(0, batch=examples)
    step.compile_train_step(model, STAGE, 1, 1, {}, batch, seed=0, augmented=False)
    assert asked == [{"save_memory": save_memory}]


@pytest.fixture(scope="module")
def joint_inputs():
    """A small parser, its variables, and what it sees of a batch in joint training."""
    model = small_model(cropper="centroid")
    batch, keys = make_batch(0, batch=2), jax.random.split(jax.random.key(0), 2)
    inputs = make_inputs(batch, keys, model.config, augmented=False, mirrored=False)
    return model, init_variables(model, 0), inputs, keys


def joint_stage(edges=None, **consensus):
    weights = {"coarse": 1.0, "fine": 1.0}
    return Stage(
        "joint", 1, weights, weights, consensus=Consensus(**consensus), edges=edges or Edges()
    )


@pytest.mark.slow
def test_consensus_is_added_by_its_weight_and_share(joint_inputs):
    model, variables, inputs, keys = joint_inputs

    @jax.jit  # in one program, which runs the networks once
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
        alone = mean_consensus_loss(logits, inputs.coarse_labels, connected=False)
        return terms(), terms(0.5, coarse=0.5, fine=2.0), alone

    plain, added, alone = means(variables)
    np.testing.assert_allclose(added["coarse"] - plain["coarse"], alone / 4, rtol=1e-4)
    assert added["fine"] > plain["fine"] + 0.1


@pytest.mark.slow
def test_without_weights_consensus_and_edges_leave_the_program_as_it_is(joint_inputs):
    model, variables, inputs, keys = joint_inputs

    def lowered(stage):
        def loss(variables, share):
            out = model.apply(variables, inputs, keys, stage, share, method=objective.loss_terms,
                              mutable=["batch_stats"])  # fmt: skip
            return out[0]

        return jax.jit(loss, keep_unused=True).lower(variables, 1.0).as_text()

    off = lowered(joint_stage(Edges(within=5), regions="connected", alpha=1.0, warmup_epochs=2.0))
    assert off == lowered(joint_stage())
    assert off != lowered(joint_stage(fine=0.1)) != lowered(joint_stage(Edges(fine=0.1)))


def test_consensus_warms_up_over_a_stages_first_steps():
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
        lambda state, _: step.descend(state, loss_of, tx, ["coarse"]),
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


def test_terms_count_by_what_takes_part():
    """Two devices with 1 and 3 parts: their mean must be that of all four parts."""
    found = {"localizer": objective.Term(jnp.array([8.0, 4.0]), jnp.array([1.0, 3.0]))}
    loss, _ = jax.vmap(lambda term: objective.weighted_sum(term, STAGE, "axis"), axis_name="axis")(
        found
    )
    assert float(jnp.mean(loss)) == pytest.approx((8.0 + 3 * 4.0) / 4)


def test_jitter_moves_each_window_by_whole_pixels():
    size, jitter = 48, 3
    theta = jnp.zeros((8, 6, 2, 3))
    keys = jax.random.split(jax.random.key(0), 8)
    moved = np.asarray(objective.jittered(theta, keys, jitter, size))
    pixels = moved[..., 2] * (size - 1) / 2
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-4)
    assert set(np.round(pixels).ravel()) == set(range(-jitter, jitter + 1))
    assert not np.any(moved[..., :2])
    still = objective.jittered(theta, keys, 0, size)
    np.testing.assert_array_equal(still, theta)


def test_adam_is_optax_adam_for_the_learning_network():
    params = {"coarse": {"w": np.array([1.0, -2.0], np.float32)}, "fine": {"w": np.float32(3)}}
    stage = Stage("coarse", 1, {"coarse": 0.1}, {"coarse": 1.0})
    tx = make_optimizer(stage, 10, 5)

    def loss_of(variables):
        loss = jnp.sum(variables["params"]["coarse"]["w"] ** 2)
        return loss, ({"loss": loss}, variables["batch_stats"])

    state = TrainState(np.int32(0), params, {}, tx.init(params))
    take_step = jax.vmap(
        lambda state, _: step.descend(state, loss_of, tx, ["coarse"]),
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
