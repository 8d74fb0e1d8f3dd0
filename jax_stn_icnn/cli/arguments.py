"""The arguments of the command `stn-icnn`."""

import argparse
from collections.abc import Callable

from jax_stn_icnn import __version__
from jax_stn_icnn.cli import cache_command, demo
from jax_stn_icnn.inference.parser import BATCH_SIZE

Run = Callable[[argparse.Namespace], int]

WEIGHTS_HELP = (
    "weights: nineteen (the full face, the default), nine (the paper's classes), a .safetensors "
    "file, or the directory of a training run"
)
PARSE_TEXT = """\
examples:
  stn-icnn parse photo.jpg --out results
  stn-icnn parse holiday --recursive --out results --masks "hair, lips" --soft
  stn-icnn parse *.heic clip.mp4 --out results --cutout --largest
  stn-icnn parse photos --out results --format coco --min-score 0.9

output files of photo.jpg, in the folder --out:
  photo.jpg.labels.png        the class ids, with a palette
  photo.jpg.overlay.jpg       the photo blended with the colours of the classes, and a legend
  photo.jpg.json              faces, classes and colours
  photo.jpg.hair.png          --masks hair: black and white
  photo.jpg.hair.soft.png     --masks hair --soft: gray
  photo.jpg.cutout.png        --cutout: people, with transparency around them
  photo.jpg.face0.labels.png  --per-face: labels and masks of each face
  coco.json                   --format coco: annotations of all photos
  settings.json               what the results depend on; other settings need another folder
and of clip.mp4 (extra: video):
  clip.mp4.overlay.mp4        the overlays, with the sound; browsers play it
  clip.mp4.labels.mkv         the class ids, a lossless video
  clip.mp4.json               the faces of each frame, with the number of the person
  clip.mp4.hair.mkv           --masks hair: black and white, lossless; likewise hair.soft.mkv
  clip.mp4.cutout.webm        --cutout: people, with transparency around them

Inputs whose output files exist are not parsed again, unless they have changed. The exit status is
0 if all arguments were parsed, 1 if any failed, and 130 after Ctrl-C.
"""


def make_parser(parse: Run, export: Run, serve: Run) -> argparse.ArgumentParser:
    """Returns the parser of the command's arguments.

    Args:
        parse: runs `stn-icnn parse`.
        export: runs `stn-icnn export`.
        serve: runs `stn-icnn demo`.

    Returns:
        The parser; its result has the function to run as `run`.
    """
    command = argparse.ArgumentParser(prog="stn-icnn", description="Face parsing of photos.")
    command.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = command.add_subparsers(required=True)

    parse_command = commands.add_parser(
        "parse",
        help="label the parts of the faces in photos and videos",
        description="Labels the parts of the faces in photos and videos.",
        epilog=PARSE_TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse_command.set_defaults(run=parse)
    _add_inputs(parse_command)
    _add_outputs(parse_command.add_argument_group("results"))
    _add_faces(parse_command.add_argument_group("faces"))
    _add_computation(parse_command.add_argument_group("computation"))

    export_command = commands.add_parser("export", help="write the parser for other runtimes")
    export_command.set_defaults(run=export)
    export_command.add_argument("--format", required=True, choices=("onnx", "stablehlo"))
    export_command.add_argument("--out", required=True, help="file to write")
    export_command.add_argument("--ckpt", metavar="PATH", help=WEIGHTS_HELP)

    cache_command.add_parser(commands)

    page = commands.add_parser("demo", help="serve the page that parses photos in a browser")
    page.set_defaults(run=serve)
    page.add_argument(
        "--port",
        type=int,
        default=demo.PORT,
        help=f"port on this machine (default {demo.PORT}; 0: any free port)",
    )
    return command


def _add_inputs(parse: argparse.ArgumentParser) -> None:
    parse.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO_OR_FOLDER",
        help="photos, videos, or folders of photos and videos",
    )
    parse.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    parse.add_argument("--recursive", action="store_true", help="search folders recursively")
    parse.add_argument(
        "--overwrite", action="store_true", help="parse inputs again whose results exist"
    )


def _mask_names(text: str) -> list[str]:
    """Returns names separated by commas, at least one."""
    names = [name for part in text.split(",") if (name := part.strip())]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names no class, but hair,skin does")
    return names


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--masks",
        type=_mask_names,
        default=[],
        metavar="NAMES",
        help="classes and groups (lips, mouth, brows, eyes, ears, face, head, person) to write as "
        "masks, for example hair,skin",
    )
    group.add_argument("--soft", action="store_true", help="also write --masks as soft masks")
    group.add_argument("--cutout", action="store_true", help="write people without background")
    group.add_argument(
        "--per-face", action="store_true", help="also write labels and masks of each face (photos)"
    )
    group.add_argument(
        "--format",
        choices=("json", "coco"),
        default="json",
        help="json (the default): a file for each photo; coco: also coco.json for all of them, "
        "with masks as run lengths (extra: coco)",
    )
    group.add_argument(
        "--ids", metavar="DATA_SET", help="write labels in the ids of a data set: celebamask_hq"
    )


def _add_faces(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--detector",
        default="yunet",
        metavar="NAME",
        help="face detector: yunet (the default), cascade, or an .onnx file of YuNet",
    )
    group.add_argument(
        "--no-detect",
        dest="detect",
        action="store_false",
        help="parse each photo as one face, framed as in CelebAMask-HQ",
    )
    group.add_argument("--min-score", type=float, metavar="S", help="lowest score of a face, 0..1")
    group.add_argument(
        "--min-face-size",
        type=float,
        metavar="PIXELS",
        help="side of the smallest faces, from forehead to chin",
    )
    number = group.add_mutually_exclusive_group()
    number.add_argument(
        "--max-faces", type=_positive_int, metavar="N", help="parse the N largest faces of a photo"
    )
    number.add_argument(
        "--largest",
        dest="max_faces",
        action="store_const",
        const=1,
        help="parse the largest face of a photo only",
    )


def _add_computation(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--ckpt", metavar="PATH", help=WEIGHTS_HELP)
    group.add_argument(
        "--batch",
        type=_positive_int,
        default=BATCH_SIZE,
        metavar="N",
        help=f"batch size of the networks, in faces (default {BATCH_SIZE})",
    )
    group.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="run on the Ray cluster at ADDRESS; without ADDRESS on that of RAY_ADDRESS, on one "
        "that runs on this machine, or on a new one on this machine. Photos and results may then "
        "be URLs of any file system that fsspec supports (extra: ray)",
    )


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)
