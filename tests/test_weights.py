import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
from conftest import BROWS, random_variables

from jax_stn_icnn.anatomy import NINETEEN
from jax_stn_icnn.io import weights
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train.state import init_variables

FRAME = 64
MODEL = STNiCNN(
    ((17, 19), (17, 19), (9, 11), (9, 11), (15, 15), (13, 21)),
    "small",
    anatomy=NINETEEN,
    coarse_channels=(4, 4, 16),
    fine_channels=(4, 4),
    interlinks=2,
    coarse_network="unet",
    coarse_stride=2,
    attention=1,
    edges=True,
    following=True,
    flip_test=True,
)


@pytest.fixture(scope="module")
def variables():
    return init_variables(MODEL, 0)


@pytest.fixture
def file(tmp_path, variables):
    weights.save_weights(tmp_path / "w.safetensors", variables, MODEL, FRAME)
    return tmp_path / "w.safetensors"


def assert_same(found, expected, **tolerance):
    assert weights.shapes(found) == weights.shapes(expected)
    for name, leaf in found["params"]["coarse"]["logits"].items():
        wanted = expected["params"]["coarse"]["logits"][name]
        np.testing.assert_allclose(leaf, wanted, **(tolerance or {"rtol": 0}))


def test_round_trip(file, variables):
    loaded = weights.load_weights(file)
    assert loaded.model == MODEL
    assert loaded.frame_size == FRAME
    assert_same(loaded.variables, variables)


def test_a_file_older_than_a_switch_is_of_a_model_without_it(file, variables):
    plain = MODEL.clone(attention=0, edges=False, following=False, flip_test=False)
    weights.save_weights(file, init_variables(plain, 0), plain, FRAME)
    with safetensors.safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}
    for switch in ("following", "attention", "edges", "flip_test"):
        del metadata[switch]
    safetensors.numpy.save_file(arrays, file, metadata)
    assert weights.load_weights(file).model == plain


def test_a_file_needs_nobody_to_know_its_classes(tmp_path):
    own = dataclasses.replace(BROWS, name="never_registered", groups=(("brows", ("brow_2",)),))
    model = STNiCNN(own.fitted_sizes(31), "vgg9", own, "unet", (4, 4), 2, (4, 4))
    inputs = np.zeros((1, 256, 256, 3), np.float32), np.zeros((1, FRAME, FRAME, 3), np.float32)
    weights.save_weights(tmp_path / "w", random_variables(model, *inputs), model, FRAME)
    assert weights.load_weights(tmp_path / "w").model == model


def test_a_file_that_only_names_its_classes_has_those_of_this_package(file):
    with safetensors.safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}
    for name in ("parts", "pairs", "groups", "colours"):
        del metadata[name]
    safetensors.numpy.save_file(arrays, file, metadata)
    assert weights.load_weights(file).model == MODEL


def test_half_the_size(tmp_path, file, variables):
    half = tmp_path / "half"
    weights.save_weights(half, variables, MODEL, FRAME, half=True)
    assert half.stat().st_size < 0.6 * file.stat().st_size
    stored = safetensors.numpy.load_file(half)
    kinds = {name.split("/")[0]: array.dtype for name, array in stored.items()}
    assert kinds == {"params": np.float16, "batch_stats": np.float32}
    loaded = weights.load_weights(half).variables
    assert loaded["params"]["coarse"]["logits"]["kernel"].dtype == np.float32
    assert_same(loaded, variables, rtol=2**-11, atol=1e-7)


def test_what_is_no_weights_file_is_named(tmp_path, file):
    with pytest.raises(FileNotFoundError):
        weights.load_weights(tmp_path / "nothing.safetensors")
    (tmp_path / "text").write_text("not weights")
    with pytest.raises(ValueError, match="text is not a safetensors file"):
        weights.load_weights(tmp_path / "text")
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "other")
    with pytest.raises(ValueError, match="other is a safetensors file, but not of this project"):
        weights.load_weights(tmp_path / "other")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ValueError, match="cut short"):
        weights.load_weights(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": None}, r"w\.safetensors does not say its classes"),
        ({"anatomy": "twelve", "parts": None}, "there are no classes 'twelve', only nine"),
        (
            {"classes": ["background", "nose"], "parts": None},
            r"w\.safetensors: .* are background, nose, but here they are backgr",
        ),
        ({"classes": ["background", "nose"]}, r"w\.safetensors: there is no class 'brow_1'"),
        ({"coarse_stride": "much"}, r"w\.safetensors: "),
        ({"cropper": "vgg9"}, "does not fit the model"),
    ],
)
def test_a_file_that_does_not_say_what_it_is_or_says_wrong(file, changes, message):
    with safetensors.safe_open(file, "numpy") as opened:
        metadata = opened.metadata() | {name: json.dumps(v) for name, v in changes.items() if v}
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}
    for name in [name for name, value in changes.items() if value is None]:
        del metadata[name]
    safetensors.numpy.save_file(arrays, file, metadata)
    with pytest.raises(ValueError, match=message):
        weights.load_weights(file)


def test_the_same_variables_give_the_same_bytes(tmp_path, variables):
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for file in files:
        weights.save_weights(file, variables, MODEL, FRAME)
    assert len({file.read_bytes() for file in files}) == 1
