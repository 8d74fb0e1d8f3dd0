"""Draws the pages' pictures of single people: drawn portraits, and the astronaut.

    python docs/make_gallery.py

`gallery.jpg`: drawn portraits beside their labels. `astronaut_masks.jpg`: overlay, hair, cut-out.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from jax_stn_icnn import FaceParser
from tfds_builders.synthetic_faces.portrait import draw_portrait

DOCS = Path(__file__).parent
# Indices of drawn test portraits whose faces the detector finds.
PORTRAITS = (0, 2, 4, 6, 9, 13, 14, 22)
SIDE = 256


def gallery(parser: FaceParser) -> np.ndarray:
    """Returns two rows of portraits, each beside its labels, uint8 (height, width, 3)."""
    rows = []
    for half in (PORTRAITS[: len(PORTRAITS) // 2], PORTRAITS[len(PORTRAITS) // 2 :]):
        portraits = [draw_portrait("test", number, SIDE).image for number in half]
        pairs = [np.hstack([portrait, parser(portrait).overlay()]) for portrait in portraits]
        rows.append(np.hstack(pairs))
    return np.vstack(rows)


def masks(parser: FaceParser) -> np.ndarray:
    """Returns the astronaut: overlay with legend, mask of the hair, and the head cut out."""
    photo = np.asarray(Image.open(DOCS / "photo.jpg"))
    parse = parser(photo)
    overlay = parse.overlay(legend=True)
    hair = np.repeat(parse.mask("hair")[..., None] * np.uint8(255), 3, axis=2)
    names = [name for name in parser.classes if name not in ("background", "neck", "cloth")]
    cut = np.where(parse.mask(*names)[..., None], photo, _checkerboard(photo.shape))
    shown = np.full((len(overlay), 3 * photo.shape[1], 3), 255, np.uint8)
    for i, picture in enumerate((overlay, hair, cut)):
        shown[: len(picture), i * photo.shape[1] :][:, : picture.shape[1]] = picture
    return shown


def _checkerboard(shape: tuple[int, ...], square: int = 16) -> np.ndarray:
    """Returns the checkerboard that image editors show for transparent pixels."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    light = (rows // square + columns // square) % 2
    return np.uint8(200 + 40 * light)[..., None].repeat(3, axis=2)


def main() -> None:
    """Runs the command."""
    parser = FaceParser.load()
    Image.fromarray(gallery(parser)).save(DOCS / "gallery.jpg", quality=85)
    Image.fromarray(masks(parser)).save(DOCS / "astronaut_masks.jpg", quality=85)


if __name__ == "__main__":
    main()
