"""Measurements of PyTorch in a process without JAX.

python -m benchmarks.torch_child first_step     # seconds from the process's start to a step
python -m benchmarks.torch_child first_parse    # seconds from its start to a parse by BiSeNet
python -m benchmarks.torch_child memory 16      # peak memory of joint steps of 16 faces, in bytes
"""

import sys

from benchmarks import process, torch_bisenet, torch_peer
from benchmarks.inputs import FRAME, LOSS_WEIGHTS, PATCH, RATES, drawn_labels, random_frames
from jax_stn_icnn.models.config import ModelConfig

NUM_CLASSES = 19


def first_step() -> None:
    """Reports the time of a coarse step, with the sizes of configs/synthetic.py."""
    model = torch_peer.STNiCNN(ModelConfig(patch_size=71)).to(torch_peer.DEVICE)
    training = torch_peer.Training(model, {"coarse": 1e-3}, {"coarse": 1.0}, "float32")
    training.step(random_frames(4, 256), drawn_labels(4, 256))
    process.report(process.age())


def first_parse() -> None:
    """Reports the time of the parse of a frame, with random weights."""
    torch_bisenet.make(NUM_CLASSES).parse(random_frames(1, FRAME))
    process.report(process.age())


def memory(batch: int) -> None:
    """Takes joint steps and reports the peak."""
    model = torch_peer.STNiCNN(ModelConfig(patch_size=PATCH)).to(torch_peer.DEVICE)
    training = torch_peer.Training(model, RATES, LOSS_WEIGHTS, "float32")
    for _ in range(process.MEMORY_STEPS):
        training.step(random_frames(batch, FRAME), drawn_labels(batch, FRAME))
    if torch_peer.DEVICE.type == "cuda":
        process.report(torch_peer.torch.cuda.max_memory_allocated())
    else:
        process.report(process.peak_bytes())


if __name__ == "__main__":
    torch_peer.use_full_machine()
    if sys.argv[1] == "memory":
        memory(int(sys.argv[2]))
    else:
        {"first_step": first_step, "first_parse": first_parse}[sys.argv[1]]()
