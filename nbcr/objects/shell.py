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
        "magic aliases": [
            (made.magic_name, kind, name, made.magic_params)
            for kind, known in magics.items()
            for name, made in known.items()
            if type(made).__name__ == "MagicAlias"  # of %alias_magic; some are there from the start
        ],
        "debugger": shell.call_pdb,
        "automagic": shell.automagic,
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
    for magic, kind, name, parameters in wanted.get("magic aliases", ()):
        if (magic, kind, name, parameters) not in now["magic aliases"]:
            shell.magics_manager.register_alias(name, magic, kind, parameters)
    shell.call_pdb = wanted.get("debugger", shell.call_pdb)
    shell.automagic = wanted.get("automagic", shell.automagic)
    for name in wanted["extensions"]:
        if name not in now["extensions"]:
            shell.extension_manager.load_extension(name)
    missing = [name for name in wanted["printers"] if name not in (*now["printers"], _OWN_OF_OLDER)]
    if missing:
        raise Incomplete(f"run the cell again that chose how types are shown: {', '.join(missing)}")


# --- functions of the session -------------------------------------------------------------------------------------


def printers(ipython: Any) -> list[tuple[str, type | str, Any]]:
    """Functions of the session by which values of a type are shown: kind of output, type, function.

    A text, "module.name", stands for a type of which nothing has been shown yet (`for_type_by_name`).
    """
    return [(kind, cls, made) for kind, cls, made in _all_printers(ipython.get_ipython()) if _is_own(made)]


def _all_printers(shell: Any) -> Iterator[tuple[str, type | str, Any]]:
    for kind, formatter in _formatters(shell).items():
        for cls, made in list(formatter.type_printers.items()):
            yield kind, cls, made
        for names, made in list(formatter.deferred_printers.items()):
            yield kind, ".".join(names), made


def _formatters(shell: Any) -> dict[str, Any]:
    """All of the shell's formatters, also those that are asked before the ones of each kind of output."""
    known = shell.display_formatter
    before = {"ipython_display": known.ipython_display_formatter, "mimebundle": known.mimebundle_formatter}
    return {**known.formatters, **before}


def set_printers(ipython: Any, wanted: list[tuple[str, type | str, Any]]) -> None:
    """These and no others of the session's."""
    shell = ipython.get_ipython()
    if shell is None:
        return
    formatters = _formatters(shell)
    for kind, cls, _ in printers(ipython):
        formatters[kind].pop(cls)
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


def transformers(ipython: Any) -> list[tuple[str, str, Any]]:
    """What of the session changes cells before they run: which list it is in, its name in the notebook, or itself."""
    shell = ipython.get_ipython()
    named = {id(value): name for name, value in shell.user_ns.items() if not name.startswith("_")}
    return [
        (where, named.get(id(made), ""), None if id(made) in named else made)
        for where, known in _transformer_lists(shell).items()
        for made in known
        if _is_of_session(made)
    ]


def _transformer_lists(shell: Any) -> dict[str, list[Any]]:
    return {
        "input_transformers_cleanup": shell.input_transformers_cleanup,
        "input_transformers_post": shell.input_transformers_post,
        "ast_transformers": shell.ast_transformers,
    }


def _is_of_session(made: Any) -> bool:
    return _is_own(made) or bool(_of_own_class(made))


def set_transformers(ipython: Any, wanted: list[tuple[str, str, Any]]) -> None:
    """These and no others of the session's, behind those of the shell; raises Incomplete for what is lost."""
    shell = ipython.get_ipython()
    if shell is None:
        return
    lists = _transformer_lists(shell)
    for known in lists.values():
        known[:] = [made for made in known if not _is_of_session(made)]
    lost = []
    for where, name, made in wanted:
        made = shell.user_ns.get(name) if name else made
        if made is not None and _is_of_session(made):
            lists[where].append(made)
        else:
            lost.append(name or where)
    if lost:
        raise Incomplete(f"run the cell again that added {', '.join(lost)}")


def exception_handler(ipython: Any) -> tuple[tuple[type, ...], Any] | None:
    """Which exceptions the session shows by a function of its own (`set_custom_exc`), and that function."""
    shell = ipython.get_ipython()
    around: Any = getattr(shell.CustomTB, "__func__", None)  # the shell's own, which cannot be saved
    code = getattr(around, "__code__", None)
    inside = () if code is None else zip(code.co_freevars, around.__closure__ or (), strict=True)
    made = {name: cell.cell_contents for name, cell in inside}.get("handler")
    return (shell.custom_exceptions, made) if shell.custom_exceptions and made is not None else None


def set_exception_handler(ipython: Any, wanted: tuple[tuple[type, ...], Any] | None) -> None:
    """As it was, or none."""
    shell = ipython.get_ipython()
    if shell is None:
        return
    if wanted is None:
        if exception_handler(ipython) is not None:
            shell.custom_exceptions = ()
        return
    kinds, made = wanted
    named = shell.user_ns.get(getattr(made, "__name__", ""))
    same = getattr(named, "__code__", None) == getattr(made, "__code__", made)
    shell.set_custom_exc(kinds, named if same else made)


def magics_with_state(ipython: Any) -> list[str]:
    """Magics that are methods of a class of the session's, by name: their object knows the shell."""
    known = ipython.get_ipython().magics_manager.magics
    return sorted({f"%{name}" for made in known.values() for name, method in made.items() if _of_own_class(method)})


def tell_magics_with_state(ipython: Any, wanted: list[str]) -> None:
    """Raises Incomplete for those that are not there."""
    shell = ipython.get_ipython()
    missing = [] if shell is None else [name for name in wanted if name not in magics_with_state(ipython)]
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
