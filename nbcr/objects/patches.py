"""What cells have put into modules and classes of others: `json.JSONEncoder.default = …`, `np.float = float`.

An import brings such a module back as it was made, so the change would silently be gone. Nobody can tell from an
installed module what was put into it, but the cells say where they assigned: what is there now is saved like a
variable, under the name "module.attribute" or "module.Class.attribute". Modules of the user's own are looked at by
`modules`.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from nbcr.objects.kinds.made_classes import is_made_for_a_cell
from nbcr.objects.modules import is_own, placed
from nbcr.objects.names import Namespace, is_a

_LARGEST_CELL = 1 << 18
_MAY_ASSIGN = re.compile(r"\.\w+\s*(,|[^\w\s(\[.]*=)|setattr")  # cheaper than to parse every cell
_NOT_OURS = ("__main__", "nbcr", "sys", "IPython", "ipykernel")
"""Whose attributes belong to the process or to the shell: streams, hooks."""
_MISSING = object()


def made_by(cells: Iterable[Any], namespace: Namespace) -> dict[str, Any]:
    """ "module.attribute": value, for all that these cells, or a load before them, have put into modules of others."""
    cells = [cell for cell in cells if isinstance(cell, str)]
    targets = {target: None for cell in cells for target in _targets(cell)}
    owners = [(_found(path, namespace), name) for path, name in targets]
    owners += [(_class_of(library, cls), name) for cell in cells for library, cls, name in _registered(cell)]
    owners += [(_maker(path, namespace, name), name) for cell in cells for path, name in _asked_for(cell)]
    found = {}
    for owner, name in [*owners, *placed()]:
        home = _home_of(owner) if owner is not None else ""
        value = vars(owner).get(name, _MISSING) if home else _MISSING
        if value is not _MISSING and not _is_at_home(value, owner, name):
            found[f"{home}.{name}"] = value
    return found


@functools.lru_cache(maxsize=4096)
def _targets(cell: str) -> tuple[tuple[tuple[str, ...], str], ...]:
    """What a cell assigns attributes of: the names that lead there, and the attribute."""
    if len(cell) > _LARGEST_CELL or not _MAY_ASSIGN.search(cell):
        return ()
    try:
        tree = ast.parse(cell)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(dict.fromkeys((path, name) for path, name in _assigned(tree) if path))


def _assigned(tree: ast.AST) -> Iterator[tuple[tuple[str, ...], str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield _path_to(node.value), node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            match node.args:
                case [owner, ast.Constant(value=str(name)), _]:
                    yield _path_to(owner), name


_REGISTERING = re.compile(r"register_(\w+?)_(?:accessor|namespace)\(\s*[\"'](\w+)[\"']")
_REGISTERED_IN = {
    "dataframe": (("pandas", "DataFrame"), ("polars", "DataFrame")),
    "series": (("pandas", "Series"), ("polars", "Series")),
    "index": (("pandas", "Index"),),
    "dataset": (("xarray", "Dataset"),),
    "dataarray": (("xarray", "DataArray"),),
    "lazyframe": (("polars", "LazyFrame"),),
    "expr": (("polars", "Expr"),),
}


def _registered(cell: str) -> Iterator[tuple[str, str, str]]:
    """Accessors that a cell has given to frames: `@pd.api.extensions.register_dataframe_accessor("geo")`."""
    for what, name in _REGISTERING.findall(cell):
        for library, cls in _REGISTERED_IN.get(what, ()):
            yield library, cls, name


_MAY_ASK = re.compile(r"\(\s*[rRuU]?[\"'][A-Za-z_]\w*[\"']\s*,")


@functools.lru_cache(maxsize=4096)
def _asked_for(cell: str) -> tuple[tuple[tuple[str, ...], str], ...]:
    """What a cell may have had made under a name, `creator.create("Individual", list)`: who was called, the name."""
    if len(cell) > _LARGEST_CELL or not _MAY_ASK.search(cell):
        return ()
    try:
        tree = ast.parse(cell)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=func, args=[ast.Constant(value=str(name)), _, *_]) if path := _path_to(func):
                found.append((path, name))
    return tuple(dict.fromkeys(found))


def _maker(path: tuple[str, ...], namespace: Namespace, name: str) -> Any:
    """The module of the function of this path, if it keeps a class of that name which was made for a cell."""
    owner = _found(path[:-1], namespace) if len(path) > 1 else None
    called = vars(owner).get(path[-1]) if owner is not None else namespace.get(path[0])
    module = sys.modules.get(called.__module__ or "") if is_a(called, FunctionType) else None
    made: Any = vars(module).get(name) if isinstance(module, ModuleType) else None
    return module if is_a(made, type) and is_made_for_a_cell(made) else None


def _class_of(library: str, name: str) -> Any:
    return vars(sys.modules[library]).get(name) if library in sys.modules else None


def _path_to(node: ast.AST) -> tuple[str, ...]:
    """The dotted name that `node` is; empty: it is something else."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        above = _path_to(node.value)
        return (*above, node.attr) if above else ()
    return ()


def _found(path: tuple[str, ...], namespace: Namespace) -> Any:
    """The module or class that a dotted name of a cell stands for, without running anybody's code; else None."""
    value = namespace.get(path[0])
    for name in path[1:]:
        if not is_a(value, ModuleType, type):
            return None
        value = vars(value).get(name)
    return value if is_a(value, ModuleType, type) else None


def _home_of(owner: Any) -> str:
    """Where an import finds a module or class that is not the user's own; empty: nowhere, or it is."""
    module = owner if is_a(owner, ModuleType) else sys.modules.get(getattr(owner, "__module__", None) or "")
    if not isinstance(module, ModuleType) or sys.modules.get(module.__name__) is not module:
        return ""
    if module.__name__.partition(".")[0] in _NOT_OURS:
        return ""
    if owner is module:
        return "" if is_own(module) else module.__name__
    found: Any = module
    for part in owner.__qualname__.split("."):
        found = vars(found).get(part) if is_a(found, ModuleType, type) else None
    return f"{module.__name__}.{owner.__qualname__}" if found is owner else ""


def _is_at_home(value: Any, owner: Any, name: str) -> bool:
    """Whether this is what the module itself has there, as far as one can tell: a patch that was taken back."""
    if is_a(value, ModuleType):
        return True
    if not is_a(value, type, FunctionType, BuiltinFunctionType):
        return False
    if is_a(value, FunctionType):  # what wraps it may bear its name
        module = sys.modules.get(owner.__module__) if is_a(owner, type) else owner
        return module is not None and value.__globals__ is vars(module)
    if value.__module__ != owner.__name__ or value.__name__ != name:
        return False
    return not (is_a(value, type) and is_made_for_a_cell(value))
