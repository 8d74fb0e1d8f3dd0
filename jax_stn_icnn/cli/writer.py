"""What the command writes for a photo: each file whole or not at all, the JSON last.

For `face.jpg`: `face.jpg.labels.png` (class ids with a palette), `face.jpg.overlay.jpg`, a black
and white `face.jpg.hair.png` for each of the masks asked for, and `face.jpg.json`.
"""

import json
import os
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from jax_stn_icnn.inference.results import PhotoResult

_LABELS, _OVERLAY, _FACTS = ".labels.png", ".overlay.jpg", ".json"
# Of label maps and masks: runs of one value, which zlib looks for alone; smaller, and faster.
_PNG: dict[str, Any] = {"format": "PNG", "compress_type": zlib.Z_RLE}
# As PNG, a photo's overlay would take ten times as long.
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 90}


def write(base: Path, parse: PhotoResult, masks: Sequence[str] = ()) -> None:
    """Writes a photo's files.

    Args:
        base: their path without their endings; its folder is made if need be.
        parse: the photo's parse.
        masks: names of classes that get a file of their own.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    indexed = Image.fromarray(parse.labels)
    indexed.putpalette(np.array(parse.anatomy.colours, np.uint8).tobytes())  # makes its mode "P"
    overlay = Image.fromarray(parse.overlay(legend=True))
    write_whole(_path(base, _LABELS), partial(indexed.save, **_PNG))
    write_whole(_path(base, _OVERLAY), partial(overlay.save, **_JPEG))
    for name in masks:
        mask = Image.fromarray(parse.mask(name))
        write_whole(_path(base, _mask(name)), partial(mask.save, **_PNG))
    text = json.dumps(_facts(base, parse), indent=2, allow_nan=False) + "\n"
    write_whole(_path(base, _FACTS), lambda file: file.write(text.encode()))


def names(base: str, masks: Sequence[str] = ()) -> list[str]:
    """The names of a photo's files, in the order in which they are written.

    Args:
        base: their name without its ending.
        masks: names of classes that get a file of their own.
    """
    return [base + ending for ending in (_LABELS, _OVERLAY, *map(_mask, masks), _FACTS)]


def are_there(base: Path, masks: Sequence[str] = ()) -> bool:
    """Whether a photo has all of its files.

    Args:
        base: their path without their endings.
        masks: names of classes that get a file of their own.

    Returns:
        True if each of them is there.
    """
    # Of a name that is too long `Path.exists` would raise what writing will say.
    return all(os.path.exists(base.with_name(name)) for name in names(base.name, masks))


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file under another name, and renames it when it is whole.

    Args:
        path: the file; one that is there is replaced. Its folder must exist.
        write: what writes into the file, opened for bytes.
    """
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        write(file)
    os.replace(partial, path)


def _mask(name: str) -> str:
    return f".{name}.png"


def _path(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def _facts(base: Path, parse: PhotoResult) -> dict[str, Any]:
    """What the JSON says; boxes are (x0, y0, x1, y1), centres of corner pixels."""
    height, width = parse.labels.shape
    return {
        "photo": base.name,
        "width": width,
        "height": height,
        "classes": parse.anatomy.classes,
        "palette": parse.anatomy.colours,
        "faces": [
            {"box": face.box, "windows": face.windows, "parts_found": face.found}
            for face in parse.faces
        ],
    }
