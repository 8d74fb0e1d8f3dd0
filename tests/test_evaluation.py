import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL
from flax import linen as nn

from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.evaluation import boundaries, evaluator, metrics
from jax_stn_icnn.evaluation.evaluator import evaluate, parse_faces
from jax_stn_icnn.evaluation.report import align, class_table, occlusion_table, score_table
from jax_stn_icnn.geometry import make_theta, part_centres, theta_target, windows_from_theta
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.ops import resize_bilinear

SIZE, PATCH = 64, (17, 17)
IDENTITY = np.eye(2, 3, dtype=np.float32)
FACES = 5


class PixelNetwork(nn.Module):
    """Scores every pixel by its colour alone."""

    num_labels: int

    @nn.compact
    def __call__(self, image, train):
        return 5 * nn.Dense(self.num_labels, kernel_init=nn.initializers.normal(1.0))(image)


class PixelLocalizer(nn.Module):
    """Windows of the patch's size somewhere in the frame."""

    @nn.compact
    def __call__(self, mask, train):
        centre = nn.tanh(nn.Dense(12)(mask.mean(axis=1).reshape(len(mask), -1))) / 2
        x, y = centre[:, :6], centre[:, 6:]
        return make_theta(jnp.full_like(x, 16 / 63), jnp.full_like(y, 16 / 63), x, y)


class PixelFine(nn.Module):
    @nn.compact
    def __call__(self, patches, train):
        return tuple(
            PixelNetwork(NINE.networks[part.network])(patches[:, i], train)
            for i, part in enumerate(NINE.parts)
        )


class PixelParser(STNiCNN):
    """The pipeline itself with networks that compile in no time."""

    def setup(self):
        self.coarse, self.fine = PixelNetwork(NINE.num_classes), PixelFine()
        if self.cropper != "centroid":
            self.localizer = PixelLocalizer()


def drawn_faces(count=FACES, seed=0):
    """Random frames whose labels are blobs of the nine classes; face 1 lacks its nose."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, NINE.num_classes, (count, 8, 8))
    label_map = np.kron(coarse, np.ones((SIZE // 8, SIZE // 8))).astype(np.uint8)
    label_map[1][label_map[1] == 5] = 0
    frame = rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    frame //= 4
    frame += np.array(NINE.colours, np.uint8)[label_map] // 2
    return frame, label_map


def loader(frame, label_map, batch_size, region=IDENTITY):
    """Batches of the agreed form; the last one is filled up with noise and masked."""
    rng = np.random.default_rng(99)
    for start in range(0, len(frame), batch_size):
        taken = np.arange(start, min(start + batch_size, len(frame)))
        missing = batch_size - len(taken)
        yield {
            "frame": np.concatenate(
                [frame[taken], rng.integers(0, 256, (missing, SIZE, SIZE, 3), np.uint8)]
            ),
            "labels": np.concatenate(
                [label_map[taken], rng.integers(0, 9, (missing, SIZE, SIZE), np.uint8)]
            ),
            "region": np.broadcast_to(region, (batch_size, 2, 3)),
            "index": np.concatenate([taken, np.full(missing, -1)]).astype(np.int32),
            "mask": np.arange(batch_size) < len(taken),
        }


@pytest.fixture(scope="module")
def model():
    return PixelParser(PATCH, "small")


@pytest.fixture(scope="module")
def variables(model):
    shapes = jnp.zeros((1, 128, 128, 3)), jnp.zeros((1, SIZE, SIZE, 3))
    return jax.jit(model.init)(jax.random.key(0), *shapes)


@pytest.fixture(scope="module")
def report(model, variables):
    return evaluate(model, variables, loader(*drawn_faces(), 5), progress=False)


def count_by_hand(truth, found):
    counts = np.zeros((9, 9), np.int64)
    np.add.at(counts, (truth.ravel().astype(int), found.ravel().astype(int)), 1)
    return counts


def test_counts_equal_a_plain_loop(model, variables, report):
    frame, label_map = drawn_faces()
    assert report.images == FACES
    image = frame.astype(np.float32) / 255
    parse = jax.jit(model.apply)(variables, resize_bilinear(image, (128, 128)), image)
    boxes = np.asarray(windows_from_theta(parse.theta, (SIZE, SIZE)))
    centres = jax.device_get(part_centres(label_map))
    nearest = np.round(np.arange(SIZE) / (SIZE - 1) * 127).astype(int)
    distances = []
    for i in range(FACES):
        np.testing.assert_array_equal(
            report.confusion[i], count_by_hand(label_map[i], np.asarray(parse.labels[i]))
        )
        rough = np.asarray(parse.mask[i]).argmax(-1)[np.ix_(nearest, nearest)]
        np.testing.assert_array_equal(
            report.coarse_confusion[i], count_by_hand(label_map[i], rough)
        )
        for box, (y, x), there in zip(boxes[i], centres.yx[i], centres.present[i], strict=True):
            if there:
                distances.append(math.hypot((box[0] + box[2]) / 2 - x, (box[1] + box[3]) / 2 - y))
    assert len(distances) == 6 * FACES - 1
    assert report.window_error_px == pytest.approx(np.mean(distances), rel=1e-5)
    assert report.f1 == metrics.f1_scores(report.confusion.sum(0))
    assert report.coarse_f1 == metrics.f1_scores(report.coarse_confusion.sum(0))
    assert set(report.f1) == {*NINE.group_ids, "overall", "mean_of_eight"}


def test_batches_and_their_padding_do_not_matter(model, variables, report):
    other = evaluate(model, variables, loader(*drawn_faces(), 2), progress=False)
    np.testing.assert_array_equal(other.index, report.index)
    np.testing.assert_array_equal(other.confusion, report.confusion)
    np.testing.assert_array_equal(other.coarse_confusion, report.coarse_confusion)
    np.testing.assert_array_equal(other.present, report.present)
    np.testing.assert_allclose(other.window_error, report.window_error, atol=1e-3)


def test_true_centres_put_the_windows_on_the_parts(model, variables, report):
    true = evaluate(model, variables, loader(*drawn_faces(), 5), progress=False, true_centres=True)
    assert report.window_error_px > 1
    assert true.window_error_px < 1e-4
    np.testing.assert_array_equal(true.coarse_confusion, report.coarse_confusion)
    assert (true.confusion != report.confusion).any()


@pytest.mark.slow
def test_true_windows_that_follow_their_parts(model, variables):
    frame, label_map = drawn_faces()
    given = model.clone(following=True), variables
    true = evaluate(*given, loader(frame, label_map, 5), progress=False, true_centres=True)
    # As large as the parts, and their distance is to the boxes' middles, not the mean pixels.
    assert true.window_error_px < 1e-4
    (face,) = parse_faces(*given, loader(frame, label_map, 5), [0], true_centres=True)
    theta, _ = theta_target(label_map[:1], PATCH, following=True)
    windows = windows_from_theta(theta, (SIZE, SIZE))
    np.testing.assert_allclose(face.windows, windows[0], atol=1e-4)


def test_padding_around_the_picture_is_background(model, variables):
    """A picture of 40 x 32 in the frame: the rough mask is laid over it alone."""
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
    found = evaluate(
        model, variables, loader(frame, label_map, 2, region), progress=False
    ).coarse_confusion[0]
    picture = np.s_[:1, y0 : y0 + height, x0 : x0 + width]
    image = resize_bilinear(frame[picture].astype(np.float32) / 255, (128, 128))
    rough = np.asarray(model.apply(variables, image, method="coarse_stage")[0][0]).argmax(-1)
    rows = np.round(np.arange(height) / (height - 1) * 127).astype(int)
    columns = np.round(np.arange(width) / (width - 1) * 127).astype(int)
    wanted = np.zeros((SIZE, SIZE), int)
    wanted[inside] = rough[np.ix_(rows, columns)].ravel()
    # Sampling lies within rounding of a few halves, so a handful of pixels may differ.
    assert np.abs(found - count_by_hand(label_map[0], wanted)).sum() <= 8
    (face,) = parse_faces(model, variables, loader(frame, label_map, 2, region), [0])
    np.testing.assert_array_equal(face.image, frame[picture][0])
    np.testing.assert_array_equal(face.truth, label_map[picture][0])


def test_centroid_ignores_the_localizer(variables, report):
    centroid = PixelParser(PATCH, "centroid")
    other = evaluate(centroid, variables, loader(*drawn_faces(), 5), progress=False)
    np.testing.assert_array_equal(other.coarse_confusion, report.coarse_confusion)
    assert (other.window_error != report.window_error).any()


@pytest.mark.parametrize("cropper", ["small", "centroid"])
def test_takes_the_variables_of_the_real_model(cropper):
    """Traced, not compiled; the centroid model gets variables with a localizer."""
    shapes = jnp.zeros((1, 128, 128, 3)), jnp.zeros((1, SIZE, SIZE, 3))
    variables = jax.eval_shape(
        STNiCNN(PATCH, "small", **SMALL).init,
        jax.random.key(0),
        *shapes,
    )
    (batch,) = loader(*drawn_faces(2), 2)
    model = STNiCNN(PATCH, cropper, **SMALL)
    parsed = jax.eval_shape(
        lambda variables: evaluator._parse(model, variables, batch, 0, 1, False), variables
    )
    tally = jax.eval_shape(
        lambda *given: evaluator._tally(*given, NINE), parsed, batch["labels"], batch["region"]
    )
    assert tally["confusion"].shape == (2, 9, 9)


def test_occlusion_is_scored_apart_and_deterministic(model, variables, report):
    def occluded(seed):
        batches = loader(*drawn_faces(), 2)
        return evaluate(model, variables, batches, progress=False, occlude=2, seed=seed)

    one, same, other = occluded(0), occluded(0), occluded(1)
    np.testing.assert_array_equal(one.covered.sum(axis=1), 2)
    assert (one.covered <= one.present).all()
    np.testing.assert_array_equal(one.covered, same.covered)
    np.testing.assert_array_equal(one.window_error, same.window_error)
    assert (one.covered != other.covered).any()
    assert (one.coarse_confusion != report.coarse_confusion).any()
    covered, uncovered = one.window_error_px_covered, one.window_error_px_uncovered
    weighted = (covered * 10 + uncovered * (one.present.sum() - 10)) / one.present.sum()
    assert one.window_error_px == pytest.approx(weighted)
    assert math.isnan(report.window_error_px_covered)
    assert "small" in occlusion_table({"small": one, "centroid": other})


def test_edges_are_those_of_the_parse(model, variables, report):
    frame, label_map = drawn_faces()
    assert not report.boundary_f and math.isnan(report.stray_regions_per_face)
    assert "boundary" not in class_table({"small": report})
    batches = loader(frame, label_map, 3)  # the last one is filled up
    counted = evaluate(model, variables, batches, progress=False, edges=True)
    parses = [face.parse for face in parse_faces(model, variables, loader(frame, label_map, 5),
                                                 range(FACES))]  # fmt: skip
    expected = sum(boundaries.edge_counts(*pair, 9) for pair in zip(label_map, parses, strict=True))
    np.testing.assert_allclose(
        list(counted.boundary_f.values()), boundaries.boundary_f(expected)[1:], rtol=1e-12
    )
    strays = [boundaries.stray_regions(*pair, 9) for pair in zip(label_map, parses, strict=True)]
    assert counted.stray_regions_per_face == np.mean(strays) > 0
    text = class_table({"small": counted})
    assert f"stray regions a face, small: {np.mean(strays):.1f}" in text
    assert f"{counted.boundary_f['nose']:.3f}" in text


def test_report_as_json_and_as_text(report):
    loaded = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert set(loaded) == {
        "images",
        "classes",
        "f1_by_class",
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
    assert len({len(line) for line in text.split("\n\n")[0].splitlines()}) == 1


def test_each_face_has_its_own_score(report):
    for counts, score in zip(report.confusion, report.mean_of_eight_by_face, strict=True):
        single = []
        for c in range(1, 9):
            either = counts[c].sum() + counts[:, c].sum()
            single += [2 * counts[c, c] / either] if either else []
        assert score == pytest.approx(np.mean(single))


def test_parse_faces_keeps_the_order_asked_for(model, variables):
    frame, label_map = drawn_faces()
    faces = parse_faces(
        model, variables, loader(frame, label_map, 2), [4, 0], titles={4: "a", 0: "b"}
    )
    assert [face.title for face in faces] == ["a", "b"]
    np.testing.assert_array_equal(faces[0].image, frame[4])
    np.testing.assert_array_equal(faces[1].truth, label_map[0])
    assert np.shape(faces[0].patches) == (6, *PATCH, 3)
    with pytest.raises(ValueError, match="17"):
        parse_faces(model, variables, loader(frame, label_map, 2), [17])


def test_empty_split(model, variables):
    with pytest.raises(ValueError, match="no batch"):
        evaluate(model, variables, [], progress=False)


def test_align():
    assert align([["a", "long"], ["bc", "1"]]) == "a   long\nbc     1"
