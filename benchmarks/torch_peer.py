"""The same networks, losses, pipeline and training step in PyTorch.

Plain NCHW modules, run eagerly or compiled by `torch.compile`. Modules and parameters are named as
in Flax, so that `load` can copy weights. Nothing here imports JAX.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jax_stn_icnn.anatomy import NINE, Part
from jax_stn_icnn.models.config import ModelConfig

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
PATCH_LABELS = [list(NINE.patch_labels(part)) for part in NINE.parts]


def use_full_machine() -> None:
    """Uses all cores; on a GPU, as XLA does, TF32 and the algorithm that is fastest in a trial."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def load(module: nn.Module, variables: Mapping[str, Any]) -> None:
    """Copies Flax variables, `{"params": ..., "batch_stats": ...}`, into the same module."""
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

    def __init__(self, num_labels: int, channels: tuple[int, ...], interlinks: int):
        super().__init__()
        self.rows, self.interlinks = range(len(channels)), interlinks
        for r in self.rows:
            own, linked = channels[r], sum(channels[max(r - 1, 0) : r + 2])
            self.add_module(f"input_{r}", ConvNorm(3, own))
            for layer in range(interlinks):
                self.add_module(f"interlink_{layer}_row_{r}_mix", ConvNorm(linked, own))
                self.add_module(f"interlink_{layer}_row_{r}_own", ConvNorm(own, own))
        for r in self.rows[:-1]:
            self.add_module(f"integrate_{r}", ConvNorm(sum(channels[r : r + 2]), channels[r]))
        self.head_1 = ConvNorm(channels[0], 2 * num_labels + 8)
        self.head_2 = nn.Conv2d(2 * num_labels + 8, num_labels, 5, padding=2)
        self.head_3 = nn.Conv2d(num_labels, num_labels, 9, padding=4)

    def forward(self, image: Tensor) -> Tensor:
        """Maps images (batch, 3, height, width) to logits (batch, labels, height, width)."""
        pyramid = [image]
        for _ in self.rows[1:]:
            pyramid.append(_pool(pyramid[-1]))
        rows = [torch.tanh(getattr(self, f"input_{r}")(x)) for r, x in enumerate(pyramid)]
        for layer in range(self.interlinks):
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

    def forward(self, probs: Tensor) -> Tensor:
        """Maps coarse segmentations (batch, 9, height, width) to thetas (batch, 6, 2, 3)."""
        x = probs
        for i in range(self.last + 1):
            if i > 0 and i % 2 == 0:
                x = F.max_pool2d(x, 2)
            x = getattr(self, f"conv_{i}")(x)
            if i < self.last:
                x = F.relu(getattr(self, f"norm_{i}")(x))
        x = x.float()
        weight = torch.softmax(x.flatten(2), 2).view_as(x)
        columns, rows = (torch.linspace(-1, 1, x.shape[axis], device=x.device) for axis in (3, 2))
        positions = torch.cat([weight.sum(2) @ columns, weight.sum(3) @ rows], 1)
        return make_theta(*self.dense(positions).view(-1, NINE.num_parts, 4).unbind(-1))


class FineNetworks(nn.Module):
    """The four fine networks; side 2 passes mirrored through those of side 1."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        for network, num_labels in NINE.networks.items():
            self.add_module(network, ICNN(num_labels, config.fine_channels, config.interlinks))

    def forward(self, patches: Tensor) -> list[Tensor]:
        """Maps patches (batch, 6, 3, ...) to each part's logits, (batch, labels, height, width)."""
        logits: dict[str, Tensor] = {}
        for network in NINE.networks:
            members = [(i, part) for i, part in enumerate(NINE.parts) if part.network == network]
            batch = torch.cat([_mirror(patches[:, i], part) for i, part in members])
            out = getattr(self, network)(batch)
            for (_, part), part_logits in zip(members, out.chunk(len(members)), strict=True):
                logits[part.name] = _mirror(part_logits, part)
        return [logits[part.name] for part in NINE.parts]


def _mirror(x: Tensor, part: Part) -> Tensor:
    return x.flip(-1) if part.mirrored else x


class STNiCNN(nn.Module):
    """The parser; `grid_sample` crops the patches, and pastes each into the full frame."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.coarse = ICNN(NINE.num_classes, config.coarse_channels, config.interlinks)
        self.localizer = VGG9Localizer()
        self.fine = FineNetworks(config)

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Maps frames (batch, 3, size, size) to coarse logits, thetas and fine logits."""
        logits = self.coarse_logits(frame)
        theta = self.localizer(torch.softmax(logits.float(), 1))
        return logits, theta, self.fine(crop(frame, theta, self.config.patch_size))

    def coarse_logits(self, frame: Tensor) -> Tensor:
        """Maps frames (batch, 3, size, size) to coarse logits."""
        size = self.config.coarse_image_size
        return self.coarse(F.interpolate(frame, size, mode="bilinear", align_corners=True))

    def parse(self, frame: np.ndarray) -> np.ndarray:
        """Maps frames, uint8 (batch, size, size, 3), to label maps, uint8 (batch, size, size)."""
        with torch.inference_mode():
            return self.labels(to_float(frame)).cpu().numpy()

    def labels(self, pixels: Tensor) -> Tensor:
        """Maps frames (batch, 3, size, size) to label maps, uint8 (batch, size, size)."""
        _, theta, fine_logits = self(pixels)
        scores = [torch.softmax(part.float(), 1) for part in fine_logits]
        return paste(scores, theta, pixels.shape[-1]).argmax(1).to(torch.uint8)


def to_float(frame: np.ndarray) -> Tensor:
    """Returns uint8 frames (batch, height, width, 3) as floats 0..1 (batch, 3, height, width)."""
    pixels = torch.from_numpy(frame).to(DEVICE).permute(0, 3, 1, 2)
    return pixels.to(torch.float32, memory_format=torch.contiguous_format) / 255


def make_theta(sx: Tensor, sy: Tensor, tx: Tensor, ty: Tensor) -> Tensor:
    """Returns the thetas [[sx, 0, tx], [0, sy, ty]]."""
    zero = torch.zeros_like(sx)
    return torch.stack([torch.stack([sx, zero, tx], -1), torch.stack([zero, sy, ty], -1)], -2)


def sample(image: Tensor, theta: Tensor, size: int, mode: str = "bilinear") -> Tensor:
    """Crops one patch from each image."""
    shape = [image.shape[0], image.shape[1], size, size]
    grid = F.affine_grid(theta, shape, align_corners=True)
    return F.grid_sample(image, grid, mode=mode, padding_mode="zeros", align_corners=True)


def crop(frame: Tensor, theta: Tensor, size: int) -> Tensor:
    """Crops the six patches: (batch, 6, channels, size, size)."""
    return torch.stack([sample(frame, theta[:, i], size) for i in range(theta.shape[1])], 1)


def paste(scores: list[Tensor], theta: Tensor, size: int) -> Tensor:
    """Returns the nine classes' scores in the frame, (batch, 9, size, size)."""
    sx, sy, tx, ty = theta[..., 0, 0], theta[..., 1, 1], theta[..., 0, 2], theta[..., 1, 2]
    to_patch = make_theta(1 / sx, 1 / sy, -tx / sx, -ty / sy)
    background, foreground = torch.ones((), device=theta.device), []
    for i, part in enumerate(scores):
        # One minus background, so that the zeros outside the window stand for background.
        part = torch.cat([1 - part[:, :1], part[:, 1:]], 1)
        in_frame = sample(part, to_patch[:, i], size, "nearest")
        background = background * (1 - in_frame[:, :1])
        foreground.append(in_frame[:, 1:])
    return torch.cat([background, *foreground], 1)


def theta_target(label_map: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Returns the true windows (batch, 6, 2, 3), and which parts are present (batch, 6)."""
    size = label_map.shape[-1]
    member = label_map[:, None] == torch.arange(9, device=label_map.device)[:, None, None]
    pixels = torch.arange(size, device=label_map.device)
    rows, columns = member.sum(3), member.sum(2)
    count = rows.sum(2)
    sums = torch.stack([(rows * pixels).sum(2), (columns * pixels).sum(2)], -1)
    centre = sums // count.clamp(min=1)[..., None]
    yx, present = [], []
    for part in NINE.parts:
        ids = list(NINE.ids(part.classes))
        weight = (count[:, ids] > 0).float()[..., None]
        number = weight.sum(1)
        mean = ((centre[:, ids] * weight).sum(1) / number.clamp(min=1)).floor()
        yx.append(torch.where(number > 0, mean, torch.full_like(mean, size // 2)))
        present.append(number[:, 0] > 0)
    y, x = (torch.stack(yx, 1) * (2 / (size - 1)) - 1).unbind(-1)
    scale = torch.full_like(x, (patch_size - 1) / (size - 1))
    return make_theta(scale, scale, x, y), torch.stack(present, 1)


def part_labels(label_map: Tensor, theta: Tensor, size: int) -> list[Tensor]:
    """Returns each part's labels, (batch, size, size), 0 for other parts; by nearest sampling."""
    frame = label_map[:, None].float()
    tables = torch.tensor(PATCH_LABELS, device=label_map.device)
    return [
        table[sample(frame, theta[:, i], size, "nearest")[:, 0].long()]
        for i, table in enumerate(tables)
    ]


class Training:
    """Adam steps of the coarse network alone, or of all networks with the joint loss."""

    def __init__(
        self, model: STNiCNN, rates: Mapping[str, float], weights: Mapping[str, float], dtype: str
    ):
        """Stores learning rates by network, loss weights by term, and the type of convolutions."""
        self.model, self.weights = model.train(), weights
        self.autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=dtype == "bfloat16")
        self.adam = torch.optim.Adam(
            [{"params": getattr(model, name).parameters(), "lr": rates[name]} for name in rates]
        )

    def step(self, frame: np.ndarray, label_map: np.ndarray) -> float:
        """Takes a step on uint8 frames (batch, size, size, 3) and labels; returns the loss."""
        pixels = to_float(frame)
        classes = torch.from_numpy(label_map).to(DEVICE).long()
        self.adam.zero_grad()
        with self.autocast:
            loss = self.loss(pixels, classes)
        loss.backward()
        self.adam.step()
        return loss.item()

    def loss(self, frame: Tensor, label_map: Tensor) -> Tensor:
        """Returns the weighted sum of the stage's terms."""
        config = self.model.config
        step = label_map.shape[-1] // config.coarse_size
        coarse_labels = label_map[:, ::step, ::step]
        if self.weights.keys() == {"coarse"}:
            return F.cross_entropy(self.model.coarse_logits(frame).float(), coarse_labels)
        logits, theta, fine_logits = self.model(frame)
        target, present = theta_target(label_map, config.patch_size)
        of_part = F.smooth_l1_loss(theta, target, reduction="none").mean((-2, -1))
        truth = part_labels(label_map, theta.detach(), config.patch_size)
        terms = {
            "coarse": F.cross_entropy(logits.float(), coarse_labels),
            "localizer": (of_part * present).sum() / present.sum().clamp(min=1),
            "fine": torch.stack(
                [
                    F.cross_entropy(part.float(), labels)
                    for part, labels in zip(fine_logits, truth, strict=True)
                ]
            ).sum(),
        }
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
