"""CelebAMask-HQ in nineteen classes, with structure via consensus (Masi et al., 2020).

    python train.py --config configs/consensus.py --workdir runs/consensus \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Expect little: 344 faces, in frames of 256 pixels, gave a mean F1 of .665 and a mean of the eight
parts of .826 with it, .662 and .820 or, with another seed, .666 and .832 without (`python -m
experiments.run ablation`, docs/results.md). With all faces it is not measured.
"""

from ml_collections import ConfigDict

from configs import celebamask_full


def get_config() -> ConfigDict:
    """`celebamask_full.py` with regions that are to be right as a whole."""
    config = celebamask_full.get_config()
    config.consensus.coarse = config.consensus.fine = 0.02
    config.consensus.warmup_epochs = 2.0
    return config
