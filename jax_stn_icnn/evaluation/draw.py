"""Draws overlays, steps of the model, training curves and confusion matrices.

Figures are created without Matplotlib's global state, so functions are safe in threads. Matplotlib
is imported on first use.
"""

import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jax_stn_icnn.anatomy import Anatomy, Part
from jax_stn_icnn.evaluation.metrics import part_mean_title
from jax_stn_icnn.label_sets import LabelSets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
COLUMNS = ("input", "coarse segmentation", "windows", "patches", "labels", "truth")
ROW_INCHES = 2.4
PATCH_COLUMNS = 2  # side 1 and side 2; nose and mouth below them
GAP = 4  # pixels between and around patches
LEGEND_COLUMNS = 9
UNION_COLUMNS = 32  # characters of a line of a union's name
SMALL, MEDIUM = 6, 9  # font sizes
DARK = 320  # sum of a colour's channels up to which white text is legible on it

# Blue, orange and green of Okabe and Ito.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73")


class FaceRow(NamedTuple):
    """A face in `parse_grid`: the steps of the model.

    Attributes:
        title: label of the row.
        image: uint8 (height, width, 3).
        coarse_labels: class ids of the coarse segmentation, which covers the image, of shape
            (128, 128) or as `coarse_size` of the model.
        windows: boxes (x0, y0, x1, y1) of the parts in pixels of the image, (parts, 4).
        patches: patch of each window, uint8 (height, width, 3).
        labels: predicted class ids, (height, width).
        truth: true class ids, (height, width), or None.
    """

    title: str
    image: np.ndarray
    coarse_labels: np.ndarray
    windows: np.ndarray
    patches: Sequence[np.ndarray]
    labels: np.ndarray
    truth: np.ndarray | None


def colours(label_map: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Converts class ids to colours.

    Args:
        label_map: class ids, integers of any shape.
        anatomy: the classes and their colours.

    Returns:
        RGB, uint8 (..., 3).
    """
    return np.array(anatomy.colours, np.uint8)[label_map]


def ids_in(label_map: np.ndarray, num_classes: int) -> list[int]:
    """Returns the class ids that a label map contains, in ascending order.

    Args:
        label_map: integers in 0..255, of any shape.
        num_classes: ids of at least this value are ignored.
    """
    # A search ends at the first match, so it is faster than sorting or counting all pixels.
    data = np.asarray(label_map, np.uint8).tobytes()
    return [i for i in range(num_classes) if i in data]


def overlay(
    image: np.ndarray, label_map: np.ndarray, anatomy: Anatomy, alpha: float = 0.6
) -> np.ndarray:
    """Blends an image with the colours of its classes, except where there is background.

    Args:
        image: uint8 (height, width, 3).
        label_map: class ids (height, width).
        anatomy: the classes and their colours.
        alpha: opacity of the colours, 0..1.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ValueError: the sizes differ, or alpha is not in 0..1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, but must lie in 0..1")
    if image.shape != (*label_map.shape, 3):
        raise ValueError(
            f"image has shape {image.shape}, but must have shape {(*label_map.shape, 3)} for a "
            f"label_map of shape {label_map.shape}"
        )
    # OpenCV is several times as fast as NumPy's indexing on large photos.
    label_map = np.asarray(label_map, np.uint8)
    table = np.zeros((3, 256), np.uint8)
    table[:, : anatomy.num_classes] = np.transpose(anatomy.colours)
    coloured = cv2.merge([cv2.LUT(label_map, channel) for channel in table])
    mixed = cv2.addWeighted(image, 1 - alpha, coloured, alpha, 0)
    return np.asarray(cv2.copyTo(image, np.asarray(label_map == 0, np.uint8), mixed))


def with_legend(image: np.ndarray, label_map: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Appends a legend of the classes of a label map below an image.

    Args:
        image: uint8 (height, width, 3).
        label_map: class ids (height, width).
        anatomy: the classes and their colours.

    Returns:
        uint8 (more rows, width, 3); the image itself if all labels are background.
    """
    shown = [i for i in ids_in(label_map, anatomy.num_classes) if i > 0]
    if not shown:
        return image
    width = image.shape[1]
    size = max(round(width / 36), 10)
    font = ImageFont.load_default(size)
    gap, x, y = size // 2, size // 2, size // 2
    entries = []
    for i in shown:
        name = anatomy.classes[i].replace("_", " ")
        length = size + gap + math.ceil(font.getlength(name)) + 2 * gap
        if x + length > width and x > gap:
            x, y = gap, y + size + gap
        entries.append((x, y, name, anatomy.colours[i]))
        x += length
    strip = Image.new("RGB", (width, y + size + gap), "white")
    pen = ImageDraw.Draw(strip)
    for x, y, name, colour in entries:
        pen.rectangle((x, y, x + size - 1, y + size - 1), fill=colour, outline=(80, 80, 80))
        pen.text((x + size + gap, y + size // 2), name, fill="black", font=font, anchor="lm")
    return np.concatenate([image, np.asarray(strip)])


def parse_grid(path: str | Path, faces: Sequence[FaceRow], anatomy: Anatomy) -> None:
    """Draws a row per face: input, coarse segmentation, windows, patches, labels, truth.

    The column of the truth is omitted if no face has one.

    Args:
        path: the file to write; its suffix selects the format.
        faces: rows from top to bottom.
        anatomy: the classes and parts.

    Raises:
        ValueError: there is no face.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not faces:
        raise ValueError("faces is empty: there is nothing to draw")
    known = any(face.truth is not None for face in faces)
    columns = COLUMNS if known else COLUMNS[:-1]
    # Columns have the width of the widest image at the rows' height, except that of the patches.
    aspect = max(face.image.shape[1] / face.image.shape[0] for face in faces)
    patches_aspect = max(
        mosaic.shape[1] / mosaic.shape[0] for mosaic in (_mosaic(face, anatomy) for face in faces)
    )
    widths = [patches_aspect if name == "patches" else aspect for name in columns]
    figure = _figure(
        ROW_INCHES * sum(widths) + 0.4,
        ROW_INCHES * len(faces) + 0.6,
        ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.06, wspace=0.01, hspace=0.01),
    )
    grid = figure.subplots(len(faces), len(columns), squeeze=False, width_ratios=widths)
    for row, face in zip(grid, faces, strict=True):
        _draw_face(dict(zip(columns, row, strict=True)), face, anatomy)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=MEDIUM)
    _class_legend(figure, anatomy)
    figure.savefig(path)


def confusion_matrix(
    path: str | Path,
    counts: np.ndarray,
    anatomy: Anatomy,
    *,
    title: str = "",
    label_sets: LabelSets | None = None,
) -> None:
    """Draws a confusion matrix in percent of the pixels of each true label.

    Args:
        path: the file to write.
        counts: number of pixels (labels, classes), rows truth, columns prediction.
        anatomy: the classes.
        title: title of the figure.
        label_sets: the classes of each label; None if labels are class ids. Classes that are no
            labels by themselves have no row.
    """
    sets = label_sets or LabelSets(anatomy.num_classes)
    rows = [label for label in range(sets.num_labels) if label not in sets.absent]
    truths = [_wrap(sets.names(anatomy)[label]) for label in rows]
    total = counts[rows].sum(axis=1, keepdims=True)
    share = 100.0 * counts[rows] / np.maximum(total, 1)
    names = [name.replace("_", " ") for name in anatomy.classes]
    width, height = 0.6 * len(names) + 1.0, 0.6 * len(rows) + 0.4
    if len(rows) != len(names):  # Names of unions are long, and the colour bar needs a height.
        width, height = width + 1.6, height + 1.4
    figure = _figure(width, height)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(share):
        text = _percent(value) if total[row, 0] else "-"
        colour = "white" if value > 50 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=MEDIUM)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(truths)), truths)
    axes.set(xlabel="prediction", ylabel="truth", title=title)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, label="% of the label's pixels", shrink=0.8)
    figure.savefig(path)


def curves(path: str | Path, metrics: str | Path, anatomy: Anatomy) -> None:
    """Draws loss, validation F1 and window error of a training run over its epochs.

    Args:
        path: the file to write.
        metrics: `metrics.jsonl` of the run: a record per epoch with stage, loss, f1_overall,
            f1_mean_of_eight, coarse_f1_overall and window_error_px.
        anatomy: the classes.

    Raises:
        ValueError: the file contains no record.
    """
    from matplotlib.ticker import LogFormatter

    records = [json.loads(line) for line in Path(metrics).read_text().splitlines()]
    if not records:
        raise ValueError(f"{metrics} contains no record: there is nothing to draw")
    figure = _figure(8, 7.5)
    loss, score, window = figure.subplots(3, 1, sharex=True)
    stages = [record["stage"] for record in records]
    starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
    # Each stage has another loss, so the curve is interrupted between stages.
    for start, end in zip(starts, [*starts[1:], len(records)], strict=True):
        _curve(loss, records[start:end], "loss", start, color=LINE_COLOURS[0])
    labels = {
        "f1_overall": "overall",
        "f1_mean_of_eight": part_mean_title(anatomy),
        "coarse_f1_overall": "coarse segmentation, overall",
    }
    for field, colour in zip(labels, LINE_COLOURS, strict=True):
        _curve(score, records, field, 0, color=colour, label=labels[field])
    _curve(window, records, "window_error_px", 0, color=LINE_COLOURS[0])
    loss.set(ylabel="training loss", yscale="log")
    score.set(ylabel="validation F1", ylim=(0, 1))
    score.legend(loc="lower right", fontsize=MEDIUM)
    window.set(ylabel="window error, px", yscale="log", xlabel="epoch")
    # Pixels are plain numbers, not powers of ten.
    for ticks in (window.yaxis.set_major_formatter, window.yaxis.set_minor_formatter):
        ticks(LogFormatter(labelOnlyBase=False))
    window.set_xlim(0.5, len(records) + 0.5)
    window.xaxis.get_major_locator().set_params(integer=True)
    for axes in (loss, score, window):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        for start in starts[1:]:
            axes.axvline(start + 0.5, color="0.5", linestyle="--", linewidth=1)
    for start in starts:
        loss.annotate(
            stages[start],
            (start + 0.5, 1.02),
            xycoords=("data", "axes fraction"),
            fontsize=MEDIUM,
            color="0.3",
        )
    figure.savefig(path)


def _curve(
    axes: "Axes", records: Sequence[dict[str, Any]], field: str, start: int, **style
) -> None:
    """Plots a field over epochs, counted from 1; a null is a gap."""
    values = [np.nan if record[field] is None else record[field] for record in records]
    epochs = range(start + 1, start + 1 + len(records))
    axes.plot(epochs, values, marker="o", markersize=3, **style)


def _wrap(name: str) -> str:
    """Formats the name of a label; that of a union takes several lines."""
    return textwrap.fill(name.replace("+", " + ").replace("_", " "), UNION_COLUMNS)


def _percent(value: float) -> str:
    """Formats a percentage with one decimal; zero is empty."""
    if value == 0:
        return ""
    return "<.1" if value < 0.05 else f"{value:.1f}"


def _draw_face(axes: dict[str, "Axes"], face: FaceRow, anatomy: Anatomy) -> None:
    height, width = face.image.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes["input"].imshow(face.image)
    axes["input"].set_ylabel(face.title, fontsize=MEDIUM)
    axes["coarse segmentation"].imshow(
        colours(face.coarse_labels, anatomy), extent=extent, interpolation="nearest"
    )
    axes["windows"].imshow(face.image)
    _draw_windows(axes["windows"], face.windows, anatomy)
    axes["patches"].imshow(_mosaic(face, anatomy))
    axes["labels"].imshow(overlay(face.image, face.labels, anatomy))
    if face.truth is not None:
        axes["truth"].imshow(overlay(face.image, face.truth, anatomy))
    for each in axes.values():
        each.set(xticks=[], yticks=[])
        each.spines[:].set_visible(False)


def _draw_windows(axes: "Axes", windows: np.ndarray, anatomy: Anatomy) -> None:
    """Draws windows in the colours of their parts, with names in the outer corners."""
    from matplotlib.patches import Rectangle

    for i, (part, (x0, y0, x1, y1)) in enumerate(zip(anatomy.parts, windows, strict=True)):
        colour = _part_colour(part, anatomy)
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=colour, lw=1.2))
        above, left = i < 2, i % 2 == 0
        axes.text(
            x0 if left else x1,
            y0 if above else y1,
            part.name.replace("_", " "),
            ha="left" if left else "right",
            va="bottom" if above else "top",
            fontsize=SMALL,
            color="black" if sum(_part_rgb(part, anatomy)) > DARK else "white",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
            clip_on=True,
        )


def _mosaic(face: FaceRow, anatomy: Anatomy) -> np.ndarray:
    """Returns the patches in two columns with borders in their parts' colours, uint8 RGB."""
    cell_height, cell_width = (
        max(patch.shape[axis] for patch in face.patches) + 2 * GAP for axis in (0, 1)
    )
    rows = -(-len(face.patches) // PATCH_COLUMNS)
    mosaic = np.full((rows * cell_height, PATCH_COLUMNS * cell_width, 3), 255, np.uint8)
    for i, (part, patch) in enumerate(zip(anatomy.parts, face.patches, strict=True)):
        height, width = patch.shape[:2]
        y = i // PATCH_COLUMNS * cell_height + (cell_height - height) // 2
        x = i % PATCH_COLUMNS * cell_width + (cell_width - width) // 2
        framed = mosaic[y - GAP + 1 : y + height + GAP - 1, x - GAP + 1 : x + width + GAP - 1]
        framed[:] = _part_rgb(part, anatomy)
        mosaic[y : y + height, x : x + width] = patch
    return mosaic


def _part_rgb(part: Part, anatomy: Anatomy) -> tuple[int, int, int]:
    return anatomy.colours[anatomy.ids(part.classes)[0]]


def _part_colour(part: Part, anatomy: Anatomy) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in _part_rgb(part, anatomy))


def _figure(width: float, height: float, layout: Any = "constrained") -> "Figure":
    """Returns an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    # Slightly above integer pixels: older Matplotlib rounds down, and 7.8 inches are not exact.
    size = [(round(inches * DPI) + 0.01) / DPI for inches in (width, height)]
    return Figure(figsize=(size[0], size[1]), dpi=DPI, layout=layout)


def _class_legend(figure: "Figure", anatomy: Anatomy) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(fc=[channel / 255 for channel in colour], ec="0.4", lw=0.5, label=name)
        for colour, name in zip(
            anatomy.colours, (name.replace("_", " ") for name in anatomy.classes), strict=True
        )
    ]
    figure.legend(
        handles=handles[1:],
        loc="outside lower center",
        ncols=min(len(handles) - 1, LEGEND_COLUMNS),
        frameon=False,
        fontsize=MEDIUM,
    )
