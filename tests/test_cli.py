import copy
import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from jax_stn_icnn.anatomy import DATA_SETS, NINE, DataSet
from jax_stn_icnn.atomic import write_text
from jax_stn_icnn.cli import main, writer
from jax_stn_icnn.cli.outputs import Outputs
from jax_stn_icnn.cli.progress import Progress
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.faces import detectors
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.io import export


@pytest.fixture(autouse=True)
def cache_calls(monkeypatch):
    """Keeps the command from changing the cache of this process; returns the calls' arguments."""
    calls = []
    monkeypatch.setattr(cache, "enable_cache", calls.append)
    return calls


@pytest.fixture
def loads(monkeypatch, small_parser):
    """Replaces the parser by the small one; returns the weights that the command loads."""

    class Loads(list):
        parser, options = copy.copy(small_parser), []

    loads = Loads()

    def load(path=None, **options):
        loads.append(path)
        loads.options.append(options)
        return loads.parser

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
    (folder / "notes.txt").write_text("left out")
    (folder / "other.TXT").write_text("left out")
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")  # of macOS
    (folder / ".DS_Store").write_bytes(b"\0")
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
    assert "left out: 2 .txt\n" in captured.err
    assert "3 parsed, 0 already done, 1 failed\n" in captured.out
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


@pytest.mark.parametrize("content", [b"[1, 2", b"\xff", b"[" * 100_000])
def test_unreadable_settings_are_named(content, loads, folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "settings.json").write_bytes(content)
    assert main.main(["parse", str(folder / "a.png"), "--out", str(out), "--no-detect"]) == 1
    assert "settings.json that cannot be read: name another --out" in capsys.readouterr().err


def test_an_invalid_batch_size_is_named(folder, tmp_path, capsys):
    for batch in ("0", "-1", "2.5", "two"):
        with pytest.raises(SystemExit):
            main.main(["parse", str(folder), "--out", str(tmp_path), "--batch", batch])
        assert f"'{batch}' is not an integer of at least 1" in capsys.readouterr().err


def test_masks_without_a_name_are_refused(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main.main(["parse", str(folder), "--out", str(tmp_path / "out"), "--masks", " ,"])
    assert "' ,' names no class" in capsys.readouterr().err


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
        patch.setattr(os, "replace", fail)
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
        (["photos"], "photos", "the folder of the photos"),
        (["photos", "twin"], "out", "have the same output files"),
        (["photos"], "photos/a.png", "a.png, a file, but must be a folder"),
    ],
)
def test_invalid_arguments_are_named(loads, folder, tmp_path, capsys, photos, out, message):
    (tmp_path / "twin").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "twin" / "a.png")
    inputs = [str(tmp_path / photo) for photo in photos]
    assert main.main(["parse", *inputs, "--out", str(tmp_path / out)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert loads == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--masks", "hare"], "no class 'hare'"),
        (["--ids", "nothing"], "no data set 'nothing'"),
        (["--soft"], "name some with --masks"),
        (["--no-detect", "--largest"], "leave out --max-faces"),
        (["--detector", "nothing"], "nothing"),
        (["--ckpt", "nothing"], "nothing: there is no such weights file"),
    ],
)
def test_an_invalid_option_leaves_no_folder(loads, folder, tmp_path, capsys, options, message):
    assert main.main(["parse", str(folder), "--out", str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_arguments_without_photos_do_not_stop_the_others(loads, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").mkdir()
    inputs = [tmp_path / "nothing.png", folder / "a.png", tmp_path / "empty"]
    command = ["parse", *map(str, inputs), "--out", str(tmp_path / "out"), "--no-detect"]
    assert main.main(command) == 1
    captured = capsys.readouterr()
    assert "there is no file or folder" in captured.err and "nothing.png" in captured.err
    assert "empty contains no file named" in captured.err
    assert "1 parsed, 0 already done, 2 failed" in captured.out


def test_a_changed_photo_is_parsed_again(loads, folder, tmp_path, capsys):
    out, photo = tmp_path / "out", folder / "a.png"
    command = ["parse", str(photo), str(folder / "c.bmp"), "--out", str(out), "--no-detect"]
    assert main.main(command) == 0
    before = (out / "a.png.overlay.jpg").read_bytes()
    Image.fromarray(picture(7)).save(photo)
    os.utime(photo, (0, 0))  # an older file has replaced the photo
    assert main.main(command) == 0
    assert "1 parsed, 1 already done" in capsys.readouterr().out
    assert (out / "a.png.overlay.jpg").read_bytes() != before
    assert main.main([*command, "--overwrite"]) == 0
    assert "2 parsed, 0 already done" in capsys.readouterr().out


def test_results_beside_the_photos_are_not_photos(loads, folder, monkeypatch, capsys):
    """As `stn-icnn parse *.png *.jpg --out .`, again and again."""
    monkeypatch.chdir(folder)
    (folder / "bad.jpg").unlink()
    Image.fromarray(picture(5)).save("a.png.copy.jpg")  # not a result, in spite of its name
    for done in (0, 2, 2):
        photos = [path.name for path in folder.glob("[!.]*") if path.suffix in (".png", ".jpg")]
        masks = ["--masks", " nose ,upper_lip"]
        assert main.main(["parse", *photos, "--out", ".", "--no-detect", *masks]) == 0
        assert f"{2 - done} parsed, {done} already done, 0 failed" in capsys.readouterr().out
    results = {path.name for path in folder.iterdir() if path.name.startswith("a.png.")}
    kinds = ("labels.png", "overlay.jpg", "nose.png", "upper_lip.png", "json")
    expected = {f"a.png.{kind}" for kind in kinds}
    expected |= {"a.png.copy.jpg"} | {f"a.png.copy.jpg.{kind}" for kind in kinds}
    assert results == expected


def test_photos_without_a_face_are_counted(loads, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loads.parser, "detector", lambda image: np.zeros((0, 4)))
    command = ["parse", str(folder / "a.png"), str(folder / "c.bmp"), "--out", str(tmp_path)]
    assert main.main(command) == 0
    captured = capsys.readouterr()
    assert "2 parsed, 0 already done, 0 failed, 2 without a face" in captured.out
    assert "a.png: no face is found" in captured.err


def test_the_first_of_several_pictures_is_parsed_with_a_note(loads, tmp_path, capsys):
    first, second = (Image.fromarray(picture(seed)) for seed in (0, 1))
    first.save(tmp_path / "two.gif", save_all=True, append_images=[second])
    first.save(tmp_path / "one.gif")
    photos = [str(tmp_path / name) for name in ("two.gif", "one.gif")]
    assert main.main(["parse", *photos, "--out", str(tmp_path / "out"), "--no-detect"]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    (note,) = notes
    assert note.endswith("two.gif: the file contains 2 pictures, of which the first is parsed")


def test_an_interrupted_command_tells_how_to_continue(loads, folder, tmp_path, monkeypatch, capsys):
    def stream(photos, **_):
        yield loads.parser(next(iter(photos)), detect=False)
        raise KeyboardInterrupt

    command = ["parse", str(folder), "--out", str(tmp_path / "out"), "--no-detect"]
    with monkeypatch.context() as patch:
        patch.setattr(loads.parser, "stream", stream)
        assert main.main(command) == 130
    captured = capsys.readouterr()
    assert "interrupted: run the same command again to continue" in captured.err
    assert main.main(command) == 1
    assert "2 parsed, 1 already done" in capsys.readouterr().out


def test_all_outputs(loads, folder, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    out = tmp_path / "out"
    command = ["parse", str(folder / "a.png"), str(folder / "b.PNG"), "--out", str(out)]
    command += ["--no-detect", "--masks", "nose, lips", "--soft", "--cutout", "--per-face"]
    assert main.main([*command, "--format", "coco"]) == 0
    result = next(loads.parser.stream([picture(0)], detect=False))
    (face,) = result.faces
    for place, expected in (("a.png", result), ("a.png.face0", face)):
        for name in ("nose", "lips"):
            with Image.open(out / f"{place}.{name}.png") as mask:
                np.testing.assert_array_equal(np.asarray(mask), expected.mask(name))
            with Image.open(out / f"{place}.{name}.soft.png") as soft:
                assert soft.mode == "L"
                gray = np.round(expected.soft_mask(name) * 255)
                np.testing.assert_array_equal(np.asarray(soft), gray)
        with Image.open(out / f"{place}.labels.png") as labels:
            np.testing.assert_array_equal(np.asarray(labels), expected.labels)
    with Image.open(out / "a.png.cutout.png") as cutout:
        np.testing.assert_array_equal(np.asarray(cutout), result.cutout())
    annotations = coco.COCO(str(out / "coco.json"))
    assert [image["file_name"] for image in annotations.dataset["images"]] == ["a.png", "b.PNG"]
    names = {entry["id"]: entry["name"] for entry in annotations.dataset["categories"]}
    for entry in annotations.loadAnns(annotations.getAnnIds(imgIds=[1])):
        mask = annotations.annToMask(entry)
        np.testing.assert_array_equal(mask, result.mask(names[entry["category_id"]]))
    (out / "a.png.face0.nose.png").unlink()
    assert main.main([*command, "--format", "coco"]) == 0
    assert (out / "a.png.face0.nose.png").exists()


def test_annotations_of_photos_that_fail_now(loads, folder, tmp_path):
    """Their results of an earlier run remain, without annotations or of other content."""
    pytest.importorskip("pycocotools")
    out = tmp_path / "out"
    command = ["parse", str(folder / "a.png"), str(folder / "b.PNG"), "--out", str(out)]
    assert main.main([*command, "--no-detect"]) == 0
    (folder / "a.png").write_bytes(b"damaged")
    assert main.main([*command, "--no-detect", "--format", "coco"]) == 1
    (photo,) = json.loads((out / "coco.json").read_bytes())["images"]
    assert photo["file_name"] == "b.PNG"


@pytest.mark.parametrize(
    "options", [["--detector", "cascade", "--min-score", ".5"], ["--masks", "x"]]
)
def test_invalid_options_leave_no_files(options, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main.main(["parse", str(folder / "a.png"), "--out", str(out), *options]) == 1
    assert "error: " in capsys.readouterr().err
    assert not out.exists()


def test_an_interrupted_export_is_one_line(monkeypatch, tmp_path, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "write", interrupt)
    command = ["export", "--format", "onnx", "--out", str(tmp_path / "parser.onnx")]
    assert main.main(command) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_labels_in_the_ids_of_a_data_set(loads, folder, tmp_path, monkeypatch):
    names = {f"their {name}": name for name in reversed(NINE.classes)}
    monkeypatch.setitem(DATA_SETS, "theirs", DataSet(names, framing="pad"))
    out = tmp_path / "out"
    command = ["parse", str(folder / "a.png"), "--out", str(out), "--no-detect", "--ids", "theirs"]
    assert main.main(command) == 0
    result = next(loads.parser.stream([picture(0)], detect=False))
    with Image.open(out / "a.png.labels.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), len(names) - 1 - result.labels)
        np.testing.assert_array_equal(labels.convert("RGB"), draw.colours(result.labels, NINE))
    assert json.loads((out / "a.png.json").read_text())["classes"] == list(names)


def test_faces_are_selected(loads, folder, tmp_path, monkeypatch):
    """The options reach the parser, and are settings of the results."""
    options = []

    def stream(photos, **given):
        options.append(given)
        return (loads.parser(photo, detect=False) for photo in photos)

    monkeypatch.setattr(loads.parser, "stream", stream)
    photos = [str(folder / "a.png"), str(folder / "c.bmp")]
    command = ["parse", *photos, "--out", str(tmp_path / "out")]
    selection = ["--min-score", "0.9", "--min-face-size", "80", "--max-faces", "2"]
    assert main.main([*command, *selection]) == 0
    assert options[0]["max_faces"] == 2 and options[0]["detect"]
    assert loads.options[-1] == {"detector": "yunet", "min_score": 0.9, "min_face_size": 80}
    assert main.main([*command, *selection]) == 0
    assert main.main([*command, *selection[:-1], "3"]) == 1


def test_one_photo_is_parsed_by_a_call(loads, folder, tmp_path, capsys, monkeypatch):
    """It starts quicker than a stream."""
    monkeypatch.setattr(loads.parser, "stream", lambda photos, **_: iter(()))
    command = ["parse", "--out", str(tmp_path / "out"), "--no-detect"]
    assert main.main([*command, str(folder / "a.png")]) == 0
    assert (tmp_path / "out" / "a.png.json").exists()
    assert main.main([*command, str(folder / "bad.jpg")]) == 1
    assert capsys.readouterr().err.count("error:") == 1


def test_the_progress_shows_no_time_before_the_first_face(capsys):
    with Progress(4, "photo") as progress:
        progress.update(0)
        before = capsys.readouterr().err
        progress.update(1)
        progress.update(1)
        after = capsys.readouterr().err
    assert "/4" in before and "photo/s" not in before and ":" not in before
    assert "3/4 [" in after and "face/s" in after


def test_the_help_lists_the_output_files_on_two_screens(capsys):
    with pytest.raises(SystemExit):
        main.main(["parse", "--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 100
    for name in Outputs(("hair",), soft=True, cutout=True).file_names("photo.jpg", 0):
        assert name in text
    assert "examples:" in text and "photo.jpg.face0.labels.png" in text


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


def test_a_full_disk_ends_the_command_with_one_line_and_it_continues_later(
    loads, folder, tmp_path, capsys, monkeypatch
):
    (folder / "bad.jpg").unlink()
    for name in "defgh":
        Image.fromarray(picture(3)).save(folder / f"{name}.png")
    out = tmp_path / "out"
    command = ["parse", str(folder), "--out", str(out), "--no-detect"]

    def write_until_full(path, text):
        if path.name == "b.PNG.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_text(path, text)

    monkeypatch.setattr(writer, "write_text", write_until_full)
    assert main.main(command) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and "Traceback" not in error
    assert f"No space left on device: '{out / 'b.PNG.json'}'; the results of 1 inputs" in error
    monkeypatch.setattr(writer, "write_text", write_text)
    assert main.main(command) == 0
    assert " 0 failed" in capsys.readouterr().out
    assert not list(out.glob(".*"))


def test_settings_name_the_content_of_a_detector_in_a_file(loads, folder, tmp_path, capsys):
    file = tmp_path / "detector.onnx"
    file.write_bytes(detectors.YUNET.read_bytes())
    (folder / "bad.jpg").unlink()
    command = ["parse", str(folder), "--out", str(tmp_path / "out"), "--detector", str(file)]
    loads.parser.detector = lambda photo: np.zeros((0, 4))
    assert main.main(command) == 0
    digest = json.loads((tmp_path / "out" / "settings.json").read_text())["sha256 of the detector"]
    assert digest == detectors.YUNET_SHA256
