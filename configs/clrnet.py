"""CelebAMask-HQ in nineteen classes, with CLRNet's bridge (Huang et al., 2021).

    python train.py --config configs/clrnet.py --workdir runs/clrnet \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Expected result: not measured with all faces; no gain with 344 of them in frames of 256 pixels,
which reach a mean F1 of .660 and a mean of the eight parts of .816 with the bridge, .662 and .820
without (`python -m experiments.run ablation`, docs/results.md).
"""

from ml_collections import ConfigDict

from configs import celebamask_full


def get_config() -> ConfigDict:
    """Returns `celebamask_full.py` with the coarse network's features in the fine networks."""
    config = celebamask_full.get_config()
    config.model.bridge = True
    return config
