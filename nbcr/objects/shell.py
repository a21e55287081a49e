"""Settings of the notebook itself: how it shows values, and what the session has added to its commands and events.

What was added may be functions of the session. They are states of their own, so that one which cannot be saved costs
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nbcr.objects.settings import Incomplete

_OWN_OF_OLDER = "its own"  # printers, as snapshots said that did not hold them
_SHOWN = {"precision": "float_precision", "pprint": "pprint"}


def shell_settings(ipython: Any) -> dict[str, Any]:
    """How the notebook shows values, and what the notebook has added to its commands."""
    shell = ipython.get_ipython()
    plain = shell.display_formatter.formatters["text/plain"]
    magics = shell.magics_manager.magics
    return {
        **{name: getattr(plain, trait) for name, trait in _SHOWN.items()},
        "interactivity": shell.ast_node_interactivity,
        "xmode": shell.InteractiveTB.mode,
        "magics": [
            (kind, name, made) for kind, known in magics.items() for name, made in known.items() if _is_own(made)
        ],
        "aliases": shell.alias_manager.aliases,
        "extensions": sorted(shell.extension_manager.loaded - {"nbcr"}),
        "folders": list(shell.dir_stack),  # of %pushd
        "printers": sorted({_printer_of(made) for made in plain.type_printers.values()} - {""}),
    }


def _is_own(made: Any) -> bool:
    return getattr(made, "__module__", "") == "__main__" and type(made).__name__ == "function"


def _printer_of(made: Any) -> str:
    is_sympys = getattr(made, "__module__", None) == "sympy.interactive.printing"
    return "sympy's (init_printing)" if is_sympys else "" if _is_own(made) else _of_own_class(made)


def _of_own_class(made: Any) -> str:
    """The name of what is of the session in another way than as a function: a method knows an object of its own."""
    owner = getattr(made, "__self__", made)
    return f"{type(owner).__qualname__}'s" if type(owner).__module__ == "__main__" else ""


def set_shell_settings(ipython: Any, wanted: dict[str, Any]) -> None:
    """Set those that differ, where there is a shell; raises Incomplete for what the user has to do again."""
    shell = ipython.get_ipython()
    if shell is None:
        return
    now = shell_settings(ipython)
    plain = shell.display_formatter.formatters["text/plain"]
    for name, trait in _SHOWN.items():
        setattr(plain, trait, wanted[name])
    shell.ast_node_interactivity = wanted["interactivity"]
    shell.dir_stack[:] = wanted.get("folders", shell.dir_stack)  # older snapshots tell of none
    if now["xmode"] != wanted["xmode"]:
        shell.InteractiveTB.set_mode(wanted["xmode"])
    for kind, name, made in wanted["magics"]:
        shell.register_magic_function(made, kind, name)
    for name, command in wanted["aliases"]:
        if (name, command) not in now["aliases"]:
            shell.alias_manager.define_alias(name, command)
    for name in wanted["extensions"]:
        if name not in now["extensions"]:
            shell.extension_manager.load_extension(name)
    missing = [name for name in wanted["printers"] if name not in (*now["printers"], _OWN_OF_OLDER)]
    if missing:
        raise Incomplete(f"run the cell again that chose how types are shown: {', '.join(missing)}")


# --- functions of the session -------------------------------------------------------------------------------------


def printers(ipython: Any) -> list[tuple[str, type, Any]]:
    """Functions of the session by which values of a type are shown: kind of output, type, function."""
    return [(kind, cls, made) for kind, cls, made in _all_printers(ipython.get_ipython()) if _is_own(made)]


def _all_printers(shell: Any) -> Iterator[tuple[str, type, Any]]:
    for kind, formatter in shell.display_formatter.formatters.items():
        for cls, made in list(formatter.type_printers.items()):
            yield kind, cls, made


def set_printers(ipython: Any, wanted: list[tuple[str, type, Any]]) -> None:
    """These and no others of the session's."""
    shell = ipython.get_ipython()
    if shell is None:
        return
    formatters = shell.display_formatter.formatters
    for kind, cls, _ in printers(ipython):
        del formatters[kind].type_printers[cls]
    for kind, cls, made in wanted:
        formatters[kind].for_type(cls, made)


def callbacks(ipython: Any) -> tuple[list[tuple[str, Any]], list[tuple[str, str]]]:
    """What is told of events such as `pre_run_cell`: functions of the session, and what else is of it, in words."""
    known = ipython.get_ipython().events.callbacks
    every = [(event, made) for event, registered in known.items() for made in registered]
    own = [(event, made) for event, made in every if _is_own(made)]
    return own, [(event, name) for event, made in every if not _is_own(made) and (name := _of_own_class(made))]


def set_callbacks(ipython: Any, wanted: tuple[list[tuple[str, Any]], list[tuple[str, str]]]) -> None:
    """These and no others of the session's functions; raises Incomplete for what else was told of events."""
    shell = ipython.get_ipython()
    if shell is None:
        return
    functions, others = wanted
    own, there = callbacks(ipython)
    for event, made in own:
        shell.events.callbacks[event].remove(made)
    for event, made in functions:
        named = shell.user_ns.get(made.__name__)  # by which the session can take it back
        shell.events.register(event, named if getattr(named, "__code__", None) == made.__code__ else made)
    missing = sorted({name for event, name in others if (event, name) not in there})
    if missing:
        raise Incomplete(f"run the cell again that registered {', '.join(missing)}")


def pylab(ipython: Any) -> list[bool]:
    """Whether `%pylab` has brought its names, which are hidden as if the notebook did not have them; whether all."""
    hidden = ipython.get_ipython().user_ns_hidden
    is_there = str(getattr(hidden.get("pylab"), "__name__", "")).rpartition(".")[2] == "pylab"
    return [is_there, is_there and "linspace" in hidden]


def set_pylab(ipython: Any, wanted: list[bool]) -> None:
    """Bring those that are missing: what the session has bound otherwise stays so."""
    shell = ipython.get_ipython()
    is_there, all_names = wanted
    if shell is None or not is_there or pylab(ipython) == wanted:
        return
    from IPython.core import pylabtools

    names: dict[str, Any] = {}
    bring: Any = pylabtools.import_pylab
    bring(names, all_names)
    missing = {name: value for name, value in names.items() if name not in shell.user_ns}
    shell.user_ns.update(missing)
    shell.user_ns_hidden.update(missing)
