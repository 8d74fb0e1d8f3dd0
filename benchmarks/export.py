"""The exported network in ONNX Runtime, against the same network in JAX."""

import tempfile
from pathlib import Path

import jax
import numpy as np

from benchmarks.rows import MakeRow, Row, Settings
from benchmarks.timing import Call
from jax_stn_icnn.io import export, network
from jax_stn_icnn.io.weights import load_weights, weights_file


def rows(settings: Settings) -> list[MakeRow]:
    """Returns one face, from its frame to labels, scores and windows, all on the host."""
    return [_row]


def _row() -> Row:
    weights = load_weights(weights_file(None))
    inputs = export.drawn_inputs(weights, 1)
    parse = jax.jit(network.network(weights))

    def onnx_runtime() -> Call:
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "parser.onnx")
            export.write(weights, path, "onnx")
            session = onnxruntime.InferenceSession(path)
        return lambda: session.run(network.outputs(weights), inputs)

    row = Row(
        f"exported network, one face, frame {weights.frame_size}, nineteen classes",
        {"ours": lambda: jax.tree.map(np.asarray, parse(*inputs.values()))},
        None,
    )
    row.add_peer("ONNX Runtime", onnx_runtime)
    return row
