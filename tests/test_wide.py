"""The wide parse: what lies around a face's frame, and its transition to what lies inside."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import BROWS, random_variables, small_model

from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.data.framing import IGNORE, ExtendedSource
from jax_stn_icnn.faces import framing, resample
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.inference.programs import parse_frames
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.prepared import prepare
from jax_stn_icnn.models.wide import BORDER, blend
from jax_stn_icnn.ops.platform import use_platform

S = 64
WIDE = 48  # side of the small model's coarse image
FRAME = framing.frame_from_box(np.array([40.0, 30, 79, 69]), S)
SMALL_PHOTO = 100, 108  # its pixels lie in the wide frame


def noise(seed, height=SMALL_PHOTO[0], width=SMALL_PHOTO[1]):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height // 4, width // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)


def covered(matrix, side, photo):
    """Returns which pixels of a photo a frame covers, uint8 0 or 1."""
    ones = np.ones((side, side), np.uint8)
    return resample.sample_nearest(ones, resample.invert_matrix(matrix), photo.shape[:2])


@pytest.fixture(scope="module")
def parser():
    model = small_model(anatomy=BROWS, wide=True, cropper="centroid", coarse_size=WIDE)
    variables = random_variables(model, seed=2)
    return FaceParser(variables, model, S, exact_scores=True, quick_start=False)


@pytest.fixture(scope="module")
def result(parser):
    return parser(noise(0), boxes=[framing.box_from_frame(FRAME, S)])


class TestFrame:
    @pytest.mark.parametrize("degrees", [0, 90, 200])
    def test_it_is_twice_as_large_and_an_eighth_lower_towards_the_chin(self, degrees):
        radians = np.radians(degrees)
        down = np.array([-np.sin(radians), np.cos(radians)])
        right = np.array([down[1], -down[0]])
        eyes, mouth = np.array([100.0, 80]), np.array([100.0, 80]) + 25 * down
        points = np.stack([eyes - 15 * right, eyes + 15 * right, eyes + 12 * down, mouth, mouth])
        points[3:] += np.stack([-10 * right, 10 * right])
        frame = framing.frame_from_landmarks(points, S)
        wide = framing.wide_frame(frame, S, 48)
        side = S * np.hypot(*frame[:, 0])
        assert 48 * np.hypot(*wide[:, 0]) == pytest.approx(2 * side)
        center = resample.transform_points(frame, np.full(2, (S - 1) / 2))
        found = resample.transform_points(wide, np.full(2, 23.5))
        np.testing.assert_allclose(found, center + side / 8 * down, atol=1e-9)

    @pytest.mark.parametrize("extensions", [1, 2])
    def test_aligned_records_lie_in_it(self, extensions):
        image = noise(1, 64, 64)
        label = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64, 1) % 7
        record = ExtendedSource([{"image": image, "label": label, "name": "a"}], extensions)[0]
        side = 64 * 2**extensions
        assert record["image"].shape == (side, side, 3) and record["name"] == "a"
        matrix = framing.frame_from_photo((64, 64), 64)
        for n in range(extensions):
            matrix = framing.wide_frame(matrix, 64 * 2**n, 128 * 2**n)
        left, top = -matrix[:, 2].astype(int)
        inside = np.s_[top : top + 64, left : left + 64]
        np.testing.assert_array_equal(record["image"][inside], image)
        np.testing.assert_array_equal(record["label"][inside], label)
        assert (record["label"] == IGNORE).mean() == 1 - 0.25**extensions
        np.testing.assert_array_equal(record["image"][top - 1, left : left + 64], image[0])


class TestBlend:
    @pytest.mark.parametrize("size", [(32, 32), (64, 64)])
    @pytest.mark.parametrize("platform", ["cpu", "tpu"])
    def test_pixels_lie_where_the_frames_matrices_map_them(self, platform, size):
        # Linear interpolation of a plane is exact, so the result shows the coordinates.
        rows, columns = np.indices((48, 48), np.float32)
        wide = jnp.asarray(np.stack([columns, rows])[None])
        with use_platform(platform):
            found = blend(jnp.zeros((1, 2, *size)), wide, (S, S))[0]
        to_wide = resample.invert_matrix(framing.wide_frame(FRAME, S, 48))
        pixels = np.stack(np.meshgrid(*[np.linspace(0, S - 1, n) for n in size]), axis=-1)
        points = resample.transform_points(to_wide, resample.transform_points(FRAME, pixels))
        edge = np.zeros(size, bool)
        edge[[0, -1]] = edge[:, [0, -1]] = True
        for axis in (0, 1):
            np.testing.assert_allclose(found[axis][edge], points[edge][:, axis], atol=1e-4)

    def test_weights(self):
        ones, zeros = jnp.ones((1, 2, 101, 101)), jnp.zeros((1, 2, 40, 40))
        found = np.asarray(blend(ones, zeros, (S, S)))[0, 1]
        np.testing.assert_allclose(
            found[50, :51], np.clip(np.arange(51) / 100 / BORDER, 0, 1), atol=1e-6
        )
        np.testing.assert_array_equal(found, found[::-1].T)


@pytest.mark.slow
def test_a_tpu_parses_as_a_cpu_does(parser):
    frames = [
        np.random.default_rng(i).integers(0, 256, (2, side, side, 3), np.uint8)
        for i, side in enumerate((S, WIDE))
    ]
    expected = parse_frames(parser.model, parser.variables, *frames)
    with use_platform("tpu"):
        prepared = prepare(parser.model, parser.variables)
        found = [parse_frames(parser.model, each, *frames) for each in (prepared, parser.variables)]
    assert prepared["block_kernels"]
    for each in found:
        for name in ("scores", "wide_scores", "windows"):
            np.testing.assert_allclose(each[name], expected[name], rtol=1e-4, atol=1e-4)
        assert each["scores"].dtype == np.float32


@pytest.mark.slow
class TestResult:
    def test_outside_the_frame_labels_are_those_of_the_wide_frame(self, parser, result):
        (face,) = result.faces
        matrix = framing.wide_frame(FRAME, S, WIDE)
        wide = resample.warp(noise(0), matrix, (WIDE, WIDE))
        frame = resample.warp(noise(0), FRAME, (S, S))
        output = jax.jit(parser.model.apply)(parser.variables, frame[None], wide_frame=wide[None])
        probs = np.asarray(output.wide_probs[0])
        to_wide = resample.invert_matrix(matrix)
        size = result.labels.shape
        expected = np.stack([resample.warp(p, to_wide, size, 1.0 - i) for i, p in enumerate(probs)])
        inner = resample.warp(np.ones((S, S), np.float32), resample.invert_matrix(FRAME), size) > 0
        assert (~inner & (result.labels == 1)).sum() > 100
        ids = np.array(BROWS.global_ids)[expected.argmax(axis=0)]
        assert np.mean(result.labels[~inner] == ids[~inner]) > 0.999
        np.testing.assert_allclose(
            face.scores()[~inner][:, list(BROWS.global_ids)],
            np.moveaxis(expected, 0, -1)[~inner],
            atol=1e-3,
        )
        assert np.mean(face.scores().argmax(axis=-1) == result.labels) > 0.999

    def test_the_far_frame_continues_the_wide_frame(self, parser):
        photo = noise(5, 300, 300)
        frame = FRAME + [[0, 0, 90.0], [0, 0, 70.0]]
        (face,) = parser(photo, boxes=[framing.box_from_frame(frame, S)]).faces
        wide_matrix = framing.wide_frame(frame, S, WIDE)
        far_matrix = framing.wide_frame(wide_matrix, WIDE)
        inner, wide, far = (
            resample.warp(photo, matrix, (side, side))[None]
            for matrix, side in ((frame, S), (wide_matrix, WIDE), (far_matrix, WIDE))
        )
        output = jax.jit(parser.model.apply)(parser.variables, inner, wide_frame=wide)
        blended, far_probs = parser.model.apply(
            parser.variables, output.wide_probs, far / np.float32(255), method="extend"
        )
        found = face.scores()[..., BROWS.global_ids[1]]
        in_frame, in_wide, in_far = (covered(matrix, side, photo) for matrix, side in face.frames)
        for probs, matrix, inside in (
            (far_probs, far_matrix, in_far & (1 - cv2.dilate(in_wide, np.ones((11, 11))))),
            (blended, wide_matrix, in_wide & (1 - cv2.dilate(in_frame, np.ones((11, 11))))),
        ):
            to_frame = resample.invert_matrix(matrix)
            expected = resample.warp(np.asarray(probs)[0, 1], to_frame, photo.shape[:2])
            where = cv2.erode(inside, np.ones((11, 11))) == 1
            assert where.mean() > 0.05
            np.testing.assert_allclose(found[where], expected[where], atol=1e-3)
        assert [side for _, side in face.frames] == [S, WIDE, WIDE]

    @pytest.mark.parametrize("size", [SMALL_PHOTO, (300, 300)])
    def test_scores_have_no_step_at_the_edges_of_frames(self, parser, size):
        shift = 0 if size == SMALL_PHOTO else 80
        frame = FRAME + [[0, 0, shift], [0, 0, shift]]
        (face,) = parser(noise(0, *size), boxes=[framing.box_from_frame(frame, S)]).faces
        scores = face.scores()
        elsewhere = np.abs(np.diff(scores, axis=1))[..., BROWS.global_ids].max()
        assert len(face.frames) == 2 + (size != SMALL_PHOTO)
        for matrix, side in face.frames[: len(face.frames) - (size == SMALL_PHOTO)]:
            left, top = np.round(resample.transform_points(matrix, np.full(2, 0.2 * side)))
            left = round(float(resample.transform_points(matrix, np.zeros(2))[0]))
            if left < 2:
                continue
            rows = slice(int(top), int(top) + 20)
            across = np.abs(np.diff(scores[rows, left - 2 : left + 3], axis=1))[
                ..., BROWS.global_ids
            ]
            assert across.max() < 1.5 * elsewhere

    def test_without_the_wide_frame_everything_around_is_background(self, parser):
        square = FaceParser(parser.variables, parser.model, S, wide=False, quick_start=False)
        found = square(noise(0), boxes=[framing.box_from_frame(FRAME, S)])
        inner = resample.warp(
            np.ones((S, S), np.float32), resample.invert_matrix(FRAME), found.labels.shape
        )
        assert not found.labels[inner == 0].any() and found.labels.any()

    def test_a_stream_equals_single_calls(self, parser, result):
        def detector(photo):
            return [framing.box_from_frame(FRAME, S)]

        stream = FaceParser(parser.variables, parser.model, S, detector)
        first, second = stream.stream([noise(0), noise(2)], batch_size=2)
        assert np.mean(first.labels == result.labels) > 0.999
        assert np.mean(second.labels == stream(noise(2)).labels) > 0.999

    def test_faces_share_the_photo(self, parser):
        frames = [FRAME, FRAME + [[0, 0, 20.0], [0, 0, 15.0]]]
        boxes = [framing.box_from_frame(frame, S) for frame in frames]
        result = parser(noise(3), boxes=boxes)
        together = np.zeros_like(result.labels)
        for face in result.faces:
            assert not np.any((together > 0) & (face.labels > 0))
            together += face.labels
        np.testing.assert_array_equal(together, result.labels)
        assert all(face.labels.any() for face in result.faces)


@pytest.mark.parametrize("options", [{}, {"region": jnp.zeros((1, 2, 3))}])
def test_invalid_calls_are_errors(options):
    anatomy = BROWS if options else NINE
    model = small_model(anatomy=anatomy)
    with pytest.raises(ValueError, match="wide_frame is given, but needs frames without a region"):
        model.apply(
            random_variables(model),
            jnp.zeros((1, S, S, 3)),
            wide_frame=jnp.zeros((1, 128, 128, 3)),
            **options,
        )


def test_wide_weights_need_global_classes():
    with pytest.raises(ValueError, match="wide is True, but must be False: background is the only"):
        ModelConfig(wide=True)
