"""What an evaluation counted, the scores that follow from it, and the paper's tables as text."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.evaluation import metrics
from jax_stn_icnn.evaluation.boundaries import boundary_f


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """What was counted, a row for each face in the order of the split; scores are derived from it.

    Attributes:
        anatomy: what a face consists of.
        index: the record's index in its split, (images,).
        confusion: counts of the parse, rows truth, (images, classes, classes).
        coarse_confusion: counts of the rough mask, upsampled to the frame, of the same shape.
        window_error: distance in frame pixels of each window's centre from the true window's,
            (images, parts); means nothing where the part is absent.
        present: which parts the face has, bool (images, parts).
        covered: which parts were covered before parsing, bool (images, parts).
        faces_per_second: loading included, compilation not.
        edges: `edges.edge_counts` of each face, (images, classes, 4), if they were asked for.
        stray: `edges.stray_regions` of each face, (images,), likewise.
    """

    anatomy: Anatomy
    index: np.ndarray
    confusion: np.ndarray
    coarse_confusion: np.ndarray
    window_error: np.ndarray
    present: np.ndarray
    covered: np.ndarray
    faces_per_second: float
    edges: np.ndarray | None = None
    stray: np.ndarray | None = None

    @property
    def images(self) -> int:
        """How many faces were scored."""
        return len(self.index)

    @property
    def f1(self) -> dict[str, float]:
        """`metrics.f1_scores` of the parse."""
        return metrics.f1_scores(self.confusion.sum(axis=0, dtype=np.int64), self.anatomy)

    @property
    def coarse_f1(self) -> dict[str, float]:
        """`metrics.f1_scores` of the rough mask."""
        return metrics.f1_scores(self.coarse_confusion.sum(axis=0, dtype=np.int64), self.anatomy)

    @property
    def window_error_px(self) -> float:
        """Mean over all present parts of the window's distance; NaN if there is none."""
        return self._mean_error(self.present)

    @property
    def window_error_px_by_part(self) -> dict[str, float]:
        """The same for each part."""
        only = np.eye(self.anatomy.num_parts, dtype=bool)
        return {
            part.name: self._mean_error(self.present & only[i])
            for i, part in enumerate(self.anatomy.parts)
        }

    @property
    def window_error_px_covered(self) -> float:
        """The same over the parts that were covered."""
        return self._mean_error(self.present & self.covered)

    @property
    def window_error_px_uncovered(self) -> float:
        """The same over the parts that were not covered."""
        return self._mean_error(self.present & ~self.covered)

    @property
    def mean_of_eight_by_face(self) -> np.ndarray:
        """Each face's own mean F1; classes in neither truth nor prediction take no part."""
        return np.array(
            [
                metrics.f1_scores(counts, self.anatomy)[metrics.MEAN_OF_EIGHT]
                for counts in self.confusion
            ]
        )

    @property
    def by_class(self) -> dict[str, tuple[float, int]]:
        """For each class but background its F1, and how many faces have it."""
        f1 = metrics.class_f1(self.confusion.sum(axis=0, dtype=np.int64))
        faces = (self.confusion.sum(axis=2) > 0).sum(axis=0)
        return {
            name: (float(f1[i]), int(faces[i])) for i, name in enumerate(self.anatomy.classes) if i
        }

    @property
    def boundary_f(self) -> dict[str, float]:
        """For each class but background the boundary F of its edge; empty where not counted."""
        if self.edges is None:
            return {}
        scores = boundary_f(self.edges.sum(axis=0))
        return {name: float(scores[i]) for i, name in enumerate(self.anatomy.classes) if i}

    @property
    def mean_boundary_f(self) -> float:
        """Its mean over the classes that have one; NaN if there is none."""
        found = [score for score in self.boundary_f.values() if not math.isnan(score)]
        return float(np.mean(found)) if found else math.nan

    @property
    def stray_regions_per_face(self) -> float:
        """How many regions of a face's parse hold no true pixel of their class; NaN if unknown."""
        return math.nan if self.stray is None else float(np.mean(self.stray))

    def as_json(self) -> dict[str, Any]:
        """The report for `json.dump`; a score that does not exist is None."""
        return _without_nan(
            {
                "images": self.images,
                "classes": self.anatomy.name,
                "f1": self.f1,
                "f1_by_class": {name: f1 for name, (f1, _) in self.by_class.items()},
                "faces_by_class": {name: faces for name, (_, faces) in self.by_class.items()},
                "boundary_f": self.mean_boundary_f,
                "boundary_f_by_class": self.boundary_f,
                "stray_regions_per_face": self.stray_regions_per_face,
                "coarse_f1": self.coarse_f1,
                "window_error_px": self.window_error_px,
                "window_error_px_by_part": self.window_error_px_by_part,
                "faces_per_second": self.faces_per_second,
            }
        )

    def occlusion_as_json(self) -> dict[str, float | None]:
        """Window placement of covered and uncovered parts, in frame pixels, for `json.dump`."""
        return _without_nan(
            {"covered": self.window_error_px_covered, "uncovered": self.window_error_px_uncovered}
        )

    def _mean_error(self, which: np.ndarray) -> float:
        return float(self.window_error[which].mean(dtype=np.float64)) if which.any() else math.nan


def score_table(reports: Mapping[str, Report]) -> str:
    """The paper's table as text: F1 of each group, and how far off the windows are.

    Args:
        reports: row name -> report; the rough mask is scored from the first.

    Returns:
        Lines of aligned columns; a score that does not exist is a dash.
    """
    first = next(iter(reports.values()))
    # Single classes without a window have a table of their own.
    single = {first.anatomy.classes[i] for i in first.anatomy.global_ids}
    groups = [name for name in first.f1 if name not in single]
    rows = [["F1", *(group.replace("_", " ") for group in groups)]]
    rows.append(["rough mask", *(_text(first.coarse_f1[group], 3) for group in groups)])
    rows += [
        [name, *(_text(report.f1[group], 3) for group in groups)]
        for name, report in reports.items()
    ]
    parts = [part.name for part in first.anatomy.parts]
    windows = [["windows off by, px", *(part.replace("_", " ") for part in parts), "mean"]]
    for name, report in reports.items():
        by_part = report.window_error_px_by_part
        errors = [*(by_part[part] for part in parts), report.window_error_px]
        windows.append([name, *(_text(error, 1) for error in errors)])
    return f"{align(rows)}\n\n{align(windows)}"


def class_table(reports: Mapping[str, Report]) -> str:
    """Every class with its F1, boundary F and the number of faces that have it, as text.

    Args:
        reports: row name -> report of the same faces.

    Returns:
        Lines of aligned columns, a class a line; a score that does not exist is a dash.
    """
    first = next(iter(reports.values()))
    rows = [["class", "faces", *(f"F1, {name}" for name in reports)]]
    counted = {name: report for name, report in reports.items() if report.edges is not None}
    rows[0] += [f"boundary F, {name}" for name in counted]
    for name, (_, faces) in first.by_class.items():
        scores = [_text(report.by_class[name][0], 3) for report in reports.values()]
        scores += [_text(report.boundary_f[name], 3) for report in counted.values()]
        rows.append([name.replace("_", " "), str(faces), *scores])
    means = [
        float(np.nanmean([f1 for f1, _ in each.by_class.values()])) for each in reports.values()
    ]
    means += [report.mean_boundary_f for report in counted.values()]
    rows.append(["mean", str(first.images), *(_text(mean, 3) for mean in means)])
    strays = "\n".join(
        f"stray regions a face, {name}: {_text(report.stray_regions_per_face, 1)}"
        for name, report in counted.items()
    )
    return align(rows) + (f"\n\n{strays}" if strays else "")


def occlusion_table(reports: Mapping[str, Report]) -> str:
    """Window placement of covered and uncovered parts, for each cropper, as text.

    Args:
        reports: cropper -> report with covered parts.

    Returns:
        Lines of aligned columns, distances in frame pixels.
    """
    rows = [["windows off by, px", "covered parts", "uncovered parts"]]
    rows += [
        [
            name,
            _text(report.window_error_px_covered, 1),
            _text(report.window_error_px_uncovered, 1),
        ]
        for name, report in reports.items()
    ]
    return align(rows)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )


def _text(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _without_nan(value) for name, value in tree.items()}
    return None if isinstance(tree, float) and math.isnan(tree) else tree
