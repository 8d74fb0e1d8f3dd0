"""The shipped weights: the coarse network of `full_head.py`, trained further, also on portraits.

    python train.py --config configs/full_head_portraits.py --workdir runs/full_head_portraits \
        --config.init_from=runs/full_head --config.dataset.manual_dir=DIR_OF_THE_ARCHIVES

The drawn portraits have hair down to the waist, which few photos show, and the class of each pixel.
Localizer and fine networks stay as they are. Expected result: in
jax_stn_icnn/pretrained/MODEL_CARD.md.
"""

from ml_collections import ConfigDict

from configs import full_head_coarse, full_head_refined


def get_config() -> ConfigDict:
    """Returns a coarse stage in face, wide and far frames, with drawn portraits."""
    config = full_head_refined.get_config()
    config.init_from = "runs/full_head"
    config.coarse.epochs, config.coarse.lr = 13, 8e-4
    config.halve_every_epochs = 7.0
    config.dataset.sources = full_head_coarse.sources(
        celebamask_hq=(0.0, 0.2, 0.05),
        celeb_hair=(0.1, 0.05, 0.02),
        figaro=(0.03, 0.12, 0.06),
        lfw_parts=(0.02, 0.04, 0.02),
        street=(0.03, 0.1, 0.1),
        synthetic_portraits=(0.02, 0.06, 0.06),
    )
    return config
