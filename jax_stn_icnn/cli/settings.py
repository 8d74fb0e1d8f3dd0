"""What the results in a folder were made with: a file beside them, so that no two kinds mix.

The command goes on where it was stopped, and would take what other weights left for its own.
"""

import hashlib
import json
from pathlib import Path

from jax_stn_icnn.faces import detectors
from jax_stn_icnn.io.weights import weights_file

NAME = "settings.json"
_WHOLE_PHOTO = "the whole photo"


def of(ckpt: str | Path | None, detector: str, detect: bool) -> str:
    """The text of the file.

    Args:
        ckpt: the weights, as `FaceParser.load` takes them.
        detector: what finds the faces, as there.
        detect: whether it does; otherwise each photo is one face.

    Raises:
        FileNotFoundError: there is no such file of weights or of a detector.
        ValueError: there is no such detector.
    """
    detectors.make_detector(detector)
    file = weights_file(ckpt)
    made_with = {
        "weights": file.name,
        "sha256 of the weights": hashlib.sha256(file.read_bytes()).hexdigest(),
        "faces": detector if detect else _WHOLE_PHOTO,
    }
    return json.dumps(made_with, indent=2) + "\n"


def check(folder: str | Path, earlier: str, now: str) -> None:
    """Checks that results may lie beside those that are there.

    Args:
        folder: where they are.
        earlier: the text of its file.
        now: what it would be for the results to come.

    Raises:
        ValueError: they are made with something else, or the file is none of these.
    """
    advice = "name another --out, or remove what is there"
    try:
        before = dict(json.loads(earlier))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder} holds a {NAME} that cannot be read: {advice}") from error
    after = json.loads(now)
    if changed := [name for name in after if before.get(name) != after[name]]:
        differences = "; ".join(
            f"{name}: {before.get(name)} there, {after[name]} now" for name in changed
        )
        raise ValueError(f"{folder} holds results made otherwise ({differences}): {advice}")
