"""Runs the code blocks of the pages, in order, in a folder that looks like a clone.

`python -m pytest docs`. A Python block whose title is a file name is written to that file; other
Python blocks of a page run in one namespace; bash blocks run in bash. A comment before a block,
`<!-- skip: next "why" -->`, skips it; neither readers of the page nor the site see the comment.
Output is marked as text.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.compiler_flags import FLAGS

DOCS = Path(__file__).parent
os.environ.setdefault("XLA_FLAGS", FLAGS)
# Blocks, pages and later test runs share compiled programs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(DOCS.parent / "build" / "programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import numpy as np  # noqa: E402 (the flags come first)
import pytest  # noqa: E402
from PIL import Image  # noqa: E402
from sybil import Document, Example, Sybil  # noqa: E402
from sybil.evaluators.python import PythonEvaluator  # noqa: E402
from sybil.parsers.markdown import SkipParser  # noqa: E402
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer  # noqa: E402

from tests.video_clips import write_clip  # noqa: E402

NOTEBOOKS = "notes/*/*.md"  # Records of past measurements; their commands take hours.
_INFO = re.compile(r'(?P<language>\w*)(?: title="(?P<title>[^"]*)")?$\n?', re.MULTILINE)
_run_python = PythonEvaluator()


def _evaluate(example: Example) -> None:
    language, title = example.region.lexemes["language"], example.region.lexemes["title"] or ""
    if title and not (language == "python" and title.endswith(".py")):
        raise ValueError(
            f"a block has the title {title!r}, but only Python blocks have one, a file name"
        )
    if language == "python" and title:
        Path(title).write_text(example.parsed)
    elif language == "python":
        _run_python(example)
    elif language == "bash":
        subprocess.run(["bash", "-euo", "pipefail", "-c", example.parsed], check=True)
    elif language != "text":
        raise ValueError(
            f"a block has {f'the language {language!r}' if language else 'no language'}: "
            "use python, bash or text"
        )


def _blocks(document: Document):
    for region in RawFencedCodeBlockLexer(_INFO)(document):
        region.parsed, region.evaluator = region.lexemes["source"], _evaluate
        yield region


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a writable folder with the files of the clone, and what the pages parse."""
    folder = tmp_path_factory.mktemp("clone")
    for path in DOCS.parent.iterdir():
        if not path.name.startswith(".") and path.name not in ("build", "runs", "data"):
            (folder / path.name).symlink_to(path)
    for name in ("photo.jpg", "group.jpg"):
        shutil.copy(DOCS / name, folder)
    with Image.open(DOCS / "photo.jpg") as photo:
        small = np.asarray(photo.convert("RGB").resize((256, 256)))
    write_clip(folder / "clip.mp4", [small] * 3, sound="aac")
    return folder


@pytest.fixture(scope="module")
def in_clone(clone: Path):
    """Changes the working directory to the clone while the blocks of a page run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        patch.setenv("PYTHONPATH", str(DOCS.parent))
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        yield clone


pytest_collect_file = Sybil(
    parsers=[SkipParser(), _blocks], pattern="*.md", excludes=[NOTEBOOKS], fixtures=["in_clone"]
).pytest()
