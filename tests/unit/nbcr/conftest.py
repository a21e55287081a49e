"""A store, a runtime folder and a small real CRS component for tests of the layers above the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbcr.session import inprocess
from nbcr.store import Store

PLUGIN = Path(__file__).parents[2] / "contract" / "plugin"


@pytest.fixture
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private runtime folder; the path is short, as those of Unix sockets must be."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder / "nbcr"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store, also the default one."""
    monkeypatch.setenv("NBCR_STORE", str(tmp_path / "store"))
    return Store()


@pytest.fixture
def trees(store: Store, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Checkpoints are taken by the plug-in component ``trees``, here and in every process started from here."""
    monkeypatch.setenv("NBCR_CRS", "trees")
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.delenv("NBCR_TREES", raising=False)
    yield monkeypatch
    for result in inprocess.writing():
        result.when_done(lambda _: None)
    inprocess.reports()
