import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import BROWS, random_variables, small_model
from jax import export as jax_export

from jax_stn_icnn.cli import main
from jax_stn_icnn.io import export, network
from jax_stn_icnn.io.weights import Weights
from tfds_builders.synthetic_faces.face import draw_face

SIZE = 64


@pytest.fixture(scope="session")
def small():
    model = small_model(anatomy=BROWS)
    return Weights(random_variables(model, seed=1), model, SIZE)


@pytest.fixture(scope="module")
def frames():
    return np.stack([draw_face("test", index, SIZE).image for index in range(2)])


@pytest.fixture(scope="module")
def expected(small, frames):
    """The model's outputs, computed one face at a time as `export.write` does."""
    parse = jax.jit(network.network(small))
    return jax.tree.map(lambda *faces: np.concatenate(faces), *[parse(f[None]) for f in frames])


def runner(path, file_format):
    """Returns the function of a file: frames -> labels, scores, windows."""
    if file_format == "stablehlo":
        program = jax_export.deserialize(bytearray(path.read_bytes()))
        assert program.platforms == ("cpu", "tpu", "cuda")
        return lambda frames: [np.asarray(value) for value in program.call(frames)]
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    session = onnxruntime.InferenceSession(path)
    return lambda frames: session.run(list(network.OUTPUTS), {network.INPUT: frames})


@pytest.fixture(scope="module", params=export.FORMATS)
def exported(request, small, tmp_path_factory):
    """A format, and the file of the small model in that format."""
    if request.param == "onnx":
        pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    path = tmp_path_factory.mktemp(request.param) / "parser"
    assert export.write(small, path, request.param) >= export.AGREEMENT
    return request.param, path


@pytest.mark.slow
def test_a_file_returns_the_outputs_of_the_model(exported, frames, expected):
    file_format, path = exported
    run = runner(path, file_format)
    for batch in (1, 2):
        labels, scores, windows = run(frames[:batch])
        assert labels.dtype == np.uint8 and labels.shape == (batch, SIZE, SIZE)
        assert np.mean(labels == expected[0][:batch]) > 0.999
        # A pixel half-way between two pixels of a patch takes either, depending on rounding.
        assert np.mean(np.abs(scores - expected[1][:batch]) > 1e-4) < 1e-3
        np.testing.assert_allclose(windows, expected[2][:batch], atol=1e-5)
    assert not list(path.parent.glob(".*"))


@pytest.mark.slow
def test_a_file_contains_the_classes(exported):
    file_format, path = exported
    if file_format == "onnx":
        import onnx

        model = onnx.load(path)
        (frames,) = model.graph.input
        assert frames.type.tensor_type.shape.dim[0].dim_param == network.BATCH
        metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    else:
        metadata = json.loads(path.with_name("parser.json").read_text())
    assert metadata["classes"] == list(BROWS.classes) and metadata["frame_size"] == SIZE
    assert metadata["parts"] == [part.name for part in BROWS.parts]
    assert metadata["colours"] == [list(colour) for colour in BROWS.colours]


@pytest.mark.slow
@pytest.mark.parametrize("file_format", export.FORMATS)
def test_a_model_with_an_encoder_is_exported(file_format, tmp_path):
    if file_format == "onnx":
        pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    model = small_model(anatomy=BROWS, coarse_network="efficientnet_lite0", coarse_stride=2)
    weights = Weights(random_variables(model, seed=1), model, SIZE)
    assert export.write(weights, tmp_path / "parser", file_format) >= export.AGREEMENT


def test_a_file_with_other_labels_is_not_written(small, tmp_path, monkeypatch):
    added = iter((1, 0))  # to the labels: first for the file, then for the comparison

    def red(weights):
        number = next(added)
        return lambda frames: (frames[..., 0] + np.uint8(number), jnp.zeros(()), jnp.zeros(()))

    monkeypatch.setattr(network, "network", red)
    with pytest.raises(ValueError, match="parser is not written: its labels equal the parser's on"):
        export.write(small, tmp_path / "parser", "stablehlo")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "file_format", "error", "message"),
    [
        ("a", "torch", ValueError, "format is 'torch', but must be one of onnx, stablehlo"),
        ("nowhere/a", "onnx", FileNotFoundError, "the directory .*nowhere does not exist"),
        (".", "onnx", ValueError, "a directory, but must be a file"),
    ],
)
def test_errors_name_the_argument(out, file_format, error, message, small, tmp_path):
    with pytest.raises(error, match=message):
        export.write(small, tmp_path / out, file_format)


def test_an_unknown_operation_is_named():
    pytest.importorskip("onnx", reason="needs the extra `onnx`")
    from jax_stn_icnn.io import jaxpr_to_onnx

    with pytest.raises(NotImplementedError, match="'sort' cannot be converted to ONNX"):
        jaxpr_to_onnx.convert(
            jnp.sort,
            jax.ShapeDtypeStruct((3,), np.float32),
            input_name="x",
            output_names=["y"],
            metadata={},
        )


def test_the_command_names_a_file_that_is_not_weights(tmp_path, capsys):
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    command = ["export", "--format", "stablehlo", "--out", str(tmp_path / "parser"), "--ckpt"]
    assert main.main([*command, str(tmp_path / "weights.safetensors")]) == 1
    assert "weights.safetensors" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_exports_the_shipped_weights(tmp_path):
    """Covers StableHLO; `page/ci.sh` exports the shipped weights to ONNX."""
    path = tmp_path / "parser"
    command = ["-m", "jax_stn_icnn.cli.main", "export", "--format", "stablehlo", "--out", path]
    # Without the flags of conftest.py, with which a face takes ten seconds.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=True
    )
    assert "labels equal to the parser's on" in done.stdout
    assert path.stat().st_size < 15e6
