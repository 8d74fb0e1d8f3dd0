"""Writing the parser as ONNX or StableHLO, and checking the file against the parser.

    stn-icnn export --format onnx --out parser.onnx
    stn-icnn export --format stablehlo --out parser.stablehlo

A file gets its name only once its labels have been found to be the parser's.
"""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax import export as jax_export

from jax_stn_icnn.io import network
from jax_stn_icnn.io.weights import Weights
from jax_stn_icnn.ops.platform import use_platform
from tfds_builders.synthetic_faces.face import draw_face

FORMATS = ("onnx", "stablehlo")
PLATFORMS = ("cpu", "tpu", "cuda")  # of a StableHLO file, all in one
# Shares of pixels: rounding may turn those that two classes claim alike.
AGREEMENT = 0.999
FACES = 3  # drawn, for the check: once by themselves, once together

Labels = Callable[[np.ndarray], np.ndarray]


class Mismatch(ValueError):
    """A file that was written does not say what the parser says."""


def write(weights: Weights, path: Path, file_format: str) -> float:
    """Writes a parser for other runtimes, and checks the file.

    Args:
        weights: of `load_weights`.
        path: of the file; for `stablehlo` its metadata go beside it, with `.json` behind the name.
        file_format: one of FORMATS.

    Returns:
        The share of pixels of drawn faces on which the file's labels are the parser's.

    Raises:
        ValueError: there is no such format, or the weights are not float32.
        FileNotFoundError: the folder of the file is not there.
        ModuleNotFoundError: ONNX is not installed.
        Mismatch: the file does not say what the parser says; it is not kept.
    """
    if file_format not in FORMATS:
        raise ValueError(f"format is {file_format!r}, but must be one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out is {path}, but there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"--out is {path}, a folder: name a file")
    partial = path.with_name(f".{path.name}.partial")
    try:
        labels = (_onnx if file_format == "onnx" else _stablehlo)(weights, partial)
        agreement = _agreement(weights, labels)
        if agreement < AGREEMENT:
            raise Mismatch(
                f"{path} is not written: its labels are the parser's on {agreement:.4f} of the "
                f"pixels of drawn faces only, {AGREEMENT} are asked"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if file_format == "stablehlo":
        said = {name: json.loads(value) for name, value in network.metadata(weights).items()}
        path.with_name(f"{path.name}.json").write_text(json.dumps(said, indent=2) + "\n")
    return agreement


def _onnx(weights: Weights, path: Path) -> Labels:
    try:
        import onnx
        import onnxruntime

        from jax_stn_icnn.io import jaxpr_to_onnx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: `pip install 'jax-stn-icnn[onnx]'` brings it"
        ) from error
    with use_platform("onnx"):
        model = jaxpr_to_onnx.convert(
            network.network(weights),
            network.frames_of_any_batch(weights),
            input_name=network.INPUT,
            output_names=network.OUTPUTS,
            metadata=network.metadata(weights),
        )
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda frames: session.run(["labels"], {network.INPUT: frames})[0]


def _stablehlo(weights: Weights, path: Path) -> Labels:
    function = jax.jit(network.network(weights))
    shape = network.frames_of_any_batch(weights)
    # One program for all platforms: the implementations that need no loop.
    with use_platform("gpu"):
        exported = jax_export.export(function, platforms=PLATFORMS)(shape)
    path.write_bytes(exported.serialize())
    read = jax_export.deserialize(bytearray(path.read_bytes()))
    return lambda frames: np.asarray(read.call(frames)[0])


def _agreement(weights: Weights, labels: Labels) -> float:
    """The share of pixels of drawn faces on which labels are the parser's, in batches of two sizes.

    The parser's program is compiled for one face.
    """
    size = weights.frame_size
    frames = np.stack([draw_face("test", index, size).image for index in range(FACES)])
    parse = jax.jit(network.network(weights))
    expected = np.concatenate([np.asarray(parse(frames[i : i + 1])[0]) for i in range(FACES)])
    found = np.concatenate([labels(frames[:1]), labels(frames[1:])])
    return float(np.mean(found == expected))
