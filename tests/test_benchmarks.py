"""The PyTorch peer returns the same values, and the minimum work is counted correctly."""

import copy
import json
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_variables

from benchmarks import inputs, loader, process, results, rows, sampler, timing, training, work
from jax_stn_icnn import ops
from jax_stn_icnn.data.inputs import make_inputs
from jax_stn_icnn.models.config import CHANNELS, ModelConfig
from jax_stn_icnn.models.icnn import ICNN
from jax_stn_icnn.models.localizer import VGG9Localizer
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import objective

# The peers are in an extra, which CI installs before its slow tests.
pytestmark = pytest.mark.slow

SIZE, PATCH = 128, 21
# Three rows: the highest, the lowest, and one between them.
SMALL = {"coarse_channels": (4, 6, 8), "fine_channels": (4, 6, 8), "interlinks": 2}
CONFIG = ModelConfig(patch_size=PATCH, **SMALL)


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip("torch", reason="the peer needs the extra `benchmarks`")
    from benchmarks import torch_peer

    return torch_peer


@pytest.fixture(scope="module")
def pair(peer):
    """The model and the peer with equal random weights, whose windows are in the frame; frames."""
    model = STNiCNN(CONFIG)
    variables = random_variables(model)
    dense = variables["params"]["localizer"]["dense"]
    dense["kernel"], dense["bias"] = dense["kernel"] / 20, rows.localizer_bias(CONFIG, SIZE)
    theirs = peer.STNiCNN(CONFIG)
    peer.load(theirs, variables)
    return model, variables, theirs.eval(), inputs.random_frames(2, SIZE)


def test_intermediates_equal_those_of_the_peer(peer, pair):
    model, variables, theirs, frames = pair
    output = jax.jit(model.apply)(variables, frames)
    with peer.torch.inference_mode():
        logits, theta, fine_logits = theirs(peer.to_float(frames))
    np.testing.assert_allclose(np.moveaxis(logits.numpy(), 1, -1), output.coarse_logits, atol=1e-3)
    np.testing.assert_allclose(theta.numpy(), output.theta, atol=1e-5)
    for ours, part in zip(output.fine_logits, fine_logits, strict=True):
        np.testing.assert_allclose(np.moveaxis(part.numpy(), 1, -1), ours, atol=2e-3)
    found = theirs.parse(frames)
    assert found.dtype == np.uint8 and len(np.unique(found)) > 2
    assert np.mean(found == output.labels) > 0.999


def test_loss_terms_equal_those_of_the_peer(peer, pair):
    stage = training.STAGES["joint"]
    model, variables, theirs, frames = pair
    label_map = inputs.drawn_labels(2, SIZE)
    label_map[0][label_map[0] == 7] = 0
    label_map[1][label_map[1] == 1] = 0  # A part lacks a class, and a part is absent.
    batch = rows.training_batch(2, SIZE) | {"labels": label_map}

    @jax.jit
    def terms(variables, batch):
        made = make_inputs(batch, None, CONFIG)
        options = {"method": objective.loss_terms, "mutable": ["batch_stats"]}
        return model.apply(variables, made, None, stage, **options)[0]

    ours = terms(variables, batch)
    assert ours.keys() == stage.loss_weights.keys()
    theirs = copy.deepcopy(theirs)
    for name, term in ours.items():
        weights = dict.fromkeys(ours, 0.0) | {name: 1.0}
        them = peer.Training(theirs, stage.learning_rates, weights, "float32")
        loss = them.loss(peer.to_float(frames), peer.torch.from_numpy(label_map).long())
        np.testing.assert_allclose(loss.item(), term.mean, rtol=1e-3)


@pytest.mark.parametrize(
    ("module", "shape", "name"),
    [
        (ICNN(9), (2, 33, 40, 3), "coarse"),
        (VGG9Localizer(), (2, 64, 64, 9), "localizer"),
    ],
)
def test_operations_equal_the_count_of_pytorch(peer, module, shape, name):
    from torch.utils.flop_counter import FlopCounterMode

    theirs = getattr(peer.STNiCNN(ModelConfig()), name)
    x = peer.torch.zeros(shape).permute(0, 3, 1, 2).requires_grad_()
    counter = FlopCounterMode(display=False)
    with counter:
        theirs(x).sum().backward()
    macs = work.multiply_accumulates(module, jax.ShapeDtypeStruct(shape, jnp.float32), train=False)
    if name == "coarse":
        # PyTorch upsamples the row below and computes 25 taps instead of 9, in three interlinking
        # layers and once in the integration, for each of the three upper rows.
        for row, size in enumerate((33 * 40, 17 * 20, 9 * 10)):
            outputs, below = CHANNELS[row], CHANNELS[row + 1]
            macs += 2 * size * outputs * below * (25 - 9) * (3 + 1)
    # Operations outside of convolutions and dense layers are less than a hundredth.
    assert 2 * work.TRAINING * macs == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("name", sampler.CROPS)
@pytest.mark.parametrize("crop", [sampler.crop_by_map_coordinates, sampler.crop_by_dm_pix])
def test_crops_of_peers_are_equal(crop, name):
    if crop is sampler.crop_by_dm_pix:
        pytest.importorskip("dm_pix", reason="a peer of the extra `benchmarks`")
    image = jax.random.uniform(jax.random.key(0), (1, SIZE, SIZE, 3))
    theta = rows.true_theta(1, SIZE, (PATCH, PATCH)).at[..., 2].add(0.003)  # Off whole pixels.
    ours, theirs = (
        sampler.make_call(partial(each, size=(PATCH, PATCH)), (image, theta), sampler.CROPS[name])()
        for each in (ops.crop_bilinear, crop)
    )
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-3)


def test_pastes_of_peers_are_equal(peer):
    theta = rows.true_theta(1, SIZE, (PATCH, PATCH))
    scores = sampler.random_scores(1, PATCH)
    ours, theirs = (
        jax.jit(paste, static_argnums=2)(scores, theta, (SIZE, SIZE))
        for paste in (ops.paste, sampler.paste_by_map_coordinates)
    )
    assert len(np.unique(np.argmax(ours, axis=-1))) == 9
    np.testing.assert_allclose(theirs, ours, atol=1e-6)
    parts = [peer.torch.from_numpy(np.moveaxis(part, -1, 1)) for part in scores]
    theirs = peer.paste(parts, peer.torch.from_numpy(np.array(theta)), SIZE)
    np.testing.assert_allclose(np.moveaxis(theirs.numpy(), 1, -1), ours, atol=1e-6)


def test_bisenet_has_the_published_size(peer):
    from benchmarks import torch_bisenet

    model = torch_bisenet.make(19)
    frames = inputs.random_frames(1, 64)
    assert model.parse(frames).shape == (1, 64, 64) and model.parse(frames).dtype == np.uint8
    # ResNet-18 without its classifier, as in Table 1 of He et al. (2016), counted by torchvision.
    backbone = [*model.stem.parameters(), *model.layers.parameters()]
    assert sum(parameter.numel() for parameter in backbone) == 11_176_512


def test_calls_alternate_and_the_median_is_over_rounds(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing.time, "sleep", lambda _: None)

    def call(name, seconds):
        def run():
            order.append(name)
            clock[0] += seconds

        return run

    found = timing.interleaved({"a": call("a", 1.0), "b": call("b", 4.0)}, rounds=3, duration=2.0)
    assert "".join(order) == "aa" + "bb" + 3 * ("a" + "aa" + "b" + "b")
    assert found == {"a": timing.Times(1, 1, 1), "b": timing.Times(4, 4, 4)}


def test_each_row_is_measured_in_a_process_of_its_own(tmp_path):
    file = tmp_path / "found.json"
    process.run("-m", "benchmarks.run", "--quick", "--only=loader", f"--json={file}")
    found = json.loads(file.read_text())
    assert found["machine"]["cores"] and found["peaks"]["float32"]["operations"] > 0
    assert [result["name"].split(",")[1].strip() for result in found["results"]] == [*loader.SIDES]
    for result in found["results"]:
        median, low, high = result["values"]["ours"]
        assert 0 < low == median == high  # A quick run has one round.


def test_age_is_at_most_the_time_that_the_parent_waited():
    start = time.monotonic()
    age = process.measure(
        "-c", "import time; time.sleep(0.2); from benchmarks import process as p; p.report(p.age())"
    )
    # The kernel counts hundredths of a second.
    assert 0.2 <= age <= time.monotonic() - start + 0.02


def test_fraction_of_peak_is_that_of_the_nearer_limit():
    peak = timing.Peak(operations=100.0, bytes=10.0)
    assert work.fraction_of_peak(work.Work(50, 1), peak, seconds=1.0) == 0.5
    assert work.fraction_of_peak(work.Work(50, 9), peak, seconds=1.0) == 0.9


def test_table_has_ratio_speed_and_fraction_of_peak(monkeypatch):
    times = {"ours": timing.Times(2.0, 1.0, 3.0), "torch": timing.Times(4.0, 4.0, 4.0)}
    monkeypatch.setattr(results, "interleaved", lambda *_: times)
    row = rows.Row("a row", {}, work.Work(1e9, 2e6), images=8, unavailable={"dm_pix": "not there"})
    result = results.measure(row, 3, 0.1, timing.Peak(1e9, 1e9))
    assert result.lines() == [
        "| a row | 2000 (1000..3000) ms | 4 | torch | 4000 ms | 2.00 | 1 | 2 | 50% |",
        "|  |  |  | dm_pix | not available: not there |  |  |  |  |",
    ]
    assert all(line.count("|") == results.HEADER.count("|") for line in result.lines())


def test_peers_that_cannot_run_are_reported_with_the_reason():
    row = rows.Row("a row", {"ours": lambda: None}, None)

    def broken():
        raise RuntimeError("no compiler\nfurther lines")

    def silent():
        raise NotImplementedError

    row.add_peer("torch.compile", broken)
    row.add_peer("torch", silent)
    assert row.unavailable == {
        "torch.compile": "RuntimeError: no compiler",
        "torch": "NotImplementedError: no message",
    }
    assert list(row.calls) == ["ours"]
