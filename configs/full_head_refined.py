"""The coarse network of `full_head_coarse.py`, trained further, mostly on CelebAMask-HQ.

    python train.py --config configs/full_head_refined.py --workdir runs/full_head_refined \
        --config.init_from=runs/full_head_coarse --config.dataset.manual_dir=DIR_OF_THE_ARCHIVES

CelebAMask-HQ alone labels all classes: parts, ears, earrings, necklaces. `full_head_far.py`
continues with far frames. Expected result: in jax_stn_icnn/pretrained/MODEL_CARD.md.
"""

from ml_collections import ConfigDict

from configs import full_head_coarse


def get_config() -> ConfigDict:
    """Returns the first run with other shares, weaker augmentation and lower rates."""
    config = full_head_coarse.get_config()
    config.init_from, config.init_encoder = "runs/full_head_coarse", ""
    config.init_networks = ("coarse", "localizer", "fine")
    config.coarse.epochs, config.coarse.lr = 8, 1e-3
    config.halve_every_epochs = 5.0
    config.dataset.sources = full_head_coarse.sources(
        celebamask_hq=(0.0, 0.25),
        celeb_hair=(0.1, 0.05),
        figaro=(0.03, 0.08),
        lfw_parts=(0.02, 0.05),
        street=(0.04, 0.1),
    )
    config.photo.occlusion = 0.1
    config.photo.blur, config.photo.resolution = 0.003, 1.0
    config.photo.noise, config.photo.jpeg = 0.03, 1.0
    return config
