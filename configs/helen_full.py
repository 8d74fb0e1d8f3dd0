"""HELEN, the whole face in eleven classes.

    python train.py --config configs/helen_full.py --workdir runs/helen_full \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Expected result: not measured here.
"""

from ml_collections import ConfigDict

from configs import full_face, helen


def get_config() -> ConfigDict:
    """`helen.py` with skin and hair."""
    config = full_face.as_people_photograph(full_face.apply(helen.get_config()))
    config.model.flip_test = True
    config.model.anatomy = "eleven"
    return config
