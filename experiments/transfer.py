"""The paper's transfer: a parser of another data set, fine-tuned on few faces of CelebAMask-HQ.

    python -m experiments.run transfer --manual_dir DIR_OF_THE_ARCHIVE

The paper and the full scale start from HELEN; the small scale from drawn faces, which need no
download.
"""

from ml_collections import ConfigDict

from configs import helen
from experiments import scales
from experiments.trial import Evaluation, Runner, Trial, score, table

FACES = {"small": 160, "full": 2000}
COLUMNS = ("brows", "eyes", "nose", "mouth", "overall", "mean_of_eight")


def trials(scale: str) -> list[Trial]:
    """Returns the other data set's trial, and the few faces from random and from its parameters."""
    return [_other(scale), Trial("few", _few(scale)), Trial("few_from_other", _few(scale), "other")]


def _other(scale: str) -> Trial:
    if scale == "full":
        return Trial("other", helen.get_config())
    config = scales.real(scale)  # The same frame and windows, so that the weights fit.
    config.dataset.name = "synthetic_faces"
    config.dataset.train = "train[:344]"
    return Trial("other", config)


def _few(scale: str) -> ConfigDict:
    config = scales.real(scale)
    config.dataset.train = f"train[:{FACES[scale]}]"
    return config


def report(scale: str, runner: Runner) -> str:
    """Returns the scores of the three trials on CelebAMask-HQ."""
    other, few, from_other = trials(scale)
    rows = []
    dataset = few.config.dataset
    for name, trial, evaluation in (
        ("from random parameters", few, Evaluation()),
        ("from the other data set", from_other, Evaluation()),
        (
            "the other data set alone, not fine-tuned",
            other,
            Evaluation(dataset=dataset.name, frame_size=dataset.frame_size),
        ),
    ):
        scores = runner.evaluate(trial, evaluation)
        rows.append([name, *(score(scores, column) for column in COLUMNS)])
    return table([f"F1, {FACES[scale]} faces", *COLUMNS], rows)
