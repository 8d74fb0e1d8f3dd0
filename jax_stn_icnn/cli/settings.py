"""The file `settings.json` in an output folder: the weights and detector of the results in it.

The command skips photos whose results exist. With this file it detects results of other weights.
"""

import hashlib
import json
from pathlib import Path

from jax_stn_icnn.faces import detectors
from jax_stn_icnn.io.weights import weights_file

NAME = "settings.json"
_NO_DETECTION = "one per photo, not detected"


def to_json(ckpt: str | Path | None, detector: str, detect: bool) -> str:
    """Returns the content of the file for a command's options.

    Args:
        ckpt: the weights, as in `FaceParser.load`.
        detector: the detector, as in `FaceParser.load`.
        detect: whether faces are detected; otherwise each photo is one face.

    Raises:
        FileNotFoundError: the file of the weights or of the detector does not exist.
        ValueError: the detector is unknown.
    """
    detectors.make_detector(detector)
    file = weights_file(ckpt)
    settings = {
        "weights": file.name,
        "sha256 of the weights": hashlib.sha256(file.read_bytes()).hexdigest(),
        "faces": detector if detect else _NO_DETECTION,
    }
    return json.dumps(settings, indent=2) + "\n"


def check(folder: str | Path, stored: str, current: str) -> None:
    """Checks that the results in a folder have the current settings.

    Args:
        folder: the output folder.
        stored: content of its file.
        current: content of `to_json` for the current options.

    Raises:
        ValueError: the settings differ, or the file cannot be read.
    """
    advice = "name another --out, or remove its content"
    try:
        before = dict(json.loads(stored))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder} has a {NAME} that cannot be read: {advice}") from error
    after = json.loads(current)
    if changed := [name for name in after if before.get(name) != after[name]]:
        differences = "; ".join(
            f"{name}: {before.get(name)} in the folder, {after[name]} now" for name in changed
        )
        raise ValueError(f"{folder} has results of other settings ({differences}): {advice}")
