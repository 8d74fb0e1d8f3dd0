"""CelebAMask-HQ in all nineteen classes, on 4 devices with 16 faces each.

    python train.py --config configs/celebamask_full.py --workdir runs/celebamask_full \
        --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Expected result: not measured with all faces; docs/results.md has the result of 690 of them.
"""

from ml_collections import ConfigDict

from configs import celebamask, full_face


def get_config() -> ConfigDict:
    """Returns `celebamask.py` with all nineteen classes."""
    config = full_face.augment_photos(full_face.apply(celebamask.get_config()))
    config.model.flip_test = True
    config.model.anatomy = "nineteen"
    return config
