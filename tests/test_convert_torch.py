import jax
import numpy as np
import pytest

from jax_stn_icnn.io import convert_torch, weights
from jax_stn_icnn.models.pipeline import STNiCNN


def original(num_labels_of=(9, 2, 2, 2, 4), cropper="small"):
    """A checkpoint of the original's shape, filled with zeros, unused entries included."""
    plan = convert_torch._plan

    def state(num_labels, prefix=""):
        names = plan(convert_torch._icnn(num_labels), convert_torch._ICNN, prefix, ())
        unused = f"{prefix}interlink_layers.0.iCNN_Nodelist.1.output_conv_node.weight"
        return {n: np.zeros(e.shape, np.float32) for n, e in names.items()} | {
            unused: np.zeros((16, 40, 5, 5)),
            f"{prefix}input_bnm.0.num_batches_tracked": np.array(7),
            f"{prefix}last_conv3_bnm.weight": np.zeros(num_labels),
        }

    rules = {"small": convert_torch._SMALL, "resnet18": convert_torch._RESNET18}[cropper]
    localizer = plan(convert_torch._localizer(cropper), rules, "", ())
    coarse, *fine = num_labels_of
    return {
        "model1": state(coarse),
        "select_net": {n: np.zeros(e.shape, np.float32) for n, e in localizer.items()},
        "model2": {k: v for i, n in enumerate(fine) for k, v in state(n, f"model.{i}.").items()},
        "step": {},
    }


@pytest.mark.slow
@pytest.mark.parametrize("cropper", ["small", "resnet18"])
def test_converts_and_survives_the_file(tmp_path, cropper):
    checkpoint = original(cropper=cropper)
    kernel = np.random.default_rng(0).standard_normal((8, 3, 5, 5)).astype(np.float32)
    checkpoint["model2"]["model.1.input_conv.0.weight"] = kernel
    variables, found = convert_torch.convert(checkpoint)
    assert found == cropper
    model = STNiCNN((81, 81), cropper)
    weights.save_weights(tmp_path / "w.safetensors", variables, model, 1024)
    loaded = weights.load_weights(tmp_path / "w.safetensors").variables
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    own = loaded["params"]["fine"]["eye"]["input_0"]["conv"]["kernel"]
    np.testing.assert_array_equal(own[1, 2, 0, 5], kernel[5, 0, 1, 2])


def test_all_that_does_not_fit_is_listed_in_one_error():
    checkpoint = original()
    del checkpoint["model1"]["input_conv.2.bias"]
    checkpoint["model2"]["model.3.last_conv3.weight"] = np.zeros((3, 4, 9, 9))
    checkpoint["select_net"]["localize_net.99.weight"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"some\.pth\.tar does not fit.*3 entries") as error:
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
    with pytest.raises(ValueError, match="lacks select_net"):
        convert_torch.convert(checkpoint)


def test_unknown_localizer_is_named():
    with pytest.raises(ValueError, match="'vgg9', but the original has small and resnet18"):
        convert_torch.convert_localizer({}, "vgg9")


class TestReading:
    """What needs PyTorch."""

    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch", reason="reading a .pth.tar takes the extra `torch`")

    def save(self, torch, path, checkpoint):
        as_tensors = {
            name: {k: torch.from_numpy(np.asarray(v)) for k, v in state.items()}
            for name, state in checkpoint.items()
        }
        torch.save(as_tensors | {"step": 7, "epoch": 1, "best_error": 0.5}, path)

    @pytest.mark.parametrize("cropper", ["small", "resnet18"])
    def test_command(self, torch, tmp_path, capsys, cropper):
        self.save(torch, tmp_path / "in.pth.tar", original(cropper=cropper))
        out = tmp_path / "out.safetensors"
        assert convert_torch.main([str(tmp_path / "in.pth.tar"), str(out)]) == 0
        assert f"localizer {cropper}" in capsys.readouterr().out
        found = weights.load_weights(out)
        assert (found.model.cropper, found.model.patch_size) == (cropper, (81, 81))
        assert found.frame_size == 1024

    def test_nothing_in_the_file_is_executed(self, torch, tmp_path, capsys):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "was_here"), "w"))

        torch.save({"model1": Evil()}, tmp_path / "evil.pth.tar")
        out = tmp_path / "out.safetensors"
        assert convert_torch.main([str(tmp_path / "evil.pth.tar"), str(out)]) == 1
        assert "without executing" in capsys.readouterr().err
        assert not (tmp_path / "was_here").exists() and not out.exists()

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut short"])
    def test_no_checkpoint(self, tmp_path, capsys, content):
        (tmp_path / "in.pth.tar").write_bytes(content)
        assert convert_torch.main([str(tmp_path / "in.pth.tar"), str(tmp_path / "out")]) == 1
        assert "in.pth.tar is no checkpoint" in capsys.readouterr().err

    def test_cut_short(self, torch, tmp_path, capsys):
        path = tmp_path / "in.pth.tar"
        self.save(torch, path, original())
        path.write_bytes(path.read_bytes()[:-1000])
        assert convert_torch.main([str(path), str(tmp_path / "out")]) == 1
        assert "in.pth.tar is no checkpoint" in capsys.readouterr().err

    def test_other_content_and_missing_file(self, torch, tmp_path, capsys):
        torch.save([1, 2], tmp_path / "list.pth.tar")
        assert convert_torch.main([str(tmp_path / "list.pth.tar"), "out"]) == 1
        assert "holds a list" in capsys.readouterr().err
        assert convert_torch.main([str(tmp_path / "nothing.pth.tar"), "out"]) == 1
        assert "nothing.pth.tar" in capsys.readouterr().err
