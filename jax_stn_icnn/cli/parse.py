"""The command `stn-icnn parse`: parses photos and videos into files.

The command skips inputs whose output files exist and are up to date, so it continues where it was
stopped. `settings.json` records what the results depend on; other settings need another folder.
"""

import argparse
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from jax_stn_icnn.atomic import remove_partial_files, write_atomically
from jax_stn_icnn.cli import coco_file, settings, video, writer
from jax_stn_icnn.cli.loading import load_parser, selection_options, stream_options
from jax_stn_icnn.cli.outcome import Outcome
from jax_stn_icnn.cli.outputs import JSON, Outputs, make_result_test
from jax_stn_icnn.cli.progress import Progress
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.faces.resample import OpenCVError
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.inference.results import PhotoResult
from jax_stn_icnn.inference.threads import background_threads
from jax_stn_icnn.io import weights
from jax_stn_icnn.photos import files
from jax_stn_icnn.photos.files import InputFile, InputFiles
from jax_stn_icnn.photos.reading import silence_decoders

WRITERS = 2  # threads
MAX_PENDING = 4  # results that wait for the writers
INTERRUPTED = 130  # exit status, as of programs that SIGINT ends


class Work(NamedTuple):
    """The inputs of the command.

    Attributes:
        num_done: inputs whose output files exist.
        num_todo: inputs to parse.
        found: the files that the arguments name, and those that are not parsed.
        outcomes: lazily parses the inputs; yields the outcome of each.
    """

    num_done: int
    num_todo: int
    found: InputFiles
    outcomes: Iterator[Outcome]


def run(args: argparse.Namespace) -> int:
    """Parses photos and videos; returns the exit status."""
    cache.enable_cache(None)
    silence_decoders()
    try:
        if args.soft and not args.masks:
            raise ValueError("--soft writes --masks as soft masks: name some with --masks")
        return _report(args, _local_work(args) if args.ray is None else _cluster_work(args))
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        return INTERRUPTED


def _report(args: argparse.Namespace, work: Work) -> int:
    """Parses the inputs and prints what could not be parsed, and a summary."""
    found = work.found
    messages = [f"error: {error}" for error in found.errors]
    messages += [f"skipped: {message}" for message in found.skipped]
    if found.left_out:
        kinds = (f"{count} {kind}" for kind, count in sorted(found.left_out.items()))
        messages.append(f"left out: {', '.join(kinds)}")
    print(*messages, sep="\n", end="\n" if messages else "", file=sys.stderr)
    failed = num_empty = 0
    with logging_redirect_tqdm(), Progress(work.num_todo, "photo") as progress:
        for number, outcome in enumerate(work.outcomes):
            if outcome.ends:
                raise OSError(
                    f"{outcome.error}; the results of {work.num_done + number - failed} inputs are "
                    "complete, the same command continues when the disk can be written"
                )
            if outcome.error is not None:
                tqdm.write(f"error: {outcome.error}", file=sys.stderr)
                failed += 1
            elif outcome.num_faces == 0:
                num_empty += 1
            if outcome.note is not None:
                tqdm.write(f"note: {outcome.note}", file=sys.stderr)
            progress.update(outcome.num_faces or 0)
    num_parsed, num_failed = work.num_todo - failed, failed + len(found.errors)
    print(
        f"{args.out}: {num_parsed} parsed, {work.num_done} already done, {num_failed} failed"
        + (f", {len(found.skipped)} skipped" if found.skipped else "")
        + (f", {num_empty} without a face" if num_empty else "")
    )
    return 1 if num_failed or found.skipped else 0


def _local_work(args: argparse.Namespace) -> Work:
    """Lists the inputs, and parses them on this machine."""
    out, outputs = Path(args.out), Outputs.from_arguments(args)
    if os.path.lexists(out) and not out.is_dir():
        raise NotADirectoryError(f"--out is {out}, a file, but must be a folder")
    photos = [Path(photo) for photo in args.photos]
    found = files.find_files(photos, out, args.recursive, make_result_test())
    current = settings.to_json(args)
    if (out / settings.NAME).exists():
        settings.check(out, (out / settings.NAME).read_bytes(), current)
    todo = [file for file in found.inputs if args.overwrite or not _is_done(file, out, outputs)]
    parser = load_parser(args) if todo else None
    if parser is not None:
        outputs.check(parser.model.config.anatomy)
        out.mkdir(parents=True, exist_ok=True)
        remove_partial_files(out)
        settings.store(out, current)

    def outcomes() -> Iterator[Outcome]:
        if parser is not None:
            yield from _parse_files(parser, todo, out, outputs, args)
        if outputs.coco and found.inputs:
            content = coco_file.merge(_read_json(out, found.inputs, outputs))
            write_atomically(out / coco_file.NAME, lambda file: file.write(content))

    return Work(len(found.inputs) - len(todo), len(todo), found, outcomes())


def _is_done(file: InputFile, out: Path, outputs: Outputs) -> bool:
    """Whether the output files of an input exist and are those of its present content."""
    base = out / file.name
    try:
        metadata = base.with_name(base.name + JSON).read_bytes()
    except OSError:  # It does not exist; where it cannot, writing reports the error.
        return False
    return outputs.are_complete(
        base.name, file.fingerprint, metadata, lambda name: base.with_name(name).exists()
    )


def _parse_files(
    parser: FaceParser,
    todo: Sequence[InputFile],
    out: Path,
    outputs: Outputs,
    args: argparse.Namespace,
) -> Iterator[Outcome]:
    """Parses photos, then videos; yields the outcome of each."""
    photos = [file for file in todo if not file.is_video]
    options = stream_options(args)
    if len(photos) == 1:
        results = iter([_parse_photo(parser, photos[0].path, **selection_options(args))])
    else:
        results = parser.stream((photo.path for photo in photos), errors="yield", **options)
    yield from _write_results(zip(photos, results, strict=True), out, outputs)
    for file in todo:
        if file.is_video:
            try:
                yield video.parse_video(
                    parser, file.path, out / file.name, outputs, file.fingerprint, options
                )
            except (OSError, ValueError) as error:
                yield Outcome.of_error(error)


def _parse_photo(
    parser: FaceParser, path: Path, **options: Any
) -> PhotoResult | OSError | ValueError:
    """Returns the result of one photo, which starts quicker than a stream, or its error."""
    try:
        return parser(path, **options)
    except (OSError, ValueError) as error:
        return error


def _write_results(
    results: Iterator[tuple[InputFile, PhotoResult | OSError | ValueError]],
    out: Path,
    outputs: Outputs,
) -> Iterator[Outcome]:
    """Writes results in background threads; yields the outcome of each."""

    def write(photo: InputFile, result: PhotoResult) -> Outcome:
        try:
            writer.write_result(out / photo.name, result, outputs, photo.fingerprint)
        except OSError as error:
            return Outcome.of_error(error)
        except OpenCVError as error:
            return Outcome(error=f"{photo.path}: {error}")
        return Outcome.of_photo(len(result.faces), photo.path, str(photo.path))

    pending: deque[Future] = deque()
    with background_threads(WRITERS) as writers:
        for photo, result in results:
            if isinstance(result, Exception):
                yield Outcome(error=str(result))
                continue
            pending.append(writers.submit(write, photo, result))
            while pending and (len(pending) > MAX_PENDING or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _read_json(
    out: Path, inputs: Sequence[InputFile], outputs: Outputs
) -> Iterator[tuple[str, bytes]]:
    """Yields the name of each photo that has been parsed, and the content of its JSON file."""
    for file in inputs:
        if not file.is_video and _is_done(file, out, outputs):
            yield str(file.name), (out / f"{file.name}{JSON}").read_bytes()


def _cluster_work(args: argparse.Namespace) -> Work:
    """Lists the photos, and parses them on a Ray cluster."""
    from jax_stn_icnn.cli import cluster

    outputs = Outputs.from_arguments(args)
    # Raises an error for an unknown class here, once, rather than in every worker.
    outputs.check(weights.load_weights(weights.weights_file(args.ckpt)).model.config.anatomy)
    current = settings.to_json(args)
    system, jobs, found = cluster.list_jobs(args.photos, args.out, args.recursive)
    todo = jobs if args.overwrite else cluster.unfinished(jobs, args.out, outputs)
    if todo:
        cluster.write_settings(args.out, current)

    def outcomes() -> Iterator[Outcome]:
        if todo:
            yield from (outcome for _, outcome in cluster.run(system, todo, args))
        if outputs.coco and jobs:
            cluster.write_coco(jobs, args.out, outputs)

    return Work(len(jobs) - len(todo), len(todo), found, outcomes())
