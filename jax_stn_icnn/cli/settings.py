"""The file `settings.json` in an output folder: what the results in it depend on.

The command skips photos whose results exist. With this file it detects results of other weights, of
other faces, or with other ids.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from jax_stn_icnn.atomic import write_text
from jax_stn_icnn.faces import detectors
from jax_stn_icnn.io.weights import weights_file

NAME = "settings.json"
_NO_DETECTION = "one per photo, not detected"
_DIGEST = "sha256 of the weights"


def to_json(args: argparse.Namespace) -> str:
    """Returns the content of the file for the command's arguments.

    Raises:
        FileNotFoundError: the file of the weights or of the detector does not exist.
        ValueError: the detector is unknown, or faces are to be selected but not detected.
    """
    detectors.make_detector(args.detector)
    selection = {
        "min_score": args.min_score,
        "min_face_size": args.min_face_size,
        "max_faces": args.max_faces,
    }
    if not args.detect and (given := [name for name in selection if selection[name] is not None]):
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ValueError(f"--no-detect parses each photo as one face: leave out {options}")
    file = weights_file(args.ckpt)
    content: dict[str, Any] = {
        "weights": file.name,
        _DIGEST: hashlib.sha256(file.read_bytes()).hexdigest(),
        "faces": args.detector if args.detect else _NO_DETECTION,
        "sha256 of the detector": _detector_digest(args),
        **selection,
        "ids": args.ids,
    }
    return json.dumps(content, indent=2) + "\n"


def _detector_digest(args: argparse.Namespace) -> str | None:
    """Returns the digest of a detector in a file; None for the others, which are in libraries."""
    if not args.detect or args.detector in detectors.NAMES:
        return None
    return hashlib.sha256(Path(args.detector).expanduser().read_bytes()).hexdigest()


def store(folder: Path, current: str) -> None:
    """Writes the file into a folder, unless another process has written it in the meantime.

    Args:
        folder: the output folder.
        current: content of `to_json` for the current options.

    Raises:
        ValueError: as in `check`.
        OSError: the file cannot be written.
    """
    if (folder / NAME).exists():
        check(folder, (folder / NAME).read_bytes(), current)
    else:
        write_text(folder / NAME, current)


def is_settings_file(path: Path) -> bool:
    """Whether a file was written by the command."""
    try:
        return _DIGEST in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def check(folder: str | Path, stored: bytes, current: str) -> None:
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
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder} has a {NAME} that cannot be read: {advice}") from error
    after = json.loads(current)
    if changed := [name for name in after if before.get(name) != after[name]]:
        differences = "; ".join(
            f"{name}: {before.get(name)} in the folder, {after[name]} now" for name in changed
        )
        raise ValueError(f"{folder} has results of other settings ({differences}): {advice}")
