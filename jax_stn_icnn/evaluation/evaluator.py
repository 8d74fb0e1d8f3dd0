"""Evaluates a model on a split: F1 of label maps and coarse segmentations, window errors.

The devices count the pixels of each face; `Report` sums the counts of all faces on the host, in
int64. Scores therefore depend neither on the batch size nor on the number of processes.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.data.occlusion import occlude_parts
from jax_stn_icnn.evaluation import draw, metrics
from jax_stn_icnn.evaluation.boundaries import edge_counts, stray_regions
from jax_stn_icnn.evaluation.report import Report
from jax_stn_icnn.geometry import invert_theta, theta_target, unit_to_pixel, windows_from_theta
from jax_stn_icnn.label_sets import LabelSets
from jax_stn_icnn.models.image_by_image import map_images
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
    label_sets: LabelSets | None = None,
) -> Report:
    """Evaluates a model on the frames of a loader.

    With several processes, each evaluates its share, and all return the report on all faces; their
    loaders must return equally many batches of one size.

    Args:
        model: The model. One with the centroid cropper ignores the variables of a localizer.
        variables: `{"params": ..., "batch_stats": ...}`.
        loader: One pass over a split, in batches of frame, labels, region, index and mask; examples
            outside the mask are not counted.
        images: Number of examples of the loader, for the progress bar.
        progress: Whether to show a progress bar.
        occlude: Number of parts to occlude in each face before it is parsed. The labels are those
            of the face without occlusion.
        seed: Seed of the choice of occluded parts, which depends on it and the record's index only.
        true_centres: Whether to crop the windows of the labels instead of the predicted ones.
        edges: Whether to count edges and stray regions, on the host; not done if labels may have
            several classes, whose edges are unknown.
        label_sets: The classes of each label; None if labels are class ids.

    Returns:
        The report.

    Raises:
        ValueError: The loader returned no batch.
    """
    variables = jax.device_put(variables)
    tables: list[dict[str, np.ndarray]] = []
    ends = [time.perf_counter()]
    with tqdm(
        total=images, desc="evaluating", unit="face", disable=not progress, leave=False
    ) as bar:
        for batch in loader:
            prediction = _predict(model, variables, dict(batch), seed, occlude, true_centres)
            counts = _count(
                prediction, batch["labels"], batch["region"], model.config.anatomy, label_sets
            )
            table = {"index": batch["index"], "mask": batch["mask"], **jax.device_get(counts)}
            if edges and not (label_sets and label_sets.unions):
                labels = np.asarray(prediction.labels)
                table |= _count_edges(batch["labels"], labels, model.config.anatomy)
            tables.append(table)
            ends.append(time.perf_counter())
            bar.update(int(batch["mask"].sum()))
    if not tables:
        raise ValueError("the loader returned no batch: the split is empty")
    table = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]}
    faces_per_second, table = _gather_processes(_faces_per_second(tables, ends), table)
    order = np.argsort(table["index"], kind="stable")
    order = order[table.pop("mask")[order]]
    columns = {name: column[order] for name, column in table.items()}
    return Report(
        model.config.anatomy, **columns, faces_per_second=faces_per_second, label_sets=label_sets
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
    """Parses some faces of a split and returns them with the intermediates for `draw.parse_grid`.

    Args:
        model: The model.
        variables: `{"params": ..., "batch_stats": ...}`.
        loader: One pass over the split, as for `evaluate`; iterated no further than necessary.
        indices: Indices of the records in the split.
        titles: A title for each index; by default the index.
        occlude: As for `evaluate`.
        seed: As for `evaluate`.
        true_centres: As for `evaluate`.

    Returns:
        The faces in the order of `indices`, without the padding around the picture.

    Raises:
        ValueError: The split has no record of an index.
    """
    variables = jax.device_put(variables)
    missing = set(indices)
    faces: dict[int, draw.FaceRow] = {}
    for batch in loader:
        rows = [r for r in np.flatnonzero(batch["mask"]) if int(batch["index"][r]) in missing]
        if rows:
            prediction = _predict(model, variables, dict(batch), seed, occlude, true_centres)
            arrays = jax.device_get(_drawn_arrays(prediction, batch["labels"], batch["region"]))
        for row in rows:
            index = int(batch["index"][row])
            title = titles[index] if titles else f"face {index}"
            faces[index] = _drawn_face(arrays, int(row), title)
            missing.remove(index)
        if not missing:
            return [faces[index] for index in indices]
    raise ValueError(f"the split has no records {sorted(missing)}")


class _Prediction(NamedTuple):
    """The model's input and output for a batch, and the true windows.

    Attributes:
        frame: Floats in 0..1, (batch, size, size, 3), with occlusion.
        occluded: Which parts are occluded, bool (batch, parts).
        coarse_labels: Class ids of the coarse segmentation, uint8 (batch, rows, columns).
        theta: The windows, (batch, parts, 2, 3).
        true_theta: The windows of the labels, (batch, parts, 2, 3).
        present: Which parts the labels contain, bool (batch, parts).
        patches: For each part (batch, height, width, 3).
        labels: The label map, class ids, uint8 (batch, size, size).
    """

    frame: jax.Array
    occluded: jax.Array
    coarse_labels: jax.Array
    theta: jax.Array
    true_theta: jax.Array
    present: jax.Array
    patches: tuple[jax.Array, ...]
    labels: jax.Array


# A program of its own, so that `evaluate` and `parse_faces` compile the networks once.
@partial(jax.jit, static_argnames=("model", "occlude", "true_centres"))
def _predict(
    model: STNiCNN,
    variables: Variables,
    batch: Mapping[str, jax.Array],
    seed: int,
    occlude: int,
    true_centres: bool,
) -> _Prediction:
    """Returns the model's predictions for a batch."""
    config, region = model.config, batch["region"]
    # A label of several classes has no place of its own; background has no window.
    truth = batch["labels"]
    truth = jnp.where(truth < config.anatomy.num_classes, truth, 0)
    frame = ops.to_float(batch["frame"])
    occluded = jnp.zeros((frame.shape[0], config.anatomy.num_parts), bool)
    if occlude:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), batch["index"])
        frame, occluded = occlude_parts(keys, frame, truth, occlude, config.anatomy)
    true_theta, present = theta_target(truth, config.patch_sizes, config.anatomy)

    def parse(*images: jax.Array) -> tuple[Any, ...]:
        method = _parse_windows if true_centres else None
        output: Any = model.apply(variables, *images, method=method)
        coarse_labels = jnp.argmax(output.coarse_probs, axis=-1).astype(jnp.uint8)
        return coarse_labels, output.theta, output.patches, output.labels

    images = (frame, region, true_theta) if true_centres else (frame, region)
    coarse_labels, theta, patches, labels = map_images(parse, *images)
    return _Prediction(frame, occluded, coarse_labels, theta, true_theta, present, patches, labels)


def _parse_windows(
    model: STNiCNN, frame: jax.Array, region: jax.Array, theta: jax.Array
) -> STNiCNNOutput:
    """Returns the model's output for given windows, without its localizer."""
    coarse = model.coarse_stage(ops.coarse_image(frame, region, model.config.coarse_image_size))
    patches, fine_logits = model.fine_stage(frame, theta, coarse, region)
    scores = model.merge(fine_logits, theta, coarse.global_logits, frame.shape[1:3], region)
    coarse_probs = jax.nn.softmax(coarse.logits)
    return STNiCNNOutput(
        coarse.logits, coarse.global_logits, coarse_probs, theta, patches, fine_logits, scores
    )


@partial(jax.jit, static_argnames=("anatomy", "label_sets"))
def _count(
    prediction: _Prediction,
    truth: jax.Array,
    region: jax.Array,
    anatomy: Anatomy,
    label_sets: LabelSets | None,
) -> dict[str, jax.Array]:
    """Returns the columns of a `Report` for a batch, without those of `_count_edges`."""
    # The inverse of the coarse image's crop; outside the picture it samples 0, background.
    coarse_labels = ops.crop_nearest(
        prediction.coarse_labels[..., None], invert_theta(region), truth.shape[1:]
    )[..., 0]
    centers, true_centers = (
        unit_to_pixel(theta[..., 2], truth.shape[1])  # Frames are square.
        for theta in (prediction.theta, prediction.true_theta)
    )
    sizes = anatomy.num_classes, label_sets.num_labels if label_sets else None
    confusion = jax.vmap(lambda truth, labels: metrics.confusion(truth[None], labels[None], *sizes))
    return {
        "confusion": confusion(truth, prediction.labels),
        "coarse_confusion": confusion(truth, coarse_labels),
        "window_error": jnp.linalg.norm(centers - true_centers, axis=-1),
        "present": prediction.present,
        "occluded": prediction.occluded,
    }


def _count_edges(truth: np.ndarray, labels: np.ndarray, anatomy: Anatomy) -> dict[str, np.ndarray]:
    """Returns the columns `edges` and `stray` of a `Report` for a batch."""
    pairs = list(zip(np.asarray(truth), labels, strict=True))
    return {
        "edges": np.stack([edge_counts(*pair, anatomy.num_classes) for pair in pairs]),
        "stray": np.array([stray_regions(*pair, anatomy.num_classes) for pair in pairs]),
    }


def _faces_per_second(tables: Sequence[Mapping[str, np.ndarray]], ends: Sequence[float]) -> float:
    """Returns the speed; the first batch, which compiles, is excluded unless it is the only one."""
    first = 1 if len(tables) > 1 else 0
    return sum(int(table["mask"].sum()) for table in tables[first:]) / (ends[-1] - ends[first])


def _gather_processes(
    faces_per_second: float, table: dict[str, np.ndarray]
) -> tuple[float, dict[str, np.ndarray]]:
    """Returns the sum of the speeds of all processes, and their tables concatenated."""
    if jax.process_count() == 1:
        return faces_per_second, table
    speeds, tables = multihost_utils.process_allgather((np.float32(faces_per_second), table))
    return float(speeds.sum()), {name: np.concatenate(rows) for name, rows in tables.items()}


@jax.jit
def _drawn_arrays(
    prediction: _Prediction, truth: jax.Array, region: jax.Array
) -> dict[str, jax.Array | tuple[jax.Array, ...]]:
    """Returns the arrays of `draw.FaceRow` for a batch, in frame pixels, and the picture's box."""
    size = prediction.frame.shape[1:3]
    return {
        "image": _to_uint8(prediction.frame),
        "coarse_labels": prediction.coarse_labels,
        "windows": windows_from_theta(prediction.theta, size),
        "patches": tuple(map(_to_uint8, prediction.patches)),
        "labels": prediction.labels,
        "truth": truth,
        "picture": windows_from_theta(region, size),
    }


def _drawn_face(arrays: Mapping[str, Any], row: int, title: str) -> draw.FaceRow:
    """Returns one face of a batch without the padding around its picture."""
    x0, y0, x1, y1 = np.round(arrays["picture"][row]).astype(int)
    picture = np.s_[row, y0 : y1 + 1, x0 : x1 + 1]
    return draw.FaceRow(
        title=title,
        image=arrays["image"][picture],
        coarse_labels=arrays["coarse_labels"][row],
        windows=arrays["windows"][row] - np.array([x0, y0, x0, y0]),
        patches=[patch[row] for patch in arrays["patches"]],
        labels=arrays["labels"][picture],
        truth=arrays["truth"][picture],
    )


def _to_uint8(image: jax.Array) -> jax.Array:
    return jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.uint8)
