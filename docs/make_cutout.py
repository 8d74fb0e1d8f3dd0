"""Draws the picture of cut-outs: the photo, the person, the head, and the soft mask of the hair.

    python docs/make_cutout.py [--photo astronaut.png] [--ckpt PATH] [--out docs/cutout.jpg]

The photo is that of `make_astronaut.py`.
"""

import argparse
from pathlib import Path

import numpy as np
from make_astronaut import read_astronaut
from PIL import Image

from jax_stn_icnn import FaceParser
from jax_stn_icnn.photos.reading import to_rgb

SQUARE = 16  # side of the squares behind the cut-outs, in pixels


def main() -> None:
    """Runs the command."""
    command = argparse.ArgumentParser(description="Draws the picture of cut-outs.")
    command.add_argument("--photo", type=Path, help="the photo, if scikit-image is not installed")
    command.add_argument("--ckpt", help="weights; by default the shipped ones")
    command.add_argument("--out", type=Path, default=Path(__file__).with_name("cutout.jpg"))
    args = command.parse_args()
    parse = FaceParser.load(args.ckpt)(to_rgb(args.photo) if args.photo else read_astronaut())
    hair = np.rint(parse.soft_mask("hair") * 255).astype(np.uint8)
    panels = [
        parse.image,
        _on_squares(parse.cutout()),
        _on_squares(parse.cutout("head")),
        np.dstack([hair] * 3),
    ]
    Image.fromarray(np.concatenate(panels, axis=1)).save(args.out, quality=90)


def _on_squares(cutout: np.ndarray) -> np.ndarray:
    """Returns a cut-out on grey and white squares, uint8 (height, width, 3)."""
    rows, columns = np.indices(cutout.shape[:2]) // SQUARE
    squares = np.where((rows + columns) % 2, 255, 200)[..., None]
    opacity = cutout[..., 3:] / 255
    return np.rint(cutout[..., :3] * opacity + squares * (1 - opacity)).astype(np.uint8)


if __name__ == "__main__":
    main()
