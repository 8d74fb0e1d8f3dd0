"""The command `stn-icnn`: parses photos, folders of them, and videos, into files; serves the page.

    stn-icnn parse PHOTO_OR_FOLDER... --out DIR [--masks NAMES] [--recursive] [--ckpt PATH]
    stn-icnn parse PHOTO_OR_FOLDER... --out DIR --ray [ADDRESS]    # over a Ray cluster
    stn-icnn export --format onnx|stablehlo --out FILE [--ckpt PATH]    # for other runtimes
    stn-icnn demo [--port PORT]    # the page that parses photos, in a browser

`results` says what it writes for a photo; for a video `clip.mp4` it writes `clip.mp4.overlay.mp4`.
What has all of its files is skipped when the command runs again; what made them is in
`settings.json`, and other weights need another folder.
Compiled programs stay in `~/.cache/jax_stn_icnn`, or where JAX_COMPILATION_CACHE_DIR says.
"""

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from jax_stn_icnn import __version__
from jax_stn_icnn.cli import demo, settings, video, writer
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.inference.parser import BATCH_SIZE, FaceParser
from jax_stn_icnn.inference.results import PhotoResult
from jax_stn_icnn.inference.threads import background_threads
from jax_stn_icnn.io import weights
from jax_stn_icnn.photos import files
from jax_stn_icnn.photos.files import InputFile

WRITERS = 2  # threads
WRITING = 4  # photos that may wait for them
WEIGHTS_HELP = (
    "nineteen (the whole face, the default), nine (the paper's classes), a .safetensors file, or a "
    "run's directory"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 1 if anything failed."""
    args = _arguments().parse_args(argv)
    try:
        status: int = args.run(args)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return status


def _parse(args: argparse.Namespace) -> int:
    """Parses photos and videos."""
    cache.enable_cache(None)
    run = _here(args) if args.ray is None else _on_cluster(args)
    for line in run.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    failed = num_faces = 0
    with tqdm(total=run.left, unit="photo", disable=run.there + run.left == 1) as progress:
        for result in run.results:
            if isinstance(result, int):
                num_faces += result
            else:
                tqdm.write(f"error: {result}", file=sys.stderr)
                failed += 1
            progress.update()
            seconds = progress.format_dict["elapsed"]
            progress.set_postfix_str(f"{num_faces / seconds:.1f} face/s" if seconds else "")
    print(
        f"{args.out}: {run.left - failed} parsed, {run.there} there already, {failed} failed"
        + (f", {len(run.skipped)} skipped" if run.skipped else "")
    )
    return 1 if failed or run.skipped else 0


def _serve(args: argparse.Namespace) -> int:
    """Serves the page until it is interrupted."""
    with demo.server(port=args.port) as server:
        print(f"The page is at http://localhost:{server.server_port}/; Ctrl+C ends it.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def _export(args: argparse.Namespace) -> int:
    """Writes the parser for other runtimes."""
    from jax_stn_icnn.io import export

    cache.enable_cache(None)
    out = Path(args.out)
    agreement = export.write(
        weights.load_weights(weights.weights_file(args.ckpt)), out, args.format
    )
    size = out.stat().st_size / 1e6
    print(f"{out}: {size:.1f} MB, labels as the parser's on {agreement:.5f} of the pixels")
    return 0


class _Run(NamedTuple):
    """What is to be done, and the doing of it.

    Attributes:
        there: how many photos have all of their files.
        left: how many have not.
        skipped: what was left out, and why.
        results: of each that is left: how many faces it has, or why it failed.
    """

    there: int
    left: int
    skipped: list[str]
    results: Iterator[int | str]


def _here(args: argparse.Namespace) -> _Run:
    """On this machine."""
    out = Path(args.out)
    found = files.find_files([Path(photo) for photo in args.photos], out, args.recursive)
    made_with = settings.of(args.ckpt, args.detector, args.detect)
    out.mkdir(parents=True, exist_ok=True)
    file = out / settings.NAME
    is_first = not file.exists()
    if not is_first:
        settings.check(out, file.read_text(), made_with)
    todo = [source for source in found.inputs if not _is_done(source, args)]
    outcomes: Iterator[int | str] = iter(())
    if todo:
        parser = FaceParser.load(args.ckpt, detector=args.detector)
        parser.model.config.anatomy.ids(args.masks)
        if is_first:
            writer.write_whole(file, lambda opened: opened.write(made_with.encode()))
        outcomes = _parse_all(parser, todo, args)
    return _Run(len(found.inputs) - len(todo), len(todo), found.skipped, outcomes)


def _on_cluster(args: argparse.Namespace) -> _Run:
    """On many machines."""
    from jax_stn_icnn.cli import cluster

    # Said here, once, rather than by every worker.
    weights.load_weights(weights.weights_file(args.ckpt)).model.config.anatomy.ids(args.masks)
    made_with = settings.of(args.ckpt, args.detector, args.detect)
    system, jobs, skipped = cluster.find(args.photos, args.out, args.recursive)
    cluster.note_settings(args.out, made_with)
    todo = cluster.todo(jobs, args.out, args.masks)
    done = (finished for _, finished in cluster.run(system, todo, args)) if todo else iter(())
    outcomes = (one.faces if one.error is None else one.error for one in done)
    return _Run(len(jobs) - len(todo), len(todo), skipped, outcomes)


def _parse_all(
    parser: FaceParser, todo: Sequence[InputFile], args: argparse.Namespace
) -> Iterator[int | str]:
    """Photos first, then videos; of each how many faces it has, or why it failed."""
    photos = [source for source in todo if not source.is_video]
    parses = parser.stream(
        (photo.path for photo in photos),
        detect=args.detect,
        batch_size=args.batch,
        errors="yield",
    )
    yield from _written(zip(photos, parses, strict=True), args)
    for source in todo:
        if source.is_video:
            base = Path(args.out) / source.name
            try:
                yield video.parse_video(parser, source.path, base, args.detect, args.batch)
            except (OSError, ValueError) as error:
                yield str(error)


def _written(
    parses: Iterator[tuple[InputFile, PhotoResult | OSError | ValueError]], args: argparse.Namespace
) -> Iterator[int | str]:
    """Writes parses beside all else that goes on; gives numbers of faces, and errors."""

    def write(photo: InputFile, parse: PhotoResult) -> int | str:
        try:
            writer.write(Path(args.out) / photo.name, parse, args.masks)
        except OSError as error:
            return str(error)
        return len(parse.faces)

    waiting: deque[Future] = deque()
    with background_threads(WRITERS) as writers:
        for photo, parse in parses:
            if isinstance(parse, Exception):
                yield str(parse)
                continue
            waiting.append(writers.submit(write, photo, parse))
            while waiting and (len(waiting) > WRITING or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _is_done(source: InputFile, args: argparse.Namespace) -> bool:
    base = Path(args.out) / source.name
    return video.is_there(base) if source.is_video else writer.are_there(base, args.masks)


def _arguments() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(prog="stn-icnn", description="Face parsing of photos.")
    command.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = command.add_subparsers(required=True)
    page = commands.add_parser("demo", help="serve the page that parses photos in a browser")
    page.set_defaults(run=_serve)
    page.add_argument(
        "--port",
        type=int,
        default=demo.PORT,
        help=f"where it is served on this machine (default {demo.PORT}; 0: any that is free)",
    )
    exported = commands.add_parser("export", help="write the parser for other runtimes")
    exported.set_defaults(run=_export)
    exported.add_argument("--format", required=True, choices=("onnx", "stablehlo"))
    exported.add_argument("--out", required=True, help="the file to write")
    exported.add_argument("--ckpt", metavar="PATH", help=WEIGHTS_HELP)
    parse = commands.add_parser("parse", help="label the parts of the faces in photos and videos")
    parse.set_defaults(run=_parse)
    parse.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO_OR_FOLDER",
        help="photos, videos, or folders of them",
    )
    parse.add_argument("--out", required=True, metavar="DIR", help="where to write")
    parse.add_argument(
        "--masks",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        metavar="NAMES",
        help="classes that get a black and white picture each, such as hair,skin",
    )
    parse.add_argument("--recursive", action="store_true", help="search folders inside folders too")
    parse.add_argument("--ckpt", metavar="PATH", help=WEIGHTS_HELP)
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
    parse.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="work on a Ray cluster, by default the one that RAY_ADDRESS names or that runs here, "
        "else one of this machine alone; photos and results may then be URLs of any file system "
        "that fsspec knows (extra: ray)",
    )
    return command


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
