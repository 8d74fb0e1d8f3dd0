"""CelebAMask-HQ in nineteen classes, after CLRNet (Huang et al., 2021): fine networks with context.

    python train.py --config configs/clrnet.py --workdir runs/clrnet \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

The whole of it is not measured here; `python -m experiments.run ablation` says what the bridge
gives on few faces (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import celebamask_whole


def get_config() -> ConfigDict:
    """`celebamask_whole.py` with fine networks that see their context."""
    config = celebamask_whole.get_config()
    config.model.bridge = True
    return config
