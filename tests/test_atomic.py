import os
import subprocess
import sys

import pytest

from jax_stn_icnn.atomic import (
    is_disk_error,
    remove_partial_files,
    temporary_path,
    write_atomically,
    write_text,
)


def test_a_file_is_replaced_and_nothing_else_remains(tmp_path):
    for text in ("first", "s\u00e9cond"):
        write_text(tmp_path / "a.txt", text)
        assert (tmp_path / "a.txt").read_text(encoding="utf-8") == text
    assert os.listdir(tmp_path) == ["a.txt"]


def write_half(file):
    file.write(b"half")
    with open("/dev/full", "wb", buffering=0) as full:
        full.write(b"the other half")


def test_a_full_disk_leaves_the_file_as_it_was_and_the_error_names_it(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "first")
    with pytest.raises(OSError, match=f"No space left on device: '{path}'") as caught:
        write_atomically(path, write_half)
    assert is_disk_error(caught.value)
    assert os.listdir(tmp_path) == ["a.txt"] and path.read_text() == "first"


def test_only_files_of_processes_that_ended_are_removed(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    own = temporary_path(tmp_path / "deep" / "a.b.png")
    assert own.suffix == ".png"
    stale = own.with_name(own.name.replace(f"-{os.getpid()}.", f"-{int(done.stdout)}."))
    foreign = stale.with_name(f".a.other_machine-{int(done.stdout)}.partial.png")
    others = [tmp_path / "deep" / name for name in ("a.partial.png", ".partial", foreign.name)]
    own.parent.mkdir()
    for path in (own, stale, *others):
        path.touch()
    remove_partial_files(tmp_path)
    assert set(own.parent.iterdir()) == {own, *others}
