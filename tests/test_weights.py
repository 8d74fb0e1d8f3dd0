import numpy as np
import pytest
import safetensors.numpy

from jax_stn_icnn.files import weights

VARIABLES = {
    "params": {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T}},
    "batch_stats": {"a": {"mean": np.ones(2, np.float32)}},
}
SIDES = weights.Sides(patch=17, frame=64)


def test_round_trip(tmp_path):
    path = tmp_path / "w.safetensors"
    weights.save_weights(path, VARIABLES, "small", SIDES)
    loaded, cropper = weights.load_weights(path)
    assert cropper == "small"
    assert weights.load_sides(path) == SIDES
    np.testing.assert_array_equal(
        loaded["params"]["a"]["kernel"], VARIABLES["params"]["a"]["kernel"]
    )
    assert weights.shapes(loaded) == weights.shapes(VARIABLES)


def test_half_the_size(tmp_path):
    kernel = np.float32([1.0, 1 / 3, -2e-3, 700.5])
    variables = {"params": {"kernel": kernel}, "batch_stats": {"var": np.float32([1e6, 1 / 3])}}
    weights.save_weights(tmp_path / "half", variables, "small", SIDES, half=True)
    stored = safetensors.numpy.load_file(tmp_path / "half")
    assert stored["params/kernel"].dtype == np.float16
    loaded, _ = weights.load_weights(tmp_path / "half")
    assert loaded["params"]["kernel"].dtype == np.float32
    np.testing.assert_allclose(loaded["params"]["kernel"], kernel, rtol=2**-11)
    np.testing.assert_array_equal(loaded["batch_stats"]["var"], variables["batch_stats"]["var"])


def test_what_is_no_weights_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        weights.load_weights(tmp_path / "nothing.safetensors")
    (tmp_path / "text").write_text("not weights")
    with pytest.raises(ValueError, match="text is not a safetensors file"):
        weights.load_weights(tmp_path / "text")
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "other")
    with pytest.raises(ValueError, match="other is a safetensors file, but not of this project"):
        weights.load_weights(tmp_path / "other")
    older = {"format": weights.FORMAT, "cropper": "small"}
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "older", older)
    assert weights.load_weights(tmp_path / "older")[1] == "small"
    with pytest.raises(ValueError, match="older does not say its patch_size and frame_size"):
        weights.load_sides(tmp_path / "older")
    weights.save_weights(tmp_path / "w", VARIABLES, "small", SIDES)
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:-3])
    with pytest.raises(ValueError, match="cut short"):
        weights.load_weights(tmp_path / "w")


def test_the_same_variables_give_the_same_bytes(tmp_path):
    files = [tmp_path / f"{i}.safetensors" for i in range(6)]
    for file in files:
        weights.save_weights(file, VARIABLES, "small", SIDES)
    assert len({file.read_bytes() for file in files}) == 1
