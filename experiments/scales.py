"""Scales of an experiment: `small` for two cores, minutes per trial; `full` for accelerators."""

from ml_collections import ConfigDict

from configs import celebamask, celebamask_full, common, synthetic_nine
from configs import full_face as full_face_options

SCALES = ("small", "full")


def paper(scale: str) -> ConfigDict:
    """Returns the paper's config: for drawn faces, or at full scale for all of CelebAMask-HQ."""
    if scale == "full":
        return celebamask.get_config()
    config = synthetic_nine.get_config()
    config.dataset.train = "train[:256]"
    config.eval_batch_size = 8
    return config


def real(scale: str) -> ConfigDict:
    """Returns the paper's config for CelebAMask-HQ, at the small scale in small frames."""
    if scale == "full":
        return celebamask.get_config()
    return _in_small_frames(celebamask.get_config())


def nineteen(scale: str) -> ConfigDict:
    """Returns the nineteen-class config for CelebAMask-HQ, at the small scale in small frames."""
    if scale == "full":
        return celebamask_full.get_config()
    config = _in_small_frames(full_face_options.apply(celebamask.get_config()))
    config.model.anatomy = "nineteen"
    config.model.coarse_stride = 1
    return config


def _in_small_frames(config: ConfigDict) -> ConfigDict:
    config.photo = common.get_config().photo
    config.augment = False
    config.mirror = True
    config.dataset.frame_size = 256
    config.dataset.num_workers = 0
    config.dataset.train = "train[:344]"
    config.dataset.validation = "validation[:16]"
    config.model.patch_size = 63
    config.fine.jitter = 6
    config.batch_size = 8
    config.eval_batch_size = 8
    config.halve_every_epochs = 2.0
    config.coarse.epochs, config.coarse.lr = 8, 2e-3
    config.localizer.epochs, config.localizer.lr = 4, 2e-3
    config.fine.epochs, config.fine.lr = 3, 1e-3
    config.joint.epochs, config.joint.lr_fine = 1, 4e-4
    config.joint.warmup_epochs = 0.25
    return config
