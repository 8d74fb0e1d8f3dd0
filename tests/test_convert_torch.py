import numpy as np
import pytest
from conftest import Golden

from jax_stn_icnn.io import convert_torch, weights
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN, variable_shapes


def icnn(num_labels):
    """Returns an interlinked CNN of the original with zeros, including its unused entries."""
    state = {}
    for name, array in Golden("icnn").under("state").items():
        shape = array.shape
        if name.startswith("last_"):  # the golden arrays have 9 labels, so 26 channels before
            sizes = {9: num_labels, 26: 2 * num_labels + 8}
            shape = (*(sizes.get(size, size) for size in shape[:2]), *shape[2:])
        state[name] = np.zeros(shape, np.float32)
    return state


def small_localizer():
    """Returns the small localizer of the original with zeros."""
    state = Golden("localizer_small").under("state")
    return {name: np.zeros_like(array) for name, array in state.items()}


def resnet18():
    """Returns the ResNet-18 localizer of the original, with torchvision's names, with zeros."""
    kernels = {"conv1": (64, 9, 7, 7)}
    norms = {"bn1": 64}
    inputs = 64
    for layer, outputs in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            kernels[f"{name}.conv1"] = (outputs, inputs, 3, 3)
            kernels[f"{name}.conv2"] = (outputs, outputs, 3, 3)
            norms |= {f"{name}.bn1": outputs, f"{name}.bn2": outputs}
            if inputs != outputs:
                kernels[f"{name}.downsample.0"] = (outputs, inputs, 1, 1)
                norms[f"{name}.downsample.1"] = outputs
            inputs = outputs
    shapes = {f"{name}.weight": shape for name, shape in kernels.items()}
    for name, size in norms.items():
        leaves = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{name}.{leaf}": (size,) for leaf in leaves} | {
            f"{name}.num_batches_tracked": ()
        }
    shapes |= {"fc.weight": (36, 512), "fc.bias": (36,)}
    return {f"model_res.{name}": np.zeros(shape, np.float32) for name, shape in shapes.items()}


def original(cropper="small"):
    """Returns a checkpoint of the original with zeros, including unused entries."""
    fine = enumerate((2, 2, 2, 4))
    return {
        "model1": icnn(9),
        "select_net": {"small": small_localizer, "resnet18": resnet18}[cropper](),
        "model2": {f"model.{i}.{name}": a for i, n in fine for name, a in icnn(n).items()},
        "step": {},
    }


@pytest.mark.slow
@pytest.mark.parametrize("cropper", ["small", "resnet18"])
def test_converts_every_network(cropper):
    checkpoint = original(cropper)
    kernel = np.random.default_rng(0).standard_normal((8, 3, 5, 5)).astype(np.float32)
    checkpoint["model2"]["model.1.input_conv.0.weight"] = kernel
    variables, found_cropper = convert_torch.convert(checkpoint)
    assert found_cropper == cropper
    model = STNiCNN(ModelConfig(cropper=cropper))
    assert weights.shapes(variables) == weights.shapes(variable_shapes(model))
    converted = variables["params"]["fine"]["eye"]["input_0"]["conv"]["kernel"]
    np.testing.assert_array_equal(converted, kernel.transpose(2, 3, 1, 0))


@pytest.mark.slow
def test_all_differences_are_listed_in_one_error():
    checkpoint = original()
    del checkpoint["model1"]["input_conv.2.bias"]
    checkpoint["model2"]["model.3.last_conv3.weight"] = np.zeros((3, 4, 9, 9))
    checkpoint["select_net"]["localize_net.99.weight"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"some\.pth\.tar does not match.*3 variables") as error:
        convert_torch.convert(checkpoint, "some.pth.tar")
    message = str(error.value)
    assert "missing: model1.input_conv.2.bias (24,)" in message
    assert "unknown: select_net.localize_net.99.weight (3,)" in message
    assert (
        "wrong shape: model2.model.3.last_conv3.weight is (3, 4, 9, 9), must be (4, 4, 9, 9)"
        in message
    )


def test_a_checkpoint_without_a_network_is_named():
    checkpoint = original()
    del checkpoint["select_net"]
    with pytest.raises(ValueError, match="has no select_net"):
        convert_torch.convert(checkpoint)


def test_unknown_localizer_is_named():
    with pytest.raises(ValueError, match="'vgg9', but the original has small and resnet18"):
        convert_torch.convert_localizer({}, "vgg9")


class TestReading:
    """Tests that need PyTorch."""

    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch", reason="needs the extra `torch`")

    def save(self, torch, path, checkpoint):
        as_tensors = {
            name: {k: torch.from_numpy(np.asarray(v)) for k, v in state.items()}
            for name, state in checkpoint.items()
        }
        torch.save(as_tensors | {"step": 7, "epoch": 1, "best_error": 0.5}, path)

    @pytest.mark.slow
    @pytest.mark.parametrize("cropper", ["small", "resnet18"])
    def test_command(self, torch, tmp_path, capsys, cropper):
        self.save(torch, tmp_path / "in.pth.tar", original(cropper))
        out = tmp_path / "out.safetensors"
        assert convert_torch.main([str(tmp_path / "in.pth.tar"), str(out)]) == 0
        assert f"localizer {cropper}" in capsys.readouterr().out
        loaded = weights.load_weights(out)
        assert loaded.model.config == ModelConfig(cropper=cropper, patch_size=81)
        assert loaded.frame_size == 1024

    def test_nothing_in_the_file_is_executed(self, torch, tmp_path, capsys):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "was_here"), "w"))

        torch.save({"model1": Evil()}, tmp_path / "evil.pth.tar")
        out = tmp_path / "out.safetensors"
        assert convert_torch.main([str(tmp_path / "evil.pth.tar"), str(out)]) == 1
        assert "without executing" in capsys.readouterr().err
        assert not (tmp_path / "was_here").exists() and not out.exists()

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 truncated"])
    def test_other_files(self, tmp_path, capsys, content):
        (tmp_path / "in.pth.tar").write_bytes(content)
        assert convert_torch.main([str(tmp_path / "in.pth.tar"), str(tmp_path / "out")]) == 1
        assert "in.pth.tar is not a checkpoint" in capsys.readouterr().err

    def test_truncated_file(self, torch, tmp_path, capsys):
        path = tmp_path / "in.pth.tar"
        self.save(torch, path, original())
        path.write_bytes(path.read_bytes()[:-1000])
        assert convert_torch.main([str(path), str(tmp_path / "out")]) == 1
        assert "in.pth.tar is not a checkpoint" in capsys.readouterr().err

    def test_other_content_and_missing_file(self, torch, tmp_path, capsys):
        torch.save([1, 2], tmp_path / "list.pth.tar")
        assert convert_torch.main([str(tmp_path / "list.pth.tar"), "out"]) == 1
        assert "contains a list" in capsys.readouterr().err
        assert convert_torch.main([str(tmp_path / "nothing.pth.tar"), "out"]) == 1
        assert "nothing.pth.tar" in capsys.readouterr().err
