"""The coarse network of the shipped weights: face and wide frames, every data set with labels.

    python train.py --config configs/full_head_coarse.py --workdir runs/full_head_coarse \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVES

The archives are those of CelebAMask-HQ and of the data sets in `config.dataset.sources`, in the
project's folder format. `full_head_refined.py` continues with larger shares of CelebAMask-HQ.
Expected result: in jax_stn_icnn/pretrained/MODEL_CARD.md.
"""

from ml_collections import ConfigDict

from configs import celebamask, full_face
from configs.common import source

# Data set -> its training examples, and how they become frames; the remaining examples validate.
SPLITS = {
    "celebamask_hq": ("train", "resize"),
    "celeb_hair": ("train", "resize"),
    "figaro": ("train[:737]", "face"),
    "lfw_parts": ("train", "face"),
    "street": ("train[:878]", "face"),
    "synthetic_portraits": ("train", "face"),
}


def get_config() -> ConfigDict:
    """Returns a coarse stage with an encoder, in frames of the coarse network's input size."""
    config = full_face.augment_photos(full_face.apply(celebamask.get_config()))
    config.model.anatomy = "nineteen"
    config.model.coarse_network = "efficientnet_lite0"
    config.model.wide = True
    config.init_encoder = "imagenet"
    config.init_from = "nineteen"
    config.init_networks = ("localizer", "fine")
    config.stages = ("coarse",)
    config.coarse.encoder_lr_factor = 0.3
    config.coarse.epochs, config.coarse.lr = 14, 1.5e-3
    config.halve_every_epochs = 9.0
    config.ema_decay = 0.998
    config.batch_size, config.eval_batch_size = 8, 8

    config.dataset.num_workers = 0
    config.dataset.frame_size = 256
    config.model.patch_size = 63
    config.fine.jitter = 6
    config.dataset.validation = "validation[:40]"
    config.dataset.test = "validation"  # The test split measures the last run only.
    config.dataset.rare_classes = ("glasses", "hat", "earring", "necklace")
    config.dataset.rare_share = 0.3
    config.dataset.paste = 0.2
    config.dataset.sources = sources(
        celebamask_hq=(0.0, 0.4),
        celeb_hair=(0.2, 0.1),
        figaro=(0.1, 0.2),
        lfw_parts=(0.05, 0.1),
        street=(0.1, 0.25),
    )
    config.photo.occlusion = 0.15
    return config


def sources(**weights: tuple[float, ...]) -> ConfigDict:
    """Returns data sets as further sources.

    Args:
        **weights: For each data set the weights of its face frames, of its wide frames, and of its
            far frames; 0 for none.
    """
    result = ConfigDict()
    for name, by_frame in weights.items():
        split, framing = SPLITS[name]
        for extent, weight in zip(("", "_wide", "_far"), by_frame, strict=False):
            if weight:
                result[name + extent] = source(name, weight, split, framing + extent)
    return result
