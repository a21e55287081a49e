"""Quantities of a registry of units, as pint makes them: they are still of that registry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from nbcr.objects import Report, load
from tests.unit.nbcr.objects.conftest import Namespace, session

Saved = Callable[..., Report]
UTIL = """
class SharedRegistryObject:
    def __new__(cls, *args, **kwargs):
        made = object.__new__(cls)
        if not hasattr(cls, "_REGISTRY"):
            made._REGISTRY = application_registry.get()
        return made
    def __getattr__(self, name):
        return getattr(self._magnitude, name)

class PlainQuantity(SharedRegistryObject):
    def __new__(cls, magnitude, unit):
        made = SharedRegistryObject.__new__(cls)
        made._REGISTRY.units[unit]
        made._magnitude, made._unit = magnitude, unit
        return made
    def __reduce__(self):
        return again, (type(self).__name__, self._magnitude, self._unit)
    def __add__(self, other):
        if self._REGISTRY is not other._REGISTRY:
            raise ValueError("of different registries")
        return sum(each._magnitude * each._REGISTRY.units[each._unit] for each in (self, other))

def again(name, *args):
    return PlainQuantity(*args)

class UnitRegistry:
    def __init__(self):
        self.units = {"m": 1}
        self.Quantity = type("Quantity", (PlainQuantity,), {"_REGISTRY": self})
        self.cache = [self.Quantity(1, "m")]

_DEFAULT_REGISTRY = UnitRegistry()

class ApplicationRegistry:
    def get(self):
        return self.registry
    def set(self, registry):
        self.registry = registry

application_registry = ApplicationRegistry()
application_registry.set(_DEFAULT_REGISTRY)
"""


@pytest.fixture(autouse=True)
def pint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of that name which does what matters here as pint does."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "pint"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "pint").mkdir()
    (tmp_path / "pint" / "__init__.py").write_text(
        "from pint.util import PlainQuantity as Quantity, UnitRegistry, _DEFAULT_REGISTRY, application_registry\n"
        "set_application_registry = application_registry.set\n"
    )
    (tmp_path / "pint" / "util.py").write_text(UTIL)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("pint", "pint.util"):
        sys.modules.pop(name, None)


def test_they_belong_to_the_registry_that_made_them(saved: Saved, place: Path) -> None:
    """Also where the session has defined their unit, or the registry holds them; others are the application's."""
    saved(
        session(
            "import pint\nureg = pint.UnitRegistry()\nureg.units['smoot'] = 2\nq = ureg.Quantity(3, 'smoot')\n"
            "lent = pint.Quantity(1, 'm')"
        )
    )
    back: Namespace = {"__name__": "__main__"}
    assert load(place, back).lines() == []
    assert eval("(q + ureg.Quantity(1, 'm'), q + ureg.cache[0], type(q) is ureg.Quantity)", back) == (7, 7, True)
    assert eval("lent._REGISTRY is pint.application_registry.get()", back)


@pytest.mark.parametrize("named", [True, False])
def test_the_registry_of_the_application_comes_back(
    named: bool, saved: Saved, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a rollback and in a fresh session, with the quantities that were made with it unasked."""
    notebook = session(
        "import pint\nureg = pint.UnitRegistry()\nureg.units['smoot'] = 2\npint.set_application_registry(ureg)\n"
        "q = ureg.Quantity(3, 'smoot')\nlent = pint.Quantity(1, 'smoot')"
    )
    if not named:
        del notebook["ureg"], notebook["q"]
    monkeypatch.setitem(sys.modules, "__main__", _module(notebook))
    saved(vars(sys.modules["__main__"]))
    seen = "lent._REGISTRY is pint.application_registry.get() and lent + pint.Quantity(1, 'smoot') == 4"
    seen += " and lent + q == 8 and q._REGISTRY is ureg" if named else ""
    for back in (sys.modules["__main__"], _module({"__name__": "__main__"})):
        monkeypatch.setitem(sys.modules, "__main__", back)
        pint = sys.modules["pint"]
        pint.application_registry.set(pint._DEFAULT_REGISTRY)
        report = load(place, vars(back))
        assert (report.lines(), report.remarks) == ([], ())
        assert eval(seen, vars(back))


def _module(namespace: Namespace) -> ModuleType:
    made = ModuleType("__main__")
    vars(made).update(namespace)
    return made
