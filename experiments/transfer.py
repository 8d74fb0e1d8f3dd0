"""The paper's transfer: a parser of other faces, trained further on few of CelebAMask-HQ.

    python -m experiments.run transfer --manual_dir DIR_OF_THE_ARCHIVE

The paper starts from HELEN. So does the full scale; at the small one drawn faces stand for it, of
which nothing has to be fetched.
"""

from ml_collections import ConfigDict

from configs import helen
from experiments import scales
from experiments.trial import Evaluation, Runner, Trial, score, table

FACES = {"small": 160, "full": 2000}
COLUMNS = ("brows", "eyes", "nose", "mouth", "overall", "mean_of_eight")


def trials(scale: str) -> list[Trial]:
    """What is started from; and the same few faces, from there and from random parameters."""
    return [_other(scale), Trial("few", _few(scale)), Trial("few_from_other", _few(scale), "other")]


def _other(scale: str) -> Trial:
    if scale == "full":
        return Trial("other", helen.get_config())
    config = scales.real(scale)  # The same frame and windows, so that its weights fit.
    config.dataset.name = "synthetic_faces"
    config.dataset.train = "train[:344]"
    return Trial("other", config)


def _few(scale: str) -> ConfigDict:
    config = scales.real(scale)
    config.dataset.train = f"train[:{FACES[scale]}]"
    return config


def report(scale: str, runner: Runner) -> str:
    """The scores of all three on the real faces."""
    other, few, from_other = trials(scale)
    rows = []
    names = ("from random parameters", "from the other faces")
    for name, trial in zip(names, (few, from_other), strict=True):
        found = runner.evaluate(trial, Evaluation())
        rows.append([name, *(score(found, column) for column in COLUMNS)])
    faces = few.config.dataset
    found = runner.evaluate(other, Evaluation(dataset=faces.name, frame_size=faces.frame_size))
    rows.append(["(the other faces' parser on its own)", *(score(found, c) for c in COLUMNS)])
    return table([f"F1, {FACES[scale]} faces", *COLUMNS], rows)
