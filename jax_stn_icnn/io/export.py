"""Exports the parser to ONNX or StableHLO, and compares the file with the parser.

    stn-icnn export --format onnx --out parser.onnx
    stn-icnn export --format stablehlo --out parser.stablehlo

A file whose labels differ from the parser's is not written.
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
PLATFORMS = ("cpu", "tpu", "cuda")  # A StableHLO file supports all of them.
# Smallest share of equal pixels: rounding decides where two classes have almost equal scores.
AGREEMENT = 0.999
FACES = 2  # Drawn faces that are compared: one batch of the file, one by one in the parser.

Labels = Callable[[np.ndarray], np.ndarray]


def write(weights: Weights, path: Path, file_format: str) -> float:
    """Writes a parser for other runtimes, and compares the file with the parser.

    Args:
        weights: Weights as `load_weights` returns them.
        path: The file. A `stablehlo` file gets its metadata as a second file, `path` with `.json`
            appended.
        file_format: One of FORMATS.

    Returns:
        The share of pixels of drawn faces with equal labels.

    Raises:
        ValueError: The format is unknown, the path is a directory, or the labels of the file differ
            from the parser's; then no file is written.
        FileNotFoundError: The directory of the file does not exist.
        ModuleNotFoundError: ONNX is not installed.
    """
    if file_format not in FORMATS:
        raise ValueError(f"format is {file_format!r}, but must be one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out is {path}, but the directory {path.parent} does not exist")
    if path.is_dir():
        raise ValueError(f"--out is {path}, a directory, but must be a file")
    partial = path.with_name(f".{path.name}.partial")
    try:
        labels = (_write_onnx if file_format == "onnx" else _write_stablehlo)(weights, partial)
        agreement = _agreement(weights, labels)
        if agreement < AGREEMENT:
            raise ValueError(
                f"{path} is not written: its labels equal the parser's on {agreement:.4f} of the "
                f"pixels of drawn faces, but must on {AGREEMENT}"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if file_format == "stablehlo":
        metadata = {name: json.loads(value) for name, value in network.metadata(weights).items()}
        path.with_name(f"{path.name}.json").write_text(json.dumps(metadata, indent=2) + "\n")
    return agreement


def _write_onnx(weights: Weights, path: Path) -> Labels:
    """Writes an ONNX file and returns the function from frames to its labels."""
    try:
        import onnx
        import onnxruntime

        from jax_stn_icnn.io import jaxpr_to_onnx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'jax-stn-icnn[onnx]'"
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


def _write_stablehlo(weights: Weights, path: Path) -> Labels:
    """Writes a StableHLO file and returns the function from frames to its labels."""
    # One program for all platforms: those of CPUs are slow loops on accelerators.
    with use_platform("gpu"):
        exported = jax_export.export(jax.jit(network.network(weights)), platforms=PLATFORMS)(
            network.frames_of_any_batch(weights)
        )
    path.write_bytes(exported.serialize())
    program = jax_export.deserialize(bytearray(path.read_bytes()))
    return lambda frames: np.asarray(program.call(frames)[0])


def _agreement(weights: Weights, labels: Labels) -> float:
    """Returns the share of pixels of drawn faces on which labels are equal to the parser's."""
    size = weights.frame_size
    frames = np.stack([draw_face("test", index, size).image for index in range(FACES)])
    parse = jax.jit(network.network(weights))
    expected = np.concatenate([np.asarray(parse(frame[None])[0]) for frame in frames])
    return float(np.mean(labels(frames) == expected))
