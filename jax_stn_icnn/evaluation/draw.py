"""Pictures: overlays, windows, a parse step by step, learning curves, confusion matrices.

Pixels in, files out; matplotlib's objects without its global state, so any thread may draw. It is
imported when something is drawn: a run starts without it.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jax_stn_icnn.anatomy import Anatomy, Part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
COLUMNS = ("input", "rough mask", "windows", "patches", "parse", "truth")
ROW_INCHES = 2.4
PATCH_COLUMNS = 2  # Side 1 and side 2; nose and mouth below them.
GAP = 4  # Pixels between and around patches.
LEGEND_COLUMNS = 9
SMALL, MEDIUM = 6, 9  # Font sizes.
DARK = 320  # Sum of a colour's channels up to which white text is legible on it.

# What the score panel shows, and Okabe and Ito's blue, orange and green for lines.
SCORE_CURVES = {
    "f1_overall": "parse, overall",
    "f1_mean_of_eight": "parse, mean of eight",
    "coarse_f1_overall": "rough mask, overall",
}
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73")


class Face(NamedTuple):
    """One face on its way through the parser; what `parse_grid` shows in a row.

    Attributes:
        title: stands beside the row.
        image: uint8 (height, width, 3).
        coarse_labels: class ids of the coarse segmentation, which covers the whole image, (128, 128), or of the side
            that the model's `coarse_size` says.
        windows: boxes (x0, y0, x1, y1) of the parts in pixels of the image, (parts, 4).
        patches: what the windows cut, for each part uint8 (height, width, 3).
        parse: class ids, (height, width).
        truth: likewise; None where it is not known.
    """

    title: str
    image: np.ndarray
    coarse_labels: np.ndarray
    windows: np.ndarray
    patches: Sequence[np.ndarray]
    parse: np.ndarray
    truth: np.ndarray | None


def colours(label_map: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Class ids as colours.

    Args:
        label_map: class ids, integers of any shape.
        anatomy: whose classes and colours they are.

    Returns:
        RGB, uint8 (..., 3).
    """
    return np.array(anatomy.colours, np.uint8)[label_map]


def ids_in(label_map: np.ndarray, num_classes: int) -> list[int]:
    """Those ids below a number of classes that a label map holds.

    Args:
        label_map: integers in 0..255, of any shape.
        num_classes: ids from this one on are not looked for.

    Returns:
        The ids, in ascending order.
    """
    # A search for a byte ends where the first is found: quicker than to sort or count a photo's.
    data = np.asarray(label_map, np.uint8).tobytes()
    return [i for i in range(num_classes) if i in data]


def overlay(
    image: np.ndarray, label_map: np.ndarray, anatomy: Anatomy, alpha: float = 0.6
) -> np.ndarray:
    """Lays the classes' colours over a picture; where there is background, it stays as it is.

    Args:
        image: uint8 (height, width, 3).
        label_map: class ids (height, width).
        anatomy: whose classes and colours they are.
        alpha: 0 shows the picture only, 1 the colours only.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ValueError: the sizes differ, or alpha is not in 0..1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, but must lie in 0..1")
    if image.shape != (*label_map.shape, 3):
        raise ValueError(
            f"image has shape {image.shape}, but label_map {label_map.shape} "
            f"asks for {(*label_map.shape, 3)}"
        )
    # By OpenCV, several times as fast as by NumPy's indices: photos are large.
    label_map = np.asarray(label_map, np.uint8)
    table = np.zeros((3, 256), np.uint8)
    table[:, : anatomy.num_classes] = np.transpose(anatomy.colours)
    coloured = cv2.merge([cv2.LUT(label_map, channel) for channel in table])
    mixed = cv2.addWeighted(image, 1 - alpha, coloured, alpha, 0)
    return np.asarray(cv2.copyTo(image, np.asarray(label_map == 0, np.uint8), mixed))


def with_legend(image: np.ndarray, label_map: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    """Puts a legend of the classes that are in a label map under a picture of it.

    Args:
        image: uint8 (height, width, 3).
        label_map: class ids (height, width).
        anatomy: whose classes and colours they are.

    Returns:
        uint8 (more rows, width, 3): the picture, and names in their colours below it. A label map
        of background only gives the picture as it is.
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


def parse_grid(path: str | Path, faces: Sequence[Face], anatomy: Anatomy) -> None:
    """Draws each face as a row: input, rough mask, windows, patches, parse, truth.

    Where no face's truth is known, its column is left out.

    Args:
        path: the picture to write; its ending gives the format.
        faces: from top to bottom.
        anatomy: what they consist of.

    Raises:
        ValueError: there is no face.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not faces:
        raise ValueError("faces is empty: there is nothing to draw")
    known = any(face.truth is not None for face in faces)
    columns = COLUMNS if known else COLUMNS[:-1]
    # Columns as wide as the widest picture is at the rows' common height, the patches' apart.
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
    path: str | Path, counts: np.ndarray, anatomy: Anatomy, *, title: str = ""
) -> None:
    """Draws what each class was taken for, in percent of its pixels.

    Args:
        path: the picture to write.
        counts: pixels (classes, classes), rows truth, columns prediction.
        anatomy: what the classes are.
        title: stands above.
    """
    total = counts.sum(axis=1, keepdims=True)
    share = 100.0 * counts / np.maximum(total, 1)
    names = [name.replace("_", " ") for name in anatomy.classes]
    side = 0.6 * len(names)
    figure = _figure(side + 1.0, side + 0.4)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(share):
        text = _percent(value) if total[row, 0] else "-"
        colour = "white" if value > 50 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=MEDIUM)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="parsed as", ylabel="truth", title=title)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, label="% of the class's pixels", shrink=0.8)
    figure.savefig(path)


def curves(path: str | Path, metrics: str | Path) -> None:
    """Draws loss, validation F1 and window placement of a run over its epochs, stage by stage.

    Args:
        path: the picture to write.
        metrics: the run's `metrics.jsonl`: a record for each epoch with stage, loss, f1_overall,
            f1_mean_of_eight, coarse_f1_overall and window_error_px.

    Raises:
        ValueError: the file holds no record.
    """
    from matplotlib.ticker import LogFormatter

    records = [json.loads(line) for line in Path(metrics).read_text().splitlines()]
    if not records:
        raise ValueError(f"{metrics} holds no record: there is nothing to draw")
    figure = _figure(8, 7.5)
    loss, score, window = figure.subplots(3, 1, sharex=True)
    stages = [record["stage"] for record in records]
    starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
    # Each stage has a loss of its own, so the curve breaks between them.
    for start, end in zip(starts, [*starts[1:], len(records)], strict=True):
        _curve(loss, records[start:end], "loss", start, color=LINE_COLOURS[0])
    for field, colour in zip(SCORE_CURVES, LINE_COLOURS, strict=True):
        _curve(score, records, field, 0, color=colour, label=SCORE_CURVES[field])
    _curve(window, records, "window_error_px", 0, color=LINE_COLOURS[0])
    loss.set(ylabel="training loss", yscale="log")
    score.set(ylabel="validation F1", ylim=(0, 1))
    score.legend(loc="lower right", fontsize=MEDIUM)
    window.set(ylabel="windows off by, px", yscale="log", xlabel="epoch of the run")
    # Pixels as plain numbers, not as powers of ten.
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


def _curve(axes: "Axes", records: Sequence[dict[str, Any]], field: str, start: int, **how) -> None:
    """A field over epochs, counted from 1; a null leaves a gap."""
    values = [np.nan if record[field] is None else record[field] for record in records]
    epochs = range(start + 1, start + 1 + len(records))
    axes.plot(epochs, values, marker="o", markersize=3, **how)


def _percent(value: float) -> str:
    """Two or three figures; nothing where there is nothing."""
    if value == 0:
        return ""
    return "<.1" if value < 0.05 else f"{value:.1f}"


def _draw_face(axes: dict[str, "Axes"], face: Face, anatomy: Anatomy) -> None:
    height, width = face.image.shape[:2]
    whole = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes["input"].imshow(face.image)
    axes["input"].set_ylabel(face.title, fontsize=MEDIUM)
    axes["rough mask"].imshow(
        colours(face.coarse_labels, anatomy), extent=whole, interpolation="nearest"
    )
    axes["windows"].imshow(face.image)
    _draw_windows(axes["windows"], face.windows, anatomy)
    axes["patches"].imshow(_mosaic(face, anatomy))
    axes["parse"].imshow(overlay(face.image, face.parse, anatomy))
    if face.truth is not None:
        axes["truth"].imshow(overlay(face.image, face.truth, anatomy))
    for each in axes.values():
        each.set(xticks=[], yticks=[])
        each.spines[:].set_visible(False)


def _draw_windows(axes: "Axes", windows: np.ndarray, anatomy: Anatomy) -> None:
    """Each window in its part's colour, with its name in the corner away from the middle."""
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


def _mosaic(face: Face, anatomy: Anatomy) -> np.ndarray:
    """The patches, two in a row, each framed in its part's colour; uint8 RGB."""
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
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    # A little above whole pixels: older Matplotlib rounds down, and 7.8 inches are not exact.
    wide, high = ((round(inches * DPI) + 0.01) / DPI for inches in (width, height))
    return Figure(figsize=(wide, high), dpi=DPI, layout=layout)


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
