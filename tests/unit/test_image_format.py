"""kernel_backend/image/FORMAT.md names every field of every persisted structure."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

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
