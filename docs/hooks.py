"""Files of the repository that are pages as well, and links that hold in both places.

MkDocs calls these functions: mkdocs.yml names this file.
"""

import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# A page's name -> where the file lies in the repository.
ELSEWHERE = {
    "model_card.md": "jax_stn_icnn/pretrained/MODEL_CARD.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
_LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie elsewhere."""
    root = posixpath.dirname(config.docs_dir)
    for name, path in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=posixpath.join(root, path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the repository into links between pages."""
    source = ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {path: name for name, path in ELSEWHERE.items()}

    def linked(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        return pages.get(path, path.removeprefix("docs/"))

    return _LINK.sub(linked, markdown)
