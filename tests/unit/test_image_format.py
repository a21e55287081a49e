"""kernel_backend/image/FORMAT.md names every field of every persisted structure."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from kernel_backend.image import descriptions, entries

DOCUMENT = (Path(entries.__file__).parent / "FORMAT.md").read_text()
NAMED = set(re.findall(r"`(\w+)`", DOCUMENT))
STRUCTURES = [
    found
    for module in (entries, descriptions)
    for found in vars(module).values()
    if inspect.isclass(found) and issubclass(found, msgspec.Struct) and found.__module__ == module.__name__
]


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: s.__name__)
def test_every_field_is_described(structure: type[msgspec.Struct]) -> None:
    assert set(structure.__struct_fields__) <= NAMED
    tag = structure.__struct_config__.tag
    assert tag is None or structure.__name__ == "_Base" or tag in NAMED


def test_the_version_is_the_one_in_the_title() -> None:
    assert DOCUMENT.splitlines()[0].endswith(f"format version {entries.FORMAT_VERSION}")


def unbounded(annotation: Any) -> str:
    """What in a type has no limit; empty when all of it has."""
    if get_origin(annotation) is Annotated:
        inner, *limits = get_args(annotation)
        bounded = any(isinstance(limit, msgspec.Meta) for limit in limits)
        return unbounded_parts(inner) if bounded else unbounded(inner)
    if annotation in (int, str, bytes) or get_origin(annotation) is list:
        return str(annotation)
    return unbounded_parts(annotation)


def unbounded_parts(annotation: Any) -> str:
    return next(filter(None, map(unbounded, get_args(annotation))), "")


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: s.__name__)
def test_every_field_is_bounded(structure: type[msgspec.Struct]) -> None:
    """See image/limits.py: an image may come from anywhere."""
    hints = get_type_hints(structure, include_extras=True)
    assert {name: unbounded(hint) for name, hint in hints.items() if unbounded(hint)} == {}
