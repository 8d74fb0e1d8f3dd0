"""Which files are hidden or were added by an operating system, and are no data."""

from pathlib import PurePosixPath

# Files that file managers add, in lower case; others have a name that starts with a dot.
_ADDED_BY_SYSTEMS = ("__macosx", "desktop.ini", "ehthumbs.db", "thumbs.db")


def is_hidden(member: str) -> bool:
    """Returns whether a file was added by an operating system or is hidden, and is not data.

    Args:
      member: the file's path, relative to the folder that the user chose: `.DS_Store`, `._1.jpg`
        and `__MACOSX/1.jpg` of macOS, `Thumbs.db` of Windows, and any file or folder whose name
        starts with a dot.
    """
    parts = PurePosixPath(member).parts
    return any(part.startswith(".") or part.lower() in _ADDED_BY_SYSTEMS for part in parts)
