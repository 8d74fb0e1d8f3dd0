"""Writes the output files of a photo, each atomically, the JSON last.

For `face.jpg` these are `face.jpg.labels.png` (class ids with a palette), `face.jpg.overlay.jpg`, a
black and white `face.jpg.hair.png` for each requested mask, and `face.jpg.json`.
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

_LABELS, _OVERLAY, _METADATA = ".labels.png", ".overlay.jpg", ".json"
# Label maps and masks consist of runs of one value: matching runs only is faster and smaller.
_PNG: dict[str, Any] = {"format": "PNG", "compress_type": zlib.Z_RLE}
# PNG would take ten times as long for the overlay of a photo.
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 90}


def write_result(base: Path, result: PhotoResult, masks: Sequence[str] = ()) -> None:
    """Writes the output files of a photo.

    Args:
        base: their path without suffixes; missing folders are created.
        result: the result of the photo.
        masks: names of the classes that get a mask.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    labels = Image.fromarray(result.labels)
    labels.putpalette(np.array(result.anatomy.colours, np.uint8).tobytes())  # sets mode "P"
    overlay = Image.fromarray(result.overlay(legend=True))
    write_atomically(_path(base, _LABELS), partial(labels.save, **_PNG))
    write_atomically(_path(base, _OVERLAY), partial(overlay.save, **_JPEG))
    for name in masks:
        mask = Image.fromarray(result.mask(name))
        write_atomically(_path(base, _mask_suffix(name)), partial(mask.save, **_PNG))
    text = json.dumps(_metadata(base, result), indent=2, allow_nan=False) + "\n"
    write_atomically(_path(base, _METADATA), lambda file: file.write(text.encode()))


def file_names(base: str, masks: Sequence[str] = ()) -> list[str]:
    """Returns the names of the output files of a photo, in the order in which they are written.

    Args:
        base: their name without suffixes.
        masks: names of the classes that get a mask.
    """
    return [base + suffix for suffix in (_LABELS, _OVERLAY, *map(_mask_suffix, masks), _METADATA)]


def is_complete(base: Path, masks: Sequence[str] = ()) -> bool:
    """Whether all output files of a photo exist.

    Args:
        base: their path without suffixes.
        masks: names of the classes that get a mask.
    """
    # For a name that is too long `Path.exists` raises; here, writing reports the error.
    return all(os.path.exists(base.with_name(name)) for name in file_names(base.name, masks))


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file under a temporary name and renames it when it is complete.

    Args:
        path: the file, which is replaced if it exists. Its folder must exist.
        write: writes the content into the open binary file.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "wb") as file:
        write(file)
    os.replace(temporary, path)


def _mask_suffix(name: str) -> str:
    return f".{name}.png"


def _path(base: Path, suffix: str) -> Path:
    return base.with_name(base.name + suffix)


def _metadata(base: Path, result: PhotoResult) -> dict[str, Any]:
    """Returns the content of the JSON file; boxes are (x0, y0, x1, y1), as in `FaceResult`."""
    height, width = result.labels.shape
    return {
        "photo": base.name,
        "width": width,
        "height": height,
        "classes": result.anatomy.classes,
        "palette": result.anatomy.colours,
        "faces": [
            {"box": face.box, "windows": face.windows, "parts_found": face.found}
            for face in result.faces
        ],
    }
