"""Runs the blocks of code on the pages, in order, in a folder that looks like a clone.

`python -m pytest docs`. A block of Python with a file's name as its title is written to that file;
other Python runs, all blocks of a page in one namespace; bash runs by bash. A title that begins
with NOT_RUN says to readers and to this why a block does not run. Output is marked as text.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

DOCS = Path(__file__).parent
# As in tests/: what is proven does not hang on how well the compiler optimises.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false",
)
# Blocks and pages, tests and later runs of them, share what they compile.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(DOCS.parent / "build" / "programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import pytest  # noqa: E402 (the flags come first)
from sybil import Document, Example, Sybil  # noqa: E402
from sybil.evaluators.python import PythonEvaluator  # noqa: E402
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer  # noqa: E402

NOT_RUN = "Not run by the tests: "
# Their commands are those of runs of hours, whose outcome the page is.
RECORDS = ("results.md", "performance.md", "performance_notebook.md", "performance_tables.md")
_INFO = re.compile(r'(?P<language>\w*)(?: title="(?P<title>[^"]*)")?$\n?', re.MULTILINE)
_run_python = PythonEvaluator()


def _evaluate(example: Example) -> str | None:
    language, title = example.region.lexemes["language"], example.region.lexemes["title"] or ""
    if title.startswith(NOT_RUN):
        raise SkipTest(title)
    if title and not (language == "python" and title.endswith(".py")):
        raise ValueError(f"a block with the title {title!r}: say {NOT_RUN!r} and why, or a file")
    if language == "python" and title:
        Path(title).write_text(example.parsed)
    elif language == "python":
        _run_python(example)
    elif language == "bash":
        subprocess.run(["bash", "-euo", "pipefail", "-c", example.parsed], check=True)
    elif language != "text":
        raise ValueError(f"a block in {language or 'no language'}: say python, bash or text")
    return None


def _blocks(document: Document):
    for region in RawFencedCodeBlockLexer(_INFO)(document):
        region.parsed, region.evaluator = region.lexemes["source"], _evaluate
        yield region


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clone's files and the pages' photos, in which code may write."""
    folder = tmp_path_factory.mktemp("clone")
    for path in DOCS.parent.iterdir():
        if not path.name.startswith(".") and path.name not in ("build", "runs", "data"):
            (folder / path.name).symlink_to(path)
    for name in ("photo.jpg", "group.jpg"):
        shutil.copy(DOCS / name, folder)
    return folder


@pytest.fixture(scope="module")
def in_clone(clone: Path):
    """Has blocks run there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        patch.setenv("PYTHONPATH", str(DOCS.parent))
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        yield clone


pytest_collect_file = Sybil(
    parsers=[_blocks], pattern="*.md", excludes=RECORDS, fixtures=["in_clone"]
).pytest()
