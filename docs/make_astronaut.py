"""Draws the picture of the README: a face, its coarse segmentation, windows, patches and labels.

    python docs/make_astronaut.py [--photo astronaut.png] [--ckpt PATH] [--out docs/astronaut.png]

The photo is scikit-image's picture of the astronaut Eileen Collins, by NASA, in the public domain;
`--photo` names a file; the default reads it from an installed scikit-image.
"""

import argparse
from pathlib import Path

import numpy as np

from jax_stn_icnn import FaceParser
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.faces import resample
from jax_stn_icnn.inference.results import FaceResult
from jax_stn_icnn.photos.reading import to_rgb


def main() -> None:
    """Runs the command."""
    command = argparse.ArgumentParser(description="Draws the picture of the README.")
    command.add_argument("--photo", type=Path, help="the photo, if scikit-image is not installed")
    command.add_argument("--ckpt", help="weights; by default the shipped ones")
    command.add_argument("--out", type=Path, default=Path(__file__).with_name("astronaut.png"))
    args = command.parse_args()
    photo = to_rgb(args.photo) if args.photo else read_astronaut()
    # Nothing surrounds the frame that is parsed below.
    parser = FaceParser.load(args.ckpt, wide=False)
    found = parser(photo).faces
    if not found:
        raise SystemExit("error: there is no face in the photo")
    # The picture shows the frame, so that all columns show the same square.
    side = parser.frame_size
    frame = resample.warp(photo, found[0].matrix, (side, side))
    (face,) = parser(frame, detect=False).faces
    row = draw.FaceRow(
        title="",
        image=frame,
        coarse_labels=face.coarse_labels,
        windows=np.array([face.windows[part.name] for part in parser.model.config.anatomy.parts]),
        patches=_patches(frame, face, parser),
        labels=face.labels,
        truth=None,
    )
    draw.parse_grid(args.out, [row], parser.model.config.anatomy)


def _patches(frame: np.ndarray, face: FaceResult, parser: FaceParser) -> list[np.ndarray]:
    """Crops the windows from the frame; returns a patch (height, width, 3) for each part."""
    patches = []
    config = parser.model.config
    for part, (height, width) in zip(config.anatomy.parts, config.patch_sizes, strict=True):
        x0, y0, x1, y1 = face.windows[part.name]
        scale = np.diag([(x1 - x0) / (width - 1), (y1 - y0) / (height - 1)])
        matrix = np.concatenate([scale, [[x0], [y0]]], axis=1)
        patches.append(resample.warp(frame, matrix, (height, width)))
    return patches


def read_astronaut() -> np.ndarray:
    """Returns the photo, uint8 (512, 512, 3)."""
    try:
        from skimage import data
    except ModuleNotFoundError as error:
        raise SystemExit("error: install scikit-image, or name a file: --photo") from error
    return data.astronaut()


if __name__ == "__main__":
    main()
