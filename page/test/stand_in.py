"""Writes small networks in place of the parser's, and photos, into `test/.reference/stand_in/`.

    python test/stand_in.py

Tests of the page that are not about labels load them, and so take less time. Inputs and outputs
are those of the parser; whatever the frame shows, there is the same simple face in its middle,
unless the frame is dark.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from jax_stn_icnn.anatomy import NINETEEN
from jax_stn_icnn.wide_frame import WIDE_DOWN, WIDE_SIDE

OUT = Path(__file__).with_name(".reference") / "stand_in"
SIDE, WIDE, PARTS = 64, 32, len(NINETEEN.parts)
DARK = 40  # the mean of a frame without a face


def main() -> None:
    """Runs the command."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "network.onnx"
    onnx.save(_network(), path)
    onnx.save(_far_network(), OUT / "far.onnx")
    metadata = {
        "classes": NINETEEN.classes,
        "colours": np.asarray(NINETEEN.colours).tolist(),
        "frame_size": SIDE,
        "wide_frame": {
            "size": WIDE,
            "side": WIDE_SIDE,
            "down": WIDE_DOWN,
            "classes": [NINETEEN.classes[i] for i in NINETEEN.global_ids],
        },
    }
    facts = _prepare().facts(metadata, path)
    (OUT / "network.json").write_text(json.dumps(facts) + "\n")
    for name, size, value in (("dark", (400, 600), 0), ("large", (300, 4200), 200)):
        Image.fromarray(np.full(size, value, np.uint8)).save(OUT / f"{name}.png")


def _prepare() -> Any:
    """Returns the module that writes the page's networks."""
    spec = importlib.util.spec_from_file_location(
        "prepare", Path(__file__).parents[1] / "prepare.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _face() -> np.ndarray:
    """Returns the labels of the frame, (SIDE, SIDE)."""
    rows, columns = (np.indices((SIDE, SIDE)) + 0.5) / SIDE
    labels = np.zeros((SIDE, SIDE), np.int64)
    for name, row, column, height, width in (
        ("cloth", 1.05, 0.5, 0.12, 0.5),
        ("hair", 0.42, 0.5, 0.36, 0.34),
        ("neck", 0.9, 0.5, 0.12, 0.14),
        ("skin", 0.52, 0.5, 0.34, 0.25),
        ("eye_1", 0.45, 0.39, 0.03, 0.06),
        ("eye_2", 0.45, 0.61, 0.03, 0.06),
        ("nose", 0.58, 0.5, 0.09, 0.04),
        ("upper_lip", 0.71, 0.5, 0.025, 0.1),
        ("lower_lip", 0.75, 0.5, 0.03, 0.09),
    ):
        inside = np.hypot((rows - row) / height, (columns - column) / width) < 1
        labels[inside] = NINETEEN.classes.index(name)
    return labels


def _network() -> onnx.ModelProto:
    """Returns the network of frames and wide frames."""
    classes, wide_classes = NINETEEN.num_classes, len(NINETEEN.global_ids)
    # Clothes fill the lower part of the wide frame.
    clothes = np.zeros((WIDE, WIDE), np.int64)
    clothes[20:, 4:-4] = list(NINETEEN.global_ids).index(NINETEEN.classes.index("cloth"))
    arrays = {
        "face": np.eye(classes, dtype=np.float32)[_face()][None],
        "nothing": np.eye(classes, dtype=np.float32)[[0]][None, None],
        "wide_face": np.moveaxis(np.eye(wide_classes, dtype=np.float32)[clothes], -1, 0)[None],
        "wide_nothing": np.eye(wide_classes, dtype=np.float32)[0][None, :, None, None],
        "dark": np.float32(DARK),
        "constant_windows": np.zeros((1, PARTS, 2, 3), np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["values"], to=TensorProto.FLOAT),
        node("ReduceMean", ["values"], ["mean"], keepdims=0),
        node("Greater", ["mean", "dark"], ["shows"]),
        node("Where", ["shows", "face", "nothing"], ["scores"]),
        node("Where", ["shows", "wide_face", "wide_nothing"], ["wide_scores"]),
        node("Identity", ["constant_windows"], ["windows"]),
    ]
    inputs = {"frames": (1, SIDE, SIDE, 3), "wide_frames": (1, WIDE, WIDE, 3)}
    outputs = {
        "scores": (1, SIDE, SIDE, classes),
        "windows": (1, PARTS, 2, 3),
        "wide_scores": (1, wide_classes, WIDE, WIDE),
    }
    return _model(nodes, inputs, outputs, arrays)


def _far_network() -> onnx.ModelProto:
    """Returns the network of far frames, whose outputs are the scores of the wide frame."""
    shape = (1, len(NINETEEN.global_ids), WIDE, WIDE)
    nodes = [
        helper.make_node("Identity", ["wide_scores"], [name]) for name in ("blended", "far_scores")
    ]
    inputs = {"wide_scores": shape, "far_frames": (1, WIDE, WIDE, 3)}
    return _model(nodes, inputs, {"blended": shape, "far_scores": shape}, {})


def _model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, tuple[int, ...]],
    arrays: Mapping[str, np.ndarray],
) -> onnx.ModelProto:
    """Returns a network; inputs named frames are of bytes."""
    value = helper.make_tensor_value_info
    kinds = {
        name: TensorProto.UINT8 if name.endswith("frames") else TensorProto.FLOAT for name in inputs
    }
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [value(name, kinds[name], shape) for name, shape in inputs.items()],
        [value(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    main()
