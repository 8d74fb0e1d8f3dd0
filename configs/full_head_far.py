"""The coarse network of `full_head_refined.py`, trained further, also in far frames.

    python train.py --config configs/full_head_far.py --workdir runs/full_head_far \
        --config.init_from=runs/full_head_refined --config.dataset.manual_dir=DIR_OF_THE_ARCHIVES

`full_head.py` continues with the localizer. Expected result: in
jax_stn_icnn/pretrained/MODEL_CARD.md.
"""

from ml_collections import ConfigDict

from configs import full_head_coarse, full_head_refined


def get_config() -> ConfigDict:
    """Returns the config of the run before with far frames, and lower rates."""
    config = full_head_refined.get_config()
    config.init_from = "runs/full_head_refined"
    config.coarse.epochs, config.coarse.lr = 12, 5e-4
    config.halve_every_epochs = 4.0
    config.dataset.sources = full_head_coarse.sources(
        celebamask_hq=(0.0, 0.2, 0.05),
        celeb_hair=(0.1, 0.05, 0.02),
        figaro=(0.02, 0.08, 0.05),
        lfw_parts=(0.02, 0.04, 0.02),
        street=(0.03, 0.1, 0.1),
    )
    return config
