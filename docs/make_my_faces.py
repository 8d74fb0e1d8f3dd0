"""Draws the pictures of the page "Your own data", after its code blocks have run.

    python docs/make_my_faces.py FOLDER [--runs SHORT LONG]

`my_faces.jpg`: training pictures above their masks. `my_faces_parsed.jpg`, with `--runs`: test
pictures, their labels by each run, and their masks.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from jax_stn_icnn import FaceParser

DOCS = Path(__file__).parent
COLOURS = np.array(
    [(0, 0, 0), (244, 199, 171), (122, 76, 48), (240, 228, 66), (86, 180, 233), (213, 94, 0)],
    np.uint8,
)
SIDE = 160


def _picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).resize((SIDE, SIDE)))


def _mask(path: Path) -> np.ndarray:
    return COLOURS[np.asarray(Image.open(path).resize((SIDE, SIDE), Image.Resampling.NEAREST))]


def training(folder: Path, count: int = 7) -> np.ndarray:
    """Returns a row of pictures above a row of masks."""
    paths = sorted((folder / "images/train").iterdir())[:count]
    masks = [folder / "masks/train" / f"{path.stem}.png" for path in paths]
    return np.vstack([np.hstack([*map(_picture, paths)]), np.hstack([*map(_mask, masks)])])


def parsed(folder: Path, runs: list[str]) -> np.ndarray:
    """Returns a row for each test picture: the picture, its labels by each run, its mask."""
    parsers = [FaceParser.load(run) for run in runs]
    rows = []
    for path in sorted((folder / "images/test").iterdir()):
        found = [COLOURS[parser(path, detect=False).labels] for parser in parsers]
        small = [np.asarray(Image.fromarray(each).resize((SIDE, SIDE), 0)) for each in found]
        rows.append(
            np.hstack([_picture(path), *small, _mask(folder / "masks/test" / f"{path.stem}.png")])
        )
    return np.vstack(rows)


def main() -> None:
    """Runs the command."""
    command = argparse.ArgumentParser(description="Draws the pictures of the page on your data.")
    command.add_argument("folder", type=Path)
    command.add_argument("--runs", nargs="*", default=[])
    args = command.parse_args()
    Image.fromarray(training(args.folder)).save(DOCS / "my_faces.jpg", quality=85)
    if args.runs:
        Image.fromarray(parsed(args.folder, args.runs)).save(
            DOCS / "my_faces_parsed.jpg", quality=85
        )


if __name__ == "__main__":
    main()
