"""Ids, names, and finding an entry by what a user typed."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Sequence

from nbcr.errors import UnknownName, UsageProblem
from nbcr.store.entry import Entry

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID = re.compile(r"\d{8}T\d{6}-[a-z2-7]{6}")
_SHORTEST_ID_BEGINNING = 4
_LONGEST_NAME = 200


def new_id(now: datetime.datetime) -> str:
    """A fresh id that sorts by time; `now` must be in UTC."""
    return f"{now:%Y%m%dT%H%M%S}-" + "".join(_ALPHABET[b % 32] for b in os.urandom(6))


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id."""
    return _ID.fullmatch(text) is not None


def check_name(name: str) -> None:
    """Raise UsageProblem unless `name` can be typed, printed and told from a flag."""
    problem = ""
    if not isinstance(name, str):
        raise UsageProblem(f"a checkpoint's name is a string, not {name!r:.60}", hint="choose another name")
    if not name or name != name.strip():
        problem = "is empty, or begins or ends with white space"
    elif len(name) > _LONGEST_NAME:
        problem = f"is longer than {_LONGEST_NAME} characters"
    elif not name.isprintable():
        problem = "holds characters that cannot be printed"
    elif name[0] in "-.":
        problem = f"begins with {name[0]!r}"
    if problem:
        raise UsageProblem(f"checkpoint name {name[:40]!r} {problem}", hint="choose another name")


def find(entries: Sequence[Entry], text: str) -> Entry:
    """The entry named `text`, else the one with that id or unique beginning of an id.

    Raises UnknownName with near misses, and without a hint when there is nothing. Where a crash left two entries
    of one name, the newer one is meant.
    """
    named = [e for e in entries if e.name == text]
    if named:
        return max(named, key=lambda e: (e.created, e.id))
    long_enough = len(text) >= _SHORTEST_ID_BEGINNING
    begins = [e for e in entries if e.id == text or (long_enough and e.id.startswith(text))]
    if len(begins) == 1:
        return begins[0]
    if begins:
        ids = [e.id for e in begins]
        raise UnknownName(f"{text!r} is the beginning of {len(ids)} ids", hint="give more of it", near=ids)
    near = near_misses([e.name for e in entries], text)
    if near:
        hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    else:
        hint = "`nbcr list` or %checkpoints shows what there is" if entries else ""
    raise UnknownName(f"no checkpoint named {text!r}", hint=hint, near=near)


def near_misses(names: Sequence[str], text: str) -> list[str]:
    """Up to three names that look like `text`, whatever the case."""
    import difflib

    by_lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(text.lower(), list(by_lower), n=3, cutoff=0.6)
    return [by_lower[c] for c in close]
