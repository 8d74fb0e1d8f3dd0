import os
import socket

import numpy as np
import pytest
from PIL import Image

from jax_stn_icnn.cli import main
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.photos import files
from jax_stn_icnn.photos.reading import PhotoError, to_rgb


@pytest.fixture
def command(monkeypatch, small_parser):
    """Returns a function that runs the command with the small parser."""
    monkeypatch.setattr(cache, "enable_cache", lambda _: None)
    monkeypatch.setattr(FaceParser, "load", lambda path, **_: small_parser)
    return lambda *given: main.main(["parse", *map(str, given), "--no-detect"])


@pytest.fixture
def special(tmp_path):
    """A folder of images, links, subfolders, and everything that is not a regular file."""
    folder = tmp_path / "photos"
    (folder / "deep" / "deeper").mkdir(parents=True)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8))
    picture.save(folder / "good.png")
    picture.save(folder / "deep" / "good.png")
    picture.save(folder / "deep" / "deeper" / "third.jpg")
    (folder / "empty.png").touch()
    os.mkfifo(folder / "fifo.png")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)  # The path of a socket must be short.
        try:
            listener.bind("socket.png")
        finally:
            os.chdir(here)
    (folder / "null.png").symlink_to("/dev/null")
    (folder / "nowhere.png").symlink_to("nothing")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "linked.png").symlink_to("good.png")
    (folder / "folder.png").mkdir()
    (folder / "deep" / "up").symlink_to(folder)
    (folder / ("n" * 240 + ".png")).write_bytes((folder / "good.png").read_bytes())
    return folder


SKIPPED = {
    "fifo.png": "a FIFO",
    "socket.png": "a socket",
    "null.png": "a device",
    "nowhere.png": "unreadable",
    "circle.png": "unreadable",
}


def test_special_files_in_a_folder_are_skipped_with_a_message(command, special, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(special, "--out", out) == 1
    captured = capsys.readouterr()
    for name, kind in SKIPPED.items():
        assert any(name in line and kind in line for line in captured.err.splitlines())
    assert "empty.png is not an image" in captured.err
    assert "File name too long" in captured.err
    assert "2 parsed, 0 already done, 2 failed, 5 skipped" in captured.out
    assert (out / "good.png.json").exists() and (out / "linked.png.json").exists()


def test_subfolders(command, special, capsys):
    out = special / "out"  # inside the folder of the photos; its images are not photos
    for done in (0, 4):
        assert command(special, "--out", out, "--recursive") == 1
        assert f"{4 - done} parsed, {done} already done" in capsys.readouterr().out
    assert (out / "deep" / "good.png.json").exists()
    assert (out / "deep" / "deeper" / "third.jpg.overlay.jpg").exists()
    assert (out / "good.png.labels.png").read_bytes() == (
        out / "deep" / "good.png.labels.png"
    ).read_bytes()


@pytest.mark.parametrize("name", SKIPPED)
def test_a_special_file_as_argument_is_an_error(command, special, tmp_path, capsys, name):
    assert command(special / name, "--out", tmp_path / "out") == 1
    assert f"{name} is {SKIPPED[name]}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fifo.png", "null.png"])
def test_opening_a_special_file_does_not_block(special, name):
    with pytest.raises(PhotoError, match=f"{name} is not a regular file"):
        to_rgb(special / name)


def test_an_unreadable_folder_is_named(special, monkeypatch):
    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(folder / "deep")))
        return iter([(str(folder), [], ["good.png"])])

    monkeypatch.setattr(files.os, "walk", walk)
    found = files.find_files([special], special / "out", recursive=True)
    assert [file.name.name for file in found.inputs] == ["good.png"]
    assert found.skipped == [f"{special / 'deep'} cannot be searched: Permission denied"]
