"""Globals of imported modules that were changed since the import.

A module comes back by importing it, so what the session assigned to it would silently be gone. For modules
of the user's own the source says what a constant was; a value that is no longer that, or a name that the
source does not bind, is saved like a variable, under the name "module.attribute".
"""

from __future__ import annotations

import ast
import copy
import importlib
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from nbcr.objects.names import bound_names, is_a

_LARGEST_SOURCE = 1 << 20
_INSTALLED = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")})
_DYNAMIC = (
    "globals",
    "exec",
    "setattr",
    "__getattr__",
    "import *",
)  # of such a module nothing can be told from its source


def changed_globals(modules: Iterable[ModuleType]) -> dict[str, Any]:
    """ "module.attribute": value, for all that was changed in the user's own ones of these modules."""
    found = {}
    for module in modules:
        path = _path_of_own(module)
        if path is not None:
            changed = _changed(module, _told_by(path))
            found.update({f"{module.__name__}.{name}": value for name, value in changed.items()})
    return found


def in_use_by(values: Iterable[Any]) -> list[ModuleType]:
    """The modules among the values, and those that functions, classes and instances among them come from."""
    found: dict[str, ModuleType] = {}
    for value in values:
        home = value if is_a(value, type, FunctionType) else type(value)
        module = value if is_a(value, ModuleType) else sys.modules.get(home.__module__ or "")
        if isinstance(module, ModuleType):
            found[module.__name__] = module
    return list(found.values())


def _path_of_own(module: ModuleType) -> Path | None:
    """The source of a module that is the user's own: neither of Python nor installed."""
    path = getattr(module, "__file__", None)
    if not isinstance(path, str) or not path.endswith(".py") or path.startswith(_INSTALLED):
        return None
    if sys.modules.get(module.__name__) is not module or module.__name__.partition(".")[0] in ("__main__", "nbcr"):
        return None
    return Path(path)


def is_own(module: ModuleType) -> bool:
    """Whether a module is the user's own."""
    return _path_of_own(module) is not None


def _source_of(path: Path) -> str | None:
    try:
        if path.stat().st_size > _LARGEST_SOURCE:
            return None
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


@dataclass(frozen=True)
class _Told:
    """What a source says."""

    constants: dict[str, Any]  # also "class.attribute"; never handed out: whoever got one could change it
    names: frozenset[str]  # all that its top level binds; empty: it cannot be told

    def constant(self, name: str) -> Any:
        return copy.deepcopy(self.constants[name])


_NOTHING = _Told({}, frozenset())
_told: dict[Path, tuple[tuple[int, int], _Told]] = {}  # the user waits for this: no source is parsed twice


def _told_by(path: Path) -> _Told:
    try:
        found = path.stat()
    except OSError:
        return _NOTHING
    stamp = found.st_mtime_ns, found.st_size
    known = _told.get(path)
    if known is None or known[0] != stamp:
        known = _told[path] = stamp, _parsed(_source_of(path) or "")
    return known[1]


def _parsed(source: str) -> _Told:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return _NOTHING
    names = () if any(word in source for word in _DYNAMIC) else bound_names(tree)
    return _Told(_constants(tree), frozenset(names))


def _changed(module: ModuleType, told: _Told) -> dict[str, Any]:
    if told is _NOTHING:
        return {}
    changed = {}
    for name, value in list(vars(module).items()):
        if (name.startswith("__") and name.endswith("__")) or is_a(value, ModuleType):
            continue
        if is_a(value, type, FunctionType):
            if value.__module__ == "__main__":  # the notebook's own, put there
                changed[name] = value
            elif is_a(value, type):
                changed |= _changed_in_class(value, told)
        elif name in told.constants:
            if not _equal(value, told.constants[name]):
                changed[name] = value
        elif told.names and name not in told.names:
            changed[name] = value
    return changed


def _changed_in_class(cls: type, told: _Told) -> dict[str, Any]:
    """Attributes of a class of the module that are no longer what its source says."""
    own, prefix = vars(cls), f"{cls.__name__}."
    said = [name for name in told.constants if name.startswith(prefix)]
    found = {name: own[name.removeprefix(prefix)] for name in said if name.removeprefix(prefix) in own}
    return {name: value for name, value in found.items() if not _equal(value, told.constants[name])}


def _constants(tree: ast.Module | ast.ClassDef) -> dict[str, Any]:
    """What the module's top level, or that of a class, assigns literally, and only once."""
    found: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for name in bound_names(tree):
        counts[name] = counts.get(name, 0) + 1
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and counts.get(node.name) == 1 and not node.bases and not node.keywords:
            found |= {f"{node.name}.{name}": value for name, value in _constants(node).items()}
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if len(targets) == 1 and isinstance(targets[0], ast.Name) and counts.get(targets[0].id) == 1:
            try:
                found[targets[0].id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                continue
    return found


def _equal(value: Any, constant: Any) -> bool:
    try:
        return type(value) is type(constant) and bool(value == constant)
    except Exception:
        return False


_placed: dict[tuple[int, str], tuple[Any, str]] = {}


def placed() -> list[tuple[Any, str]]:
    """Owner and name of all that `set_global` has set in this process: no cell of it tells of that."""
    return list(_placed.values())


def set_global(dotted: str, value: Any) -> None:
    """Put a changed global back into its module, and wherever else the user's own modules have imported it."""
    owner, name = _owner_of(dotted)
    old = vars(owner).get(name)
    setattr(owner, name, value)
    _placed[id(owner), name] = owner, name
    if old is value or not is_a(old, dict, list, set, bytearray):
        return
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and _path_of_own(module) is not None:
            for alias in [alias for alias, held in vars(module).items() if held is old]:
                setattr(module, alias, value)


def _owner_of(dotted: str) -> tuple[Any, str]:
    """The module, or the class in it, of an attribute, and its name there."""
    path, _, name = dotted.rpartition(".")
    try:
        return importlib.import_module(path), name
    except ModuleNotFoundError:
        if "." not in path:
            raise
        above, cls = _owner_of(path)
        return getattr(above, cls), name


def reset_globals(modules: Iterable[ModuleType], keep: Iterable[str]) -> None:
    """Give the modules' other constants the value that their source says.

    They were changed after the snapshot.
    """
    kept = set(keep)
    for module in modules:
        path = _path_of_own(module)
        if path is None:
            continue
        told = _told_by(path)
        for name in _changed(module, told):
            if f"{module.__name__}.{name}" not in kept and name in told.constants:
                set_global(f"{module.__name__}.{name}", told.constant(name))


# --- versions -----------------------------------------------------------------------------------------------


def version_of(package: str) -> str:
    """The version of an imported top-level package; for a module without one, a mark of its source. Empty.

    Of no interest.
    """
    module = sys.modules.get(package)
    if module is None or package in sys.stdlib_module_names or package in ("__main__", "nbcr"):
        return ""
    version = getattr(module, "__version__", None)
    if isinstance(version, str):
        return "".join(version)  # a plain one: torch's is of a subclass
    path = _path_of_own(module)
    source = _source_of(path) if path is not None else None
    if source is not None:
        from nbcr.objects.index import digest_of

        return f"source {digest_of(source.encode()).hex()[:12]}"
    return _installed_version(package)


def _installed_version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except (PackageNotFoundError, ValueError):
        return ""
