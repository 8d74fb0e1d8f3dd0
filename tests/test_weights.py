import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import BROWS, random_variables

from jax_stn_icnn.io import weights
from jax_stn_icnn.models import pipeline
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN

FRAME = 64
# An anatomy that no registry has, and no option at its default.
CONFIG = ModelConfig(
    anatomy=dataclasses.replace(BROWS, name="two brows", groups=(("brows", ("brow_2",)),)),
    cropper="small",
    patch_size=31,
    windows="fitted",
    coarse_network="unet",
    coarse_channels=(4, 4, 16),
    coarse_stride=2,
    attention=1,
    edge_head=True,
    bridge=True,
    flip_test=True,
    fine_channels=(4, 4),
    interlinks=1,
)


@pytest.fixture(scope="module")
def variables():
    return random_variables(STNiCNN(CONFIG))


@pytest.fixture
def file(tmp_path, variables):
    weights.save_weights(tmp_path / "w.safetensors", variables, CONFIG, FRAME)
    return tmp_path / "w.safetensors"


def change_metadata(file, **changes):
    """Changes a file's metadata; those that are None are removed."""
    with safetensors.safe_open(file, "numpy") as opened:
        metadata = opened.metadata() | changes
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}
    present = {name: value for name, value in metadata.items() if value is not None}
    safetensors.numpy.save_file(arrays, file, present)


def test_round_trip(file, variables):
    assert list(file.parent.iterdir()) == [file]
    loaded = weights.load_weights(file)
    assert loaded.model == STNiCNN(CONFIG)
    assert loaded.frame_size == FRAME and loaded.license == ""
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)


def test_the_license_is_stored(tmp_path, variables):
    weights.save_weights(tmp_path / "w", variables, CONFIG, FRAME, license="for tests")
    assert weights.load_weights(tmp_path / "w").license == "for tests"


def test_the_type_of_the_computation_is_not_stored(file, variables):
    weights.save_weights(file, variables, CONFIG.replace(dtype="bfloat16"), FRAME)
    assert weights.load_weights(file).model.config == CONFIG


def test_half_halves_the_file(tmp_path, file, variables):
    half = tmp_path / "half"
    weights.save_weights(half, variables, CONFIG, FRAME, half=True)
    assert half.stat().st_size < 0.6 * file.stat().st_size
    stored = safetensors.numpy.load_file(half)
    types = {name.split("/")[0]: array.dtype for name, array in stored.items()}
    assert types == {"params": np.float16, "batch_stats": np.float32}

    def assert_close(found, expected):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2**-11, atol=1e-7)

    jax.tree.map(assert_close, weights.load_weights(half).variables, variables)


def test_other_files_are_named(tmp_path, file):
    with pytest.raises(FileNotFoundError):
        weights.load_weights(tmp_path / "nothing.safetensors")
    (tmp_path / "text").write_text("not weights")
    with pytest.raises(ValueError, match="text is not a safetensors file"):
        weights.load_weights(tmp_path / "text")
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "other")
    with pytest.raises(ValueError, match="other is a safetensors file, but not a weights file"):
        weights.load_weights(tmp_path / "other")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ValueError, match="truncated"):
        weights.load_weights(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "jax_stn_icnn/2"}, "format is 'jax_stn_icnn/2', but must be 'jax_stn_icnn/3'"),
        ({"model": None}, r"w\.safetensors: the metadata have no 'model'"),
        ({"frame_size": None}, r"w\.safetensors: the metadata have no 'frame_size'"),
        ({"frame_size": "much"}, r"w\.safetensors: "),
        ({"frame_size": "100000000"}, r"w\.safetensors: frame_size is 100000000, but must be"),
        ({"frame_size": "[" * 100_000}, r"w\.safetensors: maximum recursion depth"),
        ({"model": "{"}, r"w\.safetensors: "),
        ({"model": '{"anatomy": "twelve"}'}, r"w\.safetensors: .*'twelve'"),
        ({"model": '{"patch_size": 30}'}, r"w\.safetensors: .*\s+patch_size is 30, but must be"),
    ],
)
def test_wrong_metadata_are_named(file, changes, message):
    change_metadata(file, **changes)
    with pytest.raises(ValueError, match=message):
        weights.load_weights(file)


def test_variables_of_another_type_are_named(file, variables):
    integers = jax.tree.map(lambda leaf: leaf.astype(np.int32), variables)
    weights.save_weights(file, integers, CONFIG, FRAME)
    with pytest.raises(ValueError, match=r"w\.safetensors: .* is int32, but must be float16 or"):
        weights.load_weights(file)


def test_differences_of_variables_are_listed(file):
    with safetensors.safe_open(file, "numpy") as opened:
        config = json.loads(opened.metadata()["model"])
    change_metadata(file, model=json.dumps(config | {"fine_channels": [4, 4, 4]}))
    with pytest.raises(ValueError, match=r"w\.safetensors does not match") as error:
        weights.load_weights(file)
    assert "missing: batch_stats/fine/brow/" in str(error.value)
    assert "wrong shape: params/fine/brow/" in str(error.value)


def test_a_long_list_of_differences_is_cut(variables):
    expected = weights.shapes(variables)
    with pytest.raises(ValueError, match=rf"file does not .* \({len(expected)} var") as error:
        weights.check_entries("the file", {}, expected)
    _, *lines, last = str(error.value).splitlines()
    assert lines == [f"  missing: {name} {expected[name]}" for name in sorted(expected)[:10]]
    assert last == f"  and {len(expected) - 10} more"


def test_equal_variables_give_equal_bytes(tmp_path, variables):
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for file in files:
        weights.save_weights(file, variables, CONFIG, FRAME)
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nine", "nineteen"])
def test_the_shipped_weights_are_loaded_by_name(name):
    loaded = weights.load_weights(weights.weights_file(name))
    assert loaded.model.config.anatomy.name == name and "non-commercial" in loaded.license
    if name == weights.DEFAULT:
        assert weights.weights_file(None) == weights.weights_file(name)


def test_weights_of_a_run(tmp_path, file):
    assert weights.weights_file(file) == file
    with pytest.raises(FileNotFoundError, match="weights in this installation: nine, nineteen"):
        weights.weights_file(tmp_path)
    file.rename(tmp_path / weights.WEIGHTS)
    assert weights.weights_file(str(tmp_path)) == tmp_path / weights.WEIGHTS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nine", "nineteen"])
def test_the_shipped_weights_are_those_of_their_model(name, monkeypatch):
    """They are not compared when they are loaded, since their checksum identifies them."""
    loaded = weights.load_weights(weights.weights_file(name))
    monkeypatch.setattr(pipeline, "_known_shapes", {})
    found, expected = (
        weights.shapes(tree) for tree in (loaded.variables, pipeline.variable_shapes(loaded.model))
    )
    assert found == expected


def test_the_model_card_has_the_checksums_of_the_shipped_weights():
    card = (weights.PRETRAINED / "MODEL_CARD.md").read_text()
    lines = (weights.PRETRAINED / weights.CHECKSUMS).read_text().splitlines()
    rows = [f"| `{name}` | `{sha256}` |" for sha256, name in map(str.split, lines)]
    assert len(rows) == len(list(weights.PRETRAINED.glob("*.safetensors")))
    for row in rows:
        assert row in card


def test_shipped_weights_are_verified(tmp_path, file, monkeypatch):
    monkeypatch.setattr(weights, "PRETRAINED", file.parent)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    (file.parent / weights.CHECKSUMS).write_text(f"{sha256}  {file.name}\n")
    weights.load_weights(file)
    change_metadata(file, license="free for all")
    with pytest.raises(ValueError, match=f"{file.name} is damaged, or is not the published file"):
        weights.load_weights(file)
    file.rename(file.parent / "new.safetensors")  # not listed
    with pytest.raises(ValueError, match="new.safetensors is damaged, or is not"):
        weights.load_weights(file.parent / "new.safetensors")
