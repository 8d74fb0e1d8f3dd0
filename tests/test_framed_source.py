import pickle

import cv2
import numpy as np
import pytest

from jax_stn_icnn.data.framing import IGNORE, FramedSource
from jax_stn_icnn.faces import detectors, framing, resample
from tfds_builders.synthetic_faces import classes
from tfds_builders.synthetic_faces.face import draw_face

SIZE = 64
NAMES = ("background+cloth", "skin+neck", "hair", "ignore")
# The ids of NAMES for the classes of drawn faces.
IDS = np.ones(len(classes.CLASSES), np.uint8)
IDS[classes.BACKGROUND], IDS[classes.HAIR] = 0, 2


def make_record(image, label=None, name="photo"):
    record = {"image": image, "name": name.encode()}
    return record if label is None else record | {"label": label[..., None]}


def framed(records, tmp_path=None, frame_size=SIZE, label_names=NAMES, **options):
    return FramedSource(
        records, frame_size, label_names=label_names, store=tmp_path, name="drawn", **options
    )


@pytest.fixture(scope="module")
def photo():
    """A photo of a small drawn face, rotated by 20 degrees, and a larger one; and their labels."""
    image, labels = np.full((600, 900, 3), 128, np.uint8), np.zeros((2, 600, 900), np.uint8)
    for index, (scale, degrees, center) in enumerate([(0.7, 20, (200, 300)), (1.5, 0, (650, 320))]):
        face, label = draw_face("train", 7)
        matrix = cv2.getRotationMatrix2D((127.5, 127.5), degrees, scale)
        matrix[:, 2] += np.array(center) - 127.5
        drawn = resample.sample_nearest(
            np.ones((256, 256), np.uint8), resample.invert_matrix(matrix), (600, 900)
        )
        warped = resample.warp(face, resample.invert_matrix(matrix), (600, 900))
        image[drawn == 1] = warped[drawn == 1]
        labels[index] = resample.sample_nearest(
            IDS[label], resample.invert_matrix(matrix), (600, 900)
        )
    return image, labels


@pytest.fixture
def calls(monkeypatch):
    """Replaces the detector by one that returns the boxes in the list `boxes`; counts its calls."""

    class Detector:
        boxes = [(30, 40, 69, 79)]
        count = 0

        def __call__(self, photo):
            self.count += 1
            return np.array(self.boxes, np.float64)

    detector = Detector()
    monkeypatch.setattr(detectors, "make_single_view_detector", lambda: detector)
    return detector


@pytest.fixture
def records():
    """Three photos of random pixels, half of them hair."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (3, 120, 100, 3), np.uint8)
    label = np.zeros((120, 100), np.uint8)
    label[:60] = 2
    return [make_record(image, label, f"photo {i}") for i, image in enumerate(images)]


@pytest.mark.parametrize("labelled", [0, 1])
def test_of_two_faces_the_labelled_one_is_framed(photo, labelled):
    image, labels = photo
    record = framed([make_record(image, labels[labelled])], frame_size=256)[0]
    # In the frame the face is upright and as large as in the drawing, whatever its place was.
    label = record["label"][..., 0]
    rows, columns = np.nonzero((label == 1) | (label == 2))
    middle = np.array([rows.mean(), columns.mean()])
    assert np.all(np.abs(middle - 127.5) < 30)
    assert 0.3 < (label == 1).mean() + (label == 2).mean() < 0.9
    assert record["image"].shape == (256, 256, 3) and record["image"].dtype == np.uint8
    assert record["label"].shape == (256, 256, 1) and record["label"].dtype == np.uint8
    assert record["name"] == "photo"


def test_without_labels_the_largest_face_is_framed(photo):
    image, labels = photo
    unlabelled = framed([make_record(image)], label_names=None)[0]
    assert set(unlabelled) == {"image", "name"}
    labelled = framed([make_record(image, labels[1])])[0]
    np.testing.assert_array_equal(unlabelled["image"], labelled["image"])
    # So it is if the labels contain no part of a head.
    background = framed([make_record(image, np.zeros_like(labels[0]))])[0]
    np.testing.assert_array_equal(background["image"], labelled["image"])


@pytest.mark.parametrize("size", [32, 64, 200])
def test_the_frame_is_that_of_the_parser(calls, records, size):
    matrix = framing.frame_from_box(np.array(calls.boxes[0]), size)
    image = resample.warp(records[0]["image"], matrix, (size, size))
    np.testing.assert_array_equal(framed(records, frame_size=size)[0]["image"], image)


def test_a_wide_frame_extends_downward(calls, records):
    small, large = framed(records, frame_size=64), framed(records, frame_size=128, extensions=1)
    # The wide frame is twice as large, and an eighth of the frame lower.
    middle = large[0]["image"][24:88, 32:96].astype(float)
    # OpenCV interpolates between positions rounded to 1/32 pixel.
    np.testing.assert_allclose(middle, small[0]["image"], atol=255 / 32 + 1)


@pytest.mark.parametrize("size", [256, 64, 20])
def test_labels_and_image_are_aligned_and_outside_is_ignored(calls, size):
    label = np.zeros((120, 100), np.uint8)
    label[40:70, 20:60] = 2
    label[75:110, 65:90] = 1
    image = np.repeat(80 * label[..., None] + 80, 3, axis=-1)
    calls.boxes = [(60, 60, 99, 99)]
    record = framed([make_record(image, label)], frame_size=size)[0]
    warped, found = record["image"][..., 0], record["label"][..., 0]
    outside = found == IGNORE
    assert 0.1 < outside.mean() < 0.5 and np.all(warped[outside] < 80)
    # The gray level that is nearest to the image's gives the label, except at edges.
    for id_ in (0, 1, 2):
        inside = cv2.erode((found == id_).astype(np.uint8), np.ones((3, 3))) == 1
        assert inside.any() and np.all(np.abs(warped[inside] - (80.0 * id_ + 80)) < 40)


@pytest.mark.parametrize("boxes", [np.zeros((0, 4)), [(0, 70, 19, 89)]], ids=["none", "bystander"])
def test_without_the_labelled_face_the_hair_is_framed(calls, boxes):
    calls.boxes = boxes
    image = np.full((120, 160, 3), 90, np.uint8)
    label = np.zeros((120, 160), np.uint8)
    label[20:50, 100:140], image[20:50, 100:140] = 2, 255
    record = framed([make_record(image, label)])[0]
    rows, columns = np.nonzero(record["label"][..., 0] == 2)
    # The side of the frame is 0.911 times 40 pixels, its center 0.654 times 40 below y = 20.
    top, bottom = ((y - (20 + 0.654 * 40)) / (0.911 * 40) * SIZE + 31.5 for y in (20, 49))
    assert rows.min() == pytest.approx(max(top, 0), abs=1)
    assert rows.max() == pytest.approx(bottom, abs=1.5)
    assert columns.min() == 0 and columns.max() == SIZE - 1


@pytest.mark.parametrize("names", [NAMES, ("background", "skin", "other", "ignore")])
def test_without_face_and_hair_the_full_photo_is_framed(calls, records, names):
    calls.boxes = []
    for record in records:
        record["label"] = record["label"] // 2 * (names is not NAMES) * 2
    record = framed(records, frame_size=120, label_names=names)[0]
    np.testing.assert_array_equal(record["image"][:, 10:110], records[0]["image"])
    assert np.all(record["label"][:, :10] == IGNORE) and not np.any(record["image"][:, :10])


def test_frames_are_stored_and_read_again_at_any_size(calls, records, tmp_path):
    first = framed(records, tmp_path)
    assert calls.count == 3 and len(first) == 3
    again = framed(records, tmp_path)
    assert calls.count == 3
    np.testing.assert_array_equal(first[2]["image"], again[2]["image"])
    assert framed(records, tmp_path, frame_size=32)[0]["image"].shape == (32, 32, 3)
    assert calls.count == 3
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("frames_") and file.suffix == ".json"


@pytest.mark.parametrize("change", ["name", "number", "size", "classes"])
def test_frames_of_other_records_are_not_read(calls, records, tmp_path, change):
    framed(records, tmp_path)
    names = NAMES
    if change == "name":
        records[1]["name"] = b"another photo"
    elif change == "number":
        records.pop()
    elif change == "size":
        records[1] |= {"image": records[1]["image"][:-1], "label": records[1]["label"][:-1]}
    else:
        names = NAMES[:2]
    framed(records, tmp_path, label_names=names)
    assert calls.count == 3 + len(records)


@pytest.mark.parametrize(
    "content", [b"", b"[[[1, 0, 0]", b"\xff\xfe", b"[[[1, 0, 0], [0, 1, 0]]]", b'{"a": 1}', b"null"]
)
def test_a_damaged_file_is_replaced_with_one_warning(calls, records, tmp_path, caplog, content):
    framed(records, tmp_path)
    (file,) = tmp_path.iterdir()
    valid = file.read_bytes()
    file.write_bytes(content)
    framed(records, tmp_path)
    (warning,) = caplog.messages
    assert file.name in warning and "faces are detected again" in warning
    assert calls.count == 6 and file.read_bytes() == valid


def test_a_directory_that_cannot_be_written_to_is_a_warning(calls, records, tmp_path, caplog):
    source = framed(records, tmp_path / "missing")
    assert source[0]["image"].shape == (SIZE, SIZE, 3)
    (warning,) = caplog.messages
    assert "missing" in warning and "cannot be written" in warning


def test_a_pickled_source_detects_nothing(calls, records):
    source = framed(records)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[1]["label"], source[1]["label"])
    assert calls.count == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((9, 9), np.uint8)}, r"drawn: record 1, 'photo 1': image has shape"),
        ({"label": np.zeros((9, 9, 1), np.uint8)}, r"record 1, 'photo 1': label has shape"),
    ],
)
def test_an_invalid_record_is_named(calls, records, change, message):
    records[1] |= change
    with pytest.raises(ValueError, match=message):
        framed(records)
