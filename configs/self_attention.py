"""CelebAMask-HQ in nineteen classes, after Han and Yoon (2024): attention, edges, distillation.

    python train.py --config configs/self_attention.py --workdir runs/self_attention \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

The last stage can use unlabelled images: `--config.dataset.unlabelled=FOLDER_OF_PHOTOS`.

Expected result: not measured with all faces. With 344 of them in frames of 256 pixels, mean F1 and
mean of the eight parts are .662 and .820 without all of it, or .666 and .832 with another seed;
.667 and .821 with edges, .663 and .831 with self-distillation, .660 and .817 with attention
(`python -m experiments.run ablation`, docs/results.md).
"""

from ml_collections import ConfigDict

from configs import celebamask_full


def get_config() -> ConfigDict:
    """Returns `celebamask_full.py` with self-attention, an edge task, and a fifth stage."""
    config = celebamask_full.get_config()
    config.model.attention = 2
    config.edges.coarse = config.edges.fine = 0.5
    config.model.edge_head = True
    config.edges.task = 0.2
    config.stages = ("coarse", "localizer", "fine", "joint", "distill")
    return config
