"""What PyTorch does in a process of its own, with no JAX in it.

python -m benchmarks.torch_child first_step     # seconds from the process's start
python -m benchmarks.torch_child first_parse    # the same of a parse, by BiSeNet
python -m benchmarks.torch_child memory 16      # peak of joint steps of this batch, in bytes
"""

import sys

from benchmarks import process, torch_bisenet, torch_peer
from benchmarks.inputs import FRAME, LOSS_WEIGHTS, PATCH, RATES, drawn_labels, random_frames

NUM_CLASSES = 19


def first_step() -> None:
    """A coarse step of the batch and frame of configs/synthetic.py, on data that is there."""
    model = torch_peer.STNiCNN(71).to(torch_peer.DEVICE)
    training = torch_peer.Training(model, {"coarse": 1e-3}, {"coarse": 1.0}, "float32")
    training.step(random_frames(4, 256), drawn_labels(4, 256))
    process.say(process.age())


def first_parse() -> None:
    """A frame that is there; weights that need no reading."""
    torch_bisenet.make(NUM_CLASSES).parse(random_frames(1, FRAME))
    process.say(process.age())


def memory(batch: int) -> None:
    """Joint steps."""
    model = torch_peer.STNiCNN(PATCH).to(torch_peer.DEVICE)
    training = torch_peer.Training(model, RATES, LOSS_WEIGHTS, "float32")
    for _ in range(process.MEMORY_STEPS):
        training.step(random_frames(batch, FRAME), drawn_labels(batch, FRAME))
    if torch_peer.DEVICE.type == "cuda":
        process.say(torch_peer.torch.cuda.max_memory_allocated())
    else:
        process.say(process.peak_bytes())


if __name__ == "__main__":
    torch_peer.use_whole_machine()
    if sys.argv[1] == "memory":
        memory(int(sys.argv[2]))
    else:
        {"first_step": first_step, "first_parse": first_parse}[sys.argv[1]]()
