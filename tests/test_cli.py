import json
import os

import numpy as np
import pytest
from PIL import Image

from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.cli import main, writer
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.inference.parser import FaceParser


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """Keeps the command from changing where this process keeps its programs; lists its calls."""
    asked = []
    monkeypatch.setattr(cache, "enable_cache", asked.append)
    return asked


@pytest.fixture
def loads(monkeypatch, small_parser):
    """Lets the command use the small parser; lists the weights that it asked for."""
    asked = []

    def load(path=None, detector="yunet"):
        asked.append(path)
        return small_parser

    monkeypatch.setattr(FaceParser, "load", load)
    return asked


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, seed in (("a.png", 0), ("b.PNG", 1), ("c.bmp", 2)):
        Image.fromarray(picture(seed)).save(folder / name)
    (folder / "bad.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not asked for")
    return folder


def test_a_folder_with_a_bad_file(loads, kept, small_parser, folder, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    ckpt = tmp_path / "some_run"
    ckpt.mkdir()
    (ckpt / "weights.safetensors").write_bytes(b"the parser that is loaded is another")
    command = ["parse", str(folder), "--out", str(out), "--ckpt", str(ckpt), "--no-detect"]
    assert main.main(command) == 1
    assert loads == [str(ckpt)] and kept == [None]
    captured = capsys.readouterr()
    assert captured.err.count("error:") == 1 and "bad.jpg is not an image" in captured.err
    assert "3 parsed, 0 there already, 1 failed" in captured.out
    endings = (".labels.png", ".overlay.jpg", ".json")
    expected = {name + ending for name in ("a.png", "b.PNG", "c.bmp") for ending in endings}
    assert set(os.listdir(out)) == expected | {"settings.json"}

    # By a batch of the same size: processors round another program's sums otherwise.
    parse = next(small_parser.stream([picture(0)], detect=False))
    with Image.open(out / "a.png.labels.png") as indexed:
        assert indexed.mode == "P"
        np.testing.assert_array_equal(np.asarray(indexed), parse.labels)
        np.testing.assert_array_equal(indexed.convert("RGB"), draw.colours(parse.labels, NINE))
    with Image.open(out / "a.png.overlay.jpg") as overlay:
        difference = np.subtract(overlay, parse.overlay(legend=True), dtype=np.float32)
        assert np.abs(difference).mean() < 30  # JPEG, and the picture is noise
    facts = json.loads((out / "a.png.json").read_text())
    assert (facts["photo"], facts["width"], facts["height"]) == ("a.png", 48, 40)
    assert facts["classes"] == list(NINE.classes)
    assert facts["palette"] == [list(colour) for colour in NINE.colours]
    (face,) = facts["faces"]
    assert face["box"] == list(parse.faces[0].box)
    assert face["parts_found"] == list(parse.faces[0].found)
    assert face["windows"] == {k: list(v) for k, v in parse.faces[0].windows.items()}


def test_what_is_done_is_skipped(loads, folder, tmp_path, capsys):
    out = tmp_path / "out"
    (folder / "bad.jpg").unlink()
    command = ["parse", str(folder), "--out", str(out), "--no-detect"]
    assert main.main(command) == 0
    (out / "b.PNG.json").unlink()  # as if it had been stopped before its last file
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main.main(command) == 0
    assert "1 parsed, 2 there already, 0 failed" in capsys.readouterr().out
    for path in out.iterdir():
        assert (times.get(path.name) != path.stat().st_mtime_ns) == path.name.startswith("b.PNG")
    # With nothing left to do no weights are asked for.
    assert loads == [None, None]
    assert main.main(command) == 0
    assert loads == [None, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-detect", "--ckpt", "nine"], "nineteen.safetensors there, nine.safetensors now"),
        (["--detector", "cascade"], "the whole photo there, cascade now"),
        (["--no-detect", "--ckpt", "nothing"], "no file of weights nothing"),
        (["--no-detect", "--detector", "nothing"], "nothing"),
    ],
)
def test_results_made_otherwise_do_not_mix(loads, folder, tmp_path, capsys, options, message):
    command = ["parse", str(folder / "a.png"), "--out", str(tmp_path / "out")]
    assert main.main([*command, "--no-detect"]) == 0
    kept = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert main.main([*command, *options]) == 1
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == kept


def test_settings_that_cannot_be_read(loads, folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "settings.json").write_text("[1, 2")
    assert main.main(["parse", str(folder / "a.png"), "--out", str(out), "--no-detect"]) == 1
    assert "settings.json that cannot be read: name another --out" in capsys.readouterr().err


def test_a_batch_is_a_number_of_faces(folder, tmp_path, capsys):
    for batch in ("0", "-1", "2.5", "two"):
        with pytest.raises(SystemExit):
            main.main(["parse", str(folder), "--out", str(tmp_path), "--batch", batch])
        assert f"'{batch}' is not a whole number of at least 1" in capsys.readouterr().err


def test_masks_are_written_and_asked_for_again(loads, small_parser, folder, tmp_path, capsys):
    out, photo = tmp_path / "out", folder / "a.png"
    command = ["parse", str(photo), "--out", str(out), "--no-detect"]
    assert main.main(command) == 0
    assert main.main([*command, "--masks", "nose,upper_lip"]) == 0
    assert "1 parsed, 0 there already" in capsys.readouterr().out
    parse = small_parser(picture(0), detect=False)
    for name in ("nose", "upper_lip"):
        with Image.open(out / f"a.png.{name}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), parse.mask(name))
    assert main.main([*command, "--masks", "nose,hare"]) == 1
    assert "no class 'hare': the classes are background" in capsys.readouterr().err


def test_a_file_is_whole_or_not_there(loads, small_parser, folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    command = ["parse", str(folder / "a.png"), "--out", str(out), "--no-detect"]

    replace = os.replace

    def full(partial, path):
        if path.name.startswith("a.png"):
            raise OSError("no space left")
        replace(partial, path)

    with monkeypatch.context() as patch:
        patch.setattr(writer.os, "replace", full)
        assert main.main(command) == 1
    assert "no space left" in capsys.readouterr().err
    assert not [path for path in out.iterdir() if path.name.startswith("a.png")]
    assert main.main(command) == 0
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_file_may_be_called_anything(loads, folder, tmp_path):
    (folder / "a.png").rename(folder / "a.photo")
    out = tmp_path / "out"
    photos = [str(folder / "a.photo"), str(folder / "c.bmp")]
    assert main.main(["parse", *photos, "--out", str(out), "--no-detect"]) == 0
    assert (out / "a.photo.json").exists() and (out / "c.bmp.json").exists()


@pytest.mark.parametrize(
    ("photos", "out", "message"),
    [
        (["nothing.png"], "out", "no file or folder"),
        (["empty"], "out", "empty contains no file named"),
        (["photos"], "photos", "the folder of the photos"),
        (["photos", "twin"], "out", "have the same output files"),
        (["photos"], "photos/a.png", "File exists"),
    ],
)
def test_what_cannot_be_done_is_said(loads, folder, tmp_path, capsys, photos, out, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "twin").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "twin" / "a.png")
    sources = [str(tmp_path / photo) for photo in photos]
    assert main.main(["parse", *sources, "--out", str(tmp_path / out)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert loads == []


def test_weights_that_are_not_there(folder, tmp_path, capsys):
    command = ["parse", str(folder), "--out", str(tmp_path / "out"), "--ckpt", "nothing"]
    assert main.main(command) == 1
    assert "no file of weights nothing" in capsys.readouterr().err
