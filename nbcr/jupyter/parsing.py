"""Arguments of magics, read as a shell reads them."""

# IPython's decorators carry no types.
# mypy: disable-error-code="no-untyped-call,untyped-decorator"

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError


def seconds(text: str) -> float:
    """The type of arguments that say how long to wait."""
    found = float(text)
    if not found >= 0:  # nor what is no number
        raise ValueError
    return found


def parsed(magic: Callable[..., Any], line: str) -> Any:
    """The parsed arguments; None after -h, which shows the help."""
    parser = magic.parser  # type: ignore[attr-defined]
    try:
        words = shlex.split(_without_comment(line))  # IPython's own way would leave quotes in names
    except ValueError as error:
        raise UsageError(f"{error}: {line}") from None
    if {"-h", "--help"} & set(words):
        print(parser.format_help())
        return None
    return parser.parse_args(words)


def _without_comment(line: str) -> str:
    """The line up to a ``#`` that begins a word, as people copy it from a page. `shlex` would end at any, as in a#b."""
    quote, escaped = "", False
    for at, letter in enumerate(line):
        if escaped or (letter == "\\" and quote != "'"):
            escaped = not escaped
        elif quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        elif letter == "#" and (at == 0 or line[at - 1].isspace()):
            return line[:at]
    return line
