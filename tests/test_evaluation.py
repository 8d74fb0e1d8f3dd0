import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import BROWS
from flax import linen as nn

from jax_stn_icnn.evaluation import boundaries, metrics
from jax_stn_icnn.evaluation.evaluator import evaluate, parse_faces
from jax_stn_icnn.evaluation.report import class_table, occlusion_table, score_table
from jax_stn_icnn.geometry import make_theta, part_centres, windows_from_theta
from jax_stn_icnn.label_sets import LabelSets
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.ops import resize_bilinear

SIZE, PATCH = 64, 17
NUM_CLASSES, NUM_PARTS = BROWS.num_classes, BROWS.num_parts
BROW_2 = BROWS.classes.index("brow_2")
IDENTITY = np.eye(2, 3, dtype=np.float32)
FACES = 5


class PixelNetwork(nn.Module):
    """Computes the logits of each pixel from its color."""

    num_labels: int

    @nn.compact
    def __call__(self, image, train):
        return 5 * nn.Dense(self.num_labels, kernel_init=nn.initializers.normal(1.0))(image)


class PixelLocalizer(nn.Module):
    """Predicts windows of the patch size at arbitrary positions."""

    @nn.compact
    def __call__(self, mask, train):
        centres = nn.Dense(2 * NUM_PARTS)(mask.mean(axis=1).reshape(len(mask), -1))
        x, y = jnp.split(nn.tanh(centres) / 2, 2, axis=1)
        return make_theta(jnp.full_like(x, 16 / 63), jnp.full_like(y, 16 / 63), x, y)


class PixelFine(nn.Module):
    @nn.compact
    def __call__(self, patches, train, contexts):
        return tuple(
            PixelNetwork(BROWS.networks[part.network])(patch, train)
            for part, patch in zip(BROWS.parts, patches, strict=True)
        )


class PixelParser(STNiCNN):
    """The real pipeline with networks that compile fast."""

    def setup(self):
        self.coarse, self.fine = PixelNetwork(NUM_CLASSES), PixelFine()
        if self.config.cropper != "centroid":
            self.localizer = PixelLocalizer()


def drawn_faces(count=FACES, seed=0):
    """Returns random frames and labels, squares of all classes; face 1 has no brow 2."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, NUM_CLASSES, (count, 8, 8))
    label_map = np.kron(coarse, np.ones((SIZE // 8, SIZE // 8))).astype(np.uint8)
    label_map[1][label_map[1] == BROW_2] = 0
    frame = rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    frame //= 4
    frame += (60 * label_map[..., None]) // 2
    return frame, label_map


def loader(frame, label_map, batch_size, region=IDENTITY):
    """Yields batches as `data.loader` does; noise outside the mask fills the last one."""
    rng = np.random.default_rng(99)
    for start in range(0, len(frame), batch_size):
        taken = np.arange(start, min(start + batch_size, len(frame)))
        missing = batch_size - len(taken)
        yield {
            "frame": np.concatenate(
                [frame[taken], rng.integers(0, 256, (missing, SIZE, SIZE, 3), np.uint8)]
            ),
            "labels": np.concatenate(
                [label_map[taken], rng.integers(0, NUM_CLASSES, (missing, SIZE, SIZE), np.uint8)]
            ),
            "region": np.broadcast_to(region, (batch_size, 2, 3)),
            "index": np.concatenate([taken, np.full(missing, -1)]).astype(np.int32),
            "mask": np.arange(batch_size) < len(taken),
        }


@pytest.fixture(scope="module")
def model():
    return PixelParser(ModelConfig(BROWS, cropper="small", patch_size=PATCH))


@pytest.fixture(scope="module")
def variables(model):
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))


@pytest.fixture(scope="module")
def report(model, variables):
    """The report on five faces in one batch."""
    return evaluate(model, variables, loader(*drawn_faces(), FACES), progress=False)


def confusion_by_loop(truth, prediction):
    counts = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    np.add.at(counts, (truth.ravel().astype(int), prediction.ravel().astype(int)), 1)
    return counts


def test_counts_equal_a_plain_loop(model, variables, report):
    frame, label_map = drawn_faces()
    assert report.images == FACES
    output = jax.jit(model.apply)(variables, frame)
    boxes = np.asarray(windows_from_theta(output.theta, (SIZE, SIZE)))
    centres = jax.device_get(part_centres(label_map, BROWS))
    nearest = np.round(np.arange(SIZE) / (SIZE - 1) * 127).astype(int)
    distances = []
    for i in range(FACES):
        np.testing.assert_array_equal(
            report.confusion[i], confusion_by_loop(label_map[i], np.asarray(output.labels[i]))
        )
        coarse = np.asarray(output.coarse_probs[i]).argmax(-1)[np.ix_(nearest, nearest)]
        np.testing.assert_array_equal(
            report.coarse_confusion[i], confusion_by_loop(label_map[i], coarse)
        )
        for box, (y, x), present in zip(boxes[i], centres.yx[i], centres.present[i], strict=True):
            if present:
                distances.append(math.hypot((box[0] + box[2]) / 2 - x, (box[1] + box[3]) / 2 - y))
    assert len(distances) == NUM_PARTS * FACES - 1
    assert report.window_error_px == pytest.approx(np.mean(distances), rel=1e-5)
    assert report.f1 == metrics.f1_scores(report.confusion.sum(0), BROWS)
    assert report.coarse_f1 == metrics.f1_scores(report.coarse_confusion.sum(0), BROWS)
    assert set(report.f1) == {"overall", "mean_of_eight", "mean"}


@pytest.mark.slow
def test_the_last_smaller_batch_counts(model, variables, report):
    """Batches of 2, 2 and 1 face give the report of one batch of 5; padding is not counted."""
    other = evaluate(model, variables, loader(*drawn_faces(), 2), progress=False)
    assert other.images == FACES
    np.testing.assert_array_equal(other.index, range(FACES))
    np.testing.assert_array_equal(other.confusion, report.confusion)
    np.testing.assert_array_equal(other.coarse_confusion, report.coarse_confusion)
    np.testing.assert_array_equal(other.present, report.present)
    np.testing.assert_allclose(other.window_error, report.window_error, atol=1e-3)


@pytest.mark.slow
def test_true_centres_crop_the_true_windows(model, variables, report):
    true = evaluate(model, variables, loader(*drawn_faces(), 5), progress=False, true_centres=True)
    assert report.window_error_px > 1
    assert true.window_error_px < 1e-4
    np.testing.assert_array_equal(true.coarse_confusion, report.coarse_confusion)
    assert (true.confusion != report.confusion).any()


def test_padding_around_the_picture_is_background(model, variables):
    """The coarse segmentation covers only the picture, 40 x 32 pixels of the frame."""
    y0, x0, height, width = 12, 16, 40, 32
    region = np.array(
        [
            [(width - 1) / 63, 0, (2 * x0 + width - 1) / 63 - 1],
            [0, (height - 1) / 63, (2 * y0 + height - 1) / 63 - 1],
        ],
        np.float32,
    )
    frame, label_map = drawn_faces(2)
    inside = np.zeros((SIZE, SIZE), bool)
    inside[y0 : y0 + height, x0 : x0 + width] = True
    frame[:, ~inside], label_map[:, ~inside] = 0, 0
    counts = evaluate(
        model, variables, loader(frame, label_map, 2, region), progress=False
    ).coarse_confusion[0]
    picture = np.s_[:1, y0 : y0 + height, x0 : x0 + width]
    image = resize_bilinear(frame[picture].astype(np.float32) / 255, (128, 128))
    coarse = model.apply(variables, image, method="coarse_stage").logits[0].argmax(-1)
    rows = np.round(np.arange(height) / (height - 1) * 127).astype(int)
    columns = np.round(np.arange(width) / (width - 1) * 127).astype(int)
    expected = np.zeros((SIZE, SIZE), int)
    expected[inside] = np.asarray(coarse)[np.ix_(rows, columns)].ravel()
    # Nearest sampling at half a pixel depends on rounding, so a few pixels may differ.
    assert np.abs(counts - confusion_by_loop(label_map[0], expected)).sum() <= 8
    (face,) = parse_faces(model, variables, loader(frame, label_map, 2, region), [0])
    np.testing.assert_array_equal(face.image, frame[picture][0])
    np.testing.assert_array_equal(face.truth, label_map[picture][0])


@pytest.mark.slow
def test_centroid_ignores_the_localizer(variables, report):
    """The centroid model receives variables that contain a localizer's."""
    centroid = PixelParser(ModelConfig(BROWS, cropper="centroid", patch_size=PATCH))
    other = evaluate(centroid, variables, loader(*drawn_faces(), 5), progress=False)
    np.testing.assert_array_equal(other.coarse_confusion, report.coarse_confusion)
    assert (other.window_error != report.window_error).any()


@pytest.mark.slow
def test_occluded_parts_have_their_own_window_error(model, variables, report):
    def occluded(seed):
        batches = loader(*drawn_faces(), 2)
        return evaluate(model, variables, batches, progress=False, occlude=1, seed=seed)

    one, same, other = occluded(0), occluded(0), occluded(1)
    np.testing.assert_array_equal(one.occluded.sum(axis=1), 1)
    assert (one.occluded <= one.present).all()
    np.testing.assert_array_equal(one.occluded, same.occluded)
    np.testing.assert_array_equal(one.window_error, same.window_error)
    assert (one.occluded != other.occluded).any()
    assert (one.coarse_confusion != report.coarse_confusion).any()
    present = one.present.sum()
    sums = one.window_error_px_occluded * FACES + one.window_error_px_visible * (present - FACES)
    assert one.window_error_px == pytest.approx(sums / present)
    assert math.isnan(report.window_error_px_occluded)
    assert "small" in occlusion_table({"small": one, "centroid": other})


def test_edges_and_stray_regions_are_counted_in_the_label_map(model, variables, report):
    frame, label_map = drawn_faces()
    assert math.isnan(report.boundary_f) and not report.boundary_f_by_class
    assert math.isnan(report.stray_regions_per_face)
    assert "boundary" not in class_table({"small": report})
    batches = loader(frame, label_map, 2)
    counted = evaluate(model, variables, batches, progress=False, edges=True)
    faces = parse_faces(model, variables, loader(frame, label_map, FACES), range(FACES))
    pairs = [(face.truth, face.labels) for face in faces]
    expected = boundaries.boundary_f(
        sum(boundaries.edge_counts(*pair, NUM_CLASSES) for pair in pairs)
    )[1:]
    by_class = counted.boundary_f_by_class
    np.testing.assert_allclose(list(by_class.values()), expected, rtol=1e-12)
    assert counted.boundary_f == pytest.approx(np.nanmean(expected))
    strays = [boundaries.stray_regions(*pair, NUM_CLASSES) for pair in pairs]
    assert counted.stray_regions_per_face == np.mean(strays) > 0
    text = class_table({"small": counted})
    assert f"stray regions per face, small: {np.mean(strays):.1f}" in text
    assert f"{by_class['brow_1']:.3f}" in text


def test_report_as_json_and_as_text(report):
    loaded = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert set(loaded) == {
        "images",
        "classes",
        "f1_by_class",
        "f1_by_union",
        "faces_by_class",
        "f1",
        "coarse_f1",
        "window_error_px",
        "window_error_px_by_part",
        "faces_per_second",
        "boundary_f",
        "boundary_f_by_class",
        "stray_regions_per_face",
    }
    assert loaded["images"] == FACES
    assert loaded["faces_per_second"] > 0
    text = score_table({"small": report})
    assert f"{report.f1['overall']:.3f}" in text
    assert f"  mean of {len(report.anatomy.part_class_ids)}" in text.splitlines()[0]
    for table in text.split("\n\n"):
        assert len({len(line) for line in table.splitlines()}) == 1  # columns are aligned
    assert text.startswith("F1 ") and "\ncoarse segmentation  " in text


def test_mean_of_eight_of_each_face(report):
    for counts, score in zip(report.confusion, report.mean_of_eight_by_face, strict=True):
        single = []
        for c in BROWS.part_class_ids:
            either = counts[c].sum() + counts[:, c].sum()
            single += [2 * counts[c, c] / either] if either else []
        assert score == pytest.approx(np.mean(single))


def test_the_score_of_a_face_is_that_of_its_parts_or_else_of_its_labels(report):
    np.testing.assert_array_equal(report.score_by_face, report.mean_of_eight_by_face)
    # Skin, and any other class; one face has no such label.
    sets = LabelSets(NUM_CLASSES, ((0, 2, 3), tuple(range(NUM_CLASSES))), absent=(0, 2, 3))
    counts = np.zeros((2, sets.num_labels, NUM_CLASSES), int)
    counts[0, 1, 1], counts[0, 1, 2], counts[0, 4, 3], counts[1, 5, 1] = 6, 4, 10, 10
    unions = dataclasses.replace(report, confusion=counts, label_sets=sets)
    assert np.all(np.isnan(unions.mean_of_eight_by_face))
    np.testing.assert_allclose(unions.score_by_face, [(12 / 16 + 20 / 24) / 2, np.nan])


def test_parse_faces_returns_the_order_of_the_indices(model, variables):
    frame, label_map = drawn_faces()
    faces = parse_faces(
        model, variables, loader(frame, label_map, 2), [4, 0], titles={4: "a", 0: "b"}
    )
    assert [face.title for face in faces] == ["a", "b"]
    np.testing.assert_array_equal(faces[0].image, frame[4])
    np.testing.assert_array_equal(faces[1].truth, label_map[0])
    assert np.shape(faces[0].patches) == (NUM_PARTS, PATCH, PATCH, 3)
    with pytest.raises(ValueError, match="17"):
        parse_faces(model, variables, loader(frame, label_map, 2), [17])


def test_empty_split(model, variables):
    with pytest.raises(ValueError, match="no batch"):
        evaluate(model, variables, [], progress=False)
