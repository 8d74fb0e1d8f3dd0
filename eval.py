"""Scores a trained STN-iCNN: the paper's table, as text, JSON and pictures.

    python eval.py --ckpt runs/synthetic                    # the best weights of a run
    python eval.py --ckpt runs/celebamask/weights_fine.safetensors --split validation
    python eval.py --ckpt runs/celebamask --cropper centroid # the baseline that STN replaced
    python eval.py --ckpt runs/celebamask --occlude 2        # parts covered, both croppers
    python eval.py --ckpt helen.safetensors --config configs/helen.py

Weights that lie in a run's directory bring their config along; others need --config.
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

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.data.loader import loader_over, open_source
from jax_stn_icnn.evaluation import draw, evaluator
from jax_stn_icnn.evaluation.report import Report, class_table, occlusion_table, score_table
from jax_stn_icnn.io import weights
from jax_stn_icnn.io.weights import CONFIG, WEIGHTS
from jax_stn_icnn.models.config import CENTROID
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import config as configs

FACES_PER_PICTURE = 6

_CKPT = flags.DEFINE_string(
    "ckpt", None, "A run's directory, or weights in .safetensors.", required=True
)
_CONFIG = config_flags.DEFINE_config_file("config", None, "Config, where the run has none.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Prepared data sets; by default the run's.")
_SPLIT = flags.DEFINE_string("split", None, "Such as test[:100]; by default the run's test split.")
_CROPPER = flags.DEFINE_enum(
    "cropper", None, [CENTROID], "Cut around the rough mask's centroids, not by the localizer."
)
_TRUE_CENTRES = flags.DEFINE_bool("true_centres", False, "Cut the true windows.")
_OCCLUDE = flags.DEFINE_integer("occlude", 0, "Parts to cover in each face.", 0, 6)
_SEED = flags.DEFINE_integer("seed", 0, "Of covered parts and randomly drawn faces.", 0, 2**31 - 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "By default the run's.", 1)
_JSON = flags.DEFINE_string("json", None, "File to write the scores to.")
_PICTURES = flags.DEFINE_string("pictures", None, "Directory for pictures.")
_COMPILATION_CACHE = flags.DEFINE_string("compilation_cache", None, cache.HELP)

Loader = Callable[[], grain.IterDataset]


def _restore(ckpt: Path) -> tuple[ConfigDict, dict[str, Any], STNiCNN]:
    """Config, variables and model of a run's directory or of a file of weights."""
    path = ckpt / WEIGHTS if ckpt.is_dir() else ckpt
    if not path.exists():
        raise FileNotFoundError(f"--ckpt: there is no file {path}")
    loaded = weights.load_weights(path)
    beside = path.parent / CONFIG
    if _CONFIG.value is not None:
        config = _CONFIG.value
    elif beside.exists():
        config = ConfigDict(json.loads(beside.read_text()))
    else:
        raise FileNotFoundError(f"there is no {beside}: name the config of the weights, --config")
    configs.check(config)
    anatomy = configs.model_config(config).anatomy
    if anatomy.name != loaded.model.config.anatomy.name:
        raise ValueError(
            f"{path} has the classes {loaded.model.config.anatomy.name!r}, but the config has "
            f"model.anatomy={anatomy.name!r}: name the config of the weights, --config"
        )
    if config.dataset.frame_size != loaded.frame_size:
        raise ValueError(
            f"{path} was trained at a frame of {loaded.frame_size}, but the config has "
            f"dataset.frame_size={config.dataset.frame_size}"
        )
    options = loaded.model.config.replace(dtype=config.model.dtype)
    return config, loaded.variables, STNiCNN(options)


def _loader(config: ConfigDict, anatomy: Anatomy) -> tuple[Loader, int]:
    """What makes a pass over the split, and how many faces it has."""
    dataset = config.dataset
    source = open_source(
        _DATA_DIR.value or dataset.data_dir, dataset.name, _SPLIT.value or dataset.test
    )
    make = partial(
        loader_over,
        source,
        dataset.name,
        anatomy,
        frame_size=dataset.frame_size,
        batch_size=_BATCH_SIZE.value or config.eval_batch_size,
        seed=config.seed,
        train=False,
    )
    return make, len(source)


def _draw(
    folder: Path, model: STNiCNN, variables: dict[str, Any], loader: Loader, report: Report
) -> None:
    """Best, worst and random faces, and the confusion matrix."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = report.mean_of_eight_by_face
    order = np.argsort(scores)  # Faces without a score come last.
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
        folder / "confusion.png", counts, model.config.anatomy, title=f"{report.images} faces"
    )


def _evaluate() -> None:
    """Scores, prints and writes what the flags ask for."""
    if _OCCLUDE.value and _TRUE_CENTRES.value:
        raise ValueError("--occlude compares croppers, but --true_centres uses none: drop one")
    config, variables, model = _restore(Path(_CKPT.value).expanduser())
    trained = model.config.cropper
    cropper = _CROPPER.value or trained
    # Covered parts are what tells the two croppers apart, so both are scored.
    croppers = list(dict.fromkeys([cropper, trained, CENTROID])) if _OCCLUDE.value else [cropper]
    loader, images = _loader(config, model.config.anatomy)
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
        )
        for name in croppers
    }
    report = reports[cropper]
    print(f"{report.images} faces, {report.faces_per_second:.1f} a second\n")
    print(score_table({"true centres": report} if _TRUE_CENTRES.value else reports))
    print(f"\n{class_table(reports)}")
    found = report.as_json()
    if _OCCLUDE.value:
        print(f"\n{occlusion_table(reports)}")
        found["occlusion"] = {name: each.occlusion_as_json() for name, each in reports.items()}
    if _JSON.value:
        Path(_JSON.value).expanduser().write_text(json.dumps(found, indent=2) + "\n")
    if _PICTURES.value:
        folder = Path(_PICTURES.value).expanduser()
        chosen = STNiCNN(model.config.replace(cropper=cropper))
        _draw(folder, chosen, variables, loader, report)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    cache.enable_cache(_COMPILATION_CACHE.value)
    try:
        _evaluate()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main)
