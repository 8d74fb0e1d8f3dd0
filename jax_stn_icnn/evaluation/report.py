"""`Report`: the counts of an evaluation and the scores computed from them, and tables of scores."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.evaluation import boundaries, metrics
from jax_stn_icnn.label_sets import IGNORE, LabelSets


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """Counts of an evaluation, one row for each face in the order of the split.

    Attributes:
        anatomy: The classes and the parts.
        index: Index of each face's record in the split, (images,).
        confusion: Confusion counts of the label map, rows truth, (images, labels, classes).
        coarse_confusion: Confusion counts of the coarse segmentation, upsampled to the frame, of
            the same shape.
        window_error: Distance between the centers of each window and of the true window, in frame
            pixels, (images, parts); undefined for absent parts.
        present: Which parts the face has, bool (images, parts).
        occluded: Which parts were occluded before the face was parsed, bool (images, parts).
        faces_per_second: Speed of the evaluation, with loading and without compilation.
        edges: `boundaries.edge_counts` of each face, (images, classes, 4), or None.
        stray: `boundaries.stray_regions` of each face, (images,), or None.
        label_sets: The classes of each true label; None if labels are class ids.
    """

    anatomy: Anatomy
    index: np.ndarray
    confusion: np.ndarray
    coarse_confusion: np.ndarray
    window_error: np.ndarray
    present: np.ndarray
    occluded: np.ndarray
    faces_per_second: float
    edges: np.ndarray | None = None
    stray: np.ndarray | None = None
    label_sets: LabelSets | None = None

    @property
    def images(self) -> int:
        """Number of faces."""
        return len(self.index)

    @property
    def f1(self) -> dict[str, float]:
        """`metrics.f1_scores` of the label map."""
        return metrics.f1_scores(_sum(self.confusion), self.anatomy, self.label_sets)

    @property
    def coarse_f1(self) -> dict[str, float]:
        """`metrics.f1_scores` of the coarse segmentation."""
        return metrics.f1_scores(_sum(self.coarse_confusion), self.anatomy, self.label_sets)

    @property
    def f1_by_class(self) -> dict[str, float]:
        """F1 of each class but background."""
        return self._by_class(metrics.label_f1(_sum(self.confusion), self.label_sets))

    @property
    def f1_by_union(self) -> dict[str, float]:
        """F1 of each label of several classes that occurs, by its name."""
        return self._by_union(metrics.label_f1(_sum(self.confusion), self.label_sets))

    @property
    def faces_by_union(self) -> dict[str, int]:
        """Number of faces that have each label of several classes that occurs."""
        return self._by_union((self.confusion.sum(axis=2) > 0).sum(axis=0))

    @property
    def faces_by_class(self) -> dict[str, int]:
        """Number of faces that have each class but background."""
        return self._by_class((self.confusion.sum(axis=2) > 0).sum(axis=0))

    @property
    def mean_of_eight_by_face(self) -> np.ndarray:
        """`mean_of_eight` of each face by itself, (images,)."""
        return np.array(
            [
                metrics.f1_scores(counts, self.anatomy, self.label_sets)[metrics.MEAN_OF_EIGHT]
                for counts in self.confusion
            ]
        )

    @property
    def score_by_face(self) -> np.ndarray:
        """The score of each face by itself, (images,).

        `mean_of_eight`, or if no face has one, because parts are not labelled, the mean F1 of the
        labels but background. NaN for a face without such a score.
        """
        scores = self.mean_of_eight_by_face
        if not np.all(np.isnan(scores)):
            return scores
        f1 = np.array([metrics.label_f1(counts, self.label_sets)[1:] for counts in self.confusion])
        scored = ~np.isnan(f1)
        total, count = np.sum(f1, axis=1, where=scored), scored.sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    @property
    def boundary_f(self) -> float:
        """Mean boundary F of the classes that have one; NaN if edges were not counted."""
        return _mean(self.boundary_f_by_class)

    @property
    def boundary_f_by_class(self) -> dict[str, float]:
        """Boundary F of each class but background; empty if edges were not counted."""
        if self.edges is None:
            return {}
        return self._by_class(boundaries.boundary_f(_sum(self.edges)))

    @property
    def stray_regions_per_face(self) -> float:
        """Mean number of stray regions of a face; NaN if they were not counted."""
        return math.nan if self.stray is None else float(np.mean(self.stray))

    @property
    def window_error_px(self) -> float:
        """Mean window error of all present parts, in frame pixels; NaN if there are none."""
        return self._mean_error(self.present)

    @property
    def window_error_px_by_part(self) -> dict[str, float]:
        """Mean window error of each part."""
        only = np.eye(self.anatomy.num_parts, dtype=bool)
        return {
            part.name: self._mean_error(self.present & only[i])
            for i, part in enumerate(self.anatomy.parts)
        }

    @property
    def window_error_px_occluded(self) -> float:
        """Mean window error of the occluded parts."""
        return self._mean_error(self.present & self.occluded)

    @property
    def window_error_px_visible(self) -> float:
        """Mean window error of the parts that were not occluded."""
        return self._mean_error(self.present & ~self.occluded)

    def as_json(self) -> dict[str, Any]:
        """Returns the scores for `json.dump`; a score that is NaN becomes None."""
        return _nan_to_none(
            {
                "images": self.images,
                "classes": self.anatomy.name,
                "f1": self.f1,
                "f1_by_class": self.f1_by_class,
                "faces_by_class": self.faces_by_class,
                "f1_by_union": self.f1_by_union,
                "boundary_f": self.boundary_f,
                "boundary_f_by_class": self.boundary_f_by_class,
                "stray_regions_per_face": self.stray_regions_per_face,
                "coarse_f1": self.coarse_f1,
                "window_error_px": self.window_error_px,
                "window_error_px_by_part": self.window_error_px_by_part,
                "faces_per_second": self.faces_per_second,
            }
        )

    def occlusion_as_json(self) -> dict[str, float | None]:
        """Returns the window errors of occluded and visible parts for `json.dump`."""
        return _nan_to_none(
            {"occluded": self.window_error_px_occluded, "visible": self.window_error_px_visible}
        )

    def _by_class(self, values: np.ndarray) -> dict[str, Any]:
        """Returns class name -> value without background, the first class."""
        names = self.anatomy.classes
        return dict(zip(names[1:], values[1 : len(names)].tolist(), strict=True))

    def _by_union(self, values: np.ndarray) -> dict[str, Any]:
        """Returns name -> value of the labels of several, but not of all, classes."""
        if self.label_sets is None:
            return {}
        count = _sum(self.confusion).sum(axis=1)
        names = self.label_sets.names(self.anatomy)
        labels = range(self.anatomy.num_classes, len(names))
        return {names[i]: values[i].item() for i in labels if count[i] and names[i] != IGNORE}

    def _mean_error(self, which: np.ndarray) -> float:
        return float(self.window_error[which].mean(dtype=np.float64)) if which.any() else math.nan


def score_table(reports: Mapping[str, Report]) -> str:
    """Returns the paper's table as text: F1 of each group of classes, and the window errors.

    Args:
        reports: Row name -> report on the same faces; the row of the coarse segmentation is that
            of the first report.

    Returns:
        Lines of aligned columns; a score that is NaN is a dash.
    """
    first = next(iter(reports.values()))
    # Global classes have a group of their own each; `class_table` lists them.
    single = {first.anatomy.classes[i] for i in first.anatomy.global_ids}
    groups = [name for name in first.f1 if name not in single]
    f1 = {"coarse segmentation": first.coarse_f1}
    f1 |= {name: report.f1 for name, report in reports.items()}
    titles = {metrics.MEAN_OF_EIGHT: metrics.part_mean_title(first.anatomy)}
    rows = [["F1", *(titles.get(group, _title(group)) for group in groups)]]
    rows += [
        [name, *(_number(scores[group], 3) for group in groups)] for name, scores in f1.items()
    ]
    windows = [["window error, px", *(_title(part.name) for part in first.anatomy.parts), "mean"]]
    for name, report in reports.items():
        errors = [*report.window_error_px_by_part.values(), report.window_error_px]
        windows.append([name, *(_number(error, 1) for error in errors)])
    return f"{_align(rows)}\n\n{_align(windows)}"


def class_table(reports: Mapping[str, Report]) -> str:
    """Returns F1, boundary F and the number of faces of each class as text.

    Args:
        reports: Row name -> report on the same faces.

    Returns:
        Lines of aligned columns, one for each class; a score that is NaN is a dash.
    """
    first = next(iter(reports.values()))
    with_edges = {name: report for name, report in reports.items() if report.edges is not None}
    columns = {f"F1, {name}": report.f1_by_class for name, report in reports.items()}
    columns |= {
        f"boundary F, {name}": report.boundary_f_by_class for name, report in with_edges.items()
    }
    rows = [["class", "faces", *columns]]
    for name, faces in first.faces_by_class.items():
        scores = (_number(column[name], 3) for column in columns.values())
        rows.append([_title(name), str(faces), *scores])
    for name, faces in first.faces_by_union.items():
        scores = (_number(report.f1_by_union[name], 3) for report in reports.values())
        rows.append([_title(name), str(faces), *scores, *["-"] * len(with_edges)])
    means = (_number(_mean(column), 3) for column in columns.values())
    rows.append(["mean", str(first.images), *means])
    stray = [
        f"stray regions per face, {name}: {_number(report.stray_regions_per_face, 1)}"
        for name, report in with_edges.items()
    ]
    return "\n".join([_align(rows), *([""] if stray else []), *stray])


def occlusion_table(reports: Mapping[str, Report]) -> str:
    """Returns the window errors of occluded and visible parts as text.

    Args:
        reports: Cropper -> report on faces with occluded parts.

    Returns:
        Lines of aligned columns, distances in frame pixels.
    """
    rows = [["window error, px", "occluded parts", "visible parts"]]
    for name, report in reports.items():
        errors = (report.window_error_px_occluded, report.window_error_px_visible)
        rows.append([name, *(_number(error, 1) for error in errors)])
    return _align(rows)


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of text as columns, the first aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )


def _sum(counts: np.ndarray) -> np.ndarray:
    """Returns counts summed over faces."""
    return counts.sum(axis=0, dtype=np.int64)


def _mean(scores: Mapping[str, float]) -> float:
    """Returns the mean of the scores that are not NaN; NaN if there are none."""
    values = [score for score in scores.values() if not math.isnan(score)]
    return float(np.mean(values)) if values else math.nan


def _title(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _nan_to_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _nan_to_none(value) for name, value in tree.items()}
    return None if isinstance(tree, float) and math.isnan(tree) else tree
