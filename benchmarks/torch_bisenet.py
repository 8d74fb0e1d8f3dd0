"""BiSeNet with a ResNet-18 (Yu et al., 2018), a common face parser, in PyTorch; random weights.

In the variant that is used for faces: the backbone's features at an eighth of the picture replace
the spatial path. Nothing here imports JAX.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.torch_peer import DEVICE, to_float

WIDTHS = (64, 128, 256, 512)
CONTEXT = 128  # channels of each scale of the context path
FUSED = 256


class ConvNormReLU(nn.Sequential):
    """Convolution without bias, BatchNorm, ReLU."""

    def __init__(self, inputs: int, features: int, side: int = 3, stride: int = 1):
        super().__init__(
            nn.Conv2d(inputs, features, side, stride, padding=side // 2, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(),
        )


class BasicBlock(nn.Module):
    """ResNet's block of two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, features: int, stride: int):
        super().__init__()
        self.first = ConvNormReLU(inputs, features, stride=stride)
        self.second = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1, bias=False), nn.BatchNorm2d(features)
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != features:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, features, 1, stride, bias=False), nn.BatchNorm2d(features)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, inputs, height, width) to (batch, features, height / stride, ...)."""
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class Refinement(nn.Module):
    """The attention refinement module: features weighted by their mean over the picture."""

    def __init__(self, inputs: int):
        super().__init__()
        self.conv = ConvNormReLU(inputs, CONTEXT)
        self.weight = nn.Sequential(
            nn.Conv2d(CONTEXT, CONTEXT, 1, bias=False), nn.BatchNorm2d(CONTEXT)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, inputs, height, width) to (batch, CONTEXT, height, width)."""
        x = self.conv(x)
        return x * torch.sigmoid(self.weight(x.mean((2, 3), keepdim=True)))


class Fusion(nn.Module):
    """The feature fusion module: both paths concatenated, and weighted by their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvNormReLU(WIDTHS[1] + CONTEXT, FUSED, 1)
        self.weight = nn.Sequential(
            nn.Conv2d(FUSED, FUSED // 4, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(FUSED // 4, FUSED, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Maps both to (batch, FUSED, height, width)."""
        x = self.conv(torch.cat([spatial, context], 1))
        return x + x * self.weight(x.mean((2, 3), keepdim=True))


class BiSeNet(nn.Module):
    """The network, with the head that is used at inference only."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.stem = nn.Sequential(ConvNormReLU(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
        inputs = (64, *WIDTHS[:-1])
        self.layers = nn.ModuleList(
            nn.Sequential(BasicBlock(i, width, 1 if r == 0 else 2), BasicBlock(width, width, 1))
            for r, (i, width) in enumerate(zip(inputs, WIDTHS, strict=True))
        )
        self.refine_16, self.refine_32 = Refinement(WIDTHS[2]), Refinement(WIDTHS[3])
        self.head_16, self.head_32 = (ConvNormReLU(CONTEXT, CONTEXT) for _ in range(2))
        self.mean = ConvNormReLU(WIDTHS[3], CONTEXT, 1)
        self.fuse = Fusion()
        self.out = nn.Sequential(
            ConvNormReLU(FUSED, FUSED), nn.Conv2d(FUSED, num_classes, 1, bias=False)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Maps images (batch, 3, height, width) to logits (batch, classes, height, width)."""
        x, scales = self.stem(image), []
        for layer in self.layers:
            x = layer(x)
            scales.append(x)
        _, eighth, sixteenth, last = scales
        context = self.refine_32(last) + self.mean(last.mean((2, 3), keepdim=True))
        context = self.head_32(F.interpolate(context, size=sixteenth.shape[-2:]))
        context = self.refine_16(sixteenth) + context
        context = self.head_16(F.interpolate(context, size=eighth.shape[-2:]))
        logits = self.out(self.fuse(eighth, context))
        return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=True)

    def parse(self, frame: np.ndarray) -> np.ndarray:
        """Maps frames, uint8 (batch, height, width, 3), to labels, uint8 (batch, height, width)."""
        with torch.inference_mode():
            return self(to_float(frame)).argmax(1).to(torch.uint8).cpu().numpy()


def make(num_classes: int) -> BiSeNet:
    """Returns a network in evaluation mode, on the device."""
    torch.manual_seed(0)
    return BiSeNet(num_classes).to(DEVICE).eval()
