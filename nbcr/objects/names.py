"""Which names of a namespace are the user's own, and which cell made them.

What IPython keeps in ``user_ns`` for itself is left out as ``%who`` leaves it out: a hidden name counts as
hidden only while it still has the value IPython gave it, so that ``exit = 5`` makes it the user's.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

Namespace = dict[str, Any]

HISTORY = frozenset({"In", "Out", "_ih", "_oh", "_dh", "_", "__", "___", "_i", "_ii", "_iii"})
_NUMBERED = re.compile(r"_i?\d+")
_MODULE_OWN = frozenset(
    "__name__ __doc__ __package__ __loader__ __spec__ __file__ __cached__ __path__ __builtin__ __builtins__ "
    "__session__ __vsc_ipynb_file__ __annotate__ __warningregistry__ _exit_code _nbcr".split()
)


def is_a(value: Any, *types: type) -> bool:
    """isinstance, without asking the object: a proxy may claim to be anything, and a broken one raises."""
    return issubclass(type(value), types)


def hidden_names(namespace: Namespace) -> Mapping[str, Any]:
    """What the IPython shell of this namespace hides from ``%who``; nothing where there is no shell."""
    get_ipython = namespace.get("get_ipython")
    try:
        shell = get_ipython() if callable(get_ipython) else None
        return dict(shell.user_ns_hidden) if shell is not None else {}
    except Exception:  # a name of the user's that happens to be called so
        return {}


def is_history(name: str) -> bool:
    """Whether IPython keeps inputs and outputs under this name."""
    return name in HISTORY or _NUMBERED.fullmatch(name) is not None


def user_names(
    namespace: Namespace, hidden: Collection[str] | Mapping[str, Any], *, history: bool = False
) -> dict[str, Any]:
    """The user's names with their values, in order; In and Out only when asked for.

    With a mapping of `hidden`, a name is hidden only while it has that very value.
    """
    found = {}
    for key, value in list(namespace.items()):
        if not isinstance(key, str) or key in _MODULE_OWN:  # what is no text is no name
            continue
        name = "".join(key)  # a plain one: `globals()[column] = …` puts numpy's own kind of text there
        if is_history(name):
            if history and name in ("In", "Out"):
                found[name] = value
            continue
        if name in hidden and (not isinstance(hidden, Mapping) or hidden[name] is value):
            continue
        found[name] = value
    return found


class Cells:
    """The session's cells: which of them made a name."""

    def __init__(self, inputs: Any) -> None:
        self._inputs = [str(text) for text in inputs] if isinstance(inputs, list) else []
        self._bound: dict[int, frozenset[str]] = {}

    def maker_of(self, name: str) -> tuple[int, str] | None:
        """Number and source of the last cell that binds `name` at its top level."""
        for number in range(len(self._inputs) - 1, 0, -1):
            source = self._inputs[number]
            if name in source and name in self._names_bound_by(number):
                return number, source
        return None

    def _names_bound_by(self, number: int) -> frozenset[str]:
        if number not in self._bound:
            try:
                self._bound[number] = frozenset(bound_names(ast.parse(self._inputs[number])))
            except (SyntaxError, ValueError):
                self._bound[number] = frozenset()
        return self._bound[number]


def bound_names(tree: ast.AST) -> Iterator[str]:
    """The names that running `tree` as a module binds."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
            continue
        if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            continue  # scopes of their own
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name
        elif isinstance(node, ast.ExceptHandler):
            pass  # its name is unbound again at its end
        yield from bound_names(node)
