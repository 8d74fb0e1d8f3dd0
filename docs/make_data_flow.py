"""Draws the picture of the design page: all steps from frame to labels, with their shapes.

    python docs/make_data_flow.py

The panels show `photo.jpg`, parsed by the shipped weights, with the shapes of the arrays.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image

from jax_stn_icnn import FaceParser, ops
from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.faces import resample
from jax_stn_icnn.geometry import windows_from_theta
from jax_stn_icnn.io.weights import load_weights, weights_file
from jax_stn_icnn.models.pipeline import STNiCNNOutput

DOCS = Path(__file__).parent
WIDTH, HEIGHT = 18.0, 5.4  # inches
SIDE, STRIDE, BASE = 1.85, 2.63, 1.9  # of the panels, in inches
STEPS = ("resize", "U-Net", "localizer", "sampler", "fine\nnetworks", "inverse\nsampler")


def compute(parser: FaceParser) -> tuple[np.ndarray, np.ndarray, STNiCNNOutput]:
    """Returns the frame of the photo's face, its coarse image, and the output of the model."""
    variables, model, side, _ = load_weights(weights_file(None))
    photo = np.asarray(Image.open(DOCS / "photo.jpg"))
    frame = resample.warp(photo, parser(photo).faces[0].matrix, (side, side))
    size = model.config.coarse_image_size
    coarse = ops.coarse_image(ops.to_float(frame[None]), None, size)
    output: Any = jax.jit(model.apply)(variables, frame[None])
    return frame, np.asarray(coarse[0]), output


def picture(parser: FaceParser) -> Figure:
    """Draws all panels, shapes and arrows."""
    anatomy = parser.model.config.anatomy
    frame, coarse, output = compute(parser)
    figure = Figure((WIDTH, HEIGHT), dpi=100)
    panels = [
        figure.add_axes(((0.12 + i * STRIDE) / WIDTH, BASE / HEIGHT, SIDE / WIDTH, SIDE / HEIGHT))
        for i in range(7)
    ]
    labels = [np.asarray(logits[0]).argmax(-1) for logits in output.fine_logits]
    class_ids = [
        _class_ids(each, part.classes, anatomy)
        for each, part in zip(labels, anatomy.parts, strict=True)
    ]
    titles = {
        "frame": (frame, frame.shape),
        "coarse image": (coarse, coarse.shape),
        "coarse segmentation": (
            draw.colours(np.asarray(output.coarse_probs[0]).argmax(-1), anatomy),
            output.coarse_probs[0],
        ),
        "windows": (frame, output.theta[0]),
        "patches": (_tiles([np.asarray(patch[0]) for patch in output.patches]), None),
        "patch labels": (_tiles([draw.colours(ids, anatomy) / 255 for ids in class_ids]), None),
        "labels": (draw.overlay(frame, np.asarray(output.labels[0]), anatomy), output.labels[0]),
    }
    for axes, (title, (image, shape)) in zip(panels, titles.items(), strict=True):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(title, fontsize=15)
        axes.set_axis_off()
        axes.text(0.5, -0.06, _shape(shape), transform=axes.transAxes, ha="center", va="top")
    panels[3].texts[0].set_text(f"theta, {_shape(output.theta[0])}")
    _sizes(panels[4], [patch.shape[1:] for patch in output.patches], anatomy)
    _sizes(panels[5], [each.shape[1:] for each in output.fine_logits], anatomy)
    _draw_windows(
        panels[3], np.asarray(windows_from_theta(output.theta, frame.shape[:2]))[0], anatomy
    )
    _arrows(figure, output, frame.shape[:2])
    return figure


def _class_ids(labels: np.ndarray, classes: tuple[str, ...], anatomy: Anatomy) -> np.ndarray:
    """Converts the labels of a patch to class ids."""
    return np.array((0, *anatomy.ids(classes)))[labels]


def _tiles(patches: list[np.ndarray], gap: int = 8) -> np.ndarray:
    """Arranges patches in pairs, side 1 beside side 2, on white."""
    rows = []
    height, width = 0, max(2 * max(p.shape[1] for p in patches) + gap, 1)
    for left, right in zip(patches[::2], patches[1::2], strict=True):
        row = np.ones((max(left.shape[0], right.shape[0]), width, 3))
        row[: left.shape[0], : left.shape[1]] = left
        row[: right.shape[0], width - right.shape[1] :] = right
        rows += [row, np.ones((gap, width, 3))]
        height += row.shape[0] + gap
    tiled = np.vstack(rows)
    side = max(height, width)
    square = np.ones((side, side, 3))
    square[(side - height) // 2 :][:height, (side - width) // 2 :][:, :width] = tiled
    return square


def _shape(array: Any) -> str:
    if array is None:
        return ""
    return " x ".join(map(str, array if isinstance(array, tuple) else array.shape))


def _sizes(axes: Axes, shapes: list[tuple[int, ...]], anatomy: Anatomy) -> None:
    """Writes the shape of the arrays of each fine network below a panel."""
    lines = dict(zip([part.network for part in anatomy.parts], shapes, strict=True))
    text = "\n".join(f"{network} {_shape(tuple(shape))}" for network, shape in lines.items())
    axes.texts[0].set_text(text)


def _draw_windows(axes: Axes, windows: np.ndarray, anatomy: Anatomy) -> None:
    for part, (x0, y0, x1, y1) in zip(anatomy.parts, windows, strict=True):
        colour = [c / 255 for c in anatomy.colours[anatomy.ids(part.classes)[0]]]
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=2)
        )


def _arrows(figure: Figure, output: STNiCNNOutput, frame_size: tuple[int, int]) -> None:
    """Draws the arrows between panels, and the two that bypass panels."""
    middle = (BASE + SIDE / 2) / HEIGHT
    for i, step in enumerate(STEPS):
        start, end = 0.12 + i * STRIDE + SIDE + 0.06, 0.12 + (i + 1) * STRIDE - 0.06
        _arrow(figure, (start / WIDTH, middle), (end / WIDTH, middle))
        figure.text(
            (start + end) / 2 / WIDTH, middle + 0.035, step, ha="center", va="bottom", fontsize=11
        )
    top = (BASE + SIDE + 0.38) / HEIGHT
    ends = [(0.12 + i * STRIDE + SIDE / 2) / WIDTH for i in range(7)]
    _around(figure, ends[2], ends[6], top, 0.86)
    assert output.global_logits is not None
    shape = _shape(output.global_logits.shape[2:] + output.global_logits.shape[1:2])
    text = f"scores of the global classes, {shape}, resized to {_shape(frame_size)}"
    figure.text((ends[2] + ends[6]) / 2, 0.875, text, ha="center", va="bottom", fontsize=12)
    sampler = (0.12 + 3.5 * STRIDE + SIDE / 2) / WIDTH
    _around(figure, ends[0], sampler, (BASE - 0.32) / HEIGHT, 0.1)
    text = "the windows are cropped from the frame, not from the coarse image"
    figure.text((ends[0] + sampler) / 2, 0.085, text, ha="center", va="top", fontsize=12)


def _around(figure: Figure, start: float, end: float, level: float, far: float) -> None:
    """Draws an arrow that bypasses panels above or below the row."""
    for xs, ys in (((start, start), (level, far)), ((start, end), (far, far))):
        line = Line2D(xs, ys, color="0.25", linewidth=1.5, transform=figure.transFigure)
        figure.add_artist(line)
    # Ends at the panel if it comes from above, at the arrow of the sampler if from below.
    _arrow(figure, (end, far), (end, level if far > level else (BASE + SIDE / 2 - 0.1) / HEIGHT))


def _arrow(figure: Figure, start: tuple[float, float], end: tuple[float, float]) -> None:
    figure.add_artist(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=16,
            color="0.25",
            linewidth=1.5,
            shrinkA=0,
            shrinkB=0,
            transform=figure.transFigure,
        )
    )


def main() -> None:
    """Runs the command."""
    picture(FaceParser.load()).savefig(DOCS / "data_flow.png")


if __name__ == "__main__":
    main()
