"""Tensors, as torch makes them: memory that they share with arrays, and what does not come back of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbcr.objects import Report, load
from tests.unit.nbcr.objects.conftest import Namespace, session

TORCH = """
import contextlib
import numpy as np

strided, uint8, no_grad = "strided", np.dtype("u1"), contextlib.nullcontext

class Storage:
    def __init__(self, memory):
        self.memory = memory
    def untyped_storage(self):
        return self
    def data_ptr(self):
        return self.memory.__array_interface__["data"][0]
    def nbytes(self):
        return self.memory.nbytes

class Fields:
    __slots__ = ("storage", "dtype", "window", "requires_grad", "grad", "is_leaf", "device", "value")

class Tensor(Fields):
    layout, is_quantized = strided, False
    is_conj = is_neg = lambda self: False
    def __init__(self, value=None, is_leaf=True, where="elsewhere", dtype=None):
        self.value, self.is_leaf, self.grad, self.requires_grad, self.dtype = value, is_leaf, None, False, dtype
        self.device = type("device", (), {"type": where})
    def __reduce__(self):
        return Tensor, (self.value,)  # a leaf, whatever it was
    def untyped_storage(self):
        return self.storage
    def set_(self, storage, offset=0, shape=None, stride=(1,)):
        self.storage, self.window = storage, (offset, (storage.nbytes(),) if shape is None else shape, stride)
        return self
    storage_offset, stride = (lambda self: self.window[0]), (lambda self: self.window[2])
    shape = property(lambda self: self.window[1])
    requires_grad_ = lambda self, on: None
    @property
    def __array_interface__(self):  # with it, numpy names the tensor as the owner of the memory
        return {
            "version": 3, "typestr": self.dtype.str, "shape": self.shape,
            "data": (self.storage.data_ptr() + self.window[0] * self.dtype.itemsize, False),
            "strides": tuple(step * self.dtype.itemsize for step in self.stride()),
        }
    def numpy(self):
        return np.asarray(self)

def empty(size, dtype):
    return Tensor(where="cpu", dtype=dtype)

def from_numpy(array):
    storage = Storage(array.reshape(-1).view(np.uint8))
    return empty(0, array.dtype).set_(storage, 0, array.shape, tuple(n // array.itemsize for n in array.strides))

def zeros(size):
    return from_numpy(np.zeros(size))

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


@pytest.mark.parametrize("size", [10, 10_000])  # in the pickle, and beside it
def test_arrays_and_tensors_that_share_memory_still_do(saved: Callable[..., Report], tmp_path: Path, size: int) -> None:
    """Small ones came apart without a word: what was written into one was not seen in the other."""
    begin = f"""
        import numpy as np, torch
        tensor = torch.zeros({size}); array = tensor.numpy(); part = array[2:6:2]; held = [tensor.numpy()]
        source = np.zeros(({size}, 2)); made = torch.from_numpy(source)
        alone = torch.zeros({size}).numpy()
    """
    back = session(begin)
    for turn in "12":  # what came back is saved as well
        report = saved(back, tmp_path / turn)
        assert not report.lines()
        back = {"__name__": "__main__"}
        load(tmp_path / turn, back)
        back["array"][4] += 7
        assert [back["tensor"].numpy()[4], back["part"][1], back["held"][0][4]] == [back["array"][4]] * 3
        back["made"].numpy()[1, 1] += 5
        assert back["source"][1, 1] == back["made"].numpy()[1, 1]
    assert (back["array"][4], back["source"][1, 1], back["alone"].sum()) == (14, 10, 0)


def test_an_array_that_alone_has_a_tensors_memory_does_not_need_torch(
    saved: Callable[..., Report], place: Path
) -> None:
    saved(session("import torch; array = torch.zeros(5).numpy(); del torch"))
    sys.modules.pop("torch")
    sys.modules["torch"] = None  # type: ignore[assignment]
    back: Namespace = {"__name__": "__main__"}
    assert not load(place, back).lost
    assert back["array"].tolist() == [0] * 5
