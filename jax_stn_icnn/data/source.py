"""The records that a loader reads."""

from collections.abc import Mapping
from typing import Any, Protocol


class Source(Protocol):
    """Records by index: dicts of `image` (h, w, 3), `label` (h, w, 1), both uint8, and `name`.

    Records of unlabelled images need no `label`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
