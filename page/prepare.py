"""Writes the networks that the page loads into `public/`.

    python prepare.py

The network, exported by `stn-icnn export`; the part of it that parses far frames, if the weights
are trained for wide frames; the metadata as JSON, which a browser reads more easily than the ONNX
file; and YuNet, changed to accept images of any size.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from jax_stn_icnn import ops
from jax_stn_icnn.faces import detectors
from jax_stn_icnn.io import jaxpr_to_onnx
from jax_stn_icnn.io.weights import Weights, load_weights, weights_file
from jax_stn_icnn.ops.platform import use_platform

PUBLIC = Path(__file__).parent / "public"
# In place of the package's colours, which are those of skin and hair, and so hardly show over them.
COLOURS = {"skin": (255, 80, 140), "hair": (80, 0, 255)}
# Arrays of fewer bytes are stored in both networks.
SHARED_BYTES = 1024


def main() -> None:
    """Runs the command."""
    path = PUBLIC / "network.onnx"
    command = ["stn-icnn", "export", "--format", "onnx", "--out", str(path)]
    subprocess.run(command, check=True)
    network = onnx.load(path)
    metadata = {entry.key: json.loads(entry.value) for entry in network.metadata_props}
    onnx.save(_for_webgpu(network), path)
    far = PUBLIC / "far.onnx"
    far.unlink(missing_ok=True)
    if "wide_frame" in metadata:
        weights = load_weights(weights_file(None))
        far.write_bytes(_sharing(_for_webgpu(_far_network(weights)), path).SerializeToString())
    (PUBLIC / "network.json").write_text(json.dumps(facts(metadata, path)) + "\n")
    onnx.save(_any_size(onnx.load(detectors.yunet_file())), PUBLIC / "yunet.onnx")


def facts(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Returns what the page needs to know about a network.

    Args:
        metadata: of the network, as `stn-icnn export` writes them.
        path: the network's file.
    """
    classes, colours = metadata["classes"], metadata["colours"]
    return {
        "classes": classes,
        "colours": [COLOURS.get(*pair) for pair in zip(classes, colours, strict=True)],
        "frame_size": metadata["frame_size"],
        "wide_frame": metadata.get("wide_frame"),
        "bytes": path.stat().st_size,
        "trial": _trial(path),
    }


def _far_network(weights: Weights) -> onnx.ModelProto:
    """Returns `STNiCNN.extend` as ONNX: the part of the network that parses far frames."""
    config = weights.model.config
    size, classes = config.coarse_image_size, len(config.anatomy.global_ids)

    def extend(wide_scores: jax.Array, far_frames: jax.Array) -> Any:
        far = ops.to_float(far_frames)
        return weights.model.apply(weights.variables, wide_scores, far, method="extend")

    inputs = {
        "wide_scores": jax.ShapeDtypeStruct((1, classes, *size), np.float32),
        "far_frames": jax.ShapeDtypeStruct((1, *size, 3), np.uint8),
    }
    with use_platform("onnx"):
        return jaxpr_to_onnx.convert(
            extend, inputs, output_names=("blended", "far_scores"), metadata={}
        )


def _sharing(part: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Refers to the arrays in another network's file in place of storing them again.

    Args:
        part: a part of the network, changed in place.
        path: the file of the network.

    Raises:
        ValueError: the networks have hardly any array in common.
    """
    content = path.read_bytes()
    own = shared = 0
    for array in part.graph.initializer:
        values = numpy_helper.to_array(array).tobytes()
        start = content.find(values) if len(values) >= SHARED_BYTES else -1
        if start < 0:
            own += len(values)
            continue
        shared += len(values)
        onnx.external_data_helper.set_external_data(array, path.name, start, len(values))
        array.ClearField("raw_data")
    if own > shared:
        raise ValueError(f"of the part's arrays, {own} bytes are not in {path}, and {shared} are")
    return part


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
