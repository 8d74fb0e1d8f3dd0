"""Draws a picture for each option of the page "Photos": results.jpg and selection.jpg.

    python docs/make_options.py [--ckpt PATH] [--out docs]

The photo is photo.jpg, NASA's portrait of Eileen Collins; the group is that of `make_group.py`.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from make_group import photo as draw_group
from matplotlib import pyplot as plt
from PIL import Image, ImageDraw

from jax_stn_icnn import FaceParser
from jax_stn_icnn.inference.results import PhotoResult

DOCS = Path(__file__).parent
COLUMNS = 4
SQUARE = 16  # side of the squares behind cut-outs, in pixels
RED = (220, 40, 40)


def main() -> None:
    """Runs the command."""
    command = argparse.ArgumentParser(description="Draws a picture for each option.")
    command.add_argument("--ckpt", help="weights; by default the shipped ones")
    command.add_argument("--out", type=Path, default=DOCS)
    args = command.parse_args()
    photo = np.asarray(Image.open(DOCS / "photo.jpg"))
    parse = FaceParser.load(args.ckpt)(photo)
    square = FaceParser.load(args.ckpt, wide=False)(photo)
    nine = FaceParser.load("nine")(photo)
    _save_grid(args.out / "results.jpg", _results(parse, square, nine))
    _save_grid(args.out / "selection.jpg", _selections(args.ckpt, draw_group()))


def _results(parse: PhotoResult, square: PhotoResult, nine: PhotoResult) -> dict[str, np.ndarray]:
    """Returns what a parse returns, by the expression that returns it."""
    image, mask, _ = parse.crop(0, "person")
    hair = parse.anatomy.classes.index("hair")
    return {
        "parse.image": parse.image,
        "parse.overlay(legend=True)": parse.overlay(legend=True),
        "parse.overlay(alpha=1)": parse.overlay(alpha=1.0),
        "load(wide=False)": square.overlay(),
        'load("nine")\n--ckpt nine': nine.overlay(),
        "parse.labels_image()\nphoto.jpg.labels.png": np.asarray(
            parse.labels_image().convert("RGB")
        ),
        'parse.mask("hair")\n--masks hair': _gray(parse.mask("hair")),
        'parse.labels_as("celebamask_hq")\n--ids celebamask_hq': _coloured(
            parse.labels_as("celebamask_hq")
        ),
        'parse.mask("lips", "eyes")': _gray(parse.mask("lips", "eyes")),
        'parse.mask("head")\n--masks head': _gray(parse.mask("head")),
        'parse.soft_mask("hair")\n--masks hair --soft': _gray(parse.soft_mask("hair")),
        "face.scores(), of hair": _gray(parse.faces[0].scores()[..., hair]),
        "parse.cutout()\n--cutout": _on_squares(parse.cutout()),
        'parse.cutout("head")': _on_squares(parse.cutout("head")),
        'parse.crop(0, "person")': np.where(mask[..., None], image, image // 4),
        'face.polygons("person")': _with_polygons(parse, "person"),
    }


def _selections(ckpt: str | None, group: np.ndarray) -> dict[str, np.ndarray]:
    """Returns overlays of a group with the faces that each option selects, by the option."""
    parser = FaceParser.load(ckpt)
    everyone = parser(group)
    score = float(np.median([face.score for face in everyone.faces]))
    side = float(np.median([face.box[2] - face.box[0] for face in everyone.faces]))
    box = tuple(round(float(value)) for value in everyone.faces[0].box)
    return {
        "all faces: boxes, scores, landmarks": _with_faces(everyone),
        "face.labels of each face\n--per-face": _owners(everyone),
        f"min_score={score:.2f}\n--min-score {score:.2f}": _with_faces(
            FaceParser.load(ckpt, min_score=score)(group)
        ),
        f"min_face_size={side:.0f}\n--min-face-size {side:.0f}": _with_faces(
            FaceParser.load(ckpt, min_face_size=side)(group)
        ),
        "max_faces=3\n--max-faces 3": _with_faces(parser(group, max_faces=3)),
        "largest=True\n--largest": _with_faces(parser(group, largest=True)),
        f"boxes=[{box}]": _with_faces(parser(group, boxes=[box])),
        "landmarks=[...]": _with_faces(parser(group, landmarks=[everyone.faces[0].landmarks])),
        'load(detector="cascade")\n--detector cascade': _with_faces(
            FaceParser.load(ckpt, detector="cascade")(group)
        ),
        "load(detector=centered_face)": _with_faces(
            FaceParser.load(ckpt, detector=_centered_face)(group)
        ),
        "load(wide=False)": _with_faces(FaceParser.load(ckpt, wide=False)(group)),
        "detect=False\n--no-detect": _with_faces(parser(group, detect=False)),
    }


def _centered_face(photo: np.ndarray) -> np.ndarray:
    """Returns one box in the middle, as the detector of the page "Photos" does."""
    height, width = photo.shape[:2]
    return np.array([[0.25 * width, 0.2 * height, 0.75 * width, 0.8 * height]])


def _with_faces(parse: PhotoResult) -> np.ndarray:
    """Returns the overlay with the box, the score and the landmarks of each face."""
    picture = Image.fromarray(parse.overlay())
    pen = ImageDraw.Draw(picture)
    text: dict[str, Any] = {"font_size": 26, "stroke_width": 3, "stroke_fill": "white"}
    for face in parse.faces:
        pen.rectangle([float(value) for value in face.box], outline=RED, width=4)
        if face.score is not None:
            place = face.box[0] + 6, face.box[1] + 4
            pen.text(place, f"{face.score:.2f}", RED, **text)
        if face.landmarks is not None:
            for x, y in face.landmarks:
                pen.ellipse([x - 5, y - 5, x + 5, y + 5], fill=RED)
    return np.asarray(picture)


def _owners(parse: PhotoResult) -> np.ndarray:
    """Returns the photo with the pixels of each face in one colour."""
    picture = parse.image // 2
    for face, colour in zip(parse.faces, plt.get_cmap("tab10").colors, strict=False):
        picture[face.labels > 0] += np.uint8(np.array(colour) * 127)
    return picture


def _with_polygons(parse: PhotoResult, name: str) -> np.ndarray:
    """Returns the photo with the outlines of a mask."""
    picture = Image.fromarray(parse.image)
    pen = ImageDraw.Draw(picture)
    for points in parse.polygons(name):
        pen.line([tuple(point) for point in [*points, points[0]]], RED, width=4)
    return np.asarray(picture)


def _gray(mask: np.ndarray) -> np.ndarray:
    """Returns values in 0..1 as an image, uint8 (height, width, 3)."""
    return np.dstack([np.rint(mask * 255.0).astype(np.uint8)] * 3)


def _coloured(ids: np.ndarray) -> np.ndarray:
    """Returns class ids as an image, each in a colour of its own."""
    return np.rint(plt.get_cmap("tab20")(ids)[..., :3] * 255).astype(np.uint8)


def _on_squares(cutout: np.ndarray) -> np.ndarray:
    """Returns a cut-out on gray and white squares, uint8 (height, width, 3)."""
    rows, columns = np.indices(cutout.shape[:2]) // SQUARE
    squares = np.where((rows + columns) % 2, 255, 200)[..., None]
    opacity = cutout[..., 3:] / 255
    return np.rint(cutout[..., :3] * opacity + squares * (1 - opacity)).astype(np.uint8)


def _save_grid(path: Path, panels: Mapping[str, np.ndarray]) -> None:
    """Writes images with titles as one picture."""
    rows = -(-len(panels) // COLUMNS)
    height, width = next(iter(panels.values())).shape[:2]
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(12, rows * (3 * height / width + 0.5)), layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, image) in zip(axes.flat, panels.items(), strict=False):
        axis.imshow(image)
        axis.set_title(title, fontsize=9, family="monospace")
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 85})
    plt.close(figure)


if __name__ == "__main__":
    main()
