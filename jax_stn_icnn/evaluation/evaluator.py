"""Scores a model on a split: F1 of parse and rough mask, and how far off the windows are.

The device counts for every face by itself; the host keeps those counts, and `report` adds them up
once, in int64. So neither the batch size nor the number of processes can change a score.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.data.occlusion import occlude as cover_parts
from jax_stn_icnn.evaluation import draw, metrics
from jax_stn_icnn.evaluation.boundaries import edge_counts, stray_regions
from jax_stn_icnn.evaluation.report import Report
from jax_stn_icnn.geometry import invert_theta, theta_target, unit_to_pixel, windows_from_theta
from jax_stn_icnn.models.pipeline import STNiCNN, STNiCNNOutput

Variables = Mapping[str, Any]
Batch = Mapping[str, np.ndarray]


def evaluate(
    model: STNiCNN,
    variables: Variables,
    loader: Iterable[Batch],
    *,
    images: int | None = None,
    progress: bool = True,
    occlude: int = 0,
    seed: int = 0,
    true_centres: bool = False,
    edges: bool = False,
) -> Report:
    """Scores a model at the size of the frame.

    With several processes, each evaluates its share and all return the report of the whole; their
    loaders must give equally many batches of one size.

    Args:
        model: the parser; with the centroid cropper, a localizer's variables are left unused.
        variables: `{"params": ..., "batch_stats": ...}`.
        loader: one pass over a split, in batches of frame, labels, region, index and mask; examples
            outside the mask do not count.
        images: how many examples the loader holds, for the time left on the bar.
        progress: whether to show a bar on the terminal.
        occlude: how many parts of each face to cover before it is parsed. The truth stays that of
            the uncovered face.
        seed: of the choice of parts to cover; a record's choice depends on it and its index only.
        true_centres: cut the true windows instead of where the model puts them.
        edges: count edges and stray regions too, on the host.

    Returns:
        The report.

    Raises:
        ValueError: the loader gave no batch.
    """
    variables = jax.device_put(variables)
    rows: list[dict[str, np.ndarray]] = []
    ends = [time.perf_counter()]
    with tqdm(
        total=images, desc="evaluating", unit="face", disable=not progress, leave=False
    ) as bar:
        for batch in loader:
            found = _parse(model, variables, dict(batch), seed, occlude, true_centres)
            tally = _tally(found, batch["labels"], batch["region"], model.config.anatomy)
            row = {"index": batch["index"], "mask": batch["mask"], **jax.device_get(tally)}
            if edges:
                row |= _edge_rows(batch["labels"], np.asarray(found.labels), model.config.anatomy)
            rows.append(row)
            ends.append(time.perf_counter())
            bar.update(int(batch["mask"].sum()))
    if not rows:
        raise ValueError("the loader gave no batch: is the split empty?")
    # The first batch compiles, so it is left out of the clock where there are others.
    start = 1 if len(rows) > 1 else 0
    speed = sum(int(row["mask"].sum()) for row in rows[start:]) / (ends[-1] - ends[start])
    table = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    speed, table = _gather_processes(speed, table)
    order = np.argsort(table["index"], kind="stable")
    order = order[table.pop("mask")[order]]
    return Report(
        model.config.anatomy,
        **{name: column[order] for name, column in table.items()},
        faces_per_second=speed,
    )


def parse_faces(
    model: STNiCNN,
    variables: Variables,
    loader: Iterable[Batch],
    indices: Sequence[int],
    *,
    titles: Mapping[int, str] | None = None,
    occlude: int = 0,
    seed: int = 0,
    true_centres: bool = False,
) -> list[draw.FaceRow]:
    """Parses some faces of a split and keeps what `draw.parse_grid` shows of them.

    Args:
        model: the parser.
        variables: `{"params": ..., "batch_stats": ...}`.
        loader: one pass over the split, as for `evaluate`; read no further than needed.
        indices: which records, by their index in the split.
        titles: a title for each index; its number by default.
        occlude: as for `evaluate`.
        seed: as for `evaluate`.
        true_centres: as for `evaluate`.

    Returns:
        The faces, in the order of `indices`, padding around the picture cut off.

    Raises:
        ValueError: the split lacks an index.
    """
    variables = jax.device_put(variables)
    wanted: set[int] = set(indices)
    found: dict[int, draw.FaceRow] = {}
    for batch in loader:
        hits = [row for row in np.flatnonzero(batch["mask"]) if int(batch["index"][row]) in wanted]
        if hits:
            parsed = _parse(model, variables, dict(batch), seed, occlude, true_centres)
            seen = jax.device_get(_look(parsed, batch["labels"], batch["region"]))
        for row in hits:
            index = int(batch["index"][row])
            title = titles[index] if titles else f"face {index}"
            found[index] = _face(seen, int(row), title)
        if found.keys() == wanted:
            return [found[index] for index in indices]
    raise ValueError(f"the split has no records {sorted(wanted - found.keys())}")


class _Parsed(NamedTuple):
    """A batch as the model saw it, and what it found.

    Attributes:
        frame: floats (batch, size, size, 3).
        covered: which of its parts were covered, bool (batch, parts).
        coarse_labels: Class ids of the coarse segmentation, uint8 (batch, rows, columns).
        theta: the windows, (batch, parts, 2, 3).
        true_theta: those that the labels ask for, of the same shape.
        present: which parts the labels hold, bool (batch, parts).
        patches: for each part (batch, height, width, 3).
        labels: the parse, uint8 (batch, size, size).
    """

    frame: jax.Array
    covered: jax.Array
    coarse_labels: jax.Array
    theta: jax.Array
    true_theta: jax.Array
    present: jax.Array
    patches: tuple[jax.Array, ...]
    labels: jax.Array


# By itself, not within `_tally` and `_look`: the networks are compiled once for both.
@partial(jax.jit, static_argnames=("model", "occlude", "true_centres"))
def _parse(
    model: STNiCNN,
    variables: Variables,
    batch: Mapping[str, jax.Array],
    seed: int,
    occlude: int,
    true_centres: bool,
) -> _Parsed:
    """Runs the model on a batch."""
    truth, region = batch["labels"], batch["region"]
    frame = ops.to_float(batch["frame"])
    covered = jnp.zeros((frame.shape[0], model.config.anatomy.num_parts), bool)
    if occlude:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), batch["index"])
        frame, covered = cover_parts(keys, frame, truth, occlude, model.config.anatomy)
    true_theta, present = theta_target(truth, model.config.patch_sizes, model.config.anatomy)
    if true_centres:
        found = _with_windows(model, variables, frame, region, true_theta)
    else:
        found = model.apply(variables, frame, region)
    coarse_labels = jnp.argmax(found.coarse_probs, axis=-1).astype(jnp.uint8)
    return _Parsed(
        frame,
        covered,
        coarse_labels,
        found.theta,
        true_theta,
        present,
        found.patches,
        found.labels,
    )


def _with_windows(
    model: STNiCNN, variables: Variables, frame: jax.Array, region: jax.Array, theta: jax.Array
) -> STNiCNNOutput:
    """Returns the model's output for given windows."""
    apply: Callable[..., Any] = partial(model.apply, variables)  # one type whatever the method
    image = ops.coarse_image(frame, region, model.config.coarse_image_size)
    coarse = apply(image, method="coarse_stage")
    patches, logits = apply(frame, theta, coarse, region, method="fine_stage")
    scores = apply(logits, theta, coarse.global_logits, frame.shape[1:3], region, method="merge")
    probs = jax.nn.softmax(coarse.logits)
    return STNiCNNOutput(coarse.logits, coarse.global_logits, probs, theta, patches, logits, scores)


@partial(jax.jit, static_argnames="anatomy")
def _tally(
    parsed: _Parsed, truth: jax.Array, region: jax.Array, anatomy: Anatomy
) -> dict[str, jax.Array]:
    """A batch's rows of a `Report`."""
    # The same geometry as the coarse image's, backwards: zero, background, beyond the picture.
    rough = ops.crop_nearest(
        parsed.coarse_labels[..., None], invert_theta(region), truth.shape[1:]
    )[..., 0]
    window_yx, true_yx = (
        jnp.stack(
            [
                unit_to_pixel(theta[..., axis, 2], truth.shape[image_axis])
                for axis, image_axis in ((1, 1), (0, 2))
            ],
            axis=-1,
        )
        for theta in (parsed.theta, parsed.true_theta)
    )
    count = jax.vmap(
        lambda truth, found: metrics.confusion(
            truth[None], found[None], num_classes=anatomy.num_classes
        )
    )
    return {
        "confusion": count(truth, parsed.labels),
        "coarse_confusion": count(truth, rough),
        "window_error": jnp.linalg.norm(window_yx - true_yx, axis=-1),
        "present": parsed.present,
        "covered": parsed.covered,
    }


def _edge_rows(truth: np.ndarray, found: np.ndarray, anatomy: Anatomy) -> dict[str, np.ndarray]:
    """The rest of a batch's rows of a `Report`."""
    pairs = list(zip(np.asarray(truth), found, strict=True))
    return {
        "edges": np.stack([edge_counts(*pair, anatomy.num_classes) for pair in pairs]),
        "stray": np.array([stray_regions(*pair, anatomy.num_classes) for pair in pairs]),
    }


@jax.jit
def _look(parsed: _Parsed, truth: jax.Array, region: jax.Array) -> dict[str, Any]:
    """What `draw.FaceRow` shows of a batch, in frame pixels."""
    size = parsed.frame.shape[1:3]
    return {
        "image": _to_uint8(parsed.frame),
        "coarse_labels": parsed.coarse_labels,
        "windows": windows_from_theta(parsed.theta, size),
        "patches": tuple(map(_to_uint8, parsed.patches)),
        "labels": parsed.labels,
        "truth": truth,
        "picture": windows_from_theta(region, size),
    }


def _to_uint8(image: jax.Array) -> jax.Array:
    return jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8)


def _face(seen: Mapping[str, Any], row: int, title: str) -> draw.FaceRow:
    """One face of a batch, the padding around its picture cut off."""
    x0, y0, x1, y1 = np.round(seen["picture"][row]).astype(int)
    picture = np.s_[row, y0 : y1 + 1, x0 : x1 + 1]
    return draw.FaceRow(
        title=title,
        image=seen["image"][picture],
        coarse_labels=seen["coarse_labels"][row],
        windows=seen["windows"][row] - np.array([x0, y0, x0, y0]),
        patches=[patch[row] for patch in seen["patches"]],
        labels=seen["labels"][picture],
        truth=seen["truth"][picture],
    )


def _gather_processes(
    speed: float, table: dict[str, np.ndarray]
) -> tuple[float, dict[str, np.ndarray]]:
    """Joins what all processes counted; their speeds add up."""
    if jax.process_count() == 1:
        return speed, table
    speeds, tables = multihost_utils.process_allgather((np.float32(speed), table))
    return float(speeds.sum()), {name: np.concatenate(rows) for name, rows in tables.items()}
