"""Functions, their code and cells, bound methods, caches around functions.

cloudpickle copies the globals that a function uses, so a restored function neither sees nor writes what the
session rebinds later. Here a function of the notebook refers to the living namespace itself, one of a module
to that module's. Cells are objects of their own: two closures that share a variable still share it
afterwards.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Collection, Iterable
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle

from nbcr.objects import absent, sources
from nbcr.objects.kinds.base import Kind, Reduction
from nbcr.objects.kinds.modules import is_made_by_hand, refuse_made_by_hand
from nbcr.objects.kinds.refused import Refused

if TYPE_CHECKING:
    from nbcr.objects.kinds.table import KindTable
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey

_ATTRIBUTES = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__", "__type_params__")


_known: dict[int, tuple[Any, tuple[str, str] | None]] = {}  # answers of `importable`, by id; the object is kept with it


def importable(obj: Any) -> tuple[str, str] | None:
    """Module and qualified name under which an import finds `obj`; None: it has to be saved by value."""
    try:
        return _known[id(obj)][1]
    except KeyError:
        answer = None
        if not isinstance(obj, type | FunctionType) or cloudpickle._should_pickle_by_reference(obj):
            found: Any = cloudpickle._lookup_module_and_qualname(obj)
            answer = None if found is None or is_made_by_hand(found[0].__name__) else (found[0].__name__, found[1])
        _known[id(obj)] = (obj, answer)
        return answer


def forget_answers() -> None:
    """Ask anew from now on: modules may have changed."""
    _known.clear()


def importable_method(obj: Any) -> tuple[str, str] | None:
    """The same for a bound method that a module keeps as a function, such as ``random.randint``."""
    owner, name = type(getattr(obj, "__self__", None)), str(obj.__name__)
    for home in (getattr(obj, "__module__", None), owner.__module__):
        module = sys.modules.get(home) if isinstance(home, str) and home != "__main__" else None
        if module is not None and getattr(module, name, None) is obj:
            return module.__name__, name
    return None


def attribute(module: str, name: str) -> Any:
    """`name` of `module`, imported."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def module_globals(module: str) -> dict[str, Any]:
    """The globals of a module, imported."""
    return vars(importlib.import_module(module))


# --- functions ----------------------------------------------------------------------------------------------


class Functions(Kind):
    """Functions that no import finds: those of the notebook, lambdas, closures."""

    types = ("builtins.function",)

    def parts(self, obj: FunctionType, survey: Survey) -> Iterable[Any]:
        if importable(obj) is not None:
            return ()
        own = [obj.__closure__ or (), obj.__defaults__, obj.__kwdefaults__, annotations_of(obj)]
        own.append(_without(_refused(obj, survey.kinds), obj.__dict__))
        if _home_of_globals(obj) is not None:
            return own
        return [*own, _used_globals(obj) if _is_generated(obj) else obj.__globals__]

    def shares(self, obj: FunctionType) -> bool:
        return importable(obj) is None

    def reduce(self, obj: FunctionType, pickler: UnitPickler) -> Reduction:
        if importable(obj) is not None:
            pickler.note_package(obj.__module__)
            return NotImplemented
        state = {name: getattr(obj, name) for name in _ATTRIBUTES if hasattr(obj, name)}
        state |= {"__annotations__": annotations_of(obj), "__dict__": self._attributes_of(obj, pickler)}
        arguments = (obj.__code__, self._globals_of(obj, pickler), obj.__closure__)
        return make_function, arguments, state, None, None, set_function_state

    def _attributes_of(self, obj: FunctionType, pickler: UnitPickler) -> dict[str, Any]:
        refused = _refused(obj, pickler.context.kinds)
        for name, why in refused.items():
            pickler.remarks.add(f"its attribute {name} is not there: {why}")
        return _without(refused, obj.__dict__)

    def _globals_of(self, obj: FunctionType, pickler: UnitPickler) -> Any:
        """The dictionary itself, which the pickler knows when it is the namespace; a module's by the module's name."""
        home = _home_of_globals(obj)
        if home is not None:
            refuse_made_by_hand(home)
        if home is None and _is_generated(obj):
            return _used_globals(obj)
        if obj.__globals__ is pickler.context.namespace or home is None:
            return obj.__globals__
        pickler.note_package(home)
        return _stand_in(pickler, obj.__globals__, ModuleGlobals(home))


def _refused(function: FunctionType, kinds: KindTable) -> dict[str, str]:
    """What others have hung on a function and nothing brings back (`interact` its widget), and why."""
    found = {name: kinds.kind_of(type(value)) for name, value in function.__dict__.items()}
    return {name: kind.reason for name, kind in found.items() if isinstance(kind, Refused)}


def _without(names: Collection[str], attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in names} if names else attributes


def _is_generated(function: FunctionType) -> bool:
    """Whether attrs or sympy wrote it: they give their functions globals of their own, with all there is in them."""
    return function.__code__.co_filename.startswith(("<attrs generated ", "<lambdifygenerated-"))


def _used_globals(function: FunctionType) -> dict[str, Any]:
    """What of its globals a function refers to: the others would tie it to every variable of the session."""
    names, codes = {"__name__"}, [function.__code__]
    for code in codes:
        names.update(code.co_names)
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {name: value for name, value in function.__globals__.items() if name in names}


class ModuleGlobals:
    """Pickled in place of the globals of a module."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __reduce__(self) -> Reduction:
        return module_globals, (self.module,)


def _stand_in(pickler: UnitPickler, obj: Any, substitute: Any) -> Any:
    """One substitute per object and pickle, so that it is written once."""
    return pickler.stand_ins.setdefault(id(obj), substitute)


def _home_of_globals(function: FunctionType) -> str | None:
    """The module whose globals these are; None: a dictionary of somebody's own, as of ``exec``."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return name if module is not None and vars(module) is function.__globals__ else None


def annotations_of(function: FunctionType) -> dict[str, Any]:
    """The annotations, as far as they can be evaluated."""
    try:
        return function.__annotations__
    except Exception:  # from Python 3.14 on they are evaluated late, and may name what is not there
        return {}


def make_function(code: CodeType, namespace: dict[str, Any], closure: tuple[CellType, ...] | None) -> FunctionType:
    """A function without its attributes."""
    if absent.reason_of(code) is not None:
        return code  # type: ignore[return-value]  # it stands in for the function as well
    return FunctionType(code, namespace, code.co_name, None, closure)


def set_function_state(function: FunctionType, state: dict[str, Any]) -> None:
    """Give a function its attributes."""
    if absent.reason_of(function) is not None:
        return
    for name, value in state.items():
        if name == "__dict__":
            function.__dict__.update(value)
        elif hasattr(function, name):  # another Python may not know it
            setattr(function, name, value)


class Cells(Kind):
    """Variables that closures share. Filled after they are made: what is in them may lead back."""

    types = ("builtins.cell",)

    def reduce(self, obj: CellType, pickler: UnitPickler) -> Reduction:
        try:
            contents = obj.cell_contents
        except ValueError:  # nothing was assigned yet
            return make_cell, ()
        return make_cell, (), (contents,), None, None, fill_cell


def make_cell() -> CellType:
    """An empty cell."""
    return CellType()


def fill_cell(cell: CellType, state: tuple[Any]) -> None:
    """Put something into a cell."""
    cell.cell_contents = state[0]


class Code(Kind):
    """Code objects: byte code for the same Python, and the source for all others."""

    types = ("builtins.code",)

    def parts(self, obj: CodeType, survey: Survey) -> Iterable[Any]:
        return ()

    def shares(self, obj: CodeType) -> bool:
        return False

    def reduce(self, obj: CodeType, pickler: UnitPickler) -> Reduction:
        return make_code, sources.packed(obj)


def make_code(*packed: Any) -> CodeType:
    """The code object that `sources.packed` took apart."""
    try:
        return sources.unpacked(*packed)
    except sources.ForeignCode as error:
        return absent.absent(str(error))  # type: ignore[no-any-return]


# --- what wraps functions -----------------------------------------------------------------------------------


class Methods(Kind):
    """Bound methods; those that a module offers as functions are imported."""

    types = ("builtins.method", "builtins.builtin_function_or_method")

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        if importable_method(obj) is not None:
            return ()
        owner = [] if isinstance(obj, BuiltinFunctionType) and _is_module_function(obj) else [obj.__self__]
        return [*owner, obj.__func__] if isinstance(obj, MethodType) else owner

    def shares(self, obj: Any) -> bool:
        return False

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        found = importable_method(obj)
        if found is None:
            return NotImplemented
        pickler.note_package(found[0])
        return attribute, found


def _is_module_function(obj: BuiltinFunctionType) -> bool:
    owner = obj.__self__
    return owner is None or type(owner) is type(sys)


class Caches(Kind):
    """functools.lru_cache and cache: the function comes back, what was cached does not."""

    types = ("functools._lru_cache_wrapper",)

    def shares(self, obj: Any) -> bool:
        return importable(obj) is None

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return () if importable(obj) is not None else (obj.__dict__,)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if importable(obj) is not None:
            pickler.note_package(obj.__module__)
            return NotImplemented
        if obj.cache_info().currsize:
            pickler.remarks.add("its cache comes back empty")
        chosen = obj.cache_parameters()
        own = {name: value for name, value in obj.__dict__.items() if name not in ("__wrapped__", "cache_parameters")}
        return make_cache, (obj.__wrapped__, chosen["maxsize"], chosen["typed"]), own


def make_cache(function: Any, maxsize: int | None, typed: bool) -> Any:
    """A cache around `function`, empty."""
    return functools.lru_cache(maxsize, typed)(function)


KINDS: tuple[Kind, ...] = (Functions(), Cells(), Code(), Methods(), Caches())
