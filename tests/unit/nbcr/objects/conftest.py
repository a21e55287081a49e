"""Little namespaces that are saved and loaded as those of notebooks are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from nbcr.objects import Report, load, save

Namespace = dict[str, Any]


def session(code: str = "", **values: Any) -> Namespace:
    """A namespace in which a cell has run."""
    namespace: Namespace = {"__name__": "__main__", **values}
    exec(compile(dedent(code), "<cell>", "exec", dont_inherit=True), namespace)
    return namespace


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a snapshot goes; not there yet."""
    return tmp_path / "snapshot"


@pytest.fixture
def saved(place: Path) -> Callable[..., Report]:
    """Saves a namespace to `place` and waits."""

    def save_it(namespace: Namespace, to: Path = place, **options: Any) -> Report:
        return save(namespace, to, hidden=(), **options).wait(60)

    return save_it


@pytest.fixture
def there_and_back(place: Path, saved: Callable[..., Report]) -> Callable[..., Namespace]:
    """What comes back of a namespace, in an empty one; fails when anything is lost on the way."""

    def go(namespace: Namespace, **options: Any) -> Namespace:
        report = saved(namespace, **options)
        assert not report.lost, report.lines()
        back: Namespace = {"__name__": "__main__"}
        report = load(place, back)
        assert not report.lost, report.lines()
        return back

    return go


@pytest.fixture(params=["forked", "in-process"])
def either_way(request: pytest.FixtureRequest, there_and_back: Callable[..., Namespace]) -> Callable[..., Namespace]:
    """The same, saved in a forked child and in the process itself."""
    return lambda namespace: there_and_back(namespace, fork=request.param == "forked")
