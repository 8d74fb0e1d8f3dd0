"""The paper's transfer: a model of HELEN, fine-tuned on 2,000 faces of CelebAMask-HQ.

    python train.py --config configs/celebamask_from_helen.py --workdir runs/transfer \
        --config.init_from=runs/helen --config.dataset.manual_dir=DIR_OF_THE_ARCHIVE

Expected result: not measured. Weights of `helen_full.py` have a coarse network of another kind and
other windows: of these, localizer and fine networks are loaded.
"""

from ml_collections import ConfigDict

from configs import celebamask


def get_config() -> ConfigDict:
    """Returns `celebamask.py` on 2,000 faces, from the weights of `helen.py`."""
    config = celebamask.get_config()
    config.dataset.train = "train[:2000]"
    config.init_from = "runs/helen"
    return config
