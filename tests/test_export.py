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
from jax_stn_icnn.faces import framing
from jax_stn_icnn.io import export, network
from jax_stn_icnn.io.weights import Weights

SIZE = 64
LICENSE = "for tests only"


def small_weights(**options):
    model = small_model(anatomy=BROWS, **options)
    return Weights(random_variables(model, seed=1), model, SIZE, LICENSE)


@pytest.fixture(scope="session")
def small():
    return small_weights()


def run_model(weights, inputs):
    """Returns the model's outputs, computed one face at a time as `export.write` does."""
    parse = jax.jit(network.network(weights))
    singly = [parse(*[array[i : i + 1] for array in inputs.values()]) for i in range(2)]
    return [np.concatenate(arrays) for arrays in zip(*singly, strict=True)]


def runner(path, file_format):
    """Returns the function of a file: inputs by name -> outputs."""
    if file_format == "stablehlo":
        program = jax_export.deserialize(bytearray(path.read_bytes()))
        assert program.platforms == ("cpu", "tpu", "cuda")
        return lambda inputs: [np.asarray(value) for value in program.call(*inputs.values())]
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    session = onnxruntime.InferenceSession(path)
    return lambda inputs: session.run(None, inputs)


@pytest.fixture(scope="module", params=export.FORMATS)
def file_format(request):
    if request.param == "onnx":
        pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    return request.param


@pytest.fixture(scope="module", params=[False, True], ids=["square", "wide"])
def exported(request, file_format, tmp_path_factory):
    """A format, small weights without and with wide frames, and their file in that format."""
    path = tmp_path_factory.mktemp(file_format) / "parser"
    weights = small_weights(wide=request.param)
    assert export.write(weights, path, file_format) >= export.AGREEMENT
    return file_format, weights, path


@pytest.mark.slow
def test_a_file_returns_the_outputs_of_the_model(exported):
    file_format, weights, path = exported
    inputs = export.drawn_inputs(weights, 2)
    expected = run_model(weights, inputs)
    run = runner(path, file_format)
    for batch in (1, 2):
        outputs = run({name: array[:batch] for name, array in inputs.items()})
        found = dict(zip(network.outputs(weights), outputs, strict=True))
        assert found["labels"].dtype == np.uint8 and found["labels"].shape == (batch, SIZE, SIZE)
        assert np.mean(found["labels"] == expected[0][:batch]) > 0.999
        # A pixel half-way between two pixels of a patch takes either, depending on rounding.
        assert np.mean(np.abs(found["scores"] - expected[1][:batch]) > 1e-4) < 1e-3
        np.testing.assert_allclose(found["windows"], expected[2][:batch], atol=1e-5)
        if weights.model.config.wide:
            size = weights.model.config.coarse_image_size
            assert found["wide_scores"].shape == (batch, len(BROWS.global_ids), *size)
            np.testing.assert_allclose(found["wide_scores"], expected[3][:batch], atol=1e-4)
    assert not list(path.parent.glob(".*"))


@pytest.mark.slow
def test_a_file_names_inputs_and_classes(exported):
    file_format, weights, path = exported
    if file_format == "onnx":
        import onnx

        model = onnx.load(path)
        assert [each.name for each in model.graph.input] == list(network.inputs(weights))
        for each in model.graph.input:
            assert each.type.tensor_type.shape.dim[0].dim_param == network.BATCH
        assert (model.doc_string, model.model_version) == (network.DESCRIPTION, network.VERSION)
        metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    else:
        metadata = json.loads(path.with_name("parser.json").read_text())
    assert metadata["license"] == LICENSE and metadata["version"] == network.VERSION
    assert "Face parsing" in metadata["description"]
    assert metadata["classes"] == list(BROWS.classes) and metadata["frame_size"] == SIZE
    assert metadata["parts"] == [part.name for part in BROWS.parts]
    assert metadata["colours"] == [list(colour) for colour in BROWS.colours]
    wide = {"size": 128, "side": 2.0, "down": 0.125, "classes": ["background", "skin"]}
    assert metadata.get("wide_frame") == (wide if weights.model.config.wide else None)


def test_drawn_inputs_are_crops_of_the_same_face():
    frames, wide_frames = export.drawn_inputs(small_weights(wide=True), 1).values()
    assert frames.shape == (1, SIZE, SIZE, 3) and wide_frames.shape == (1, 128, 128, 3)
    # The frame lies in the wide frame, which has as many pixels per side of the face.
    matrix = framing.wide_frame(framing.frame_from_photo((SIZE, SIZE), SIZE), SIZE, 128)
    left, top = -matrix[:, 2].astype(int)
    inside = wide_frames[0, top : top + SIZE, left : left + SIZE]
    assert np.abs(inside.astype(int) - frames[0]).mean() < 4  # 8 or more if shifted by a pixel


@pytest.mark.slow
def test_a_model_with_an_encoder_is_exported(file_format, tmp_path):
    weights = small_weights(coarse_network="efficientnet_lite0", coarse_stride=2, wide=True)
    assert export.write(weights, tmp_path / "parser", file_format) >= export.AGREEMENT


def test_a_file_with_other_labels_is_not_written(small, tmp_path, monkeypatch):
    added = iter((1, 0))  # to the labels: first for the file, then for the comparison

    def red(weights):
        number = next(added)
        return lambda frames: (frames[..., 0] + np.uint8(number), jnp.zeros(1), jnp.zeros(1))

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
            {"x": jax.ShapeDtypeStruct((3,), np.float32)},
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
    assert path.stat().st_size < 25e6
