"""Settings that change how later cells compute and print, and which nothing in the namespace holds.

`surroundings` lists them. Whoever reads one gets plain values; whoever sets one changes only what differs, as some
settings warn or cost when they are set.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbcr.objects.kinds import figures
from nbcr.objects.modules import is_own

_OWN_VARIABLES = re.compile(r"(JPY|JUPYTER|NBCR)_|(PATH|PWD|OLDPWD|SHLVL|COLUMNS|LINES|_)$")
"""Environment variables that belong to the process, its server or its host."""


class Incomplete(Exception):
    """Some of a setting could not be set; says which."""


# --- Python's own -------------------------------------------------------------------------------------------------


def changed_environment(os_: Any) -> dict[str, str | None]:
    """The variables that were set (or removed: None) since the process began."""
    began = _began(os_)
    names = {*began, *os_.environ}
    now = {name: os_.environ.get(name) for name in names if not _OWN_VARIABLES.match(name)}
    return {name: value for name, value in now.items() if value != began.get(name)}


def _began(os_: Any) -> dict[str, str]:
    raw = Path("/proc/self/environ").read_bytes().split(b"\0")
    return dict(os_.fsdecode(entry).split("=", 1) for entry in raw if b"=" in entry)


def set_environment(os_: Any, changed: dict[str, str | None]) -> None:
    """Set them; what the present has changed beside them stays."""
    for name, value in changed.items():
        if value is None:
            os_.environ.pop(name, None)
        else:
            os_.environ[name] = value
    if "TZ" in changed:
        import time

        time.tzset()


_LIFE = os.urandom(8)
"""What this process has in its memory, and so do the lives that are restored from its images."""


def environment_of_life(os_: Any) -> tuple[bytes, frozenset[str]]:
    """Whose environment it is, and which variables are others than when the process began."""
    return _LIFE, frozenset(changed_environment(os_))


def undo_environment(os_: Any, of_life: tuple[bytes, frozenset[str]]) -> None:
    """Variables that this session has changed since are what they were; those of another session are its own matter."""
    life, changed = of_life
    if life == _LIFE:
        began = _began(os_)
        since = changed_environment(os_).keys() - changed
        set_environment(os_, {name: began.get(name) for name in since})


def numba_random(helper: Any) -> tuple[str, bytes, bytes]:
    """The states of numba's own generators, of this thread: those behind numpy's functions and behind `random`'s."""
    numpys, pythons = helper.rnd_get_np_state_ptr(), helper.rnd_get_py_state_ptr()
    return (
        _numba_version(),
        ctypes.string_at(numpys, _NUMBA_RANDOM_BYTES),
        ctypes.string_at(pythons, _NUMBA_RANDOM_BYTES),
    )


_NUMBA_RANDOM_BYTES = 4 + 624 * 4 + 4 + 8  # rnd_state_t: index, words, has_gauss, gauss


def _numba_version() -> str:
    return str(sys.modules["numba"].__version__)


def set_numba_random(helper: Any, states: tuple[str, bytes, bytes]) -> None:
    """Raises Incomplete where another numba may keep them otherwise."""
    version, *wanted = states
    if version != _numba_version():
        raise Incomplete(f"they are those of numba {version}")
    for pointer, state in zip((helper.rnd_get_np_state_ptr(), helper.rnd_get_py_state_ptr()), wanted, strict=True):
        ctypes.memmove(pointer, state, _NUMBA_RANDOM_BYTES)


def redirected(sys_: Any) -> list[tuple[str, str]]:
    """Standard streams that the session has put something of its own in the place of, and what."""
    streams = [(name, type(getattr(sys_, name))) for name in ("stdout", "stderr")]
    own = [(name, kind) for name, kind in streams if not kind.__module__.startswith(_STREAMS)]
    return [(name, kind.__qualname__) for name, kind in own if kind.__name__ != "TextIOWrapper"]


_STREAMS = ("ipykernel", "IPython", "colorama", "_pytest")
"""Whose streams are a shell's own, or put there by it for a while."""


def tell_redirected(sys_: Any, was: list[tuple[str, str]]) -> None:
    """Raises Incomplete for what is not so here: such a stream cannot be put back, its reader is gone."""
    lost = [f"sys.{name} ({kind})" for name, kind in was if (name, kind) not in redirected(sys_)]
    if lost:
        raise Incomplete(f"run the cell again that redirected {' and '.join(lost)}")


def warning_filters(warnings: Any) -> list[tuple[Any, ...]]:
    """All of them, with patterns as text."""
    return [
        (action, _text(message), category, _text(module), line)
        for action, message, category, module, line in warnings.filters
    ]


def _text(pattern: Any) -> str:
    return pattern if isinstance(pattern, str) else getattr(pattern, "pattern", "")


def set_warning_filters(warnings: Any, filters: list[tuple[Any, ...]]) -> None:
    """These and no others."""
    if warning_filters(warnings) == filters:
        return
    warnings.resetwarnings()
    for action, message, category, module, line in filters:
        warnings.filterwarnings(action, message, category, module, line, append=True)


def log_handlers(logging: Any) -> list[tuple[Any, ...]]:
    """What the root logger writes to: streams and files in full, of others only the type."""
    return [_described(logging, handler) for handler in logging.getLogger().handlers]


def _described(logging: Any, handler: Any) -> tuple[Any, ...]:
    target: tuple[Any, ...] = ()
    if type(handler) is logging.FileHandler:
        target = ("file", handler.baseFilename)
    elif type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.stderr):
        target = ("stream", "stdout" if handler.stream is sys.stdout else "stderr")
    if not target or handler.filters or type(handler.formatter) not in (type(None), logging.Formatter):
        return (type(handler).__name__,)
    formatter = handler.formatter
    how = (formatter._fmt, formatter.datefmt, type(formatter._style).__name__) if formatter else ()
    return (*target, handler.level, how)


def set_log_handlers(logging: Any, wanted: list[tuple[Any, ...]]) -> None:
    """Add those that are missing; raises Incomplete for those that cannot be made.

    Streams and files that came since are taken away: with them there, another `basicConfig` would do nothing.
    """
    missing = list(wanted)
    for handler in list(logging.getLogger().handlers):
        described = _described(logging, handler)
        if described in missing:
            missing.remove(described)
        elif len(described) > 1:
            logging.getLogger().removeHandler(handler)
    for described in missing:
        if len(described) > 1:
            logging.getLogger().addHandler(_made(logging, *described))
    lost = [described[0] for described in missing if len(described) == 1]
    if lost:
        raise Incomplete(f"run the cell again that added {', '.join(lost)} to the root logger")


def handlers_of_life(logging: Any) -> tuple[bytes, dict[str, list[int]]]:
    """Whose loggers they are, and which handlers those of the session have."""
    return _LIFE, {name: list(map(id, logger.handlers)) for name, logger in _loggers_of_session(logging).items()}


def _loggers_of_session(logging: Any) -> dict[str, Any]:
    """The root, and those not called as a library is, which may have given them handlers when it was imported."""
    loggers = list(logging.Logger.manager.loggerDict.items())
    own = {name: found for name, found in loggers if isinstance(found, logging.Logger) and not _is_librarys(name)}
    return {"": logging.getLogger(), **own}


def _is_librarys(logger: str) -> bool:
    package = logger.partition(".")[0]
    return package in sys.modules and package != "__main__" and not is_own(sys.modules[package])


def undo_handlers(logging: Any, of_life: tuple[bytes, dict[str, list[int]]]) -> None:
    """Take away what this session has given to its loggers since: a cell that does it again would log twice."""
    life, known = of_life
    for name, logger in _loggers_of_session(logging).items() if life == _LIFE else ():
        for handler in [handler for handler in logger.handlers if id(handler) not in known.get(name, ())]:
            logger.removeHandler(handler)


def _made(logging: Any, kind: str, target: str, level: int, how: tuple[Any, ...]) -> Any:
    is_file = kind == "file"  # which is appended to
    handler = logging.FileHandler(target, delay=True) if is_file else logging.StreamHandler(getattr(sys, target))
    handler.setLevel(level)
    if how:
        fmt, datefmt, style = how
        style = {"StrFormatStyle": "{", "StringTemplateStyle": "$"}.get(style, "%")
        handler.setFormatter(logging.Formatter(fmt, datefmt, style))
    return handler


# --- libraries ----------------------------------------------------------------------------------------------------


def pandas_options(pandas: Any) -> dict[str, Any]:
    """All options, by their full names."""
    return dict(_flat("", pandas.options.d))


def _flat(prefix: str, options: dict[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in options.items():
        found += _flat(f"{prefix}{name}.", value) if isinstance(value, dict) else [(prefix + name, value)]
    return found


def set_pandas_options(pandas: Any, options: dict[str, Any]) -> None:
    """Set those that differ and that this version knows."""
    now = pandas_options(pandas)
    for name, value in options.items():
        if name in now and now[name] != value:
            pandas.set_option(name, value)


def set_xarray_options(xarray: Any, options: dict[str, Any]) -> None:
    """Set those that differ and that this version knows."""
    now = xarray.get_options()
    xarray.set_options(**{name: value for name, value in options.items() if name in now and now[name] != value})


def torch_settings(torch: Any) -> dict[str, Any]:
    """The default type, how it computes, how it prints."""
    return {
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "print": dict(vars(torch._tensor_str.PRINT_OPTS)),
    }


def set_torch_settings(torch: Any, wanted: dict[str, Any]) -> None:
    """Set those that differ."""
    now = torch_settings(torch)
    setters = {
        "dtype": lambda name: torch.set_default_dtype(getattr(torch, name)),
        "deterministic": torch.use_deterministic_algorithms,
        "threads": torch.set_num_threads,
        "print": lambda options: torch.set_printoptions(**options),
    }
    for name, value in wanted.items():
        if name in setters and now[name] != value:
            setters[name](value)


def inline_figures(backend: Any) -> list[str] | None:
    """The formats in which figures are shown below a cell; None where they are not."""
    from matplotlib_inline.config import InlineBackend

    return sorted(InlineBackend.instance().figure_formats) if _shows_figures() else None


def _shows_figures() -> bool:
    """Whether the notebook knows how to show a figure: only since a first one was made, or `%matplotlib inline`."""
    figure = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or figure is None:
        return False
    return any(figure in formatter.type_printers for formatter in shell.display_formatter.formatters.values())


def set_inline_figures(backend: Any, formats: list[str] | None) -> None:
    """As `%matplotlib inline` does, but for the backend, which is a setting of its own."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if formats is None or shell is None:
        return
    if not _shows_figures():
        import matplotlib.pyplot as pyplot

        chosen = drawing_backend(pyplot)
        shell.enable_matplotlib("inline")
        if chosen is not None and not chosen.endswith("inline"):
            pyplot.switch_backend(chosen)
    if inline_figures(backend) != formats:
        from matplotlib_inline.config import InlineBackend

        InlineBackend.instance().figure_formats = set(formats)


def drawing_backend(pyplot: Any) -> str | None:
    """By what figures are shown, as `%matplotlib widget` chooses it; None before it was needed."""
    return None if pyplot._backend_mod is None else str(pyplot.get_backend())


def set_drawing_backend(pyplot: Any, wanted: str | None) -> None:
    """As the magic does where there is a notebook: figures that come back are made for what is chosen then."""
    if wanted is None or drawing_backend(pyplot) == wanted:
        return
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or wanted.lower() in _WRITERS:
        pyplot.switch_backend(wanted)
    else:
        shell.enable_matplotlib("inline" if wanted.endswith("inline") else wanted)


_WRITERS = {"agg", "cairo", "pdf", "pgf", "ps", "svg"}  # they write files and show nothing: nothing else is set up


def open_figures(pyplot: Any) -> tuple[list[int], bool]:
    """Their numbers, and whether the end of the cell is going to show some."""
    return sorted(pyplot.get_fignums()), any(show._draw_called for show, _ in _shown_at_the_end())


def _shown_at_the_end() -> Iterator[tuple[Any, str]]:
    """Who keeps figures for the end of a cell, and the name under which."""
    for module, owner, kept in (
        ("matplotlib_inline.backend_inline", "show", "_to_draw"),
        ("ipympl.backend_nbagg", "_Backend_ipympl", "_to_show"),
    ):
        show = getattr(sys.modules.get(module), owner, None)
        if hasattr(show, kept):
            yield show, kept


def set_open_figures(pyplot: Any, was: tuple[list[int], bool]) -> None:
    """Figures that were open and not due to be shown stay so: pyplot takes one that is made again for a new one."""
    numbers, due = was
    figures.end_to_replace(pyplot)
    for show, kept in () if due else _shown_at_the_end():
        show._draw_called = False
        setattr(show, kept, [])
    missing = len(numbers) - len(pyplot.get_fignums())
    if missing > 0:
        raise Incomplete(f"{missing} of pyplot's {len(numbers)} open figures belonged to no variable")


def changed_colours(colors: Any) -> dict[str, Any]:
    """Names of colours that mean something else than matplotlib says: `seaborn.set_theme` changes single letters."""
    usual = _usual_colours(colors)
    now = colors.get_named_colors_mapping()
    return {name: value for name, value in dict.items(now) if usual.get(name) != value}


def _usual_colours(colors: Any) -> dict[str, Any]:
    named = {**colors.XKCD_COLORS, **colors.CSS4_COLORS, **colors.TABLEAU_COLORS}
    british = {name.replace("gray", "grey"): value for name, value in named.items()}
    return {**british, **named, **colors.BASE_COLORS}


def set_colours(colors: Any, changed: dict[str, Any]) -> None:
    """These and no others."""
    names = colors.get_named_colors_mapping()
    usual = _usual_colours(colors)
    for name in changed_colours(colors).keys() - changed.keys():
        if name in usual:
            names[name] = usual[name]
        else:
            del names[name]
    for name, value in changed.items():
        names[name] = value  # which forgets what the name has meant, as `update` does not


def umask(module: Any) -> int:
    """As the OS kernel tells it: umask(2) would change it for a moment, for all threads."""
    told = Path("/proc/self/status").read_text().partition("\nUmask:")[2]
    return int(told.split(maxsplit=1)[0], 8)
