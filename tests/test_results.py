"""Masks, soft masks, polygons and other forms of results. Scores are noise, blurred."""

import json

import cv2
import numpy as np
import pytest
from matplotlib.path import Path as Outline

from jax_stn_icnn import anatomy
from jax_stn_icnn.anatomy import NINE, NINETEEN, DataSet
from jax_stn_icnn.faces import framing
from jax_stn_icnn.inference import coco, polygons
from jax_stn_icnn.inference.compact import CompactArray
from jax_stn_icnn.inference.merging import merge_faces
from jax_stn_icnn.inference.results import FaceResult, PhotoResult
from tfds_builders.synthetic_faces.face import draw_face

SIZE = (150, 190)
S = 64


def softmax(rng, classes, side):
    noise = rng.normal(size=(classes, 9, 9)).astype(np.float32) * 3
    planes = np.exp(np.stack([cv2.resize(plane, (side, side)) for plane in noise]))
    return planes / planes.sum(axis=0)


def result_of(*boxes, size=SIZE, far=False, exact=False, total=1.0, num_parsed=None, wide=True):
    """Returns a result with a face in each box, whose frames' scores sum to `total`.

    The faces after the first `num_parsed` are neighbors.
    """
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (*size, 3), np.uint8)
    faces = []
    for box in boxes:
        scores = softmax(rng, NINETEEN.num_classes, S)
        scores[:, 20:40, 20:40] *= total
        around = (
            [softmax(rng, len(NINETEEN.global_ids), 48) for _ in range(1 + far)] if wide else ()
        )
        faces.append(
            FaceResult.from_frame(
                scores=scores,
                windows=np.zeros((len(NINETEEN.parts), 4)),
                coarse_labels=np.zeros((1, 1), np.uint8),
                anatomy=NINETEEN,
                box=np.array(box),
                matrix=framing.frame_from_box(np.array(box, float), S),
                photo_size=size,
                wide_scores=around,
                exact_scores=exact,
                score=0.75 if len(boxes) > 1 else None,
            )
        )
    faces, neighbors = faces[:num_parsed], faces[len(faces[:num_parsed]) :]
    pixels, faces = merge_faces(faces, photo, [face.matrix for face in neighbors])
    return PhotoResult(photo, faces, NINETEEN, pixels)


ONE = ((60, 50, 110, 100),)
TWO = ((30, 40, 75, 85), (100, 50, 160, 110))
SMALL = ((60, 50, 75, 65),)  # its frame is finer than the photo
PLACES = pytest.mark.parametrize("boxes", [(), ONE, TWO, SMALL], ids="none one two small".split())


@pytest.mark.parametrize("shape", [(0, 7), (1, 1), (3, 40, 50), (1, 65_537), (3, 70_000)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_compact_arrays_are_restored(shape, dtype):
    array = np.random.default_rng(0).integers(0, 3, shape).astype(dtype)
    array[..., 2:] = 7
    found = CompactArray.of(array).restore()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


def test_equal_values_take_little_memory():
    assert len(CompactArray.of(np.zeros((4000, 3000), np.uint8)).data) < 100


class TestGroups:
    @pytest.mark.parametrize(
        ("name", "classes"),
        [
            ("lips", ["upper_lip", "lower_lip"]),
            ("ears", ["ear_1", "ear_2"]),
            ("person", NINETEEN.classes[1:]),
            ("hair", ["hair"]),
        ],
    )
    def test_a_group_is_the_union_of_its_classes(self, name, classes):
        result = result_of(*TWO)
        for each in (result, *result.faces):
            expected = np.isin(each.labels, NINETEEN.ids(classes))
            np.testing.assert_array_equal(each.mask(name), expected)
        np.testing.assert_array_equal(result.mask(*classes), result.mask(name))

    def test_each_contains_the_one_before(self):
        ids = [set(NINETEEN.mask_ids([n])) for n in ("lips", "mouth", "face", "head", "person")]
        assert all(a < b for a, b in zip(ids, ids[1:], strict=False))
        missing = set(NINETEEN.classes[1:]) - {NINETEEN.classes[i] for i in ids[3]}
        assert missing == {"neck", "necklace", "cloth"}

    def test_classes_that_an_anatomy_lacks_are_left_out(self):
        assert NINE.mask_ids(["head"]) == NINE.mask_ids(["person"]) == tuple(range(1, 9))
        with pytest.raises(ValueError, match="no class 'ears': .*nose.* groups are lips.*person"):
            NINE.mask_ids(["nose", "ears"])


class TestNeighbors:
    @pytest.mark.parametrize("wide", [True, False])
    def test_pixels_of_a_neighbor_are_background(self, wide):
        boxes = (30, 40, 75, 85), (75, 40, 120, 85)
        alone = result_of(*boxes[:1], wide=wide)
        both = result_of(*boxes, num_parsed=1, wide=wide)
        (face,) = both.faces
        np.testing.assert_array_equal(face.labels, both.labels)
        kept = both.labels > 0
        np.testing.assert_array_equal(both.labels[kept], alone.labels[kept])
        x0, y0, x1, y1 = boxes[0]
        np.testing.assert_array_equal(*[r.labels[y0:y1, x0 : x1 - 5] for r in (alone, both)])
        x0, y0, x1, y1 = boxes[1]
        theirs = slice(y0, y1), slice(x0 + 5, x1)
        assert not both.labels[theirs].any()
        assert alone.labels[theirs].any()
        lost = (alone.labels > 0) & ~kept
        assert (alone.soft_mask("person")[lost] > 0.5).all()
        assert not both.soft_mask("person")[lost].any()
        assert not face.soft_mask("person")[lost].any()

    def test_a_photo_of_neighbors_alone_is_background(self):
        result = result_of(*TWO, num_parsed=0)
        assert result.faces == []
        assert not result.labels.any()


class TestSoftMasks:
    @PLACES
    @pytest.mark.parametrize("far", [False, True])
    @pytest.mark.parametrize("names", [("hair",), ("lips", "skin"), ("background",), ("person",)])
    def test_they_exceed_half_exactly_in_the_mask(self, boxes, far, names):
        result = result_of(*boxes, far=far)
        for each in (result, *result.faces):
            soft = each.soft_mask(*names)
            assert soft.shape == SIZE and soft.dtype == np.float32
            assert soft.min(initial=0) >= 0 and soft.max(initial=0) <= 1
            np.testing.assert_array_equal(soft > 0.5, each.mask(*names))

    @pytest.mark.parametrize("boxes", [ONE, SMALL], ids=["one", "small"])
    @pytest.mark.parametrize("exact", [True, False])
    def test_they_are_sums_of_scores(self, boxes, exact):
        result = result_of(*boxes, exact=exact, total=1.7)
        (face,) = result.faces
        names = ("hair", "nose", "skin")
        summed = face.scores()[..., list(NINETEEN.ids(names))].sum(axis=-1)
        expected = np.where(face.mask(*names), np.maximum(summed, 0.5), np.minimum(summed, 0.5))
        for each in (result, face):
            np.testing.assert_allclose(each.soft_mask(*names), expected, atol=1e-5)

    def test_strips_are_seamless(self, monkeypatch):
        result = result_of(*TWO, far=True)
        expected = result.soft_mask("hair")
        monkeypatch.setattr("jax_stn_icnn.inference.soft_masks._STRIP_PIXELS", 1000)
        np.testing.assert_allclose(result.soft_mask("hair"), expected, atol=1e-3)

    def test_the_photos_is_that_of_the_face_of_each_pixel(self):
        result = result_of(*TWO)
        soft = [face.soft_mask("cloth", "hair") for face in result.faces]
        assert not np.any((soft[0] > 0) & (soft[1] > 0))
        np.testing.assert_array_equal(result.soft_mask("cloth", "hair"), soft[0] + soft[1])
        for face, other in zip(result.faces, soft[::-1], strict=True):
            assert face.labels.any() and not np.any(other[face.labels > 0])

    def test_values_are_those_of_the_face_that_the_label_is_from(self):
        result = result_of(*TWO, exact=True)
        soft = result.soft_mask("hair")
        hair = [face.scores()[..., NINETEEN.classes.index("hair")] for face in result.faces]
        limited = [
            np.where(result.mask("hair"), np.maximum(h, 0.5), np.minimum(h, 0.5)) for h in hair
        ]
        close = [np.abs(soft - h) < 1e-3 for h in limited]
        assert np.mean(close[0] | close[1]) > 0.999
        assert close[0].mean() < 0.95 and close[1].mean() < 0.95


class TestScores:
    @PLACES
    def test_they_sum_to_one(self, boxes):
        for face in result_of(*boxes, total=1.9).faces:
            np.testing.assert_allclose(face.scores().sum(axis=-1), 1, atol=1e-6)

    def test_exact_ones_have_the_labels_as_argmax(self):
        (face,) = result_of(*ONE, exact=True, total=1.9).faces
        # OpenCV rounds coordinates of single points and of images differently.
        assert np.mean(face.scores().argmax(axis=-1) == face.labels) > 0.999

    def test_rounded_ones_are_close_and_leave_the_labels(self):
        (exact,), (rounded,) = (result_of(*ONE, exact=e).faces for e in (True, False))
        np.testing.assert_array_equal(rounded.labels, exact.labels)
        np.testing.assert_allclose(rounded.scores(), exact.scores(), atol=0.02)


class TestPolygons:
    @staticmethod
    def filled(outlines, size):
        y, x = np.indices(size)
        points = np.stack([x.ravel(), y.ravel()], axis=1)
        inside = np.zeros(x.size, bool)
        for outline in outlines:
            inside ^= Outline(outline).contains_points(points)
        return inside.reshape(size)

    @pytest.mark.parametrize(
        "rows",
        [
            ["."],
            ["#"],
            ["#####", "#...#", "#.#.#", "#...#", "#####"],  # an island in a hole
            ["#..", ".#.", "..#", ".#."],  # diagonal
            [".#.#", "####", ".#.#", ".##."],
            ["##.##", "#...#", "##.##"],
        ],
    )
    def test_filled_they_are_the_mask(self, rows):
        mask = np.array([[c == "#" for c in row] for row in rows])
        np.testing.assert_array_equal(self.filled(polygons.trace(mask), mask.shape), mask)

    def test_drawn_faces(self):
        labels = draw_face("test", 0).label
        for c in np.unique(labels):
            outlines = polygons.trace(labels == c)
            np.testing.assert_array_equal(self.filled(outlines, labels.shape), labels == c)
        noise = np.random.default_rng(0).random((60, 70)) < 0.6
        np.testing.assert_array_equal(self.filled(polygons.trace(noise), noise.shape), noise)

    def test_holes_have_the_opposite_orientation(self):
        mask = np.ones((5, 6), bool)
        mask[2, 2:4] = False
        outer, hole = polygons.trace(mask)
        area = [
            float(np.sum(x * np.roll(y, 1) - np.roll(x, 1) * y)) / 2
            for x, y in (p.T for p in (outer, hole))
        ]
        assert area[0] == 30 and area[1] == pytest.approx(-2, abs=0.5)
        np.testing.assert_array_equal(
            [outer.min(axis=0), outer.max(axis=0)], [[-0.5] * 2, [5.5, 4.5]]
        )


class TestPictures:
    def test_a_cutout_is_opaque_in_the_mask(self):
        result = result_of(*TWO)
        picture = result.cutout("hair", "skin")
        assert picture.shape == (*SIZE, 4) and picture.dtype == np.uint8
        alpha = picture[..., 3]
        np.testing.assert_array_equal(alpha > 127, result.mask("hair", "skin"))
        opacity = np.interp(result.soft_mask("hair", "skin"), [0.1, 0.9], [0, 255])
        np.testing.assert_allclose(alpha, opacity, atol=0.501)
        np.testing.assert_array_equal(picture[alpha > 0, :3], result.image[alpha > 0])
        assert not picture[alpha == 0].any()
        np.testing.assert_array_equal(result.cutout(), result.cutout("person"))

    def test_a_crop_is_the_region_of_the_frame(self):
        result = result_of(*TWO)
        image, mask, (x0, y0, x1, y1) = result.crop(1, "hair")
        region = np.s_[y0 : y1 + 1, x0 : x1 + 1]
        np.testing.assert_array_equal(image, result.image[region])
        np.testing.assert_array_equal(mask, result.faces[1].mask("hair")[region])
        corners = result.faces[1].matrix @ [[-0.5, S - 0.5], [-0.5, S - 0.5], [1, 1]]
        assert (x0, y0) == pytest.approx(corners[:, 0], abs=1)
        assert (x1, y1) == pytest.approx(np.minimum(corners[:, 1], (189, 149)), abs=1)

    def test_a_crop_outside_of_the_photo_is_empty(self):
        image, mask, _ = result_of((-500, 0, -450, 50), (0, 0, 50, 50)).crop(0)
        assert image.size == 0 and mask.size == 0

    def test_labels_with_a_palette(self):
        result = result_of(*ONE)
        image = result.labels_image()
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), result.labels)
        colours = np.array(NINETEEN.colours, np.uint8)[result.labels]
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colours)


class TestIdsOfDataSets:
    @pytest.mark.parametrize("name", ["celebamask_hq", "helen"])
    def test_each_class_has_the_id_of_its_name(self, name):
        result = result_of(*ONE)
        classes = anatomy.DATA_SETS[name].classes
        found = result.labels_as(name)
        assert found.dtype == np.uint8
        for own, (theirs, ours) in enumerate(classes.items()):
            expected = result.mask(ours)
            if ours == "background":
                lacking = set(NINETEEN.classes) - set(classes.values())
                expected = result.mask(ours, *lacking)
            np.testing.assert_array_equal(found == own, expected, err_msg=theirs)

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            ({"none": "background", "face": "skin+neck"}, "class 'face' .* is 'skin.neck'"),
            ({"none": "background", "dog": "ignore"}, "class 'dog' .* is 'ignore'"),
            ({"none": "background", "a": "hair", "b": "hair"}, "class 'a' .* is 'hair'"),
            ({"hair": "hair"}, "no class of data set 'mine' is background"),
        ],
    )
    def test_what_is_no_single_class_is_an_error(self, monkeypatch, classes, message):
        monkeypatch.setitem(anatomy.DATA_SETS, "mine", DataSet(classes, "face"))
        with pytest.raises(ValueError, match=message):
            result_of().labels_as("mine")
        with pytest.raises(ValueError, match="no data set 'celeb', only .*celebamask_hq"):
            result_of().labels_as("celeb")


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_pycocotools_reads_equal_masks(tmp_path):
    reader = pytest.importorskip("pycocotools.coco")
    names = {"two.png": result_of(*TWO), "none.png": result_of(), "one.png": result_of(*ONE)}
    coco.write_coco(tmp_path / "coco.json", iter(names.items()))
    read = reader.COCO(tmp_path / "coco.json")
    assert [image["file_name"] for image in read.dataset["images"]] == list(names)
    ids = [entry["id"] for entry in read.dataset["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    for image_id, result in enumerate(names.values(), start=1):
        together = np.zeros((len(result.faces), *SIZE), np.uint8)
        for entry in read.loadAnns(read.getAnnIds(imgIds=image_id)):
            mask = read.annToMask(entry)
            (category,) = read.loadCats(entry["category_id"])
            face = result.faces[entry["face"]]
            np.testing.assert_array_equal(mask, face.mask(category["name"]))
            rows, columns = np.nonzero(mask)
            x, y, width, height = entry["bbox"]
            assert entry.get("score") == face.score
            assert (x, y) == (columns.min(), rows.min()) and entry["area"] == mask.sum()
            assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
            together[entry["face"]] += mask * np.uint8(entry["category_id"])
        for found, face in zip(together, result.faces, strict=True):
            np.testing.assert_array_equal(found, face.labels)
    json.dumps(coco.to_coco([]))
