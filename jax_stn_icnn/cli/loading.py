"""The parser that the command's arguments select."""

import argparse
from typing import Any

from jax_stn_icnn.inference.parser import FaceParser


def load_parser(args: argparse.Namespace) -> FaceParser:
    """Returns the parser for the command's arguments."""
    return FaceParser.load(
        args.ckpt,
        detector=args.detector,
        min_score=args.min_score,
        min_face_size=args.min_face_size,
    )


def selection_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of `FaceParser.__call__` for the command's arguments."""
    return {"detect": args.detect, "max_faces": args.max_faces}


def stream_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of `FaceParser.stream` for the command's arguments."""
    return {**selection_options(args), "batch_size": args.batch}
