"""Results as annotations in the format of COCO (extra `coco`)."""

import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.inference.results import PhotoResult

_MISSING = "COCO needs pycocotools: pip install 'jax-stn-icnn[coco]'"


def to_coco(results: Iterable[tuple[str, PhotoResult]]) -> dict[str, Any]:
    """Returns results of photos as a data set of COCO.

    Args:
        results: file name and result of each photo, all of the same anatomy.

    Returns:
        A dict that `json.dump` writes and `pycocotools.coco.COCO` reads: `images`, `categories`,
        which are the classes but background with their class ids, and `annotations`, see
        `annotations`. Ids of images and annotations count from 1.

    Raises:
        ImportError: pycocotools is not installed.
    """
    images: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    anatomy = None
    for number, (file_name, result) in enumerate(results, start=1):
        height, width = result.image.shape[:2]
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        entries += annotations(result, number, first_id=len(entries) + 1)
        anatomy = result.anatomy
    return {
        "images": images,
        "annotations": entries,
        "categories": [] if anatomy is None else categories(anatomy),
    }


def write_coco(path: str | Path, results: Iterable[tuple[str, PhotoResult]]) -> None:
    """Writes results of photos as a JSON file of COCO.

    Args:
        path: the file.
        results: file name and result of each photo; requested one at a time, so `zip(names,
            parser.stream(names))` needs little memory.

    Raises:
        ImportError: pycocotools is not installed.
    """
    Path(path).write_text(json.dumps(to_coco(results)))


def categories(anatomy: Anatomy) -> list[dict[str, Any]]:
    """Returns the classes but background as categories of COCO."""
    return [
        {"id": c, "name": name, "supercategory": "person"}
        for c, name in enumerate(anatomy.classes)
        if c > 0
    ]


def annotations(result: PhotoResult, image_id: int, first_id: int = 1) -> list[dict[str, Any]]:
    """Returns the annotations of a photo: one for each face and class that has pixels.

    Args:
        result: the result of the photo.
        image_id: id of the image.
        first_id: id of the first annotation; the following ones count up.

    Returns:
        For each the fields of COCO with the mask as compressed run lengths (`segmentation`), `bbox`
        (x, y, width, height), `face`, the index of the face in the photo, and the detection's
        `score` if it has one.

    Raises:
        ImportError: pycocotools is not installed.
    """
    coco_mask = import_masks()
    entries: list[dict[str, Any]] = []
    for index, face in enumerate(result.faces):
        labels = face.labels
        for c in np.flatnonzero(np.bincount(labels.ravel(), minlength=1)[1:]) + 1:
            runs = coco_mask.encode(np.asfortranarray(labels == c, np.uint8))
            entries.append(
                {
                    **({} if face.score is None else {"score": face.score}),
                    "id": first_id + len(entries),
                    "image_id": image_id,
                    "category_id": int(c),
                    "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
                    "bbox": coco_mask.toBbox(runs).tolist(),
                    "area": int(coco_mask.area(runs)),
                    "iscrowd": 0,
                    "face": index,
                }
            )
    return entries


def import_masks() -> ModuleType:
    """Returns the module of pycocotools that encodes masks.

    Raises:
        ImportError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise ImportError(_MISSING) from error
    return mask
