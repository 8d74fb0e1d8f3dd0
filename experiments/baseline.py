"""The paper's table: centroid cropper, localizer before joint training, and after it.

python -m experiments.run baseline
"""

from experiments import scales
from experiments.trial import Evaluation, Runner, Trial, score, table
from jax_stn_icnn.models.config import CENTROID

BEFORE, AFTER = "weights_fine.safetensors", "weights_joint.safetensors"
ROWS = {
    "centroid cropper": Evaluation(BEFORE, CENTROID),
    "localizer, before joint training": Evaluation(BEFORE),
    "localizer, joint": Evaluation(AFTER),
}
COLUMNS = ("brows", "eyes", "nose", "upper_lip", "inner_mouth", "lower_lip", "mouth", "overall")


def trials(scale: str) -> list[Trial]:
    """Returns one trial, with all stages."""
    return [Trial("paper", scales.paper(scale))]


def report(scale: str, runner: Runner) -> str:
    """Returns the table."""
    (trial,) = trials(scale)
    rows = []
    for name, evaluation in ROWS.items():
        scores = runner.evaluate(trial, evaluation)
        rows.append([name, *(score(scores, column) for column in COLUMNS)])
    return table(["F1", *COLUMNS], rows)
