"""Drawn faces, the paper's nine classes and square windows; nothing to download.

    python train.py --config configs/synthetic_nine.py

Result on two cores: F1 .905 to .907 overall and .879 mean of eight on the 200 test faces, in 9 to
11 minutes with the drawing of the faces and all compilation, by how fast the cores are at the hour.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """Short stages on a part of the drawn faces, which differ enough without augmentation."""
    config = common.get_config()
    config.dataset.train = "train[:384]"
    config.dataset.validation = "validation[:16]"
    config.dataset.frame_size = 192  # A smaller frame leaves time for twice the steps.
    config.model.patch_size = 53
    config.batch_size = 4  # Many small steps go further in a short time than few large ones.
    config.augment = False
    config.halve_every_epochs = 1.0  # So short a stage has to settle quickly.
    config.coarse.epochs = 2
    config.coarse.lr = 1e-3
    config.localizer.epochs = 2
    config.localizer.lr = 2e-3
    config.fine.epochs = 2
    config.fine.lr = 1e-3
    config.fine.jitter = 4
    config.joint.epochs = 1
    config.joint.lr_fine = 4e-4
    config.joint.warmup_epochs = 0.25
    return config
