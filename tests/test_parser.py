"""The parser from photo to labels. Its networks have random weights, so most photos are noise."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import jax_stn_icnn
from jax_stn_icnn import anatomy, ops
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.faces import detectors, framing
from jax_stn_icnn.inference import parser as parser_module
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.io import weights
from jax_stn_icnn.photos.reading import PhotoError
from tfds_builders.synthetic_faces.face import draw_face

S = 64  # the frame's side in `small_parser`


def face_picture(seed, factor=1):
    """Blotches of 4 pixels, S a side; enlarged by repeating pixels."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (S // 4, S // 4, 3), np.uint8)
    return image.repeat(4 * factor, axis=0).repeat(4 * factor, axis=1)


def windows(parse):
    return np.array([parse.windows[part.name] for part in NINE.parts])


def box_of(left, top, factor):
    """The face's box for which the frame is S * factor pixels from (left, top) on."""
    matrix = framing.frame_from_photo((S * factor, S * factor), S)
    return framing.box_from_frame(matrix + [[0, 0, left], [0, 0, top]], S)


def assert_same(found, expected):
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.image, expected.image)
    assert [face.box for face in found.faces] == [face.box for face in expected.faces]
    for face, other in zip(found.faces, expected.faces, strict=True):
        assert face.found == other.found
        # A batch of another size is another program, which some processors round otherwise.
        np.testing.assert_allclose(windows(face), windows(other), rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def single(small_parser):
    return small_parser(face_picture(0), detect=False)


class TestOneFace:
    def test_equals_the_model_itself(self, small_parser, single):
        frame = np.float32(face_picture(0) / 255)[None]
        coarse_image = ops.resize_bilinear(frame, (128, 128))
        inputs = small_parser.variables, coarse_image, frame
        # Left as it is, the program compiles in half the time.
        plain = {"xla_backend_optimization_level": 0}
        model = jax.jit(small_parser.model.apply).lower(*inputs).compile(compiler_options=plain)
        expected = model(*inputs)
        assert np.mean(single.labels == expected.labels[0]) > 0.999
        assert len(np.unique(single.labels)) > 3  # so there is something to compare
        (face,) = single.faces
        np.testing.assert_allclose(face.scores(), expected.scores[0], atol=1e-4)
        assert np.mean(face.coarse_labels == np.argmax(expected.mask[0], axis=-1)) > 0.999
        unit = np.asarray(expected.theta[0], np.float64)
        middle = (unit[:, :, 2] + 1) / 2 * (S - 1)
        # A network that knows nothing may say a mirrored window; its box is the same.
        half = np.abs(np.stack([unit[:, 0, 0], unit[:, 1, 1]], axis=1)) * (S - 1) / 2
        corners = np.concatenate([middle - half, middle + half], axis=1)
        np.testing.assert_allclose(windows(face), corners, atol=1e-3)
        present = set(np.unique(single.labels))
        assert face.found == tuple(p.name for p in NINE.parts if present & set(NINE.ids(p.classes)))

    @pytest.mark.parametrize("factor", [2, 3, 10])
    def test_windows_and_labels_grow_with_the_picture(self, small_parser, single, factor):
        parse = small_parser(face_picture(0, factor), detect=False)
        (small,), (large,) = single.faces, parse.faces
        # Centres of pixels: the edges, half a pixel further out, are what scales.
        np.testing.assert_allclose(
            windows(large) + 0.5, (windows(small) + 0.5) * factor, rtol=0, atol=1e-3
        )
        assert parse.labels.shape == (S * factor, S * factor)
        if factor % 2:
            middles = parse.labels[factor // 2 :: factor, factor // 2 :: factor]
            np.testing.assert_array_equal(middles, single.labels)

    def test_scores_and_labels_of_a_face_agree(self, small_parser):
        photo = np.pad(face_picture(1, 3), [(40, 9), (0, 70), (0, 0)])
        parse = small_parser(photo, boxes=[box_of(0, 40, 3)])
        (face,) = parse.faces
        scores = face.scores()
        assert scores.shape == (*photo.shape[:2], 9) and scores.dtype == np.float32
        np.testing.assert_array_equal(np.argmax(scores, axis=-1), face.labels)
        assert np.all(scores[:39, :, 0] == 1) and not face.labels[:39].any()

    @pytest.mark.parametrize("size", [(S, S), (S, S // 2), (S // 2 + 1, S)])
    def test_so_they_do_where_the_photo_s_pixels_are_the_frame_s(self, small_parser, size):
        parse = small_parser(face_picture(2)[: size[0], : size[1]], detect=False)
        np.testing.assert_array_equal(np.argmax(parse.faces[0].scores(), axis=-1), parse.labels)

    @pytest.mark.parametrize("size", [(S, S // 2), (S // 2 + 1, S), (3 * S, 2 * S)])
    def test_a_photo_that_is_not_square_is_padded(self, small_parser, size):
        photo = face_picture(2, 3)[: size[0], : size[1]]
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
        expected = draw.overlay(face_picture(0), single.labels, NINE, 0.3)
        np.testing.assert_array_equal(single.overlay(alpha=0.3), expected)


class TestSeveralFaces:
    PLACES = [(10, 20, 1), (100, 5, 3), (300, 140, 2)]

    def test_each_is_parsed_where_it_is(self, small_parser):
        canvas = np.zeros((300, 460, 3), np.uint8)
        singles = []
        for seed, (left, top, factor) in enumerate(self.PLACES):
            image = face_picture(seed, factor)
            canvas[top : top + len(image), left : left + len(image)] = image
            singles.append(small_parser(image, detect=False))
        parse = small_parser(canvas, boxes=[box_of(*place) for place in self.PLACES])
        expected = np.zeros(canvas.shape[:2], np.uint8)
        for (left, top, _), alone, face in zip(self.PLACES, singles, parse.faces, strict=True):
            height, width = alone.labels.shape
            expected[top : top + height, left : left + width] = alone.labels
            shift = np.array([left, top, left, top])
            np.testing.assert_allclose(windows(face), windows(alone.faces[0]) + shift, atol=1e-3)
            assert face.found == alone.faces[0].found
            assert not face.labels[:top].any() and not face.labels[:, :left].any()
        assert np.mean(parse.labels == expected) > 0.9999
        np.testing.assert_allclose(
            [face.box for face in parse.faces], [box_of(*place) for place in self.PLACES]
        )

    def test_the_larger_is_in_front(self, small_parser):
        photo = face_picture(0, 2)
        small, large = box_of(8, 8, 1), box_of(0, 0, 2)
        parse = small_parser(photo, boxes=[large, small])
        front, behind = parse.faces
        np.testing.assert_array_equal(
            parse.labels, np.where(front.labels > 0, front.labels, behind.labels)
        )

    def test_a_face_beyond_the_edge(self, small_parser):
        photo = face_picture(3)
        parse = small_parser(photo, boxes=[box_of(-20, 30, 1)])
        moved = np.zeros_like(photo)
        moved[:34, 20:] = photo[30:, :44]
        expected = small_parser(moved, detect=False).labels
        np.testing.assert_array_equal(parse.labels[30:, :44], expected[:34, 20:])

    def test_none(self, small_parser):
        for where in ({"boxes": []}, {"landmarks": np.zeros((0, 5, 2))}):
            parse = small_parser(face_picture(0), **where)
            assert parse.faces == [] and parse.labels.shape == (S, S) and not parse.labels.any()
            np.testing.assert_array_equal(parse.overlay(), face_picture(0))

    def test_drawn_faces_are_found(self, small_parser):
        canvas = np.full((600, 900, 3), 128, np.uint8)
        assert small_parser(canvas).faces == []
        canvas[30:542, 50:562] = draw_face("train", 0).image.repeat(2, axis=0).repeat(2, axis=1)
        canvas[200:456, 600:856] = draw_face("train", 1).image
        parse = small_parser(canvas)
        large, small = (np.array(face.box) for face in parse.faces)
        assert np.all(large[:2] > (50, 30)) and np.all(large[2:] < (562, 542))
        assert np.all(small[:2] > (600, 200)) and np.all(small[2:] < (856, 456))
        landmarks = detectors.make_detector("yunet")(canvas)
        assert_same(small_parser(canvas, landmarks=landmarks), parse)

    def test_a_custom_detector(self, small_parser, single, monkeypatch):
        seen = []

        def detector(image):
            seen.append(image)
            return [single.faces[0].box]

        expected = small_parser(face_picture(0), boxes=detector(None))
        monkeypatch.setattr(small_parser, "detector", detector)
        assert_same(small_parser(face_picture(0)), expected)
        np.testing.assert_array_equal(seen[-1], face_picture(0))
        monkeypatch.setattr(small_parser, "detector", lambda image: [1, 2])
        with pytest.raises(ValueError, match="image: the output of the detector is invalid"):
            small_parser(face_picture(0))


class TestLandmarks:
    # For these the frame is the picture of S pixels itself.
    POINTS = np.array([(23.5, 29.9), (39.5, 29.9), (31, 38), (26.0, 45.9), (37.0, 45.9)])

    def test_upright(self, small_parser, single):
        parse = small_parser(face_picture(0), landmarks=[self.POINTS])
        np.testing.assert_array_equal(parse.labels, single.labels)
        np.testing.assert_allclose(parse.faces[0].box, single.faces[0].box)

    def test_a_turned_face_is_turned_back(self, small_parser, single):
        x, y = self.POINTS.T
        turned = np.stack([S - 1 - y, x], axis=1)  # clockwise
        parse = small_parser(np.rot90(face_picture(0), -1), landmarks=[turned])
        np.testing.assert_array_equal(parse.labels, np.rot90(single.labels, -1))
        x0, y0, x1, y1 = windows(single.faces[0]).T
        expected = np.stack([S - 1 - y1, x0, S - 1 - y0, x1], axis=1)
        np.testing.assert_allclose(windows(parse.faces[0]), expected, atol=1e-3)

    def test_far_outside_the_photo(self, small_parser):
        parse = small_parser(face_picture(0), landmarks=[self.POINTS + 1000])
        assert len(parse.faces) == 1 and not parse.labels.any() and parse.faces[0].found == ()


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
    def test_all_kinds_of_one_picture(self, small_parser, single, as_input):
        assert_same(small_parser(as_input(face_picture(0)), detect=False), single)

    def test_grey(self, small_parser):
        grey = face_picture(0)[..., 0]
        expected = small_parser(np.dstack([grey] * 3), detect=False)
        for photo in (grey, Image.fromarray(grey), Image.fromarray(grey.astype(np.uint16) * 257)):
            assert_same(small_parser(photo, detect=False), expected)

    def test_a_path_and_its_rotation(self, small_parser, single, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise
        image = Image.fromarray(np.ascontiguousarray(np.rot90(face_picture(0))))
        image.save(tmp_path / "turned.png", exif=exif)
        assert_same(small_parser(tmp_path / "turned.png", detect=False), single)
        assert_same(small_parser(str(tmp_path / "turned.png"), detect=False), single)

    @pytest.mark.slow
    def test_several_in_several_out(self, small_parser):
        pictures = [face_picture(seed) for seed in range(3)]
        expected = [small_parser(picture, detect=False) for picture in pictures]
        for photos in (pictures, tuple(pictures), np.stack(pictures)):
            parses = small_parser(photos, detect=False)
            assert isinstance(parses, list)
            for parse, alone in zip(parses, expected, strict=True):
                assert_same(parse, alone)
        boxes = [[box_of(0, 0, 1)], [], [box_of(0, 0, 1)] * 2]
        parses = small_parser(pictures, boxes=boxes)
        assert [len(parse.faces) for parse in parses] == [1, 0, 2]
        assert small_parser([]) == []

    def test_one_compilation_serves_all(self, small_parser, monkeypatch):
        def compile_networks(*args):
            raise AssertionError("compiled again")

        monkeypatch.setattr(parser_module, "compile_networks", compile_networks)
        for size in [(1, 1), (9, 200), (S, S), (333, 100), (700, 701)]:
            parse = small_parser(np.full((*size, 3), 77, np.uint8), detect=False)
            assert parse.labels.shape == size and parse.labels.dtype == np.uint8
        small_parser(face_picture(0, 3), boxes=[(3, 4, 90, 120), (-5, -5, 20, 20)])

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            ({"boxes": [], "detect": False}, "exclude each other"),
            ({"boxes": [], "landmarks": []}, "exclude each other"),
            ({"boxes": [(1, 2, 3)]}, r"boxes have shape \(1, 3\)"),
            ({"landmarks": np.zeros((5, 2))}, r"landmarks have shape \(5, 2\)"),
        ],
    )
    def test_bad_places_are_named(self, small_parser, where, message):
        with pytest.raises(ValueError, match=message):
            small_parser(face_picture(0), **where)

    def test_bad_photos_are_named(self, small_parser, tmp_path):
        with pytest.raises(ValueError, match="boxes are for 1 photos, but there are 2"):
            small_parser([face_picture(0)] * 2, boxes=[[]])
        with pytest.raises(ValueError, match=r"image 1: boxes have shape \(1, 3\)"):
            small_parser([face_picture(0)] * 2, boxes=[[], [(1, 2, 3)]])
        with pytest.raises(PhotoError, match="image 1 has dtype int64"):
            small_parser([face_picture(0), np.zeros((4, 4), np.int64)], detect=False)
        (tmp_path / "text.png").write_text("text")
        with pytest.raises(PhotoError, match="text.png is not an image"):
            small_parser(tmp_path / "text.png")
        with pytest.raises(FileNotFoundError):
            small_parser(tmp_path / "nothing.png")


class TestLoad:
    @pytest.fixture
    def run(self, small_parser, tmp_path):
        """The directory of a run."""
        path = tmp_path / weights.WEIGHTS
        weights.save_weights(path, small_parser.variables, small_parser.model, S)
        return tmp_path

    def test_of_a_run_of_a_file_and_as_shipped(self, small_parser, run, single, monkeypatch):
        file = run / weights.WEIGHTS
        shipped = run / "shipped"
        shipped.mkdir()
        for name in ("mine", weights.DEFAULT):
            (shipped / f"{name}.safetensors").write_bytes(file.read_bytes())
        monkeypatch.setattr(weights, "PRETRAINED", shipped)
        for source in (str(run), file, "mine", None):
            loaded = FaceParser.load(source)
            assert loaded.frame_size == S
            assert loaded.model == small_parser.model
        assert_same(loaded(face_picture(0), detect=False), single)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", sorted(p.stem for p in weights.PRETRAINED.glob("*.s*")))
    def test_those_that_ship(self, name):
        parser = FaceParser.load(name)
        assert parser.model.anatomy == anatomy.get_anatomy(name)
        assert parser.classes == anatomy.get_anatomy(name).classes
        assert parser.frame_size == 512
        # Drawn faces are none of those that it learnt from, but a face is a face.
        parses = [parser(draw_face("test", i, 256).image, detect=False) for i in range(2)]
        everything = tuple(part.name for part in NINE.parts)
        assert [parse.faces[0].found for parse in parses] == [everything] * 2

    def test_those_that_ship_are_small(self):
        files = list(weights.PRETRAINED.glob("*.safetensors"))
        assert sum(file.stat().st_size for file in files) <= 12 * 2**20

    def test_what_is_missing_is_named(self, run, monkeypatch):
        with pytest.raises(
            FileNotFoundError, match="no file of weights .*nothing.*: nine, nineteen"
        ):
            FaceParser.load(run / "nothing")
        monkeypatch.setattr(weights, "PRETRAINED", run / "none")
        with pytest.raises(FileNotFoundError, match="come with this installation: none"):
            FaceParser.load()
        (run / weights.WEIGHTS).unlink()
        with pytest.raises(FileNotFoundError, match=weights.WEIGHTS):
            FaceParser.load(run)

    def test_other_weights_are_refused(self, small_parser, run):
        file, variables = run / weights.WEIGHTS, small_parser.variables
        weights.save_weights(file, variables, small_parser.model.clone(cropper="vgg9"), S)
        with pytest.raises(ValueError, match="weights.safetensors does not fit the model"):
            FaceParser.load(file)
        weights.save_weights(file, variables, small_parser.model.clone(patch_size=(16, 16)), S)
        with pytest.raises(ValueError, match="must be odd"):
            FaceParser.load(file)


class TestMasks:
    def test_each_is_where_its_labels_are(self, single):
        np.testing.assert_array_equal(single.mask("nose"), single.labels == 5)
        lips = single.mask("upper_lip", "lower_lip")
        assert lips.dtype == bool
        np.testing.assert_array_equal(lips, (single.labels == 6) | (single.labels == 8))

    def test_a_name_misspelt_lists_the_names(self, single):
        with pytest.raises(ValueError, match="no class 'noose': the classes are .*nose, upper_lip"):
            single.mask("eye_1", "noose")
        with pytest.raises(ValueError, match="name a class: .*nose"):
            single.mask()

    def test_a_legend_stands_below_the_picture(self, single):
        plain, legend = single.overlay(), single.overlay(legend=True)
        assert len(legend) > len(plain)
        np.testing.assert_array_equal(legend[: len(plain)], plain)
        strip = legend[len(plain) :].reshape(-1, 3)
        for i in np.unique(single.labels):
            named = (strip == np.array(NINE.colours[i])).all(axis=1).any()
            assert named or i == 0


def test_importing_the_package_imports_little():
    assert jax_stn_icnn.FaceParser is FaceParser
    with pytest.raises(AttributeError, match="has no attribute 'FaceResult'"):
        jax_stn_icnn.FaceResult  # noqa: B018 (asking for it is the test)
    code = """
import sys, jax_stn_icnn
assert not {"jax", "numpy"} & set(sys.modules)
from jax_stn_icnn import FaceParser
heavy = {"tensorflow", "tensorflow_datasets", "grain", "orbax", "orbax.checkpoint", "torch"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
