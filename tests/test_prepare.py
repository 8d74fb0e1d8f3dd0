"""The command `tfds_builders.prepare`, and the archives that it reads."""

import importlib
import os
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import archives
import numpy as np
import pytest

from tfds_builders import images, prepare, sharding
from tfds_builders.archive import ArchiveError
from tfds_builders.zip_reader import ZipDamagedError, ZipReader

# The builders have a job of their own (.ci/slow).
pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
ROOTS = {
    "celebamask_hq": archives.CELEBAMASK_ROOT,
    "helen": archives.HELEN_ROOT,
    "lapa": archives.LAPA_ROOT,
}
FILES = {"celebamask_hq": archives.celebamask, "helen": archives.helen, "lapa": archives.lapa}
# Runs the command in a process that kills itself when it encodes label number KILL_AT.
KILLED_RUN = """
import itertools, os, signal, sys
from tfds_builders import images, prepare
encode, calls = images.encode_png, itertools.count(1)
def encode_or_die(pixels):
    if next(calls) == int(os.environ["KILL_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(pixels)
images.encode_png = encode_or_die
prepare.define_flags()
prepare.app.run(prepare.main)
"""


def command(*arguments: str | Path, code: str | None = None, **environment: str):
    run = ["-c", code] if code else ["-m", "tfds_builders.prepare"]
    return subprocess.run(
        [sys.executable, *run, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("manual")
    for name, root in ROOTS.items():
        archives.write_zip(FILES[name](), folder, root)
    return folder


@pytest.mark.parametrize("name", ROOTS)
def test_next_build_after_a_killed_one_writes_the_same_bytes(name, manual_dir, tmp_path):
    prepare.prepare(name, tmp_path / "undisturbed", manual_dir, "array_record")
    arguments = (name, "--manual_dir", manual_dir, "--data_dir", tmp_path / "killed")
    killed = command(*arguments, code=KILLED_RUN, KILL_AT="6")
    assert killed.returncode == -signal.SIGKILL
    (stale,) = (tmp_path / "killed" / name).iterdir()
    assert stale.name.startswith("incomplete.")
    assert list(stale.iterdir())

    again = command(*arguments)  # also acquires the lock of the killed process
    assert again.returncode == 0, again.stderr
    assert "prepared: " in again.stdout
    assert archives.read_tree(tmp_path / "killed") == archives.read_tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("name", prepare.NAMES)
def test_every_builder_writes_the_same_bytes_in_every_process(name):
    module = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")
    assert issubclass(module.Builder, sharding.ShardedBuilder)


def test_zip_and_folder_give_same_bytes(manual_dir, tmp_path):
    for name, root in ROOTS.items():
        archives.write_folder(FILES[name](), tmp_path / "unpacked", root)
        prepare.prepare(name, tmp_path / "zip", manual_dir, "array_record")
        prepare.prepare(name, tmp_path / "folder", tmp_path / "unpacked", "array_record")
    assert archives.read_tree(tmp_path / "zip") == archives.read_tree(tmp_path / "folder")


def test_complete_data_set_is_not_changed(manual_dir, tmp_path):
    prepare.prepare("helen", tmp_path, manual_dir, "array_record")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "helen").rglob("*")}
    message = prepare.prepare("helen", tmp_path, None, "array_record")
    assert message.startswith("already complete: ")
    assert message.endswith("(array_record; train 4, validation 1, test 2)")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "helen").rglob("*")} == before


def test_other_format_is_refused(manual_dir, tmp_path, monkeypatch):
    prepare.prepare("helen", tmp_path, manual_dir, "array_record")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(prepare.PrepareError, match="contains array_record; set another --data_dir"):
        prepare.prepare("helen", tmp_path, manual_dir, "tfrecord")


def test_tfrecord_without_tensorflow_is_refused(manual_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(prepare.PrepareError, match="needs TensorFlow"):
        prepare.prepare("helen", tmp_path, manual_dir, "tfrecord")


def test_two_builds_at_once_are_refused(manual_dir, tmp_path, monkeypatch):
    arguments = ("helen", tmp_path, manual_dir, "array_record")
    encode, refused = images.encode_png, []

    def encode_during_another_build(pixels):
        with pytest.raises(prepare.PrepareError, match="another process is preparing .*helen"):
            prepare.prepare(*arguments)
        refused.append(True)
        return encode(pixels)

    monkeypatch.setattr(images, "encode_png", encode_during_another_build)
    assert prepare.prepare(*arguments).startswith("prepared: ")
    assert len(refused) == 7  # one per record


def test_a_build_in_another_process_is_refused(manual_dir, tmp_path, monkeypatch):
    arguments = ("helen", "--manual_dir", manual_dir, "--data_dir", tmp_path)
    encode, results = images.encode_png, []

    def encode_during_another_build(pixels):
        if not results:
            results.append(command(*arguments))
        return encode(pixels)

    monkeypatch.setattr(images, "encode_png", encode_during_another_build)
    prepare.prepare("helen", tmp_path, manual_dir, "array_record")
    assert results[0].returncode == 1
    assert "error: another process is preparing" in results[0].stderr.splitlines()[-1]
    assert "Traceback" not in results[0].stderr


def test_a_full_disk_is_one_error_and_leaves_nothing(manual_dir, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("write() failed: No space left on device; writing a file")

    with monkeypatch.context() as patch:
        patch.setattr("tensorflow_datasets.core.ExampleWriter.write", fail)
        message = f"^{tmp_path}/helen/1.0.0: No space left on device; nothing of the data set"
        with pytest.raises(prepare.PrepareError, match=message):
            prepare.prepare("helen", tmp_path, manual_dir, "array_record")
    assert not (tmp_path / "helen").exists()
    assert prepare.prepare("helen", tmp_path, manual_dir, "array_record").startswith("prepared: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist or is empty.*\n.*Download SmithCVPR2013"),
        ({}, "contains neither SmithCVPR2013_dataset_resized.zip nor the folder"),
        ({"": b"<html>quota exceeded</html>"}, "resized.zip: is not a zip file; download"),
        ({"": b""}, "resized.zip: is not a zip file; download"),
        ({"": 0.9}, "resized.zip: is truncated: .*; download the archive again"),
    ],
    ids=["no directory", "no archive", "not a zip file", "no bytes", "truncated"],
)
def test_no_archive(content, message, manual_dir, tmp_path):
    folder = tmp_path / "manual"
    if content is not None:
        folder.mkdir()
        (folder / "another_data_set.zip").touch()
        complete = (manual_dir / f"{archives.HELEN_ROOT}.zip").read_bytes()
        for data in content.values():
            part = data if isinstance(data, bytes) else complete[: int(len(complete) * data)]
            (folder / f"{archives.HELEN_ROOT}.zip").write_bytes(part)
    with pytest.raises(ArchiveError, match=message):
        prepare.prepare("helen", tmp_path / "data", folder, "array_record")
    assert not (tmp_path / "data" / "helen").exists()


def test_command_prints_one_line_and_fails(tmp_path):
    files = dict(archives.helen())
    archives.truncate("images/7_1.jpg")(files)
    path = archives.write_zip(files, tmp_path, archives.HELEN_ROOT)
    result = command("helen", "--manual_dir", tmp_path, "--data_dir", tmp_path / "data")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {path}: images/7_1.jpg: cannot be")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("limit_32_bits", [None, 1000])
def test_zip_reader_equals_zipfile(limit_32_bits, tmp_path, monkeypatch):
    """With the lower limit, large and late members store their numbers in zip64 fields."""
    if limit_32_bits:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit_32_bits)
    rng = np.random.default_rng(0)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in rng.permutation(300):
            info = zipfile.ZipInfo(f"folder/{index}.bin")
            info.compress_type = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[index % 2]
            with archive.open(info, "w", force_zip64=limit_32_bits is not None) as member:
                member.write(bytes(rng.integers(0, 4, rng.integers(0, 3000), dtype=np.uint8)))
        archive.writestr("folder/", b"")
        archive.comment = b"a comment after the end record"
    reader = ZipReader(path)
    with zipfile.ZipFile(path) as archive:
        assert list(reader) == sorted(set(archive.namelist()) - {"folder/"})
        for name in reader:
            assert reader.read(name) == archive.read(name)
    assert "folder/7.bin" in reader
    assert "folder/7.bi" not in reader
    with pytest.raises(KeyError):
        reader.read("folder/300.bin")


def test_zip_reader_with_more_members_than_the_end_record_can_count(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(66_000):
            archive.writestr(zipfile.ZipInfo(str(index)), b"")
        archive.writestr("last", b"content")
    reader = ZipReader(path)
    assert sum(1 for _ in reader) == 66_001
    assert reader.read("last") == b"content"


@pytest.mark.parametrize("size", [10, 2**31])
def test_zip_reader_decompresses_no_more_than_the_directory_says(size, tmp_path):
    """A megabyte of zip file may contain a gigabyte of zeros."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**8))
    data = path.read_bytes()
    at = data.rindex(b"PK\1\2") + 24
    path.write_bytes(data[:at] + size.to_bytes(4, "little") + data[at + 4 :])
    reader = ZipReader(path)
    tracemalloc.start()
    with pytest.raises(ZipDamagedError):
        reader.read("zeros")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_reader_detects_a_damaged_member(method, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a", bytes(range(256)) * 4)
    damaged = bytearray(path.read_bytes())
    damaged[60] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ZipDamagedError, match="damaged|checksum"):
        ZipReader(path).read("a")
