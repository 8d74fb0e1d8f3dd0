"""The command `stn-icnn`: parses photos into files.

    stn-icnn parse PHOTO_OR_FOLDER... --out DIR [--masks NAMES] [--ckpt PATH] [--no-detect]

For `face.jpg` it writes `face.jpg.labels.png` (class ids with a palette), `face.jpg.overlay.png`, a
black and white `face.jpg.nose.png` for each of the masks asked for and, last, `face.jpg.json`; a
photo that has all of them is skipped when the command runs again.
Compiled programs stay in `~/.cache/jax_stn_icnn`, or where JAX_COMPILATION_CACHE_DIR says.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from jax_stn_icnn.compilation import cache
from jax_stn_icnn.photos.parser import FaceParser
from jax_stn_icnn.photos.photo_parse import PhotoParse
from jax_stn_icnn.photos.reading import SUFFIXES

_LABELS, _OVERLAY, _FACTS = ".labels.png", ".overlay.png", ".json"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 1 if anything failed."""
    args = _arguments().parse_args(argv)
    cache.enable_cache(None)
    try:
        photos = find_photos(args.photos, args.out)
        args.out.mkdir(parents=True, exist_ok=True)
        todo = [photo for photo in photos if not _is_done(args.out, photo, args.masks)]
        parser = FaceParser.load(args.ckpt) if todo else None
        if parser is not None:
            parser.model.anatomy.ids(args.masks)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    failed = 0
    for photo in tqdm(todo, unit="photo", disable=len(photos) == 1):
        assert parser is not None
        try:
            write_parse(args.out, photo, parser(photo, detect=args.detect), args.masks)
        except (OSError, ValueError, ImportError) as error:
            tqdm.write(f"error: {error}", file=sys.stderr)
            failed += 1
    done = len(todo) - failed
    print(f"{args.out}: {done} parsed, {len(photos) - len(todo)} there already, {failed} failed")
    return 1 if failed else 0


def find_photos(sources: Sequence[Path], out: Path) -> list[Path]:
    """Lists the photos that the command's arguments name.

    Args:
        sources: files, taken whatever they are called; and folders, of which the files that are
            called like pictures are taken, without those in folders inside.
        out: the folder to write to.

    Returns:
        The photos, a folder's in the order of their names.

    Raises:
        FileNotFoundError: there is no such file or folder, or no photo in a folder.
        ValueError: results would mix with the photos, or two photos would write the same files.
    """
    photos: list[Path] = []
    for source in sources:
        if not source.is_dir():
            if not source.exists():
                raise FileNotFoundError(f"there is no file or folder {source}")
            photos.append(source)
            continue
        if out.resolve() == source.resolve():
            raise ValueError(f"--out is {out}, the photos' own folder: name another")
        found = [path for path in sorted(source.iterdir()) if path.suffix.lower() in SUFFIXES]
        if not found:
            raise FileNotFoundError(f"{source} holds no file called *{', *'.join(SUFFIXES)}")
        photos += found
    photos = list(dict.fromkeys(photos))
    by_name: dict[str, Path] = {}
    for photo in photos:
        if (other := by_name.setdefault(photo.name, photo)) is not photo:
            raise ValueError(f"{other} and {photo} would write the same files: parse them apart")
    return photos


def write_parse(out: Path, photo: Path, parse: PhotoParse, masks: Sequence[str] = ()) -> None:
    """Writes a photo's files, each whole or not at all, the JSON last.

    Args:
        out: the folder to write to.
        photo: the photo's path, for the files' names.
        parse: its parse.
        masks: names of classes that get a file of their own.
    """
    indexed = Image.fromarray(parse.labels)
    indexed.putpalette(np.array(parse.anatomy.colours, np.uint8).tobytes())  # makes its mode "P"
    overlay = Image.fromarray(parse.overlay(legend=True))
    _write(out / (photo.name + _LABELS), lambda file: indexed.save(file, "PNG"))
    _write(out / (photo.name + _OVERLAY), lambda file: overlay.save(file, "PNG"))
    for name in masks:
        mask = Image.fromarray(parse.mask(name))
        _write(out / _mask_name(photo, name), partial(mask.save, format="PNG"))
    text = json.dumps(_facts(photo, parse), indent=2, allow_nan=False) + "\n"
    _write(out / (photo.name + _FACTS), lambda file: file.write(text.encode()))


def _facts(photo: Path, parse: PhotoParse) -> dict[str, Any]:
    """What the JSON says; boxes are (x0, y0, x1, y1), centres of corner pixels."""
    height, width = parse.labels.shape
    return {
        "photo": photo.name,
        "width": width,
        "height": height,
        "classes": parse.anatomy.classes,
        "palette": parse.anatomy.colours,
        "faces": [
            {"box": face.box, "windows": face.windows, "parts_found": face.found}
            for face in parse.faces
        ],
    }


def _is_done(out: Path, photo: Path, masks: Sequence[str]) -> bool:
    names = [photo.name + ending for ending in (_LABELS, _OVERLAY, _FACTS)]
    return all((out / name).exists() for name in names + [_mask_name(photo, m) for m in masks])


def _mask_name(photo: Path, mask: str) -> str:
    return f"{photo.name}.{mask}.png"


def _write(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        write(file)
    os.replace(partial, path)


def _arguments() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(prog="stn-icnn", description="Face parsing of photos.")
    parse = command.add_subparsers(required=True).add_parser(
        "parse", help="label the parts of the faces in photos"
    )
    parse.add_argument(
        "photos", nargs="+", type=Path, metavar="PHOTO_OR_FOLDER", help="photos, or folders of them"
    )
    parse.add_argument("--out", required=True, type=Path, metavar="DIR", help="where to write")
    parse.add_argument(
        "--masks",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        metavar="NAMES",
        help="classes that get a black and white picture each, such as hair,skin",
    )
    parse.add_argument(
        "--ckpt",
        metavar="PATH",
        help="nineteen (the whole face, the default), nine (the paper's classes), a .safetensors "
        "file, or a run's directory",
    )
    parse.add_argument(
        "--no-detect",
        dest="detect",
        action="store_false",
        help="take each photo as one face, framed as in CelebAMask-HQ",
    )
    return command


if __name__ == "__main__":
    sys.exit(main())
