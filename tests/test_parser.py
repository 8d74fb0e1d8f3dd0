"""The parser from photo to labels. Its networks have random weights, so most photos are noise."""

import hashlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import jax_stn_icnn
from jax_stn_icnn import anatomy
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.faces import detectors, framing
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.inference.programs import ModelProgram
from jax_stn_icnn.io import weights
from jax_stn_icnn.photos.reading import PhotoError
from tfds_builders.synthetic_faces.face import draw_face

S = 64  # the frame's side in `small_parser`


def face_photo(seed, factor=1):
    """Returns noise in blocks of 4 pixels, of side S, enlarged by repeating pixels."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (S // 4, S // 4, 3), np.uint8)
    return image.repeat(4 * factor, axis=0).repeat(4 * factor, axis=1)


def windows(result):
    return np.array([result.windows[part.name] for part in NINE.parts])


def box_of(left, top, factor):
    """Returns the box of the face whose frame is the square of side S * factor at (left, top)."""
    matrix = framing.frame_from_photo((S * factor, S * factor), S)
    return framing.box_from_frame(matrix + [[0, 0, left], [0, 0, top]], S)


def assert_same(found, expected):
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.image, expected.image)
    assert [face.box for face in found.faces] == [face.box for face in expected.faces]
    for face, other in zip(found.faces, expected.faces, strict=True):
        assert face.found == other.found
        # A program of another batch size rounds differently on some processors.
        np.testing.assert_allclose(windows(face), windows(other), rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def single(small_parser):
    return small_parser(face_photo(0), detect=False)


class TestOneFace:
    def test_equals_the_model_itself(self, small_parser, single):
        inputs = small_parser.variables, face_photo(0)[None]
        # Without optimizations the program compiles in half the time.
        plain = {"xla_backend_optimization_level": 0}
        model = jax.jit(small_parser.model.apply).lower(*inputs).compile(compiler_options=plain)
        expected = model(*inputs)
        assert np.mean(single.labels == expected.labels[0]) > 0.999
        assert len(np.unique(single.labels)) > 3  # so that the comparison means something
        (face,) = single.faces
        shares = expected.scores[0] / expected.scores[0].sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(face.scores(), shares, atol=1e-4)
        assert np.mean(face.coarse_labels == np.argmax(expected.coarse_probs[0], axis=-1)) > 0.999
        unit = np.asarray(expected.theta[0], np.float64)
        middle = (unit[:, :, 2] + 1) / 2 * (S - 1)
        # Random networks may predict a mirrored window; its box is the same.
        half = np.abs(np.stack([unit[:, 0, 0], unit[:, 1, 1]], axis=1)) * (S - 1) / 2
        corners = np.concatenate([middle - half, middle + half], axis=1)
        np.testing.assert_allclose(windows(face), corners, atol=1e-3)
        present = set(np.unique(single.labels))
        assert face.found == tuple(p.name for p in NINE.parts if present & set(NINE.ids(p.classes)))

    @pytest.mark.parametrize("factor", [2, 3, 10])
    def test_windows_and_labels_scale_with_the_photo(self, small_parser, single, factor):
        result = small_parser(face_photo(0, factor), detect=False)
        (small,), (large,) = single.faces, result.faces
        # Coordinates are pixel centers; the edges, half a pixel further out, scale.
        np.testing.assert_allclose(
            windows(large) + 0.5, (windows(small) + 0.5) * factor, rtol=0, atol=1e-3
        )
        assert result.labels.shape == (S * factor, S * factor)
        if factor % 2:
            middles = result.labels[factor // 2 :: factor, factor // 2 :: factor]
            np.testing.assert_array_equal(middles, single.labels)

    def test_scores_and_labels_of_a_face_agree(self, small_parser):
        photo = np.pad(face_photo(1, 3), [(40, 9), (0, 70), (0, 0)])
        result = small_parser(photo, boxes=[box_of(0, 40, 3)])
        (face,) = result.faces
        scores = face.scores()
        assert scores.shape == (*photo.shape[:2], 9) and scores.dtype == np.float32
        np.testing.assert_array_equal(np.argmax(scores, axis=-1), face.labels)
        assert np.all(scores[:39, :, 0] == 1) and not face.labels[:39].any()

    @pytest.mark.parametrize("size", [(S, S), (S, S // 2), (S // 2 + 1, S)])
    def test_scores_and_labels_agree_without_resampling(self, small_parser, size):
        result = small_parser(face_photo(2)[: size[0], : size[1]], detect=False)
        np.testing.assert_array_equal(np.argmax(result.faces[0].scores(), axis=-1), result.labels)

    @pytest.mark.parametrize("size", [(S, S // 2), (S // 2 + 1, S), (3 * S, 2 * S)])
    def test_a_photo_that_is_not_square_is_padded(self, small_parser, size):
        photo = face_photo(2, 3)[: size[0], : size[1]]
        side = max(size)
        top, left = (side - size[0]) // 2, (side - size[1]) // 2
        square = np.zeros((side, side, 3), np.uint8)
        square[top : top + size[0], left : left + size[1]] = photo
        found, expected = (small_parser(image, detect=False) for image in (photo, square))
        inside = expected.labels[top : top + size[0], left : left + size[1]]
        np.testing.assert_array_equal(found.labels, inside)
        shift = np.array([left, top, left, top])
        moved = windows(found.faces[0]) + shift
        np.testing.assert_allclose(moved, windows(expected.faces[0]), atol=1e-3)

    def test_overlay(self, single):
        expected = draw.overlay(face_photo(0), single.labels, NINE, 0.3)
        np.testing.assert_array_equal(single.overlay(alpha=0.3), expected)


class TestSeveralFaces:
    PLACES = [(10, 20, 1), (100, 5, 3), (300, 140, 2)]

    def test_each_face_is_parsed_at_its_place(self, small_parser):
        canvas = np.zeros((300, 460, 3), np.uint8)
        singles = []
        for seed, (left, top, factor) in enumerate(self.PLACES):
            image = face_photo(seed, factor)
            canvas[top : top + len(image), left : left + len(image)] = image
            singles.append(small_parser(image, detect=False))
        result = small_parser(canvas, boxes=[box_of(*place) for place in self.PLACES])
        expected = np.zeros(canvas.shape[:2], np.uint8)
        for (left, top, _), alone, face in zip(self.PLACES, singles, result.faces, strict=True):
            height, width = alone.labels.shape
            expected[top : top + height, left : left + width] = alone.labels
            shift = np.array([left, top, left, top])
            np.testing.assert_allclose(windows(face), windows(alone.faces[0]) + shift, atol=1e-3)
            assert face.found == alone.faces[0].found
            assert not face.labels[:top].any() and not face.labels[:, :left].any()
        assert np.mean(result.labels == expected) > 0.9999
        np.testing.assert_allclose(
            [face.box for face in result.faces], [box_of(*place) for place in self.PLACES]
        )

    def test_the_nearest_face_counts_in_units_of_its_size(self, small_parser):
        photo = face_photo(0, 2)
        places = [(0, 0, 2), (50, 40, 1)]
        result = small_parser(photo, boxes=[box_of(*place) for place in places])
        distances, labels = [], []
        for left, top, factor in places:
            y, x = np.indices(photo.shape[:2]) - (S * factor - 1) / 2
            x, y = (x - left) / factor, (y - top) / factor
            distances.append(np.hypot(x, np.where(y > 0, 0.8 * y, y)))
            labels.append(small_parser(photo, boxes=[box_of(left, top, factor)]).labels)
        both = (labels[0] > 0) & (labels[1] > 0)
        first = np.where(both, distances[0] < distances[1], labels[0] > 0)
        clear = ~both | (np.abs(distances[0] - distances[1]) > 1e-3)
        for face, own in zip(result.faces, (first, ~first), strict=True):
            expected = np.where(own, np.where(first, *labels), 0)
            np.testing.assert_array_equal(face.labels[clear], expected[clear])
        assert both.any() and 0 < first[both].mean() < 1

    def test_a_face_at_the_edge(self, small_parser):
        photo = face_photo(3)
        result = small_parser(photo, boxes=[box_of(-20, 30, 1)])
        moved = np.zeros_like(photo)
        moved[:34, 20:] = photo[30:, :44]
        expected = small_parser(moved, detect=False).labels
        np.testing.assert_array_equal(result.labels[30:, :44], expected[:34, 20:])

    def test_no_face(self, small_parser):
        for where in ({"boxes": []}, {"landmarks": np.zeros((0, 5, 2))}):
            result = small_parser(face_photo(0), **where)
            assert result.faces == [] and result.labels.shape == (S, S) and not result.labels.any()
            np.testing.assert_array_equal(result.overlay(), face_photo(0))

    def test_drawn_faces_are_detected(self, small_parser):
        canvas = np.full((600, 900, 3), 128, np.uint8)
        assert small_parser(canvas).faces == []
        canvas[30:542, 50:562] = draw_face("train", 0).image.repeat(2, axis=0).repeat(2, axis=1)
        canvas[200:456, 600:856] = draw_face("train", 1).image
        result = small_parser(canvas)
        large, small = (np.array(face.box) for face in result.faces)
        assert np.all(large[:2] > (50, 30)) and np.all(large[2:] < (562, 542))
        assert np.all(small[:2] > (600, 200)) and np.all(small[2:] < (856, 456))
        landmarks = detectors.make_detector("yunet")(canvas)
        assert_same(small_parser(canvas, landmarks=landmarks), result)

    def test_a_custom_detector(self, small_parser, single, monkeypatch):
        images = []

        def detector(image):
            images.append(image)
            return [single.faces[0].box]

        expected = small_parser(face_photo(0), boxes=detector(None))
        monkeypatch.setattr(small_parser, "detector", detector)
        assert_same(small_parser(face_photo(0)), expected)
        np.testing.assert_array_equal(images[-1], face_photo(0))
        monkeypatch.setattr(small_parser, "detector", lambda image: [1, 2])
        with pytest.raises(ValueError, match="image: the output of the detector is invalid"):
            small_parser(face_photo(0))


class TestLandmarks:
    # The frame of these landmarks is the photo of side S itself.
    POINTS = np.array([(23.5, 29.9), (39.5, 29.9), (31, 38), (26.0, 45.9), (37.0, 45.9)])

    def test_upright(self, small_parser, single):
        result = small_parser(face_photo(0), landmarks=[self.POINTS])
        np.testing.assert_array_equal(result.labels, single.labels)
        np.testing.assert_allclose(result.faces[0].box, single.faces[0].box)

    def test_a_rotated_face_is_parsed_upright(self, small_parser, single):
        x, y = self.POINTS.T
        rotated = np.stack([S - 1 - y, x], axis=1)  # clockwise
        result = small_parser(np.rot90(face_photo(0), -1), landmarks=[rotated])
        np.testing.assert_array_equal(result.labels, np.rot90(single.labels, -1))
        x0, y0, x1, y1 = windows(single.faces[0]).T
        expected = np.stack([S - 1 - y1, x0, S - 1 - y0, x1], axis=1)
        np.testing.assert_allclose(windows(result.faces[0]), expected, atol=1e-3)

    def test_far_outside_the_photo(self, small_parser):
        result = small_parser(face_photo(0), landmarks=[self.POINTS + 1000])
        assert len(result.faces) == 1 and not result.labels.any() and result.faces[0].found == ()


class TestInputs:
    @pytest.mark.parametrize(
        "as_input",
        [
            Image.fromarray,
            lambda image: Image.fromarray(image).convert("RGBA"),
            lambda image: np.dstack([image, np.full((S, S), 255, np.uint8)]),
            lambda image: image / 255,
            lambda image: jax.numpy.asarray(image),
        ],
        ids="pillow rgba rgba-array floats jax".split(),
    )
    def test_all_types_of_a_photo(self, small_parser, single, as_input):
        assert_same(small_parser(as_input(face_photo(0)), detect=False), single)

    def test_grayscale(self, small_parser):
        gray = face_photo(0)[..., 0]
        expected = small_parser(np.dstack([gray] * 3), detect=False)
        for photo in (gray, Image.fromarray(gray), Image.fromarray(gray.astype(np.uint16) * 257)):
            assert_same(small_parser(photo, detect=False), expected)

    def test_a_path_and_its_rotation(self, small_parser, single, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # rotate clockwise to view
        image = Image.fromarray(np.ascontiguousarray(np.rot90(face_photo(0))))
        image.save(tmp_path / "rotated.png", exif=exif)
        assert_same(small_parser(tmp_path / "rotated.png", detect=False), single)
        assert_same(small_parser(str(tmp_path / "rotated.png"), detect=False), single)

    @pytest.mark.slow
    def test_several_photos(self, small_parser):
        images = [face_photo(seed) for seed in range(3)]
        expected = [small_parser(image, detect=False) for image in images]
        for photos in (images, tuple(images), np.stack(images)):
            results = small_parser(photos, detect=False)
            assert isinstance(results, list)
            for result, alone in zip(results, expected, strict=True):
                assert_same(result, alone)
        boxes = [[box_of(0, 0, 1)], [], [box_of(0, 0, 1)] * 2]
        results = small_parser(images, boxes=boxes)
        assert [len(result.faces) for result in results] == [1, 0, 2]
        assert small_parser([]) == []

    def test_one_program_parses_photos_of_all_sizes(self, small_parser, monkeypatch):
        def compile(program):
            raise AssertionError("compiled again")

        monkeypatch.setattr(ModelProgram, "compile", compile)
        for size in [(1, 1), (9, 200), (S, S), (333, 100), (700, 701)]:
            result = small_parser(np.full((*size, 3), 77, np.uint8), detect=False)
            assert result.labels.shape == size and result.labels.dtype == np.uint8
        small_parser(face_photo(0, 3), boxes=[(3, 4, 90, 120), (-5, -5, 20, 20)])

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            ({"boxes": [], "detect": False}, "exclude each other"),
            ({"boxes": [], "landmarks": []}, "exclude each other"),
            ({"boxes": [(1, 2, 3)]}, r"boxes have shape \(1, 3\)"),
            ({"landmarks": np.zeros((5, 2))}, r"landmarks have shape \(5, 2\)"),
        ],
    )
    def test_invalid_boxes_and_landmarks_are_named(self, small_parser, where, message):
        with pytest.raises(ValueError, match=message):
            small_parser(face_photo(0), **where)

    def test_invalid_photos_are_named(self, small_parser, tmp_path):
        with pytest.raises(ValueError, match="boxes are for 1 photos, but there are 2"):
            small_parser([face_photo(0)] * 2, boxes=[[]])
        with pytest.raises(ValueError, match=r"image 1: boxes have shape \(1, 3\)"):
            small_parser([face_photo(0)] * 2, boxes=[[], [(1, 2, 3)]])
        with pytest.raises(PhotoError, match="image 1 has dtype int64"):
            small_parser([face_photo(0), np.zeros((4, 4), np.int64)], detect=False)
        (tmp_path / "text.png").write_text("text")
        with pytest.raises(PhotoError, match="text.png is not an image"):
            small_parser(tmp_path / "text.png")
        with pytest.raises(FileNotFoundError):
            small_parser(tmp_path / "nothing.png")


class TestLoad:
    @pytest.fixture
    def run(self, small_parser, tmp_path):
        """The directory of a training run."""
        path = tmp_path / weights.WEIGHTS
        weights.save_weights(path, small_parser.variables, small_parser.model.config, S)
        return tmp_path

    def test_a_run_a_file_and_a_shipped_name(self, small_parser, run, single, monkeypatch):
        file = run / weights.WEIGHTS
        shipped = run / "shipped"
        shipped.mkdir()
        sums = ""
        for name in ("mine", weights.DEFAULT):
            (shipped / f"{name}.safetensors").write_bytes(file.read_bytes())
            sums += f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {name}.safetensors\n"
        (shipped / weights.CHECKSUMS).write_text(sums)
        monkeypatch.setattr(weights, "PRETRAINED", shipped)
        for source in (str(run), file, "mine", None):
            loaded = FaceParser.load(source)
            assert loaded.frame_size == S
            assert loaded.model == small_parser.model
        assert_same(loaded(face_photo(0), detect=False), single)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", sorted(p.stem for p in weights.PRETRAINED.glob("*.s*")))
    def test_shipped_weights(self, name):
        parser = FaceParser.load(name)
        assert parser.model.config.anatomy == anatomy.get_anatomy(name)
        assert parser.classes == anatomy.get_anatomy(name).classes
        assert parser.frame_size == 512
        # The weights were not trained on drawn faces.
        results = [parser(draw_face("test", i, 256).image, detect=False) for i in range(2)]
        all_parts = tuple(part.name for part in NINE.parts)
        assert [result.faces[0].found for result in results] == [all_parts] * 2

    def test_shipped_weights_are_small(self):
        files = list(weights.PRETRAINED.glob("*.safetensors"))
        assert sum(file.stat().st_size for file in files) <= 24 * 2**20

    def test_missing_weights_are_named(self, run, monkeypatch):
        with pytest.raises(FileNotFoundError, match="nothing: .*in this installation: nine, nine"):
            FaceParser.load(run / "nothing")
        monkeypatch.setattr(weights, "PRETRAINED", run / "none")
        with pytest.raises(FileNotFoundError, match="in this installation: none"):
            FaceParser.load()
        (run / weights.WEIGHTS).unlink()
        with pytest.raises(FileNotFoundError, match=weights.WEIGHTS):
            FaceParser.load(run)

    def test_weights_of_another_model_are_rejected(self, small_parser, run):
        def save(**options):
            config = small_parser.model.config.replace(**options)
            weights.save_weights(run / weights.WEIGHTS, small_parser.variables, config, S)

        save(cropper="vgg9")
        with pytest.raises(ValueError, match="weights.safetensors does not match the model"):
            FaceParser.load(run)
        save(patch_size=65)
        with pytest.raises(ValueError, match="frame_size is 64, but must be at least 65"):
            FaceParser.load(run)


class TestMasks:
    def test_a_mask_is_where_the_labels_are(self, single):
        np.testing.assert_array_equal(single.mask("nose"), single.labels == 5)
        lips = single.mask("upper_lip", "lower_lip")
        assert lips.dtype == bool
        np.testing.assert_array_equal(lips, (single.labels == 6) | (single.labels == 8))

    def test_an_unknown_class_is_an_error_that_lists_the_names(self, single):
        with pytest.raises(ValueError, match="no class 'noose': the classes are .*nose, upper_lip"):
            single.mask("eye_1", "noose")
        with pytest.raises(ValueError, match="name a class: .*nose"):
            single.mask()

    def test_the_legend_is_below_the_photo(self, single):
        plain, legend = single.overlay(), single.overlay(legend=True)
        assert len(legend) > len(plain)
        np.testing.assert_array_equal(legend[: len(plain)], plain)
        strip = legend[len(plain) :].reshape(-1, 3)
        for i in np.unique(single.labels):
            named = (strip == np.array(NINE.colours[i])).all(axis=1).any()
            assert named or i == 0


def test_importing_the_package_imports_no_training_library():
    assert jax_stn_icnn.FaceParser is FaceParser
    with pytest.raises(AttributeError, match="has no attribute 'PartResult'"):
        jax_stn_icnn.PartResult  # noqa: B018 (the access is the test)
    code = """
import sys, jax_stn_icnn
assert not {"jax", "numpy"} & set(sys.modules)
from jax_stn_icnn import FaceParser
heavy = {"tensorflow", "tensorflow_datasets", "grain", "orbax", "optax", "torch"}
heavy |= {"matplotlib", "ml_collections", "tqdm"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
