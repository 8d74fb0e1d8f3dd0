"""CelebAMask-HQ in nineteen classes, after CLRNet (Huang et al., 2021): fine networks with context.

    python train.py --config configs/clrnet.py --workdir runs/clrnet \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Expect no gain from few faces: 344 of them, in frames of 256 pixels, gave a mean F1 of .660 and a
mean of the eight parts of .816 with the bridge, .662 and .820 without it (`python -m
experiments.run ablation`, docs/results.md). With all faces it is not measured.
"""

from ml_collections import ConfigDict

from configs import celebamask_full


def get_config() -> ConfigDict:
    """`celebamask_full.py` with fine networks that see their context."""
    config = celebamask_full.get_config()
    config.model.bridge = True
    return config
