"""The coarse network of `full_head_far.py`, and a localizer for it.

    python train.py --config configs/full_head.py --workdir runs/full_head \
        --config.init_from=runs/full_head_far --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

`full_head_portraits.py` continues with the coarse network. Evaluates the shipped weights, too, in
frames of 512. Expected result: in jax_stn_icnn/pretrained/MODEL_CARD.md.
"""

from ml_collections import ConfigDict

from configs import celebamask, full_face


def get_config() -> ConfigDict:
    """Returns a localizer stage in frames of 512; the fine networks stay as they are."""
    config = full_face.augment_photos(full_face.apply(celebamask.get_config()))
    config.model.anatomy = "nineteen"
    config.model.coarse_network = "efficientnet_lite0"
    config.model.wide = True
    config.init_from = "runs/full_head_far"
    config.stages = ("localizer",)
    config.localizer.epochs, config.localizer.lr = 1, 1e-4
    config.ema_decay = 0.98
    config.batch_size, config.eval_batch_size = 8, 8
    config.dataset.num_workers = 0
    return config
