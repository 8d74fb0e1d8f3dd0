"""The comparison is fair: the PyTorch peer computes the same, and the work is counted right."""

import copy
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_variables
from jax_stn_icnn.data.views import to_float
from jax_stn_icnn.train.views import make_inputs

from benchmarks import inputs, process, results, rows, sampler, timing, training, work
from jax_stn_icnn import ops
from jax_stn_icnn.models.icnn import CHANNELS, ICNN
from jax_stn_icnn.models.localizer import VGG9Localizer
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import objective

# The peers come with an extra, which CI installs before its slow tests.
pytestmark = pytest.mark.slow

SIZE, PATCH = 128, 21


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip("torch", reason="the peer takes the extra `benchmarks`")
    from benchmarks import torch_peer

    return torch_peer


@pytest.fixture(scope="module")
def pair(peer):
    """The same random weights in both; the localizer's windows lie in the frame."""
    model = STNiCNN((PATCH, PATCH))
    frames = inputs.random_frames(2, SIZE)
    image, pixels = np.zeros((2, 128, 128, 3), np.float32), np.zeros(frames.shape, np.float32)
    variables = random_variables(model, image, pixels)
    _, sensible = rows.parser(PATCH, SIZE)
    dense = variables["params"]["localizer"]["dense"]
    dense["kernel"], dense["bias"] = (
        dense["kernel"] / 20,
        sensible["params"]["localizer"]["dense"]["bias"],
    )
    theirs = peer.STNiCNN(PATCH)
    peer.load(theirs, variables)
    return model, variables, theirs.eval(), frames


def test_every_intermediate_equals_the_peers(peer, pair):
    model, variables, theirs, frames = pair

    @jax.jit
    def apply(variables, frames):
        pixels = to_float(frames)
        return model.apply(variables, ops.resize_bilinear(pixels, (128, 128)), pixels)

    parse = apply(variables, frames)
    with peer.torch.inference_mode():
        logits, theta, fine_logits = theirs(peer.to_float(frames))
    np.testing.assert_allclose(np.moveaxis(logits.numpy(), 1, -1), parse.coarse_logits, atol=1e-3)
    np.testing.assert_allclose(theta.numpy(), parse.theta, atol=1e-5)
    for ours, part in zip(parse.fine_logits, fine_logits, strict=True):
        np.testing.assert_allclose(np.moveaxis(part.numpy(), 1, -1), ours, atol=2e-3)
    found = theirs.parse(frames)
    assert found.dtype == np.uint8 and len(np.unique(found)) > 2
    assert np.mean(found == parse.labels) > 0.999


def test_every_term_of_the_joint_loss_equals_the_peers(peer, pair):
    stage = training.STAGES["joint"]
    model, variables, theirs, frames = pair
    label_map = inputs.drawn_labels(2, SIZE)
    label_map[0][label_map[0] == 7] = 0
    label_map[1][label_map[1] == 1] = 0  # An absent class of a part, and an absent part.
    batch = rows.training_batch(2, SIZE) | {"labels": label_map}

    @jax.jit
    def terms(variables, batch):
        views = make_inputs(batch, None, model, augmented=False, mirrored=False)
        options = {"method": objective.terms, "mutable": ["batch_stats"]}
        return model.apply(variables, views, None, stage, **options)[0]

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
        (VGG9Localizer(), (2, 128, 128, 9), "localizer"),
    ],
)
def test_operations_equal_pytorchs_own_count(peer, module, shape, name):
    from torch.utils.flop_counter import FlopCounterMode

    theirs = getattr(peer.STNiCNN(PATCH), name)
    x = peer.torch.zeros(shape).permute(0, 3, 1, 2).requires_grad_()
    counter = FlopCounterMode(display=False)
    with counter:
        theirs(x).sum().backward()
    macs = work.macs(module, jax.ShapeDtypeStruct(shape, jnp.float32), train=False)
    if name == "coarse":
        # PyTorch upsamples the row below, for 25 taps instead of 9: in three interlinks and once
        # on the way up, for each of the three upper rows.
        for row, size in enumerate((33 * 40, 17 * 20, 9 * 10)):
            outputs, below = CHANNELS[row], CHANNELS[row + 1]
            macs += 2 * size * outputs * below * (25 - 9) * (3 + 1)
    counted = work.network(macs, {}, 0, training=True).operations
    # What is beside convolutions and dense layers is less than a hundredth.
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)


def map_coordinates():
    return sampler._by_map_coordinates


def dm_pix():
    pytest.importorskip("dm_pix", reason="a peer of the extra `benchmarks`")
    return sampler._by_dm_pix()


@pytest.mark.parametrize("name", sampler.NAMES)
@pytest.mark.parametrize("crop_of", [map_coordinates, dm_pix])
def test_the_samplers_peers_sample_the_same(crop_of, name):
    image = jax.random.uniform(jax.random.key(0), (1, SIZE, SIZE, 3))
    theta = rows.true_theta(1, SIZE, PATCH).at[..., 2].add(0.003)  # Off the whole pixels.
    ours = sampler._crop_call(ops.crop_bilinear, name, image, theta, PATCH)()
    found = sampler._crop_call(crop_of(), name, image, theta, PATCH)()
    np.testing.assert_allclose(found, ours, rtol=1e-3, atol=1e-3)


def test_the_pastes_peers_paste_the_same(peer):
    theta = rows.true_theta(1, SIZE, PATCH)
    scores = sampler.random_scores(1, PATCH)
    ours = ops.paste(scores, theta, (SIZE, SIZE))
    assert len(np.unique(np.argmax(ours, axis=-1))) == 9
    found = sampler._paste_by_map_coordinates(scores, theta, (SIZE, SIZE))
    np.testing.assert_allclose(found, ours, atol=1e-6)
    parts = [peer.torch.from_numpy(np.moveaxis(part, -1, 1)) for part in scores]
    found = peer.paste(parts, peer.torch.from_numpy(np.array(theta)), SIZE)
    np.testing.assert_allclose(np.moveaxis(found.numpy(), 1, -1), ours, atol=1e-6)


def test_bisenet_is_of_the_published_size(peer):
    from benchmarks import torch_bisenet

    model = torch_bisenet.make(19)
    frames = inputs.random_frames(1, 64)
    assert model.parse(frames).shape == (1, 64, 64) and model.parse(frames).dtype == np.uint8
    # ResNet-18 without its classifier, as in Table 1 of He et al. (2016), counted by torchvision.
    backbone = [*model.stem.parameters(), *model.layers.parameters()]
    assert sum(parameter.numel() for parameter in backbone) == 11_176_512


def test_rounds_are_interleaved_and_median_is_of_rounds(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing.time, "sleep", lambda _: None)

    def call(name, seconds):
        def run():
            order.append(name)
            clock[0] += seconds

        return run

    found = timing.interleaved({"a": call("a", 1.0), "b": call("b", 4.0)}, rounds=3, turn=2.0)
    assert "".join(order) == "aa" + "bb" + 3 * ("a" + "aa" + "b" + "b")
    assert found == {"a": timing.Times(1, 1, 1), "b": timing.Times(4, 4, 4)}


def test_a_process_is_no_older_than_its_parent_waited_for_it():
    began = time.monotonic()
    told = process.ask(
        "-c", "import time; time.sleep(0.5); from benchmarks import process as p; p.say(p.age())"
    )
    # The kernel counts in hundredths of a second.
    assert 0.5 <= told <= time.monotonic() - began + 0.02


def test_share_is_that_of_the_nearer_limit():
    peak = timing.Peak(operations=100.0, bytes=10.0)
    assert work.share(work.Work(50, 1), peak, seconds=1.0) == 0.5
    assert work.share(work.Work(50, 9), peak, seconds=1.0) == 0.9


def test_a_measured_row_says_ratio_speed_and_share(monkeypatch):
    times = {"ours": timing.Times(2.0, 1.0, 3.0), "torch": timing.Times(4.0, 4.0, 4.0)}
    monkeypatch.setattr(results, "interleaved", lambda *_: times)
    row = rows.Row("a row", {}, work.Work(1e9, 2e6), images=8, absent={"dm_pix": "not there"})
    result = results.measure(row, 3, 0.1, timing.Peak(1e9, 1e9))
    assert result.lines() == [
        "| a row | 2000 (1000..3000) ms | 4 | torch | 4000 ms | 2.00 | 1 | 2 | 50% |",
        "|  |  |  | dm_pix | not available: not there |  |  |  |  |",
    ]
    assert all(line.count("|") == results.HEADER.count("|") for line in result.lines())


def test_what_cannot_run_is_reported_with_its_reason():
    row = rows.Row("a row", {"ours": lambda: None}, None)

    def broken():
        raise RuntimeError("no compiler\nfurther lines")

    def silent():
        raise NotImplementedError

    row.add_peer("torch.compile", broken)
    row.add_peer("torch", silent)
    assert row.absent == {
        "torch.compile": "RuntimeError: no compiler",
        "torch": "NotImplementedError: no message",
    }
    assert list(row.calls) == ["ours"]
