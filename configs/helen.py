"""HELEN in nine classes, 2,000 training faces, with the paper's settings.

    python train.py --config configs/helen.py --workdir runs/helen \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Expected result: not measured; the paper reports F1 .893 overall before joint training.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """Returns the paper's learning rates, and the original code's for the fine networks."""
    config = common.get_config()
    config.dataset.name = "helen"
    config.dataset.frame_size = 1024
    config.dataset.num_workers = 4
    config.model.patch_size = 81
    config.batch_size = 32
    config.coarse.lr = 2.3e-3
    config.localizer.lr = 1.7e-3
    config.fine.lr = 8e-4
    config.fine.jitter = 8
    config.joint.lr_fine = 2.5e-3
    return config
