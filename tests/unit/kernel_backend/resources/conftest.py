"""The fixture `carry`: code run by a real process, whose descriptors come back in ours after its death."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.unit.kernel_backend.resources.carry import Carry, Rebuilt, capture, holding, rebuilding


@pytest.fixture
def carry(tmp_path: Path) -> Iterator[Carry]:
    with ExitStack() as stack:

        def carried(code: str, *arguments: object, ending: bool = True, **settings: object) -> Rebuilt:
            folder = tmp_path / "image"
            folder.mkdir(exist_ok=True)
            with holding(code, *arguments) as held:
                captured = capture(held.pid, folder, ending=ending)
                held.kill()
            return stack.enter_context(rebuilding(captured, **settings))

        yield carried
