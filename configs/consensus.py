"""CelebAMask-HQ in nineteen classes, with structure via consensus (Masi et al., 2020).

    python train.py --config configs/consensus.py --workdir runs/consensus \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Expected result: not measured with all faces; little gain with 344 of them in frames of 256 pixels,
which reach a mean F1 of .665 and a mean of the eight parts of .826 with it, .662 and .820 without,
or .666 and .832 with another seed (`python -m experiments.run ablation`, docs/results.md).
"""

from ml_collections import ConfigDict

from configs import celebamask_full


def get_config() -> ConfigDict:
    """Returns `celebamask_full.py` with the consensus loss."""
    config = celebamask_full.get_config()
    config.consensus.coarse = config.consensus.fine = 0.02
    config.consensus.warmup_epochs = 2.0
    return config
