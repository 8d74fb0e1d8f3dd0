"""Scores a parser over whole photos of data sets with labels of hair, skin or clothes.

    python -m benchmarks.whole_photos --data_dir DIR --split "figaro/train[737:]" \
        --split "lfw_parts/validation[:200]" --split "street/train[878:]"

Each split is parsed with and without the wide frame. A label may stand for several classes; a pixel
is predicted correctly if its class is one of them. Prints, for all photos and for those in which a
face is detected, F1 of each label but background, and the mean over the photos of the intersection
over union of hair.
"""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import app, flags
from tqdm import tqdm

from jax_stn_icnn import FaceParser
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.data.prepared import find_data_set, open_source
from jax_stn_icnn.label_sets import class_sets

FLAGS = flags.FLAGS


class Counts(NamedTuple):
    """Counts of pixels of a photo by label, int64 (labels,): 2 tp / (2 tp + fp + fn) is F1.

    Attributes:
        tp: True positives.
        fp: False positives.
        fn: False negatives.
    """

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray

    def f1(self) -> np.ndarray:
        """Returns F1 of each label, of counts that are summed over photos."""
        return 2 * self.tp / np.maximum(2 * self.tp + self.fp + self.fn, 1)


def count(prediction: np.ndarray, truth: np.ndarray, sets: Sequence[Sequence[int]]) -> Counts:
    """Counts the pixels of a photo.

    Args:
        prediction: Class ids, uint8 (height, width).
        truth: Labels, uint8 (height, width), indices of `sets`; 255 is ignored.
        sets: The class ids of each label; those of a label that contains all classes are ignored.
    """
    num_classes = 1 + max(c for classes in sets for c in classes)
    member = np.zeros((256, num_classes), bool)
    member[255] = True
    for label, classes in enumerate(sets):
        member[label, list(classes)] = True
    # Pixels by (label, class).
    table = np.bincount(
        truth.astype(np.int64).ravel() * num_classes + prediction.ravel(),
        minlength=256 * num_classes,
    ).reshape(256, num_classes)
    wrong = np.where(member, 0, table)
    labels = np.arange(len(sets))
    tp = np.where(member, table, 0).sum(axis=1)[labels]
    fn = wrong.sum(axis=1)[labels]
    fp = np.array([wrong[:, list(classes)].sum() for classes in sets])
    return Counts(tp, fp, fn)


def score_split(parser: FaceParser, split: str) -> Iterator[tuple[bool, Counts]]:
    """Yields, for each photo of a split, whether a face is detected, and its counts."""
    name, _, part = split.partition("/")
    source = open_source(FLAGS.data_dir, name, part)
    sets = class_sets(parser.model.config.anatomy, find_data_set(FLAGS.data_dir, name))
    photos = (source[index]["image"] for index in range(len(source)))
    results = tqdm(parser.stream(photos), total=len(source), unit="photo", desc=split)
    for index, result in enumerate(results):
        truth = source[index]["label"][..., 0]
        yield bool(result.faces), count(result.labels, truth, sets)


def report(split: str, photos: Sequence[tuple[bool, Counts]]) -> dict[str, float]:
    """Returns the scores of a split by name."""
    name = split.partition("/")[0]
    labels = list(find_data_set(FLAGS.data_dir, name).classes.values())
    scores: dict[str, float] = {"detected": float(np.mean([found for found, _ in photos]))}
    for group in ("all photos", "photos with a face"):
        chosen = [counts for found, counts in photos if found or group == "all photos"]
        total = Counts(*(np.sum(column, axis=0) for column in zip(*chosen, strict=True)))
        for label, value in zip(labels, total.f1(), strict=True):
            short = "skin with parts" if label.startswith("skin+") else label
            if not label.startswith(("background", "ignore")):
                scores[f"{group}: F1 {short}"] = float(value)
        hair = labels.index("hair")
        iou = [c.tp[hair] / max(c.tp[hair] + c.fp[hair] + c.fn[hair], 1) for c in chosen]
        scores[f"{group}: mean IoU hair"] = float(np.mean(iou))
    return scores


def main(argv: list[str]) -> None:
    """Parses the splits and prints the scores."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    cache.enable_cache(None)
    scores = {}
    for frames in FLAGS.frames:
        parser = FaceParser.load(FLAGS.ckpt, wide=frames == "wide")
        for split in FLAGS.split:
            scores[f"{split}, {frames}"] = report(split, list(score_split(parser, split)))
    for title, values in scores.items():
        print(f"\n{title}")
        print("\n".join(f"{name:40s}{value:8.3f}" for name, value in values.items()))
    if FLAGS.json:
        with open(FLAGS.json, "w") as file:
            json.dump(scores, file, indent=2)


if __name__ == "__main__":
    # Not on import, where other benchmarks may have flags of the same names.
    flags.DEFINE_string("data_dir", None, "Prepared data sets.", required=True)
    flags.DEFINE_multi_string("split", None, "NAME/SPLIT.", required=True)
    flags.DEFINE_string("ckpt", None, "Weights, as for `stn-icnn parse`.")
    flags.DEFINE_multi_enum("frames", ["wide", "face"], ["wide", "face"], "Frames of the parse.")
    flags.DEFINE_string("json", None, "File that the scores are written to.")
    app.run(main)
