"""CelebAMask-HQ in nineteen classes, with structure via consensus (Masi et al., 2020).

    python train.py --config configs/consensus.py --workdir runs/consensus \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

The whole of it is not measured here; `python -m experiments.run ablation` says what consensus gives
on few faces (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import celebamask_whole


def get_config() -> ConfigDict:
    """`celebamask_whole.py` with regions that are to be right as a whole."""
    config = celebamask_whole.get_config()
    config.consensus.coarse = config.consensus.fine = 0.02
    config.consensus.warmup_epochs = 2.0
    return config
