"""The same networks, losses, pipeline and training step in PyTorch, written the usual way.

Plain NCHW modules, run eagerly, or compiled by `torch.compile`. Modules and parameters are named as
in Flax, so that `load` can carry weights over; nothing here imports JAX.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jax_stn_icnn.anatomy import NINE, Part

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
COARSE_SIZE = (128, 128)
CHANNELS, NUM_INTERLINKS = (8, 16, 24, 32), 3
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
OWN_LABELS = [list(NINE.patch_labels(part)) for part in NINE.parts]


def use_whole_machine() -> None:
    """All cores; on a GPU what XLA does too: TF32, and the fastest algorithm by trial."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True


def synchronise() -> None:
    """Waits for the GPU, where there is one."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def load(module: nn.Module, variables: Mapping[str, Any]) -> None:
    """Carries Flax variables, `{"params": ..., "batch_stats": ...}`, into a module of the same."""
    state = {}
    for tree in variables.values():
        for path, value in _leaves(tree):
            array = np.array(value)
            if path[-1] == "kernel":
                array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            name = ".".join([*path[:-1], LEAVES.get(path[-1], path[-1])])
            state[name] = torch.from_numpy(np.ascontiguousarray(array))
    counters = {
        name: value
        for name, value in module.state_dict().items()
        if name.endswith("num_batches_tracked")
    }
    module.load_state_dict(state | counters)


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


class ConvNorm(nn.Module):
    """Convolution and BatchNorm."""

    def __init__(self, inputs: int, features: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, features, 5, padding=2)
        self.norm = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, inputs, height, width) to (batch, features, height, width)."""
        return self.norm(self.conv(x))


class ICNN(nn.Module):
    """The interlinked CNN."""

    def __init__(self, num_labels: int):
        super().__init__()
        rows = range(len(CHANNELS))
        for r in rows:
            self.add_module(f"input_{r}", ConvNorm(3, CHANNELS[r]))
            linked = sum(CHANNELS[max(r - 1, 0) : r + 2])
            for layer in range(NUM_INTERLINKS):
                self.add_module(f"interlink_{layer}_row_{r}_mix", ConvNorm(linked, CHANNELS[r]))
                self.add_module(
                    f"interlink_{layer}_row_{r}_own", ConvNorm(CHANNELS[r], CHANNELS[r])
                )
        for r in rows[:-1]:
            self.add_module(f"integrate_{r}", ConvNorm(sum(CHANNELS[r : r + 2]), CHANNELS[r]))
        self.head_1 = ConvNorm(CHANNELS[0], 2 * num_labels + 8)
        self.head_2 = nn.Conv2d(2 * num_labels + 8, num_labels, 5, padding=2)
        self.head_3 = nn.Conv2d(num_labels, num_labels, 9, padding=4)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (batch, labels, height, width) of images (batch, 3, height, width)."""
        pyramid = [image]
        for _ in CHANNELS[1:]:
            pyramid.append(_pool(pyramid[-1]))
        rows = [torch.tanh(getattr(self, f"input_{r}")(x)) for r, x in enumerate(pyramid)]
        for layer in range(NUM_INTERLINKS):
            linked = []
            for r, row in enumerate(rows):
                above = [_pool(rows[r - 1])] if r > 0 else []
                below = [_upsample(rows[r + 1], row)] if r + 1 < len(rows) else []
                x = torch.cat([*above, row, *below], 1)
                x = F.relu(getattr(self, f"interlink_{layer}_row_{r}_mix")(x))
                linked.append(F.relu(getattr(self, f"interlink_{layer}_row_{r}_own")(x)))
            rows = linked
        x = rows[-1]
        for r in reversed(range(len(rows) - 1)):
            x = torch.cat([rows[r], _upsample(x, rows[r])], 1)
            x = torch.tanh(getattr(self, f"integrate_{r}")(x))
        return self.head_3(self.head_2(torch.tanh(self.head_1(x))))


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, 1)


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


class VGG9Localizer(nn.Module):
    """The localizer `vgg9`."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 64)):
        super().__init__()
        inputs, self.last = NINE.num_classes, 2 * len(widths) - 1
        for i in range(self.last + 1):
            width = widths[i // 2]
            self.add_module(f"conv_{i}", nn.Conv2d(inputs, width, 3, padding=1, bias=False))
            if i < self.last:
                self.add_module(f"norm_{i}", nn.BatchNorm2d(width))
            inputs = width
        self.dense = nn.Linear(2 * inputs, NINE.num_parts * 4)

    def forward(self, mask: Tensor) -> Tensor:
        """Thetas (batch, 6, 2, 3) of softmax masks (batch, 9, height, width)."""
        x = mask
        for i in range(self.last + 1):
            if i > 0 and i % 2 == 0:
                x = F.max_pool2d(x, 2)
            x = getattr(self, f"conv_{i}")(x)
            if i < self.last:
                x = F.relu(getattr(self, f"norm_{i}")(x))
        x = x.float()
        weight = torch.softmax(x.flatten(2), 2).view_as(x)
        across, down = (torch.linspace(-1, 1, n, device=x.device) for n in (x.shape[3], x.shape[2]))
        where = torch.cat([weight.sum(2) @ across, weight.sum(3) @ down], 1)
        found = self.dense(where).view(-1, NINE.num_parts, 4)
        return make_theta(*found.unbind(-1))


class FineNetworks(nn.Module):
    """The four fine networks; side 2 goes mirrored through those of side 1."""

    def __init__(self) -> None:
        super().__init__()
        for network, num_labels in NINE.networks.items():
            self.add_module(network, ICNN(num_labels))

    def forward(self, patches: Tensor) -> list[Tensor]:
        """Each part's logits, (batch, labels, height, width), of patches (batch, 6, 3, ...)."""
        logits: dict[str, Tensor] = {}
        for network in NINE.networks:
            own = [(i, part) for i, part in enumerate(NINE.parts) if part.network == network]
            batch = torch.cat([_mirror(patches[:, i], part) for i, part in own])
            out = getattr(self, network)(batch)
            for (_, part), part_logits in zip(own, out.chunk(len(own)), strict=True):
                logits[part.name] = _mirror(part_logits, part)
        return [logits[part.name] for part in NINE.parts]


def _mirror(x: Tensor, part: Part) -> Tensor:
    return x.flip(-1) if part.mirrored else x


class STNiCNN(nn.Module):
    """The whole parser: grid_sample cuts the patches, and pastes them over the full frame."""

    def __init__(self, patch_size: int):
        super().__init__()
        self.patch_size = patch_size
        self.coarse = ICNN(NINE.num_classes)
        self.localizer = VGG9Localizer()
        self.fine = FineNetworks()

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Coarse logits, thetas and fine logits of frames (batch, 3, size, size)."""
        image = F.interpolate(frame, COARSE_SIZE, mode="bilinear", align_corners=True)
        logits = self.coarse(image)
        theta = self.localizer(torch.softmax(logits.float(), 1))
        return logits, theta, self.fine(crop(frame, theta, self.patch_size))

    def parse(self, frame: np.ndarray) -> np.ndarray:
        """Label maps, uint8 (batch, size, size), of frames, uint8 (batch, size, size, 3)."""
        with torch.inference_mode():
            pixels = to_float(frame)
            _, theta, fine_logits = self(pixels)
            scores = [torch.softmax(part.float(), 1) for part in fine_logits]
            found = paste(scores, theta, pixels.shape[-1]).argmax(1)
            return found.to(torch.uint8).cpu().numpy()


def to_float(frame: np.ndarray) -> Tensor:
    """Frames uint8 (batch, height, width, 3) on the host as floats (batch, 3, height, width)."""
    pixels = torch.from_numpy(frame).to(DEVICE).permute(0, 3, 1, 2)
    return pixels.to(torch.float32, memory_format=torch.contiguous_format) / 255


def make_theta(sx: Tensor, sy: Tensor, tx: Tensor, ty: Tensor) -> Tensor:
    """[[sx, 0, tx], [0, sy, ty]]."""
    zero = torch.zeros_like(sx)
    return torch.stack([torch.stack([sx, zero, tx], -1), torch.stack([zero, sy, ty], -1)], -2)


def sample(image: Tensor, theta: Tensor, size: int, mode: str = "bilinear") -> Tensor:
    """Cuts one patch from each image."""
    shape = [image.shape[0], image.shape[1], size, size]
    grid = F.affine_grid(theta, shape, align_corners=True)
    return F.grid_sample(image, grid, mode=mode, padding_mode="zeros", align_corners=True)


def crop(frame: Tensor, theta: Tensor, size: int) -> Tensor:
    """Cuts the six patches: (batch, 6, channels, size, size)."""
    return torch.stack([sample(frame, theta[:, i], size) for i in range(theta.shape[1])], 1)


def paste(scores: list[Tensor], theta: Tensor, size: int) -> Tensor:
    """The nine classes' scores in the frame, (batch, 9, size, size)."""
    sx, sy, tx, ty = theta[..., 0, 0], theta[..., 1, 1], theta[..., 0, 2], theta[..., 1, 2]
    to_patch = make_theta(1 / sx, 1 / sy, -tx / sx, -ty / sy)
    background, foreground = torch.ones((), device=theta.device), []
    for i, part in enumerate(scores):
        # What background lacks to one, so that zero outside the window reads as one.
        part = torch.cat([1 - part[:, :1], part[:, 1:]], 1)
        in_frame = sample(part, to_patch[:, i], size, "nearest")
        background = background * (1 - in_frame[:, :1])
        foreground.append(in_frame[:, 1:])
    return torch.cat([background, *foreground], 1)


def theta_target(label_map: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """The true windows (batch, 6, 2, 3), and which parts are there (batch, 6)."""
    size = label_map.shape[-1]
    member = label_map[:, None] == torch.arange(9, device=label_map.device)[:, None, None]
    along = torch.arange(size, device=label_map.device)
    rows, columns = member.sum(3), member.sum(2)
    count = rows.sum(2)
    some = count.clamp(min=1)
    centre = torch.stack([(rows * along).sum(2) // some, (columns * along).sum(2) // some], -1)
    yx, present = [], []
    for part in NINE.parts:
        there = (count[:, list(NINE.ids(part.classes))] > 0).float()[..., None]
        number = there.sum(1)
        mean = (
            (centre[:, list(NINE.ids(part.classes))] * there).sum(1) / number.clamp(min=1)
        ).floor()
        yx.append(torch.where(number > 0, mean, torch.full_like(mean, size // 2)))
        present.append(number[:, 0] > 0)
    y, x = (torch.stack(yx, 1) * (2 / (size - 1)) - 1).unbind(-1)
    scale = torch.full_like(x, (patch_size - 1) / (size - 1))
    return make_theta(scale, scale, x, y), torch.stack(present, 1)


def part_labels(label_map: Tensor, theta: Tensor, size: int) -> list[Tensor]:
    """Each part's own labels, cut by nearest sampling: 0 for other parts, (batch, size, size)."""
    frame = label_map[:, None].float()
    own = torch.tensor(OWN_LABELS, device=label_map.device)
    patches = [sample(frame, theta[:, i], size, "nearest")[:, 0].long() for i in range(len(own))]
    return [own[i][patch] for i, patch in enumerate(patches)]


class Training:
    """Adam steps: the coarse network alone, or all three by the joint loss."""

    def __init__(
        self, model: STNiCNN, rates: Mapping[str, float], weights: Mapping[str, float], dtype: str
    ):
        """Takes learning rates by network, loss weights by term, and the type of convolutions."""
        self.model, self.weights = model.train(), weights
        self.autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=dtype == "bfloat16")
        self.adam = torch.optim.Adam(
            [{"params": getattr(model, name).parameters(), "lr": rates[name]} for name in rates]
        )

    def step(self, frame: np.ndarray, label_map: np.ndarray) -> float:
        """One step on uint8 frames (batch, size, size, 3) and labels (batch, size, size)."""
        pixels = to_float(frame)
        classes = torch.from_numpy(label_map).to(DEVICE).long()
        self.adam.zero_grad()
        with self.autocast:
            loss = self.loss(pixels, classes)
        loss.backward()
        self.adam.step()
        return loss.item()

    def loss(self, frame: Tensor, label_map: Tensor) -> Tensor:
        """The weighed sum of the stage's terms."""
        step = label_map.shape[-1] // COARSE_SIZE[0]
        coarse_labels = label_map[:, ::step, ::step]
        if self.weights.keys() == {"coarse"}:
            image = F.interpolate(frame, COARSE_SIZE, mode="bilinear", align_corners=True)
            return F.cross_entropy(self.model.coarse(image).float(), coarse_labels)
        logits, theta, fine_logits = self.model(frame)
        target, present = theta_target(label_map, self.model.patch_size)
        of_part = F.smooth_l1_loss(theta, target, reduction="none").mean((-2, -1))
        truth = part_labels(label_map, theta.detach(), self.model.patch_size)
        terms = {
            "coarse": F.cross_entropy(logits.float(), coarse_labels),
            "localizer": (of_part * present).sum() / present.sum().clamp(min=1),
            "fine": torch.stack(
                [
                    F.cross_entropy(part.float(), own)
                    for part, own in zip(fine_logits, truth, strict=True)
                ]
            ).sum(),
        }
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
