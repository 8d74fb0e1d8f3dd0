"""Writes the results of the Python parser for some photos into `test/.reference/`.

    python test/reference.py

The page's tests compare its results to them. `cases.json` contains numbers, and the file and shape
of each array; the files contain the bytes of the arrays.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from jax_stn_icnn import FaceParser
from jax_stn_icnn.anatomy import NINETEEN
from jax_stn_icnn.faces import detectors, framing, resample
from jax_stn_icnn.faces.owners import assign_owners, extend_owners
from jax_stn_icnn.inference.merging import merge_faces
from jax_stn_icnn.inference.results import FaceResult
from jax_stn_icnn.photos.reading import to_rgb
from jax_stn_icnn.wide_frame import WIDE_DOWN, WIDE_SIDE
from tfds_builders.synthetic_faces.group import draw_group

PAGE = Path(__file__).parents[1]
OUT = Path(__file__).with_name(".reference")
STRIDES = (8, 16, 32)
_LANDMARKS = ("eye_1", "eye_2", "nose", "upper_lip", "lower_lip")


def main() -> None:
    """Runs the command."""
    OUT.mkdir(exist_ok=True)
    group = _group()
    Image.fromarray(group).save(OUT / "group.png")
    landmarks = detectors.make_single_view_detector()(group)
    cases = {
        "group": _array("group", group),
        "frames": _frames(group, landmarks),
        "scores": _scores(),
        "overlapping": _overlapping(),
        "detector": _detector(group, landmarks),
        "parses": _parses({"sample": to_rgb(PAGE / "public" / "astronaut.jpg"), "group": group}),
    }
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1))


def _group() -> np.ndarray:
    """Returns the photo of several drawn faces, some of them rotated, of the README."""
    path = PAGE.parent / "docs" / "make_group.py"
    spec = importlib.util.spec_from_file_location("make_group", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.photo()


def _frames(photo: np.ndarray, landmarks: np.ndarray) -> list[dict[str, Any]]:
    """Crops frames and wide frames, finer and coarser than the photo or at its edge."""
    boxes = np.array([(-60, 20, 180, 250), (500.5, 380, 760, 655), (300, 130, 340, 168)])
    cases = []
    for name, given, place in (
        ("landmarks", landmarks[:2], framing.frames_from_landmarks),
        ("box", boxes, lambda some, side: framing.frames_from_boxes(some, photo.shape[:2], side)),
    ):
        for side in (512, 120, 33):
            for i, (one, matrix) in enumerate(zip(given, place(given, side)[1], strict=True)):
                key, size = f"{name}-{side}-{i}", side // 2
                wide_matrix = framing.wide_frame(matrix, side, size)
                wide = resample.warp(photo, wide_matrix, (size, size))
                case = {
                    name: one.tolist(),
                    "side": side,
                    "matrix": matrix.ravel().tolist(),
                    "frame": _array(f"frame-{key}", resample.warp(photo, matrix, (side, side))),
                    "place": _place(size),
                    "wide_matrix": wide_matrix.ravel().tolist(),
                    "wide": _array(f"wide-{key}", wide),
                }
                cases.append(case)
    return cases


def _place(size: int) -> dict[str, float]:
    """Returns where wide frames of a size lie."""
    return {"size": size, "side": WIDE_SIDE, "down": WIDE_DOWN}


def _scores() -> dict[str, Any]:
    """Resamples scores to a photo by several matrices, and merges the faces."""
    rng, size = np.random.default_rng(0), (150, 190)
    scores = _noise(rng, len(NINETEEN.classes), 64)
    wide_scores, far_scores = (_noise(rng, len(NINETEEN.global_ids), 48) for _ in range(2))
    places = {
        "finer": _matrix((1.9, 0.3), (80, 60)),
        "coarser": _matrix((0.4, -0.1), (40, 90)),
        "edge": _matrix((1.3, 0.0), (20, 30)),
        "beyond": _matrix((2.0, -1.0), (185, 140)),
    }
    labels = {}
    kinds = {"square": (), "wide": (wide_scores,), "far": (wide_scores, far_scores)}
    for kind, around in kinds.items():
        faces = [
            FaceResult.from_frame(
                scores=scores,
                windows=np.zeros((len(NINETEEN.parts), 4)),
                coarse_labels=np.zeros((1, 1), np.uint8),
                anatomy=NINETEEN,
                box=np.zeros(4),
                matrix=matrix,
                photo_size=size,
                wide_scores=around,
            )
            for matrix in places.values()
        ]
        maps = {name: face.labels for name, face in zip(places, faces, strict=True)}
        maps["merged"] = merge_faces(faces, np.zeros((*size, 3), np.uint8))[0].labels()
        labels[kind] = {name: _array(f"labels-{kind}-{name}", each) for name, each in maps.items()}
    return {
        "scores": _array("scores", np.moveaxis(scores, 0, -1)),
        "wide_scores": _array("wide-scores", wide_scores),
        "far_scores": _array("far-scores", far_scores),
        "place": _place(wide_scores.shape[-1]),
        "ids": NINETEEN.global_ids,
        "matrices": {name: matrix.ravel().tolist() for name, matrix in places.items()},
        "labels": labels,
    }


def _overlapping() -> dict[str, Any]:
    """Returns the owners of the pixels of drawn people who overlap."""
    drawn = draw_group(0, size=(320, 480))
    matrices = [_drawn_frame(np.where(drawn.owner == i, drawn.label, 0)) for i in range(8)]
    owners = assign_owners(drawn.image, drawn.label, matrices, 512, NINETEEN)
    return {
        "photo": _array("overlapping", drawn.image),
        "labels": _array("overlapping-labels", drawn.label),
        "matrices": [matrix.ravel().tolist() for matrix in matrices],
        "classes": NINETEEN.classes,
        "owners": _array("overlapping-owners", owners.astype(np.uint8)),
        "extended": _array("overlapping-extended", extend_owners(owners).astype(np.uint8)),
    }


def _drawn_frame(labels: np.ndarray) -> np.ndarray:
    """Returns the frame of a drawn face, by the middles of its eyes, nose and lips."""
    x, y = (
        [np.nonzero(np.isin(labels, NINETEEN.ids([name])))[axis].mean() for name in _LANDMARKS]
        for axis in (1, 0)
    )
    points = np.stack([x, y], axis=1)
    eyes, lips = points[1] - points[0], points[3:].mean(axis=0)
    corners = lips - eyes / 3, lips + eyes / 3
    return framing.frame_from_landmarks(np.array([*points[:3], *corners]), 512)


def _noise(rng: np.random.Generator, channels: int, side: int) -> np.ndarray:
    """Returns smooth noise, float32 (channels, side, side)."""
    noise = rng.normal(size=(channels, 9, 9)).astype(np.float32)
    return np.stack([cv2.resize(plane, (side, side)) for plane in noise])


def _matrix(axis: tuple[float, float], centre: tuple[float, float]) -> np.ndarray:
    """Returns the matrix of a frame of 64 pixels."""
    linear = np.array([[axis[0], -axis[1]], [axis[1], axis[0]]])
    shift = np.array(centre) - linear @ np.full(2, 31.5)
    return np.concatenate([linear, shift[:, None]], axis=1)


def _detector(photo: np.ndarray, landmarks: np.ndarray) -> dict[str, Any]:
    """Returns the input and the outputs of YuNet's network in OpenCV."""
    factor = 640 / max(photo.shape)
    small = cv2.resize(
        photo,
        (round(photo.shape[1] * factor), round(photo.shape[0] * factor)),
        interpolation=cv2.INTER_AREA,
    )
    rows, columns = (-small.shape[0] % 32, -small.shape[1] % 32)
    blob = cv2.dnn.blobFromImage(
        cv2.copyMakeBorder(small, 0, rows, 0, columns, cv2.BORDER_CONSTANT), swapRB=True
    )
    network = cv2.dnn.readNet(str(detectors.yunet_file()))
    network.setInput(blob)
    names = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES]
    outputs = dict(zip(names, network.forward(names), strict=True))
    return {
        "input": _array("yunet-input", blob),
        "outputs": {name: _array(f"yunet-{name}", value) for name, value in outputs.items()},
        "landmarks": landmarks.tolist(),
    }


def _parses(photos: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the parser's labels, the owners of the pixels, and the opacities of a cut-out."""
    # The page detects faces in a single view.
    parser = FaceParser.load(detector=detectors.make_single_view_detector(), quick_start=False)
    found = {}
    for name, photo in photos.items():
        parse = parser(photo)
        owners = np.full(photo.shape[:2], 255, np.uint8)
        for index, face in enumerate(parse.faces):
            owners[face.labels > 0] = index
        found[name] = {
            "faces": len(parse.faces),
            "frames": [len(face.frames) for face in parse.faces],
            "labels": _array(f"parse-{name}", parse.labels),
            "owners": _array(f"owners-{name}", owners),
            "hair": _array(f"hair-{name}", parse.cutout("hair")[..., 3]),
        }
    return found


def _array(name: str, values: np.ndarray) -> dict[str, Any]:
    """Writes the bytes of an array; returns its file and shape."""
    (OUT / f"{name}.bin").write_bytes(np.ascontiguousarray(values).tobytes())
    return {"file": f"{name}.bin", "shape": values.shape}


if __name__ == "__main__":
    main()
