"""HELEN in all eleven classes.

    python train.py --config configs/helen_full.py --workdir runs/helen_full \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Expected result: not measured.
"""

from ml_collections import ConfigDict

from configs import full_face, helen


def get_config() -> ConfigDict:
    """Returns `helen.py` with skin and hair."""
    config = full_face.augment_photos(full_face.apply(helen.get_config()))
    config.model.flip_test = True
    config.model.anatomy = "eleven"
    return config
