"""Writes the output files of a photo, each atomically, the JSON last; `cli.outputs` lists them."""

import json
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jax_stn_icnn.anatomy import DATA_SETS, Anatomy
from jax_stn_icnn.atomic import write_atomically, write_text
from jax_stn_icnn.cli.outputs import CUTOUT, JSON, LABELS, OVERLAY, Outputs, mask_suffix
from jax_stn_icnn.inference import coco
from jax_stn_icnn.inference.results import FaceResult, PhotoResult

# Label maps and masks consist of runs of one value: matching runs only is faster and smaller.
_PNG: dict[str, Any] = {"format": "PNG", "compress_type": zlib.Z_RLE}
# PNG would take ten times as long for the overlay of a photo.
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 90}


def write_result(base: Path, result: PhotoResult, outputs: Outputs, fingerprint: str) -> None:
    """Writes the output files of a photo.

    Args:
        base: their path without suffixes; missing folders are created.
        result: the result of the photo.
        outputs: the files to write.
        fingerprint: fingerprint of the photo.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    overlay = Image.fromarray(result.overlay(legend=True))
    _save(overlay, base, OVERLAY, _JPEG)
    if outputs.cutout:
        _save(Image.fromarray(result.cutout()), base, CUTOUT, {"format": "PNG"})
    _write_masks(base, result, outputs)
    for index, face in enumerate(result.faces if outputs.per_face else ()):
        _write_masks(base.with_name(f"{base.name}.face{index}"), face, outputs)
    metadata = _metadata(base, result, outputs) | {"fingerprint": fingerprint}
    text = json.dumps(metadata, indent=2, allow_nan=False) + "\n"
    write_text(base.with_name(base.name + JSON), text)


def _write_masks(base: Path, result: PhotoResult | FaceResult, outputs: Outputs) -> None:
    """Writes the labels and masks of a photo or a face."""
    if outputs.ids is None:
        labels = result.labels_image()
    else:
        labels = Image.fromarray(result.labels_as(outputs.ids))
        _, colours = named_classes(result.anatomy, outputs.ids)
        labels.putpalette(np.array(colours, np.uint8).tobytes())
    _save(labels, base, LABELS, _PNG)
    for name in outputs.masks:
        _save(Image.fromarray(result.mask(name)), base, mask_suffix(name), _PNG)
        if outputs.soft:
            gray = np.round(result.soft_mask(name) * 255).astype(np.uint8)
            _save(Image.fromarray(gray), base, mask_suffix(name, soft=True), {"format": "PNG"})


def named_classes(anatomy: Anatomy, ids: str | None) -> tuple[Sequence[str], Sequence[Any]]:
    """Returns name and colour of each id in the labels."""
    if ids is None:
        return anatomy.classes, anatomy.colours
    names = DATA_SETS[ids].classes
    return list(names), [anatomy.colours[i] for i in anatomy.ids(list(names.values()))]


def _save(image: Image.Image, base: Path, suffix: str, options: dict[str, Any]) -> None:
    write_atomically(base.with_name(base.name + suffix), partial(image.save, **options))


def _metadata(base: Path, result: PhotoResult, outputs: Outputs) -> dict[str, Any]:
    """Returns the content of the JSON file; boxes are (x0, y0, x1, y1), as in `FaceResult`."""
    height, width = result.image.shape[:2]
    classes, colours = named_classes(result.anatomy, outputs.ids)
    metadata = {
        "photo": base.name,
        "width": width,
        "height": height,
        "classes": classes,
        "palette": colours,
        "faces": [
            {
                "box": face.box,
                "score": face.score,
                "landmarks": None if face.landmarks is None else face.landmarks.tolist(),
                "windows": face.windows,
                "parts_found": face.found,
            }
            for face in result.faces
        ],
    }
    if outputs.coco:
        metadata["categories"] = coco.categories(result.anatomy)
        metadata["annotations"] = coco.annotations(result, image_id=1)
    return metadata
