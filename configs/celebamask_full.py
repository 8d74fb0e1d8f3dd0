"""CelebAMask-HQ, the whole face in nineteen classes, on 4 devices with 16 faces each.

    python train.py --config configs/celebamask_full.py --workdir runs/celebamask_full \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

The whole of it is not measured here; docs/results.md says what 690 of the faces give.
"""

from ml_collections import ConfigDict

from configs import celebamask, full_face


def get_config() -> ConfigDict:
    """`celebamask.py` with all nineteen classes."""
    config = full_face.as_people_photograph(full_face.apply(celebamask.get_config()))
    config.model.flip_test = True
    config.model.anatomy = "nineteen"
    return config
