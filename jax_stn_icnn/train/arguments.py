"""The arguments of `train.py` and `eval.py`."""

import contextlib
import sys
from collections.abc import Iterator

from absl import app


@contextlib.contextmanager
def name_unknown_field() -> Iterator[None]:
    """Ends the program with one line if the command line sets a field that the config lacks.

    `config_flags` reads the command line both when the flag of a config is defined and when it is
    parsed.
    """
    try:
        yield
    except AttributeError as error:
        reason: object = error
        while isinstance(reason, Exception):  # ml_collections wraps a KeyError
            reason = reason.args[0]
        sys.exit(f"error: the config has no field {' '.join(str(reason).split())}")


def parse_flags(arguments: list[str]) -> list[str]:
    """Parses flags as `absl.app` does by default, with `name_unknown_field`.

    Args:
        arguments: The name of the program, and its arguments.

    Returns:
        The name of the program, and the arguments that are no flags.
    """
    with name_unknown_field():
        rest: list[str] = app.parse_flags_with_usage(arguments)
    return rest
