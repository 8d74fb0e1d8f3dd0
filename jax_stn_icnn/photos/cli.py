"""The command `stn-icnn`: parses photos, folders of them, and videos, into files.

    stn-icnn parse PHOTO_OR_FOLDER... --out DIR [--masks NAMES] [--recursive] [--ckpt PATH]

`results` says what it writes for a photo; for a video `clip.mp4` it writes `clip.mp4.overlay.mp4`.
What has all of its files is skipped when the command runs again.
Compiled programs stay in `~/.cache/jax_stn_icnn`, or where JAX_COMPILATION_CACHE_DIR says.
"""

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from jax_stn_icnn.compilation import cache
from jax_stn_icnn.photos import results, sources, video
from jax_stn_icnn.photos.parser import BATCH_SIZE, FaceParser
from jax_stn_icnn.photos.photo_parse import PhotoParse
from jax_stn_icnn.photos.sources import Source

WRITERS = 2  # threads
WRITING = 4  # photos that may wait for them


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 1 if anything failed."""
    args = _arguments().parse_args(argv)
    cache.enable_cache(None)
    try:
        found = sources.find(args.photos, args.out, args.recursive)
        args.out.mkdir(parents=True, exist_ok=True)
        todo = [source for source in found.sources if not _is_done(source, args)]
        parser = FaceParser.load(args.ckpt, detector=args.detector) if todo else None
        if parser is not None:
            parser.model.anatomy.ids(args.masks)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in found.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    failed = 0
    if parser is not None:
        with tqdm(total=len(todo), unit="photo", disable=len(found.sources) == 1) as progress:
            for failure in _parse_all(parser, todo, args, progress):
                tqdm.write(f"error: {failure}", file=sys.stderr)
                failed += 1
    there, done = len(found.sources) - len(todo), len(todo) - failed
    print(
        f"{args.out}: {done} parsed, {there} there already, {failed} failed"
        + (f", {len(found.skipped)} skipped" if found.skipped else "")
    )
    return 1 if failed or found.skipped else 0


def _parse_all(
    parser: FaceParser, todo: Sequence[Source], args: argparse.Namespace, progress: tqdm
) -> Iterator[Exception]:
    """Parses everything, and yields the errors."""
    photos = [source for source in todo if not source.is_video]
    parses = parser.stream(
        (photo.path for photo in photos),
        detect=args.detect,
        batch_size=args.batch,
        errors="yield",
    )
    num_faces = 0
    for result in _written(zip(photos, parses, strict=True), args):
        if isinstance(result, Exception):
            yield result
        else:
            num_faces += result
        progress.update()
        seconds = progress.format_dict["elapsed"]
        progress.set_postfix_str(f"{num_faces / seconds:.1f} face/s" if seconds else "")
    for source in todo:
        if source.is_video:
            base = args.out / source.name
            try:
                video.parse_video(parser, source.path, base, args.detect, args.batch)
            except (OSError, ValueError) as error:
                yield error
            progress.update()


def _written(
    parses: Iterator[tuple[Source, PhotoParse | OSError | ValueError]], args: argparse.Namespace
) -> Iterator[int | Exception]:
    """Writes parses beside all else that goes on; gives numbers of faces, and errors."""

    def write(photo: Source, parse: PhotoParse) -> int | Exception:
        try:
            results.write(args.out / photo.name, parse, args.masks)
        except OSError as error:
            return error
        return len(parse.faces)

    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(WRITERS) as writers:
        for photo, parse in parses:
            if isinstance(parse, Exception):
                yield parse
                continue
            waiting.append(writers.submit(write, photo, parse))
            while waiting and (len(waiting) > WRITING or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _is_done(source: Source, args: argparse.Namespace) -> bool:
    base = args.out / source.name
    return video.is_there(base) if source.is_video else results.are_there(base, args.masks)


def _arguments() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(prog="stn-icnn", description="Face parsing of photos.")
    parse = command.add_subparsers(required=True).add_parser(
        "parse", help="label the parts of the faces in photos and videos"
    )
    parse.add_argument(
        "photos",
        nargs="+",
        type=Path,
        metavar="PHOTO_OR_FOLDER",
        help="photos, videos, or folders of them",
    )
    parse.add_argument("--out", required=True, type=Path, metavar="DIR", help="where to write")
    parse.add_argument(
        "--masks",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        metavar="NAMES",
        help="classes that get a black and white picture each, such as hair,skin",
    )
    parse.add_argument("--recursive", action="store_true", help="search folders inside folders too")
    parse.add_argument(
        "--ckpt",
        metavar="PATH",
        help="nineteen (the whole face, the default), nine (the paper's classes), a .safetensors "
        "file, or a run's directory",
    )
    parse.add_argument(
        "--detector",
        default="yunet",
        metavar="NAME",
        help="what finds faces: yunet (the default), cascade, or an .onnx file of YuNet",
    )
    parse.add_argument(
        "--no-detect",
        dest="detect",
        action="store_false",
        help="take each photo as one face, framed as in CelebAMask-HQ",
    )
    parse.add_argument(
        "--batch",
        type=_at_least_one,
        default=BATCH_SIZE,
        metavar="N",
        help=f"faces that go through the networks at once (default {BATCH_SIZE})",
    )
    return command


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"{number} is less than 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
