"""Compares frames that contain the whole head: the wide frame, and a tanh-warped picture.

    python -m experiments.frames --data_dir DIR --workdir runs/frames_wide --frames wide
    python -m experiments.frames --data_dir DIR --workdir runs/frames_tanh --frames tanh

Each command trains the coarse network of `configs/full_head_coarse.py` for a few epochs and scores
it alone, without fine networks: on whole photos with labels of hair, skin or clothes, in which a
face is detected, and on aligned faces surrounded by their mirror images. The data sets must be
prepared (`tfds_builders.prepare`).

`wide` takes two passes, for the frame and the wide frame, blended as in the parser. `tanh` takes
one, for a picture that contains the photo (`experiments.tanh_warp`); a data set's weight is the sum
of its weights in frames and wide frames. Augmentation applies to the network's input in both.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict
from tqdm import tqdm

from benchmarks.whole_photos import Counts, count, report
from configs import full_head_coarse
from experiments import tanh_warp, warped_data
from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.data.prepared import find_data_set, open_source
from jax_stn_icnn.faces import detectors, framing, resample
from jax_stn_icnn.inference.compact import CompactArray
from jax_stn_icnn.inference.locating import FaceLocator, Selection
from jax_stn_icnn.inference.merging import merge_faces
from jax_stn_icnn.inference.results import FaceResult
from jax_stn_icnn.inference.turning import RotationCheck
from jax_stn_icnn.io.weights import load_weights, weights_file
from jax_stn_icnn.label_sets import class_sets
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.models.wide import blend
from jax_stn_icnn.train import batches, loop

FRAMES = ("wide", "tanh")
# How predictions are used: `cut` leaves background where the warped picture has no pixels.
USES = {"wide": ("wide",), "tanh": ("tanh", "tanh cut")}
ALIGNED = "celebamask_hq/validation"
SPLITS = ("figaro/train[737:]", "lfw_parts/validation[:100]", "street/train[878:]", ALIGNED)
SIDE = tanh_warp.SIDE  # of the network's input


def get_config(frames: str, data_dir: str, epochs: int) -> ConfigDict:
    """Returns the training config.

    Args:
        frames: one of FRAMES.
        data_dir: directory of prepared data sets.
        epochs: number of epochs.
    """
    config = full_head_coarse.get_config()
    config.dataset.data_dir = data_dir
    config.init_from = ""
    config.coarse.epochs, config.halve_every_epochs = epochs, epochs / 3
    config.ema_decay = 0.98  # The average spans 50 steps of some hundred.
    # Regions can be pasted only in images without unknown pixels.
    config.dataset.paste = 0.0
    config.dataset.validation = config.dataset.test = "validation[:8]"
    config.validation_images = 0
    if frames == "tanh":
        config.dataset.framing = "resize_wide"
        for source in config.dataset.sources.values():
            source.framing = source.framing.partition("_")[0] + "_wide"
    return config


class Parser:
    """Parses photos with a coarse network alone; `anatomy` holds its classes."""

    def __init__(self, weights: Path, use: str):
        """Loads the network from a file; `use` is one of USES."""
        loaded = load_weights(weights)
        self._model, self._variables, self._use = loaded.model, loaded.variables, use
        self.anatomy: Anatomy = loaded.model.config.anatomy

    def __call__(self, photo: np.ndarray, frames: list[np.ndarray]) -> np.ndarray:
        """Returns the class ids of a photo, uint8 (height, width), by its faces' frames of SIDE."""
        parse = self._parse_wide if self._use == "wide" else self._parse_tanh
        return merge_faces([parse(photo, frame) for frame in frames], photo)[0].labels()

    def _parse_wide(self, photo: np.ndarray, frame: np.ndarray) -> FaceResult:
        size = SIDE, SIDE
        pair = [frame, framing.wide_frame(frame, SIDE)]
        images = np.stack([resample.warp(photo, matrix, size) for matrix in pair])
        scores, wide = jax.device_get(_scores(self._model, self._variables, images))
        return self._result(scores[0], frame, photo, wide_scores=(wide[0],))

    def _parse_tanh(self, photo: np.ndarray, frame: np.ndarray) -> FaceResult:
        images = tanh_warp.warp(photo, frame, SIDE)[None]
        scores, _ = jax.device_get(_scores(self._model, self._variables, images))
        cut = self._use == "tanh cut"
        labels = tanh_warp.unwarp_labels(scores[0], frame, SIDE, photo.shape[:2], cut)
        area = slice(0, len(labels)), slice(0, len(labels[0]))
        face = self._result(scores[0], frame, photo)
        pixels = face.pixels._replace(area=area, class_ids=CompactArray.of(labels))
        return face.with_pixels(pixels, 0)

    def _result(
        self, scores: np.ndarray, frame: np.ndarray, photo: np.ndarray, **options: Any
    ) -> FaceResult:
        return FaceResult.from_frame(
            scores=scores,
            windows=np.zeros((self.anatomy.num_parts, 4)),
            coarse_labels=scores.argmax(axis=0).astype(np.uint8),
            anatomy=self.anatomy,
            box=framing.box_from_frame(frame, SIDE),
            matrix=frame,
            photo_size=photo.shape[:2],
            **options,
        )


@partial(jax.jit, static_argnames="model")
def _scores(model: STNiCNN, variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns scores of all classes in the first image, and of the global ones in the others.

    As in `ops.paste`, with the coarse probabilities of part classes in place of the patches'.
    """
    anatomy = model.config.anatomy
    coarse: Any = model.apply(variables, ops.to_float(images), method="coarse_stage")
    global_probs = jax.nn.softmax(coarse.global_logits, axis=1)
    first, others = global_probs[:1], global_probs[1:]
    if len(images) > 1:
        first = blend(first, others, (SIDE, SIDE))
    probs = ops.upsample_bilinear(jax.nn.softmax(coarse.logits[:1]), (SIDE, SIDE))
    planes = {c: probs[..., c] for c in anatomy.part_class_ids}
    background = 1 - sum(planes.values())
    planes |= {c: background * first[:, i] for i, c in enumerate(anatomy.global_ids)}
    return jnp.stack([planes[c] for c in range(anatomy.num_classes)], axis=1), others


def score_split(
    parsers: dict[str, Parser], data_dir: str, split: str
) -> dict[str, dict[str, float]]:
    """Returns the scores of parsers on a split, all with the same faces, by parser and name."""
    name, _, part = split.partition("/")
    source = open_source(data_dir, name, part)
    shipped = load_weights(weights_file(None))
    check = RotationCheck(shipped.model, jax.device_put(shipped.variables), shipped.frame_size)
    locator = FaceLocator(check, SIDE, min_score=None)
    every_face = Selection.checked(None, None, detect=True, max_faces=None, largest=False)
    detector = detectors.make_detector("yunet")
    photos: dict[str, list[tuple[bool, Counts]]] = {use: [] for use in parsers}
    for index in tqdm(range(len(source)), desc=split):
        photo, label = source[index]["image"], source[index]["label"]
        if split == ALIGNED:
            photo, truth, frame = warped_data.surround(photo, label)
            frames = [framing.resize_frame(frame, SIDE)]
        else:
            truth = label[..., 0]
            frames = [face.matrix for face in locator.locate(photo, detector, every_face).selected]
        for use, parser in parsers.items():
            sets = class_sets(parser.anatomy, find_data_set(data_dir, name))
            counts = count(parser(photo, frames), truth, sets)
            photos[use].append((bool(frames), counts))
    return {use: report(split, one) for use, one in photos.items()}


def main(argv: list[str]) -> None:
    """Trains, scores, and prints the scores."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    options, workdir = flags.FLAGS, Path(flags.FLAGS.workdir).expanduser()
    logging.set_verbosity(logging.WARNING)
    cache.enable_cache(None)
    opened = warped_data.open_warped if options.frames == "tanh" else batches.open_frames
    with mock.patch.object(batches, "open_frames", opened):
        config = get_config(options.frames, options.data_dir, options.epochs)
        loop.train_and_evaluate(config, workdir)
    weights = workdir / "weights_coarse.safetensors"
    parsers = {use: Parser(weights, use) for use in USES[options.frames]}
    scores = {split: score_split(parsers, options.data_dir, split) for split in SPLITS}
    anatomy = parsers[USES[options.frames][0]].anatomy
    for one in scores[ALIGNED].values():
        f1 = [one[f"all photos: F1 {anatomy.classes[c]}"] for c in anatomy.part_class_ids]
        one["mean of eight"] = float(np.mean(f1))
    (workdir / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Directory of prepared data sets.", required=True)
    flags.DEFINE_string("workdir", None, "Output directory.", required=True)
    flags.DEFINE_enum("frames", None, FRAMES, "The frames.", required=True)
    flags.DEFINE_integer("epochs", 3, "Number of epochs.")
    app.run(main)
