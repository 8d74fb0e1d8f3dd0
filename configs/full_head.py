"""The shipped weights: the coarse network of `full_head_far.py`, with localizer, fine networks.

    python train.py --config configs/full_head.py --workdir runs/full_head \
        --config.init_from=runs/full_head_far --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Expected result: in jax_stn_icnn/pretrained/MODEL_CARD.md.
"""

from ml_collections import ConfigDict

from configs import celebamask, full_face


def get_config() -> ConfigDict:
    """Returns localizer and joint stages with a frozen coarse network."""
    config = full_face.augment_photos(full_face.apply(celebamask.get_config()))
    config.model.anatomy = "nineteen"
    config.model.coarse_network = "efficientnet_lite0"
    config.model.wide = True
    config.init_from = "runs/full_head_far"
    config.stages = ("localizer", "joint")
    config.localizer.epochs, config.localizer.lr = 1, 1e-4
    config.joint.epochs, config.joint.warmup_epochs = 2, 0.25
    config.joint.lr_coarse, config.joint.lr_localizer, config.joint.lr_fine = 0.0, 5e-5, 1.5e-4
    config.halve_every_epochs = 1.0
    config.ema_decay = 0.98
    config.batch_size, config.eval_batch_size = 8, 8
    config.dataset.num_workers = 0
    return config
