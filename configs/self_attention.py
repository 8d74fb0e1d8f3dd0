"""CelebAMask-HQ in nineteen classes, after Han and Yoon (2024): context, edges, self-distillation.

    python train.py --config configs/self_attention.py --workdir runs/self_attention \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Pictures without labels can lie beside the labelled ones in the last stage:
`--config.dataset.unlabelled=FOLDER_OF_PHOTOS`.

What to expect of 344 faces in frames of 256 pixels, mean F1 and mean of the eight parts: without
any of it .662 and .820 or, with another seed, .666 and .832; with edges .667 and .821, with
self-distillation .663 and .831, with attention .660 and .817 (`python -m experiments.run
ablation`, docs/results.md). With all faces it is not measured.
"""

from ml_collections import ConfigDict

from configs import celebamask_full


def get_config() -> ConfigDict:
    """`celebamask_full.py` with self-attention, an edge task, and a fifth stage."""
    config = celebamask_full.get_config()
    config.model.attention = 2
    config.edges.coarse = config.edges.fine = 0.5
    config.model.edge_head = True
    config.edges.task = 0.2
    config.stages = ("coarse", "localizer", "fine", "joint", "distill")
    return config
