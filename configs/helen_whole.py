"""HELEN, the whole face in eleven classes.

    python train.py --config configs/helen_whole.py --workdir runs/helen_whole \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Expected result: not measured here.
"""

from ml_collections import ConfigDict

from configs import helen, whole_face


def get_config() -> ConfigDict:
    """`helen.py` with skin and hair."""
    config = whole_face.as_people_photograph(whole_face.apply(helen.get_config()))
    config.model.flip_test = True
    config.classes = "eleven"
    return config
