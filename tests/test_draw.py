import json
import threading

import numpy as np
import pytest
from PIL import Image

from jax_stn_icnn.anatomy import ELEVEN, NINE, DataSet
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.label_sets import make_label_sets


def drawn_face(height=96, width=96, patch=21):
    rng = np.random.default_rng(0)
    label_map = np.zeros((height, width), np.uint8)
    for c in range(1, 9):
        label_map[8 * c : 8 * c + 6, 20:50] = c
    corner = rng.integers(0, width - patch, (6, 2))
    return draw.FaceRow(
        title="face 7",
        image=rng.integers(0, 256, (height, width, 3), np.uint8),
        coarse_labels=rng.integers(0, 9, (128, 128), np.uint8),
        windows=np.concatenate([corner, corner + patch - 1], axis=1).astype(np.float32),
        patches=rng.integers(0, 256, (6, patch, patch, 3), np.uint8),
        labels=label_map,
        truth=label_map[::-1],
    )


def test_overlay_at_known_pixels():
    image = np.full((2, 3, 3), 100, np.uint8)
    label_map = np.array([[0, 1, 5], [8, 0, 7]])
    mixed = draw.overlay(image, label_map, NINE, alpha=0.25)
    np.testing.assert_array_equal(mixed[0, 0], [100, 100, 100])
    np.testing.assert_array_equal(mixed[0, 1], [132, 115, 75])  # 75 + (230, 159, 0) / 4, rounded
    np.testing.assert_array_equal(mixed[0, 2], [75, 114, 104])  # halves go to even
    np.testing.assert_array_equal(mixed[1, 2], [139, 139, 139])
    assert mixed.dtype == np.uint8
    np.testing.assert_array_equal(draw.overlay(image, label_map, NINE, alpha=0), image)
    np.testing.assert_array_equal(
        draw.overlay(image, label_map, NINE, alpha=1)[1, 0], NINE.colours[8]
    )
    with pytest.raises(ValueError, match="label_map"):
        draw.overlay(image, label_map[:1], NINE)
    for alpha in (60, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"alpha is {alpha}, but must lie in 0..1"):
            draw.overlay(image, label_map, NINE, alpha)


def test_colours_are_the_distinct_colours_of_the_anatomy():
    np.testing.assert_array_equal(draw.colours(np.arange(9), NINE), NINE.colours)
    assert len(set(NINE.colours)) == NINE.num_classes


@pytest.mark.slow
@pytest.mark.parametrize("rows, height, width", [(1, 96, 96), (3, 96, 96), (2, 120, 96)])
def test_parse_grid_has_a_row_per_face(tmp_path, rows, height, width):
    path = tmp_path / "grid.png"
    draw.parse_grid(path, [drawn_face(height, width)] * rows, NINE)
    with Image.open(path) as picture:
        columns = (5 * width / height + 2 / 3) * draw.ROW_INCHES + 0.4
        assert abs(picture.size[0] - columns * draw.DPI) <= 2
        assert picture.size[1] == round((rows * draw.ROW_INCHES + 0.6) * draw.DPI)
        shown = np.asarray(picture.convert("RGB"))
    # Little is white: the columns fill the figure.
    assert (shown == 255).all(axis=-1).mean() < 0.25
    for colour in NINE.colours:
        assert (shown == colour).all(axis=-1).any(), colour


def test_parse_grid_without_truth_has_no_column_for_it(tmp_path):
    path = tmp_path / "grid.png"
    draw.parse_grid(path, [drawn_face()._replace(truth=None)], NINE)
    with Image.open(path) as picture:
        assert abs(picture.size[0] - ((4 + 2 / 3) * draw.ROW_INCHES + 0.4) * draw.DPI) <= 2


def test_parse_grid_without_faces(tmp_path):
    with pytest.raises(ValueError, match="faces is empty"):
        draw.parse_grid(tmp_path / "grid.png", [], NINE)
    assert not (tmp_path / "grid.png").exists()


@pytest.mark.slow
def test_confusion_matrix_depends_on_the_shares_only(tmp_path):
    def draw_counts(counts):
        draw.confusion_matrix(tmp_path / "confusion.png", counts, NINE, title="split")
        with Image.open(tmp_path / "confusion.png") as picture:
            assert picture.size == (960, 870)
            return np.asarray(picture.convert("RGB"), int)

    right, wrong = np.eye(9, dtype=np.int64), np.eye(9, dtype=np.int64)[::-1]
    assert (draw_counts(right) != draw_counts(wrong)).any()
    np.testing.assert_array_equal(draw_counts(right), draw_counts(1000 * right))
    draw_counts(np.zeros((9, 9), np.int64))  # a class without pixels is not an error


def test_confusion_matrix_has_a_row_for_each_label(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    hair_only = DataSet({"other": "background+skin", "hair": "hair"}, framing="resize")
    sets = make_label_sets(ELEVEN, [hair_only])
    rows = []
    monkeypatch.setattr(Axes, "set_yticks", lambda axes, ticks, names: rows.extend(names))
    counts = np.arange(sets.num_labels * 11).reshape(sets.num_labels, 11)
    draw.confusion_matrix(tmp_path / "confusion.png", counts, ELEVEN, label_sets=sets)
    assert rows == ["hair", "background + skin"]


def records(stages):
    for i, stage in enumerate(stages):
        yield {
            "stage": stage,
            "epoch": 1,
            "loss": 1 / (i + 1),
            "f1_overall": i / len(stages),
            "f1_mean_of_eight": None if i == 0 else 0.5,
            "coarse_f1_overall": 0.4,
            "window_error_px": 9.0 - i,
        }


def test_curves(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(r) + "\n" for r in records(["coarse", "fine", "fine"])))
    draw.curves(tmp_path / "curves.png", metrics, NINE)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1200, 1125)
        shown = np.asarray(picture.convert("RGB"))
    for line in draw.LINE_COLOURS:
        rgb = [int(line[i : i + 2], 16) for i in (1, 3, 5)]
        assert (shown == rgb).all(axis=-1).any(), line
    metrics.write_text("")
    with pytest.raises(ValueError, match="metrics.jsonl contains no record"):
        draw.curves(tmp_path / "curves.png", metrics, NINE)


def test_threads_draw_equal_files(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    threads = [
        threading.Thread(target=draw.confusion_matrix, args=(path, np.eye(9, dtype=int), NINE))
        for path in paths
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path.read_bytes() for path in paths}) == 1
