"""Objects that mean something by being the only one, such as ``dataclasses.MISSING``: the sentinels of modules."""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction
from nbcr.objects.kinds.functions import attribute
from nbcr.objects.kinds.instances import AWKWARD, is_awkward

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey


class Sentinels(Kind):
    """What pickle would make another one of. Those of the notebook's own are saved like any object."""

    types: tuple[str, ...] = (
        "dataclasses._MISSING_TYPE", "dataclasses._KW_ONLY_TYPE", "dataclasses._HAS_DEFAULT_FACTORY_CLASS",
        "inspect._empty", "scipy.special._multiufuncs.MultiUFunc",
    )  # fmt: skip

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any] | None:
        return None if self.home_of(obj) is None else ()

    def shares(self, obj: Any) -> bool:
        return self.home_of(obj) is None

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        home = self.home_of(obj)
        return NotImplemented if home is None else (attribute, home)

    def home_of(self, obj: Any) -> tuple[str, str] | None:
        """The module that keeps this very object, and its name there."""
        module = type(obj).__module__
        return next(((module, name) for name, value in _globals_of(module) if value is obj), None)


class Registries(Sentinels):
    """What a library has one of, and looks into itself: a copy of it would be changed in vain."""

    types: tuple[str, ...] = (
        "random.Random", "numpy.random.mtrand.RandomState",  # behind the functions; their states are surroundings
        "matplotlib.RcParams", "matplotlib.cm.ColormapRegistry", "matplotlib.font_manager.FontManager",
        "mpmath.ctx_base.StandardBaseContext", "mpmath.ctx_mp_python._constant",
        "sympy.core.singleton.SingletonRegistry", "sympy.polys.domains.domain.Domain",
        "sympy.assumptions.ask.AssumptionKeys", "sympy.core.cache.lazy_function.<locals>.LazyFunction",
        "pandas._config.config.DictWrapper", "control.config.DefaultDict",
        "plotly.io._templates.TemplatesConfig", "plotly.io._renderers.RenderersConfig",
        "altair.utils.plugin_registry.PluginRegistry",
    )  # fmt: skip

    def home_of(self, obj: Any) -> tuple[str, str] | None:
        """Libraries make some of them elsewhere than they define them."""
        package = type(obj).__module__.partition(".")[0]
        homes = ((package, name) for name, value in _globals_of(package) if value is obj)
        return super().home_of(obj) or next(homes, None)


class Stateless(Kind):
    """Instances of one class that hold nothing, and that its module keeps: ``missing = _Missing()``.

    A library asks whether something *is* that one, and there is nothing in it that the session could have changed.
    """

    def __init__(self, cls: type, homes: dict[int, tuple[str, str]]) -> None:
        self._homes, self._is_awkward = homes, is_awkward(cls)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        home = self._homes.get(id(obj))
        if home is not None and object.__reduce_ex__(obj, 4)[2:] == (None, None, None):
            return attribute, home
        return AWKWARD.reduce(obj, pickler) if self._is_awkward else NotImplemented


def stateless(cls: type) -> Stateless | None:
    """Who saves instances of a class of which its module keeps some, and pickle would make others."""
    if any(getattr(cls, name) is not getattr(object, name) for name in ("__reduce__", "__reduce_ex__")):
        return None
    module = str(cls.__module__)
    homes = {id(value): (module, name) for name, value in _globals_of(module) if type(value) is cls}
    return Stateless(cls, homes) if homes and cls not in copyreg.dispatch_table else None


class BareObjects(Sentinels):
    """``object()`` itself: nothing but an identity. Asked about by the exact type: everything else is one as well."""

    types = ()

    def home_of(self, obj: Any) -> tuple[str, str] | None:
        """The same, in any module."""
        known = _bare.get(id(obj))
        if known is None:  # all that there are now: figures have dozens
            for module in list(sys.modules):
                for name, value in _globals_of(module):
                    if type(value) is object:
                        _bare.setdefault(id(value), (value, (module, name)))  # others may have imported it
            known = _bare.setdefault(id(obj), (obj, None))
        return known[1]


_bare: dict[int, tuple[object, tuple[str, str] | None]] = {}  # by id; the object is kept with it


def forget_bare_objects() -> None:
    """Look for them anew from now on: modules may have changed."""
    _bare.clear()


def _globals_of(module: str) -> list[tuple[str, Any]]:
    return list(getattr(sys.modules.get(module), "__dict__", {}).items()) if module != "__main__" else []


BARE_OBJECTS = BareObjects()
KINDS: tuple[Kind, ...] = (Sentinels(), Registries())
