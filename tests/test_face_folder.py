import numpy as np
import pytest
from PIL import Image

from jax_stn_icnn.data.face_folder import FaceFolder
from jax_stn_icnn.faces import detectors

SIZE = 32


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two photos: the detector returns two faces in one, of which the red one is larger."""
    faces = Image.new("RGB", (200, 100))
    faces.paste((255, 0, 0), (0, 0, 100, 100))
    faces.paste((0, 255, 0), (100, 0, 200, 100))
    faces.save(tmp_path / "a.png")
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (40, 80), (0, 0, 255)).save(tmp_path / "deep" / "b.png")
    (tmp_path / "video.mp4").write_bytes(b"")

    def detector(photo):
        if photo.shape[0] == 80:
            return np.zeros((0, 4))
        return np.array([[145, 45, 155, 55], [30, 30, 70, 70]])

    monkeypatch.setattr(detectors, "make_single_view_detector", lambda: detector)
    return tmp_path


def test_the_largest_face_of_each_photo(folder):
    faces = FaceFolder(folder, SIZE)
    assert len(faces) == 2
    image = faces[0]["image"]
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
    assert np.all(image[SIZE // 2, SIZE // 2] == (255, 0, 0))
    assert faces[0]["name"].endswith("a.png")


def test_a_photo_without_a_face_is_returned_in_full(folder):
    image = FaceFolder(folder, SIZE)[1]["image"]
    assert np.all(image[:, SIZE // 4 : 3 * SIZE // 4] == (0, 0, 255))
    assert not np.any(image[:, : SIZE // 4 - 1])


def test_a_missing_folder_and_an_unreadable_photo_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nothing"):
        FaceFolder(tmp_path / "nothing", SIZE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        FaceFolder(tmp_path / "empty", SIZE)
    (folder / "c.png").write_text("not an image")
    with pytest.raises(ValueError, match="c.png is not an image"):
        FaceFolder(folder, SIZE)[1]
