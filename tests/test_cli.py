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
def cache_calls(monkeypatch):
    """Keeps the command from changing the cache of this process; returns the calls' arguments."""
    calls = []
    monkeypatch.setattr(cache, "enable_cache", calls.append)
    return calls


@pytest.fixture
def loads(monkeypatch, small_parser):
    """Replaces the parser by the small one; returns the weights that the command loads."""
    loads = []

    def load(path=None, detector="yunet"):
        loads.append(path)
        return small_parser

    monkeypatch.setattr(FaceParser, "load", load)
    return loads


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, seed in (("a.png", 0), ("b.PNG", 1), ("c.bmp", 2)):
        Image.fromarray(picture(seed)).save(folder / name)
    (folder / "bad.jpg").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("ignored")
    return folder


def test_a_folder_with_a_bad_file(loads, cache_calls, small_parser, folder, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    ckpt = tmp_path / "some_run"
    ckpt.mkdir()
    (ckpt / "weights.safetensors").write_bytes(b"the fixture loads another parser")
    command = ["parse", str(folder), "--out", str(out), "--ckpt", str(ckpt), "--no-detect"]
    assert main.main(command) == 1
    assert loads == [str(ckpt)] and cache_calls == [None]
    captured = capsys.readouterr()
    assert captured.err.count("error:") == 1 and "bad.jpg is not an image" in captured.err
    assert "3 parsed, 0 already done, 1 failed" in captured.out
    endings = (".labels.png", ".overlay.jpg", ".json")
    expected = {name + ending for name in ("a.png", "b.PNG", "c.bmp") for ending in endings}
    assert set(os.listdir(out)) == expected | {"settings.json"}

    # The same batch size: on some processors another program rounds sums differently.
    result = next(small_parser.stream([picture(0)], detect=False))
    with Image.open(out / "a.png.labels.png") as indexed:
        assert indexed.mode == "P"
        np.testing.assert_array_equal(np.asarray(indexed), result.labels)
        np.testing.assert_array_equal(indexed.convert("RGB"), draw.colours(result.labels, NINE))
    with Image.open(out / "a.png.overlay.jpg") as overlay:
        difference = np.subtract(overlay, result.overlay(legend=True), dtype=np.float32)
        assert np.abs(difference).mean() < 30  # JPEG of noise
    metadata = json.loads((out / "a.png.json").read_text())
    assert (metadata["photo"], metadata["width"], metadata["height"]) == ("a.png", 48, 40)
    assert metadata["classes"] == list(NINE.classes)
    assert metadata["palette"] == [list(colour) for colour in NINE.colours]
    (face,) = metadata["faces"]
    assert face["box"] == list(result.faces[0].box)
    assert face["parts_found"] == list(result.faces[0].found)
    assert face["windows"] == {k: list(v) for k, v in result.faces[0].windows.items()}


def test_complete_results_are_skipped(loads, folder, tmp_path, capsys):
    out = tmp_path / "out"
    (folder / "bad.jpg").unlink()
    command = ["parse", str(folder), "--out", str(out), "--no-detect"]
    assert main.main(command) == 0
    (out / "b.PNG.json").unlink()  # as if stopped before the last file
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main.main(command) == 0
    assert "1 parsed, 2 already done, 0 failed" in capsys.readouterr().out
    for path in out.iterdir():
        assert (times.get(path.name) != path.stat().st_mtime_ns) == path.name.startswith("b.PNG")
    # Without inputs to parse no weights are loaded.
    assert loads == [None, None]
    assert main.main(command) == 0
    assert loads == [None, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--no-detect", "--ckpt", "nine"],
            "nineteen.safetensors in the folder, nine.safetensors now",
        ),
        (["--detector", "cascade"], "one per photo, not detected in the folder, cascade now"),
        (["--no-detect", "--ckpt", "nothing"], "nothing: there is no such weights file"),
        (["--no-detect", "--detector", "nothing"], "nothing"),
    ],
)
def test_results_of_other_settings_are_not_mixed(loads, folder, tmp_path, capsys, options, message):
    command = ["parse", str(folder / "a.png"), "--out", str(tmp_path / "out")]
    assert main.main([*command, "--no-detect"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert main.main([*command, *options]) == 1
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_unreadable_settings_are_named(loads, folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "settings.json").write_text("[1, 2")
    assert main.main(["parse", str(folder / "a.png"), "--out", str(out), "--no-detect"]) == 1
    assert "settings.json that cannot be read: name another --out" in capsys.readouterr().err


def test_an_invalid_batch_size_is_named(folder, tmp_path, capsys):
    for batch in ("0", "-1", "2.5", "two"):
        with pytest.raises(SystemExit):
            main.main(["parse", str(folder), "--out", str(tmp_path), "--batch", batch])
        assert f"'{batch}' is not an integer of at least 1" in capsys.readouterr().err


def test_missing_masks_are_written_later(loads, small_parser, folder, tmp_path, capsys):
    out, photo = tmp_path / "out", folder / "a.png"
    command = ["parse", str(photo), "--out", str(out), "--no-detect"]
    assert main.main(command) == 0
    assert main.main([*command, "--masks", "nose,upper_lip"]) == 0
    assert "1 parsed, 0 already done" in capsys.readouterr().out
    result = small_parser(picture(0), detect=False)
    for name in ("nose", "upper_lip"):
        with Image.open(out / f"a.png.{name}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), result.mask(name))
    assert main.main([*command, "--masks", "nose,hare"]) == 1
    assert "no class 'hare': the classes are background" in capsys.readouterr().err


def test_files_are_written_atomically(loads, small_parser, folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    command = ["parse", str(folder / "a.png"), "--out", str(out), "--no-detect"]

    replace = os.replace

    def fail(temporary, path):
        if path.name.startswith("a.png"):
            raise OSError("no space left")
        replace(temporary, path)

    with monkeypatch.context() as patch:
        patch.setattr(writer.os, "replace", fail)
        assert main.main(command) == 1
    assert "no space left" in capsys.readouterr().err
    assert not [path for path in out.iterdir() if path.name.startswith("a.png")]
    assert main.main(command) == 0
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_named_file_may_have_any_suffix(loads, folder, tmp_path):
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
def test_invalid_arguments_are_named(loads, folder, tmp_path, capsys, photos, out, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "twin").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "twin" / "a.png")
    inputs = [str(tmp_path / photo) for photo in photos]
    assert main.main(["parse", *inputs, "--out", str(tmp_path / out)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert loads == []


def test_missing_weights_are_named(folder, tmp_path, capsys):
    command = ["parse", str(folder), "--out", str(tmp_path / "out"), "--ckpt", "nothing"]
    assert main.main(command) == 1
    assert "nothing: there is no such weights file" in capsys.readouterr().err


def test_the_cache_is_shown_and_cleared(tmp_path, capsys, monkeypatch):
    other = tmp_path / "notes.txt"
    entries = [tmp_path / cache.FOLDER / "0a1b", tmp_path / "jit_f-123-cache"]
    entries[0].parent.mkdir()
    for path in (other, *entries):
        path.write_bytes(bytes(50_000))
    monkeypatch.setattr(cache, "_directory", lambda: str(tmp_path))
    shown = f"{tmp_path}: 2 cached programs and functions, 0.1 MB"
    for arguments, text in ([], shown), (["--clear"], f"{shown}, removed"):
        assert main.main(["cache", *arguments]) == 0
        assert capsys.readouterr().out == f"{text}\n"
    assert other.exists() and not any(entry.exists() for entry in entries)
