"""Evaluates a trained STN-iCNN: the paper's table as text, the scores as JSON, pictures.

    python eval.py --ckpt runs/synthetic                      # the best weights of a run
    python eval.py --ckpt runs/celebamask/weights_fine.safetensors --split validation
    python eval.py --ckpt runs/celebamask --cropper centroid  # the baseline without a localizer
    python eval.py --ckpt runs/celebamask --occlude 2         # occluded parts, both croppers
    python eval.py --ckpt helen.safetensors --config configs/helen.py
    python eval.py --ckpt runs/celebamask --dataset figaro --split "train[737:]"

The labels of another data set may be sets of classes. Weights outside the directory of a run need
--config.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from jax_stn_icnn.anatomy import FRAMINGS, Anatomy
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.data.loader import make_batches
from jax_stn_icnn.data.opening import open_examples
from jax_stn_icnn.evaluation import draw, evaluator
from jax_stn_icnn.evaluation.report import Report, class_table, occlusion_table, score_table
from jax_stn_icnn.io import weights
from jax_stn_icnn.io.weights import CONFIG, WEIGHTS
from jax_stn_icnn.label_sets import LabelSets
from jax_stn_icnn.models.config import CENTROID
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train.arguments import name_unknown_field, parse_flags

FACES_PER_PICTURE = 6

_CKPT = flags.DEFINE_string(
    "ckpt", None, "Directory of a run, or a weights file (.safetensors).", required=True
)
with name_unknown_field():
    _CONFIG = config_flags.DEFINE_config_file("config", None, "Config; by default that of the run.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Directory of prepared data sets; by default that of the config."
)
_DATASET = flags.DEFINE_string(
    "dataset", None, "Name of a prepared data set; by default that of the config."
)
_SPLIT = flags.DEFINE_string(
    "split",
    None,
    "Split, such as test[:100]; by default the test split of the config, of another --dataset "
    "the split test.",
)
_FRAMING = flags.DEFINE_enum(
    "framing",
    None,
    FRAMINGS,
    "How images become frames; by default as in the config, or if it does not contain --dataset, "
    "as the data set is registered, and face if it is not.",
)
_CROPPER = flags.DEFINE_enum(
    "cropper",
    None,
    [CENTROID],
    "Crop around the centroids of the coarse segmentation instead of the localizer's windows.",
)
_TRUE_CENTRES = flags.DEFINE_bool(
    "true_centres", False, "Crop the windows of the labels instead of predicted ones."
)
_OCCLUDE = flags.DEFINE_integer("occlude", 0, "Number of parts to occlude in each face.", 0, 6)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the occluded parts and of the random faces in pictures.", 0, 2**31 - 1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Batch size; by default that of the config.", 1
)
_JSON = flags.DEFINE_string("json", None, "File that the scores are written to.")
_PICTURES = flags.DEFINE_string("pictures", None, "Directory that pictures are written to.")
_COMPILATION_CACHE = flags.DEFINE_string("compilation_cache", None, cache.HELP)

Loader = Callable[[], grain.IterDataset]


def _restore(ckpt: Path) -> tuple[ConfigDict, dict[str, Any], STNiCNN]:
    """Returns config, variables and model of a run's directory or of a weights file."""
    path = ckpt / WEIGHTS if ckpt.is_dir() else ckpt
    if not path.exists():
        raise FileNotFoundError(f"--ckpt: the file {path} does not exist")
    loaded = weights.load_weights(path)
    run_config = path.parent / CONFIG
    if _CONFIG.value is not None:
        config = _CONFIG.value
        configs.check(config)
    elif run_config.exists():
        config = configs.read(run_config)
    else:
        raise FileNotFoundError(f"{run_config} does not exist: set --config to the weights' config")
    anatomy = configs.model_config(config).anatomy
    if anatomy.name != loaded.model.config.anatomy.name:
        raise ValueError(
            f"{path} has the classes {loaded.model.config.anatomy.name!r}, but the config has "
            f"model.anatomy={anatomy.name!r}: set --config to the weights' config"
        )
    if config.dataset.frame_size != loaded.frame_size:
        raise ValueError(
            f"{path} was trained at a frame size of {loaded.frame_size}, but the config has "
            f"dataset.frame_size={config.dataset.frame_size}"
        )
    options = loaded.model.config.replace(dtype=config.model.dtype)
    return config, loaded.variables, STNiCNN(options)


def _open_split(config: ConfigDict, anatomy: Anatomy) -> tuple[Loader, int, LabelSets]:
    """Returns a function that opens a pass over the split, its number of faces, and its labels."""
    dataset = config.dataset
    name = _DATASET.value or dataset.name
    split, framing = "test", ""
    if name == dataset.name:
        split, framing = dataset.test, dataset.framing
    else:
        sources = [one for one in dataset.sources.values() if one.name == name]
        framing = sources[0].framing.partition("_")[0] if sources else ""
    examples, label_sets = open_examples(
        _DATA_DIR.value or dataset.data_dir,
        name,
        _SPLIT.value or split,
        anatomy,
        dataset.frame_size,
        _FRAMING.value or framing,
    )
    unlabelled = set(anatomy.part_class_ids) & set(label_sets.absent)
    if unlabelled and (_OCCLUDE.value or _TRUE_CENTRES.value):
        flag = "--occlude" if _OCCLUDE.value else "--true_centres"
        classes = ", ".join(anatomy.classes[c] for c in sorted(unlabelled))
        raise ValueError(f"{flag} needs labels of each part, but {name!r} does not label {classes}")
    open_loader = partial(
        make_batches,
        examples,
        batch_size=_BATCH_SIZE.value or config.eval_batch_size,
        seed=config.seed,
        train=False,
    )
    return open_loader, len(examples), label_sets


def _draw(
    folder: Path, model: STNiCNN, variables: dict[str, Any], loader: Loader, report: Report
) -> None:
    """Draws the best, the worst and random faces, and the confusion matrix."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = report.score_by_face
    order = np.argsort(scores)  # NaN is last.
    order = order[~np.isnan(scores[order])]
    count = min(FACES_PER_PICTURE, len(order))
    random = np.random.default_rng(_SEED.value).choice(order, count, replace=False)
    chosen = {"worst": order[:count], "best": order[::-1][:count], "random": np.sort(random)}
    titles = {
        int(report.index[row]): f"face {report.index[row]}, F1 {scores[row]:.3f}" for row in order
    }
    for name, rows in chosen.items():
        faces = evaluator.parse_faces(
            model,
            variables,
            loader(),
            [int(index) for index in report.index[rows]],
            titles=titles,
            occlude=_OCCLUDE.value,
            seed=_SEED.value,
            true_centres=_TRUE_CENTRES.value,
        )
        draw.parse_grid(folder / f"{name}.png", faces, model.config.anatomy)
    counts = report.confusion.sum(axis=0, dtype=np.int64)
    draw.confusion_matrix(
        folder / "confusion.png",
        counts,
        model.config.anatomy,
        title=f"{report.images} faces",
        label_sets=report.label_sets,
    )


def _evaluate() -> None:
    """Evaluates the model, prints the tables and writes the files that flags name."""
    if _OCCLUDE.value and _TRUE_CENTRES.value:
        raise ValueError(
            "--occlude compares croppers, but --true_centres uses none: remove one of them"
        )
    config, variables, model = _restore(Path(_CKPT.value).expanduser())
    trained = model.config.cropper
    cropper = _CROPPER.value or trained
    # Occlusion is where the two croppers differ, so both are evaluated.
    croppers = list(dict.fromkeys([cropper, trained, CENTROID])) if _OCCLUDE.value else [cropper]
    loader, images, label_sets = _open_split(config, model.config.anatomy)
    reports = {
        name: evaluator.evaluate(
            STNiCNN(model.config.replace(cropper=name)),
            variables,
            loader(),
            images=images,
            occlude=_OCCLUDE.value,
            seed=_SEED.value,
            true_centres=_TRUE_CENTRES.value,
            edges=True,
            label_sets=label_sets,
        )
        for name in croppers
    }
    report = reports[cropper]
    if _TRUE_CENTRES.value:
        reports = {"true centres": report}
    print(f"{report.images} faces, {report.faces_per_second:.1f} faces/s\n")
    print(score_table(reports))
    print(f"\n{class_table(reports)}")
    scores = report.as_json()
    if _OCCLUDE.value:
        print(f"\n{occlusion_table(reports)}")
        scores["occlusion"] = {name: one.occlusion_as_json() for name, one in reports.items()}
    if _JSON.value:
        Path(_JSON.value).expanduser().write_text(json.dumps(scores, indent=2) + "\n")
    if _PICTURES.value:
        folder = Path(_PICTURES.value).expanduser()
        chosen = STNiCNN(model.config.replace(cropper=cropper))
        _draw(folder, chosen, variables, loader, report)


def main(argv: Sequence[str]) -> None:
    """Runs the program."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    cache.enable_cache(_COMPILATION_CACHE.value)
    try:
        _evaluate()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
