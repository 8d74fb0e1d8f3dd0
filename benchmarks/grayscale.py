"""Agreement of a parser's labels for a picture in grayscale with those for the picture in color.

    python -m benchmarks.grayscale --config configs/celebamask_full.py [--ckpt PATH] [--split test]

Prints F1 of the labels in grayscale, with the labels in color as the truth.
"""

import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from PIL import Image
from tqdm import tqdm

from jax_stn_icnn import FaceParser
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.data.loader import open_source
from jax_stn_icnn.evaluation import metrics


def agreement(parser: FaceParser, pictures: list[np.ndarray]) -> np.ndarray:
    """Returns the confusion matrix of labels in color and labels in grayscale.

    Args:
        parser: The parser.
        pictures: uint8 (height, width, 3), each one face framed as in CelebAMask-HQ.

    Returns:
        Numbers of pixels, int64 (classes, classes); rows are the labels in color.
    """
    classes = len(parser.classes)
    counts = np.zeros((classes, classes), np.int64)
    for picture in tqdm(pictures, unit="face"):
        grayscale = Image.fromarray(picture).convert("L")
        truth, labels = (
            jnp.asarray(parser(photo, detect=False).labels[None]) for photo in (picture, grayscale)
        )
        counts += np.asarray(metrics.confusion(truth, labels, num_classes=classes), np.int64)
    return counts


def main(argv: list[str]) -> None:
    """Prints F1 of every group and class."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    cache.enable_cache(None)
    dataset = flags.FLAGS.config.dataset
    source = open_source(dataset.data_dir, dataset.name, flags.FLAGS.split)
    parser = FaceParser.load(flags.FLAGS.ckpt, quick_start=False)
    anatomy = parser.model.config.anatomy
    counts = agreement(parser, [source[i]["image"] for i in range(len(source))])
    for name, score in metrics.f1_scores(counts, anatomy).items():
        print(f"{name:16s}{score:.3f}")
    for name, score in zip(anatomy.classes[1:], metrics.label_f1(counts)[1:], strict=True):
        print(f"  {name:14s}{score:.3f}")


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "Config that names the data set.")
    flags.DEFINE_string("ckpt", None, "Weights, as for `stn-icnn parse`.")
    flags.DEFINE_string("split", "test", "Split of the data set, such as test[:20].")
    flags.mark_flag_as_required("config")
    app.run(main)
