"""The file `coco.json`: annotations of all photos in the format of COCO."""

import json
from collections.abc import Iterable
from typing import Any

NAME = "coco.json"


def merge(photos: Iterable[tuple[str, bytes]]) -> bytes:
    """Returns the content of the file.

    Args:
        photos: name of each photo, and the content of its JSON file.
    """
    merged: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for number, (name, content) in enumerate(photos, start=1):
        photo = json.loads(content)
        image = {"id": number, "file_name": name, "width": photo["width"]}
        merged["images"].append(image | {"height": photo["height"]})
        for annotation in photo["annotations"]:
            ids = {"id": len(merged["annotations"]) + 1, "image_id": number}
            merged["annotations"].append(annotation | ids)
        merged["categories"] = photo["categories"]
    return json.dumps(merged).encode()
