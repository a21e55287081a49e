"""Tensors, as torch makes them: what does not come back of them is told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbcr.objects import Report, load
from tests.unit.nbcr.objects.conftest import Namespace, session

TORCH = """
class Tensor:
    def __init__(self, value, is_leaf=True):
        self.value, self.is_leaf, self.grad = value, is_leaf, None
        self.device = type("device", (), {"type": "elsewhere"})
    def __reduce__(self):
        return Tensor, (self.value,)  # a leaf, whatever it was

class nn:
    Parameter = None
"""


@pytest.fixture(autouse=True)
def torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of that name which does what matters here as torch does."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    (tmp_path / "torch.py").write_text(TORCH)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("torch", None)


def test_that_a_result_has_lost_what_it_was_calculated_from_is_told(saved: Callable[..., Report], place: Path) -> None:
    """Its backward() would leave the gradients of all others as they are, without a word."""
    told = saved(session("from torch import Tensor\nweight = Tensor(1)\nloss = [Tensor(2, is_leaf=False)]"))
    back: Namespace = {"__name__": "__main__"}
    report = load(place, back)
    assert (back["weight"].value, back["loss"][0].value) == (1, 2)
    for each in (told, report):
        assert each.verdicts["weight"].remark == ""
        assert "backward() ends at it" in each.verdicts["loss"].remark
