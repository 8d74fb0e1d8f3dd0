"""The command `stn-icnn`: parses photos and videos into files, exports the parser, serves the page.

    stn-icnn parse PHOTO_OR_FOLDER... --out DIR [--masks NAMES] [--recursive] [--ckpt PATH]
    stn-icnn parse PHOTO_OR_FOLDER... --out DIR --ray [ADDRESS]    # on a Ray cluster
    stn-icnn export --format onnx|stablehlo --out FILE [--ckpt PATH]    # for other runtimes
    stn-icnn demo [--port PORT]    # serves the page that parses photos in a browser
    stn-icnn cache [--clear]    # shows or clears the cache of compiled programs

`cli.writer` lists the output files of a photo; a video `clip.mp4` gets `clip.mp4.overlay.mp4`. The
command skips inputs whose output files exist, so it continues where it was stopped.
`settings.json` records the weights; results of other weights need another folder. Compiled programs
are cached in `~/.cache/jax_stn_icnn`, or in JAX_COMPILATION_CACHE_DIR.
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
from jax_stn_icnn.cli import cache_command, demo, settings, video, writer
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.inference.parser import BATCH_SIZE, FaceParser
from jax_stn_icnn.inference.results import PhotoResult
from jax_stn_icnn.inference.threads import background_threads
from jax_stn_icnn.io import weights
from jax_stn_icnn.photos import files
from jax_stn_icnn.photos.files import InputFile

WRITERS = 2  # threads
MAX_PENDING = 4  # results that wait for the writers
WEIGHTS_HELP = (
    "weights: nineteen (the full face, the default), nine (the paper's classes), a .safetensors "
    "file, or the directory of a training run"
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


def _arguments() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(prog="stn-icnn", description="Face parsing of photos.")
    command.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = command.add_subparsers(required=True)

    parse = commands.add_parser("parse", help="label the parts of the faces in photos and videos")
    parse.set_defaults(run=_parse)
    parse.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO_OR_FOLDER",
        help="photos, videos, or folders of photos and videos",
    )
    parse.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    parse.add_argument(
        "--masks",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        metavar="NAMES",
        help="classes to write as black and white masks, for example hair,skin",
    )
    parse.add_argument("--recursive", action="store_true", help="search folders recursively")
    parse.add_argument("--ckpt", metavar="PATH", help=WEIGHTS_HELP)
    parse.add_argument(
        "--detector",
        default="yunet",
        metavar="NAME",
        help="face detector: yunet (the default), cascade, or an .onnx file of YuNet",
    )
    parse.add_argument(
        "--no-detect",
        dest="detect",
        action="store_false",
        help="parse each photo as one face, framed as in CelebAMask-HQ",
    )
    parse.add_argument(
        "--batch",
        type=_positive_int,
        default=BATCH_SIZE,
        metavar="N",
        help=f"batch size of the networks, in faces (default {BATCH_SIZE})",
    )
    parse.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="run on the Ray cluster at ADDRESS; without ADDRESS on that of RAY_ADDRESS, on one "
        "that runs on this machine, or on a new one on this machine. Photos and results may then "
        "be URLs of any file system that fsspec supports (extra: ray)",
    )

    export = commands.add_parser("export", help="write the parser for other runtimes")
    export.set_defaults(run=_export)
    export.add_argument("--format", required=True, choices=("onnx", "stablehlo"))
    export.add_argument("--out", required=True, help="file to write")
    export.add_argument("--ckpt", metavar="PATH", help=WEIGHTS_HELP)

    page = commands.add_parser("demo", help="serve the page that parses photos in a browser")
    page.set_defaults(run=_serve)
    page.add_argument(
        "--port",
        type=int,
        default=demo.PORT,
        help=f"port on this machine (default {demo.PORT}; 0: any free port)",
    )
    cache_command.add_parser(commands)
    return command


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


class _Work(NamedTuple):
    """The inputs of the command.

    Attributes:
        num_done: inputs whose output files exist.
        num_todo: inputs to parse.
        skipped: a message for each file that is skipped.
        outcomes: lazily parses the inputs; yields the number of faces or the error of each.
    """

    num_done: int
    num_todo: int
    skipped: list[str]
    outcomes: Iterator[int | str]


def _parse(args: argparse.Namespace) -> int:
    """Parses photos and videos."""
    cache.enable_cache(None)
    work = _local_work(args) if args.ray is None else _cluster_work(args)
    for message in work.skipped:
        print(f"skipped: {message}", file=sys.stderr)
    failed = num_faces = 0
    is_single = work.num_done + work.num_todo == 1
    with tqdm(total=work.num_todo, unit="photo", disable=is_single) as progress:
        for outcome in work.outcomes:
            if isinstance(outcome, int):
                num_faces += outcome
            else:
                tqdm.write(f"error: {outcome}", file=sys.stderr)
                failed += 1
            progress.update()
            seconds = progress.format_dict["elapsed"]
            progress.set_postfix_str(f"{num_faces / seconds:.1f} face/s" if seconds else "")
    print(
        f"{args.out}: {work.num_todo - failed} parsed, {work.num_done} already done, "
        f"{failed} failed" + (f", {len(work.skipped)} skipped" if work.skipped else "")
    )
    return 1 if failed or work.skipped else 0


def _local_work(args: argparse.Namespace) -> _Work:
    """Lists the inputs, and parses them on this machine."""
    out = Path(args.out)
    inputs, skipped = files.find_files([Path(photo) for photo in args.photos], out, args.recursive)
    current = settings.to_json(args.ckpt, args.detector, args.detect)
    out.mkdir(parents=True, exist_ok=True)
    settings_file = out / settings.NAME
    is_new = not settings_file.exists()
    if not is_new:
        settings.check(out, settings_file.read_text(), current)
    todo = [file for file in inputs if not _is_complete(file, args)]
    outcomes: Iterator[int | str] = iter(())
    if todo:
        parser = FaceParser.load(args.ckpt, detector=args.detector)
        parser.model.config.anatomy.ids(args.masks)  # raises an error for an unknown class
        if is_new:
            writer.write_atomically(settings_file, lambda file: file.write(current.encode()))
        outcomes = _parse_files(parser, todo, args)
    return _Work(len(inputs) - len(todo), len(todo), skipped, outcomes)


def _is_complete(file: InputFile, args: argparse.Namespace) -> bool:
    base = Path(args.out) / file.name
    return video.is_complete(base) if file.is_video else writer.is_complete(base, args.masks)


def _parse_files(
    parser: FaceParser, todo: Sequence[InputFile], args: argparse.Namespace
) -> Iterator[int | str]:
    """Parses photos, then videos; yields the number of faces or the error of each."""
    photos = [file for file in todo if not file.is_video]
    results = parser.stream(
        (photo.path for photo in photos),
        detect=args.detect,
        batch_size=args.batch,
        errors="yield",
    )
    yield from _write_results(zip(photos, results, strict=True), args)
    for file in todo:
        if file.is_video:
            base = Path(args.out) / file.name
            try:
                yield video.parse_video(parser, file.path, base, args.detect, args.batch)
            except (OSError, ValueError) as error:
                yield str(error)


def _write_results(
    results: Iterator[tuple[InputFile, PhotoResult | OSError | ValueError]],
    args: argparse.Namespace,
) -> Iterator[int | str]:
    """Writes results in background threads; yields the number of faces or the error of each."""

    def write(photo: InputFile, result: PhotoResult) -> int | str:
        try:
            writer.write_result(Path(args.out) / photo.name, result, args.masks)
        except OSError as error:
            return str(error)
        return len(result.faces)

    pending: deque[Future] = deque()
    with background_threads(WRITERS) as writers:
        for photo, result in results:
            if isinstance(result, Exception):
                yield str(result)
                continue
            pending.append(writers.submit(write, photo, result))
            while pending and (len(pending) > MAX_PENDING or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _cluster_work(args: argparse.Namespace) -> _Work:
    """Lists the photos, and parses them on a Ray cluster."""
    from jax_stn_icnn.cli import cluster

    # Raises an error for an unknown class here, once, rather than in every worker.
    weights.load_weights(weights.weights_file(args.ckpt)).model.config.anatomy.ids(args.masks)
    current = settings.to_json(args.ckpt, args.detector, args.detect)
    system, jobs, skipped = cluster.list_jobs(args.photos, args.out, args.recursive)
    cluster.write_settings(args.out, current)
    todo = cluster.unfinished(jobs, args.out, args.masks)
    results = (result for _, result in cluster.run(system, todo, args)) if todo else iter(())
    outcomes = (one.num_faces if one.error is None else one.error for one in results)
    return _Work(len(jobs) - len(todo), len(todo), skipped, outcomes)


def _export(args: argparse.Namespace) -> int:
    """Writes the parser for other runtimes."""
    from jax_stn_icnn.io import export

    cache.enable_cache(None)
    out = Path(args.out)
    loaded = weights.load_weights(weights.weights_file(args.ckpt))
    agreement = export.write(loaded, out, args.format)
    size = out.stat().st_size / 1e6
    print(f"{out}: {size:.1f} MB, labels equal to the parser's on {agreement:.5f} of the pixels")
    return 0


def _serve(args: argparse.Namespace) -> int:
    """Serves the page until it is interrupted."""
    with demo.server(port=args.port) as server:
        print(f"The page is at http://localhost:{server.server_port}/; Ctrl+C ends it.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
