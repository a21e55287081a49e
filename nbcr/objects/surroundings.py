"""What belongs to no name and yet to the session: global random states, settings of libraries, the working folder.

Each state is read and set only when its library is loaded. Random states are read in the process itself,
before the fork: `random` seeds itself anew in a forked child.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbcr.objects import libraries, settings, shell
from nbcr.objects.kinds import contexts, figures


@dataclass(frozen=True)
class State:
    """One thing that a library keeps for the whole process."""

    name: str
    module: str  # is it loaded?
    read: Callable[[Any], Any]
    set: Callable[[Any, Any], None]
    before_fork: bool = False
    before_names: bool = False  # imports need it
    of_thread: bool = False  # each thread has its own: only the main thread's is the session's


def _set_print_options(numpy: Any, options: dict[str, Any]) -> None:
    numpy.set_printoptions(**{name: value for name, value in options.items() if name in numpy.get_printoptions()})


def _changed_rc(matplotlib: Any) -> dict[str, Any]:
    defaults = matplotlib.rcParamsDefault
    current = dict.items(matplotlib.rcParams)  # as a plain dictionary: reading some of them would start a backend
    return {name: value for name, value in current if name != "backend" and dict.get(defaults, name) != value}


def _set_rc(matplotlib: Any, changed: dict[str, Any]) -> None:
    for name in _changed_rc(matplotlib).keys() - changed.keys():
        matplotlib.rcParams[name] = matplotlib.rcParamsDefault[name]
    matplotlib.rcParams.update({name: value for name, value in changed.items() if name in matplotlib.rcParams})


def _logger_levels(logging: Any) -> dict[str, int]:
    loggers = list(logging.Logger.manager.loggerDict.items())
    levels = {name: found.level for name, found in loggers if isinstance(found, logging.Logger) and found.level}
    return {**levels, "": logging.getLogger().level}


def _set_logger_levels(logging: Any, levels: dict[str, int]) -> None:
    for name in _logger_levels(logging).keys() - levels.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _set_folder(module: Any, folder: str) -> None:
    module.chdir(folder)


def _add_to_path(module: Any, path: list[str]) -> None:
    """Add what an import of the user's own modules needs; the order of what is there stays."""
    module.path.extend(entry for entry in path if entry not in module.path)


def _path_in_front(module: Any) -> list[str]:
    """What is searched before the installation: it hides modules of the same name."""
    return list(itertools.takewhile(_is_added, module.path))


def _put_in_front(module: Any, path: list[str]) -> None:
    missing = [entry for entry in path if entry not in module.path]
    module.path[:0] = missing


def _user_path(module: Any) -> list[str]:
    """The part of the search path that does not belong to the installation."""
    return [entry for entry in module.path if _is_added(entry)]


def _is_added(entry: str) -> bool:
    return not entry.startswith((sys.prefix, sys.base_prefix))


def _collecting(gc: Any) -> tuple[bool, tuple[int, ...]]:
    return gc.isenabled(), gc.get_threshold()


def _set_collecting(gc: Any, how: tuple[bool, tuple[int, ...]]) -> None:
    enabled, thresholds = how
    gc.set_threshold(*thresholds)
    (gc.enable if enabled else gc.disable)()


def _decimal_context(decimal: Any) -> Any:
    return decimal.getcontext().copy()


_numpy_random = State(
    "numpy.random", "numpy.random", lambda m: m.get_state(), lambda m, state: m.set_state(state), before_fork=True
)
_decimal = State("decimal context", "decimal", _decimal_context, contexts.set_current, before_fork=True)
STATES = (
    State("random", "random", lambda m: m.getstate(), lambda m, state: m.setstate(state), before_fork=True),
    _numpy_random,
    State(
        "torch random", "torch", lambda m: m.get_rng_state().numpy(),
        lambda m, state: m.set_rng_state(m.from_numpy(state.copy())), before_fork=True,
    ),
    State("numba random", "numba._helperlib", settings.numba_random, settings.set_numba_random, before_fork=True,
          of_thread=True),
    _decimal,
    State("decimal context of a variable", "decimal", lambda m: True, contexts.forget_current, before_names=True),
    State("recursion limit", "sys", lambda m: m.getrecursionlimit(), lambda m, limit: m.setrecursionlimit(limit)),
    State("garbage collection", "gc", _collecting, _set_collecting, before_fork=True),
    State("thread switch interval", "sys", lambda m: m.getswitchinterval(), lambda m, s: m.setswitchinterval(s),
          before_fork=True),  # a fork has one of its own
    State("module search path in front", "sys", _path_in_front, _put_in_front, before_names=True),
    State("module search path", "sys", _user_path, _add_to_path, before_names=True),
    State("working folder", "os", lambda m: m.getcwd(), _set_folder, before_names=True),
    State("umask", "os", settings.umask, lambda m, mask: m.umask(mask)),
    State("environment variables set since", "os", settings.environment_of_life, settings.undo_environment,
          before_names=True),
    State("environment variables", "os", settings.changed_environment, settings.set_environment, before_names=True),
    State(
        "warning filters", "warnings", settings.warning_filters, settings.set_warning_filters, before_fork=True
    ),
    State("locale", "locale", lambda m: m.setlocale(m.LC_ALL), lambda m, name: m.setlocale(m.LC_ALL, name)),
    State("redirected output", "sys", settings.redirected, settings.tell_redirected, before_fork=True),
    State("handlers of the root logger", "logging", settings.log_handlers, settings.set_log_handlers, before_fork=True),
    State("handlers of loggers", "logging", settings.handlers_of_life, settings.undo_handlers, before_fork=True),
    State("levels of loggers", "logging", _logger_levels, _set_logger_levels),
    State("numpy print options", "numpy", lambda m: m.get_printoptions(), _set_print_options),
    State("numpy error handling", "numpy", lambda m: m.geterr(), lambda m, how: m.seterr(**how)),
    State("pandas options", "pandas", settings.pandas_options, settings.set_pandas_options),
    State("polars settings", "polars", lambda m: m.Config.save(), lambda m, state: m.Config.load(state)),
    State("scikit-learn settings", "sklearn", lambda m: m.get_config(), lambda m, state: m.set_config(**state),
          before_fork=True, of_thread=True),
    State("xarray options", "xarray", lambda m: dict(m.get_options()), settings.set_xarray_options),
    State("dask configuration", "dask.config", lambda m: m.config, lambda m, config: m.update(m.config, config)),
    State("torch settings", "torch", settings.torch_settings, settings.set_torch_settings),
    State("torch gradients", "torch", lambda m: m.is_grad_enabled(), lambda m, on: m.set_grad_enabled(on),
          before_fork=True, of_thread=True),
    State("how sympy prints", "sympy.interactive.printing", libraries.sympy_printing, libraries.set_sympy_printing),
    State("settings of the notebook", "IPython", shell.shell_settings, shell.set_shell_settings),
    State("how types are shown", "IPython", shell.printers, shell.set_printers),
    State("what is told of events", "IPython", shell.callbacks, shell.set_callbacks),
    State("what changes cells", "IPython", shell.transformers, shell.set_transformers),
    State("how exceptions are shown", "IPython", shell.exception_handler, shell.set_exception_handler),
    State("magics of the session's classes", "IPython", shell.magics_with_state, shell.tell_magics_with_state),
    State("names of %pylab", "IPython", shell.pylab, shell.set_pylab),
    State("backend of matplotlib", "matplotlib.pyplot", settings.drawing_backend, settings.set_drawing_backend,
          before_names=True),
    State("numbers of figures", "matplotlib.pyplot", figures.numbers_by_use, figures.begin_to_replace, before_fork=True,
          before_names=True),
    State("figures", "matplotlib_inline.backend_inline", settings.inline_figures, settings.set_inline_figures),
    State("open figures", "matplotlib.pyplot", settings.open_figures, settings.set_open_figures, before_fork=True),
    State("matplotlib settings", "matplotlib", _changed_rc, _set_rc),
    State("matplotlib colours", "matplotlib.colors", settings.changed_colours, settings.set_colours),
    State("colour maps", "matplotlib.cm", libraries.colour_maps, libraries.add_colour_maps),
    State("fonts", "matplotlib.font_manager", libraries.added_fonts, libraries.add_fonts),
    State("projections and scales", "matplotlib.projections", libraries.projections_and_scales,
          libraries.add_projections_and_scales),
    State("axes of dates by pandas", "pandas", libraries.draws_dates, libraries.set_draws_dates),
    State("colour maps by seaborn", "seaborn.palettes", libraries.shows_colour_maps, libraries.set_shows_colour_maps),
    State("settings of python-control", "control", libraries.control_settings, libraries.set_control_settings),
    State("precision of mpmath", "mpmath", libraries.mpmath_precision, libraries.set_mpmath_precision),
    State("registry of units", "pint", libraries.pint_registry, libraries.set_pint_registry, before_names=True),
    State("name of the registry of units", "pint", libraries.pint_registry_name, libraries.set_pint_registry_name),
    State("templates of plotly", "plotly.io", libraries.plotly_templates, libraries.set_plotly_templates),
    State("defaults of plotly", "plotly.io", libraries.plotly_defaults, libraries.set_plotly_defaults),
    State("numbers of bokeh's models", "bokeh.util.serialization", libraries.bokeh_number, libraries.set_bokeh_number),
    State("outputs of bokeh", "bokeh.io.state", libraries.bokeh_outputs, libraries.set_bokeh_outputs),
    State("extension of holoviews", "holoviews", libraries.holoviews_backends, libraries.set_holoviews_backends),
    State("plugins of altair by the session", "altair", libraries.own_altair_plugins, libraries.add_altair_plugins),
    State("plugins of altair", "altair", libraries.altair_plugins, libraries.set_altair_plugins),
)  # fmt: skip


def read(*, before_fork: bool, in_main: bool = True) -> dict[str, Any]:
    """The states of the libraries that are loaded, by name."""
    found = {}
    for state in STATES:
        module = sys.modules.get(state.module)
        if module is None or state.before_fork is not before_fork or (state.of_thread and not in_main):
            continue
        try:
            found[state.name] = state.read(module)
        except Exception:  # a library half loaded, or another version of it: it keeps what it has
            continue
    return found


def unread(*, in_main: bool) -> list[str]:
    """What another thread than the main one cannot read, in words."""
    names = [] if in_main else [state.name for state in STATES if state.of_thread and state.module in sys.modules]
    return [f"{', '.join(names)}: not among the objects, as only a cell can read them"] if names else []


def apply(states: dict[str, Any], *, before_names: bool) -> list[str]:
    """Set them; what could not be set, in words."""
    failed = []
    for state in STATES:
        if state.name not in states or state.before_names is not before_names:
            continue
        try:
            module = sys.modules.get(state.module) or __import__(state.module, fromlist=["*"])
            state.set(module, states[state.name])
        except Exception as error:
            failed.append(
                f"{state.name} could not{' all' * isinstance(error, settings.Incomplete)} be set: {_line(error)}"
            )
    return failed


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
