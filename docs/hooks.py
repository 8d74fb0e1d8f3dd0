"""MkDocs hooks: adds files of the repository as pages, adapts links, removes comments.

MkDocs calls these functions; mkdocs.yml names this file.
"""

import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# Name of the page -> path of the file in the repository.
ELSEWHERE = {
    "model_card.md": "jax_stn_icnn/pretrained/MODEL_CARD.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
_LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")
# Instructions for docs/conftest.py, such as which blocks of code do not run.
_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages whose files are outside of docs/."""
    root = posixpath.dirname(config.docs_dir)
    for name, path in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=posixpath.join(root, path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replaces links between files by links between pages, and removes comments."""
    source = ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {path: name for name, path in ELSEWHERE.items()}

    def linked(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        return pages.get(path, path.removeprefix("docs/"))

    return _LINK.sub(linked, _COMMENT.sub("", markdown))
