"""Writes the networks that the page loads into `public/`.

    python prepare.py

The network, exported by `stn-icnn export`; its metadata as JSON, which a browser reads more easily
than the ONNX file; and YuNet, changed to accept images of any size.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from jax_stn_icnn.faces import detectors

PUBLIC = Path(__file__).parent / "public"


def main() -> None:
    """Runs the command."""
    path = PUBLIC / "network.onnx"
    command = ["stn-icnn", "export", "--format", "onnx", "--out", str(path)]
    subprocess.run(command, check=True)
    network = onnx.load(path)
    metadata = {entry.key: json.loads(entry.value) for entry in network.metadata_props}
    onnx.save(_for_webgpu(network), path)
    facts = {name: metadata[name] for name in ("classes", "colours", "frame_size")}
    facts |= {
        "wide_frame": metadata.get("wide_frame"),
        "bytes": path.stat().st_size,
        "trial": _trial(path),
    }
    (PUBLIC / "network.json").write_text(json.dumps(facts) + "\n")
    onnx.save(_any_size(onnx.load(detectors.yunet_file())), PUBLIC / "yunet.onnx")


def _for_webgpu(network: onnx.ModelProto) -> onnx.ModelProto:
    """Pads the inputs of convolutions with channels of zeros to a multiple of four channels.

    ONNX Runtime 1.30 computes other convolutions of more than four channels incorrectly on GPUs
    (microsoft/onnxruntime#29651).
    """
    graph = network.graph
    weights = {entry.name: entry for entry in graph.initializer}
    # Those that are stored as float16.
    weights |= {
        node.output[0]: weights[node.input[0]]
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in weights
    }
    nodes = []
    for node in graph.node:
        weight = weights.get(node.input[1]) if node.op_type == "Conv" else None
        channels = weight.dims[1] if weight else 0
        lacking = -channels % 4
        if weight and channels > 4 and lacking:
            name = f"{node.output[0]}_padded"
            ends = np.array([0, 0, 0, 0, 0, lacking, 0, 0])
            graph.initializer.append(numpy_helper.from_array(ends, f"{name}_ends"))
            nodes.append(onnx.helper.make_node("Pad", [node.input[0], f"{name}_ends"], [name]))
            array = numpy_helper.to_array(weight).astype(np.float32)
            wider = np.pad(array, ((0, 0), (0, lacking), (0, 0), (0, 0)))
            graph.initializer.append(numpy_helper.from_array(wider, f"{name}_weight"))
            node.input[0], node.input[1] = name, f"{name}_weight"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(network)
    return network


def _trial(path: Path) -> dict[str, Any]:
    """Returns the outputs for synthetic frames, with which the page checks the GPU."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = {}
    for each in session.get_inputs():
        shape = (1, *each.shape[1:])
        inputs[each.name] = (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, inputs), strict=True))
    wide_scores = outputs.get("wide_scores", np.empty((1, 0, 1, 1)))
    return {
        "scores": outputs["scores"].mean((0, 1, 2)).tolist(),
        "windows": outputs["windows"].ravel().tolist(),
        "wide_scores": wide_scores.mean((0, 2, 3)).tolist(),
    }


def _any_size(yunet: onnx.ModelProto) -> onnx.ModelProto:
    """Removes the declared shapes, which alone restrict YuNet to images of 640 x 640."""
    (image,) = yunet.graph.input
    for axis, name in ((2, "height"), (3, "width")):
        image.type.tensor_type.shape.dim[axis].dim_param = name
    for output in yunet.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"cells of {output.name}"
    del yunet.graph.value_info[:]  # shapes of intermediate values
    onnx.checker.check_model(yunet, full_check=True)
    return yunet


if __name__ == "__main__":
    main()
