"""Settings of single libraries that change how later cells compute, draw and name things.

Where a library has no public way to read one, another version of it may keep it otherwise: `surroundings` leaves out
what cannot be read, and tells what cannot be set.
"""

from __future__ import annotations

import sys
from typing import Any

from nbcr.objects.kinds.quantities import name_of
from nbcr.objects.settings import Incomplete

_PANDAS_CONVERTERS = "pandas.plotting._matplotlib.converter"
_SEABORN = "seaborn.palettes"


def draws_dates(pandas: Any) -> bool:
    """Whether pandas draws matplotlib's axes of dates: since `register_matplotlib_converters()`."""
    units = sys.modules.get("matplotlib.units")
    known = units.registry.values() if units is not None else ()
    return any(type(converter).__module__ == _PANDAS_CONVERTERS for converter in known)


def set_draws_dates(pandas: Any, wanted: bool) -> None:
    """Only where it is otherwise: it costs an import of matplotlib."""
    if draws_dates(pandas) is not wanted:
        register, deregister = (
            pandas.plotting.register_matplotlib_converters,
            pandas.plotting.deregister_matplotlib_converters,
        )
        (register if wanted else deregister)()


def shows_colour_maps(palettes: Any) -> bool:
    """Whether seaborn shows matplotlib's colour maps, as notebooks of its documentation ask it to."""
    return sys.modules["matplotlib.colors"].Colormap._repr_png_.__module__ == _SEABORN  # type: ignore[no-any-return]


def set_shows_colour_maps(palettes: Any, wanted: bool) -> None:
    """Raises Incomplete where it does already and should not: nobody has kept what matplotlib did."""
    now = shows_colour_maps(palettes)
    if wanted and not now:
        palettes._patch_colormap_display()
    elif now and not wanted:
        raise Incomplete("what shows colour maps is seaborn's, and stays")


def control_settings(control: Any) -> tuple[dict[str, Any], int]:
    """The defaults of python-control, and the number that its next system without a name gets."""
    return dict(control.config.defaults), control.InputOutputSystem._idCounter


def set_control_settings(control: Any, wanted: tuple[dict[str, Any], int]) -> None:
    """These and no others; written past what warns of old names."""
    defaults, number = wanted
    control.config.defaults.data.clear()
    control.config.defaults.data.update(defaults)
    control.InputOutputSystem._idCounter = number


def mpmath_precision(mpmath: Any) -> tuple[int, int, bool]:
    """In how many bits mpmath computes, with numbers and with intervals, and whether it prints them plainly."""
    return mpmath.mp.prec, mpmath.iv.prec, mpmath.mp.pretty


def set_mpmath_precision(mpmath: Any, wanted: tuple[int, int, bool]) -> None:
    """As it was."""
    mpmath.mp.prec, mpmath.iv.prec, mpmath.mp.pretty = wanted


def sympy_printing(printing: Any) -> dict[str, Any]:
    """What `init_printing` has chosen: functions that it made, for types of Python and as methods of sympy's own."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    formatters = {} if shell is None else shell.display_formatter.formatters
    printer: Any = sys.modules["sympy.printing.printer"]
    symbols: Any = sys.modules["sympy.printing.pretty.pretty_symbology"]
    return {
        "types": [
            (kind, cls, made)
            for kind, formatter in formatters.items()
            for cls, made in formatter.type_printers.items()
            if getattr(made, "__module__", "") == printing.__name__
        ],
        "methods": _sympy_methods(printing.Printable),
        "settings": dict(printer.Printer._global_settings),
        "unicode": symbols._use_unicode,
    }


def _sympy_methods(printable: Any) -> dict[str, Any]:
    """Those that are not as the class was made, by name; None: switched off."""
    off = vars(printable)["_repr_disabled"]
    methods = {name: made for name, made in vars(printable).items() if name in _SYMPY_METHODS}
    made_since = {name: made for name, made in methods.items() if "<locals>" in getattr(made, "__qualname__", "")}
    return {name: None for name, made in methods.items() if made is off} | made_since


_SYMPY_METHODS = ("_repr_latex_", "_repr_png_", "_repr_svg_")


def set_sympy_printing(printing: Any, wanted: dict[str, Any]) -> None:
    """These and no others; raises Incomplete where a method of the class would be needed that is gone."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    now = sympy_printing(printing)
    if shell is not None:
        formatters = shell.display_formatter.formatters
        for kind, cls, _ in now["types"]:
            del formatters[kind].type_printers[cls]
        for kind, cls, made in wanted["types"]:
            formatters[kind].for_type(cls, made)
    printable = printing.Printable
    for name, made in wanted["methods"].items():
        setattr(printable, name, vars(printable)["_repr_disabled"] if made is None else made)
    printer: Any = sys.modules["sympy.printing.printer"]
    printer.Printer._global_settings = dict(wanted["settings"])
    symbols: Any = sys.modules["sympy.printing.pretty.pretty_symbology"]
    symbols._use_unicode = wanted["unicode"]
    if now["methods"].keys() - wanted["methods"].keys():
        raise Incomplete("LaTeX is as init_printing has chosen it since")


def pint_registry(pint: Any) -> Any:
    """The application's registry of units, if a cell has put it there without giving it a name."""
    registry = pint.application_registry.get()
    return None if registry is pint._DEFAULT_REGISTRY or name_of(registry) else registry


def set_pint_registry(pint: Any, wanted: Any) -> None:
    """Before quantities are made again, with it."""
    if wanted is not None:
        pint.set_application_registry(wanted)


def pint_registry_name(pint: Any) -> str | None:
    """The variable that is the application's registry; empty: pint's own is; None: one without a name."""
    registry = pint.application_registry.get()
    return "" if registry is pint._DEFAULT_REGISTRY else name_of(registry) or None


def set_pint_registry_name(pint: Any, wanted: str | None) -> None:
    """Raises Incomplete where the variable is lost."""
    if wanted is None:
        return
    registry = vars(sys.modules["__main__"]).get(wanted) if wanted else pint._DEFAULT_REGISTRY
    if wanted and not isinstance(registry, pint.UnitRegistry):
        raise Incomplete("run the cell again that called pint.set_application_registry()")
    pint.set_application_registry(registry)


def plotly_defaults(io: Any) -> dict[str, str | None]:
    """How plotly's figures look, and by what they are shown."""
    return {name: getattr(io, name).default for name in ("templates", "renderers")}


def set_plotly_defaults(io: Any, wanted: dict[str, str | None]) -> None:
    """Set those that differ: some renderers load something."""
    for name, default in wanted.items():
        if getattr(io, name).default != default:
            getattr(io, name).default = default


def altair_plugins(altair: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Which of its renderers, data transformers and themes are in use, and with which options."""
    found = {name: getattr(altair, name) for name in ("renderers", "data_transformers")}
    found["theme" if hasattr(altair, "theme") else "themes"] = getattr(altair, "theme", None) or altair.themes
    return {name: (registry.active, dict(registry.options)) for name, registry in found.items()}


def set_altair_plugins(altair: Any, wanted: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """Set those that differ."""
    now = altair_plugins(altair)
    for name, (active, options) in wanted.items():
        if now.get(name) != (active, options):
            getattr(altair, name).enable(active, **options)


def bokeh_number(serialization: Any) -> int:
    """The number that bokeh's next model goes by, less one: it knows models by these numbers alone."""
    return int(serialization._simple_id)


def set_bokeh_number(serialization: Any, wanted: int) -> None:
    """No model gets the number of one that comes back."""
    serialization._simple_id = max(serialization._simple_id, wanted)


def bokeh_outputs(state: Any) -> tuple[bool, str | None, Any]:
    """Where `show` shows: whether in the notebook (`output_notebook`), of which kind that is, and into which file."""
    now = state.curstate()
    return now._notebook, now._notebook_type, now._file


def set_bokeh_outputs(state: Any, wanted: tuple[bool, str | None, Any]) -> None:
    """As it was."""
    now = state.curstate()
    now._notebook, now._notebook_type, now._file = wanted


def holoviews_backends(holoviews: Any) -> tuple[list[str], str]:
    """By what holoviews draws: what `holoviews.extension` has loaded, and which of it is in use."""
    return list(holoviews.Store.renderers), holoviews.Store.current_backend


def set_holoviews_backends(holoviews: Any, wanted: tuple[list[str], str]) -> None:
    """Raises Incomplete for what has to be loaded by a cell, as it is loaded in the browser, too."""
    loaded, in_use = wanted
    missing = [name for name in loaded if name not in holoviews.Store.renderers]
    if missing:
        raise Incomplete(f"run the cell again that called holoviews.extension({', '.join(map(repr, loaded))})")
    if loaded:
        holoviews.Store.current_backend = in_use


# --- what cells have registered -----------------------------------------------------------------------------------
#
# What came later stays, as with accessors: nobody can tell whether a cell has registered it, or an import.


def colour_maps(cm: Any) -> dict[str, Any]:
    """Those that matplotlib has not made itself."""
    registry = cm._colormaps
    return {name: registry[name] for name in list(registry) if name not in registry._builtin_cmaps}


def add_colour_maps(cm: Any, wanted: dict[str, Any]) -> None:
    """Those that are missing, or are others here."""
    now = colour_maps(cm)
    for name, colour_map in wanted.items():
        if name not in now or now[name] != colour_map:
            cm._colormaps.register(colour_map, name=name, force=True)


def added_fonts(font_manager: Any) -> list[str]:
    """Files of fonts that are where matplotlib does not look by itself."""
    found = font_manager.fontManager
    folders = (*font_manager.X11FontDirectories, sys.modules["matplotlib"].get_data_path(), "/usr/")
    files = dict.fromkeys(entry.fname for entry in (*found.ttflist, *found.afmlist))
    return [file for file in files if not file.startswith(tuple(map(str, folders)))]


def add_fonts(font_manager: Any, wanted: list[str]) -> None:
    """Those that are not known here; raises Incomplete for files that are gone."""
    missing = []
    for file in {file: None for file in wanted if file not in added_fonts(font_manager)}:
        try:
            font_manager.fontManager.addfont(file)
        except (OSError, RuntimeError):  # FreeType's, of what is no font any more
            missing.append(file)
    if missing:
        raise Incomplete(f"there is no font {', '.join(missing)}")


def projections_and_scales(matplotlib: Any) -> tuple[list[type], list[type]]:
    """Classes of the session by which axes are drawn: `register_projection`, `register_scale`."""
    projections = sys.modules["matplotlib.projections"].projection_registry._all_projection_types
    scales = sys.modules["matplotlib.scale"]._scale_mapping
    return (
        [cls for cls in projections.values() if cls.__module__ == "__main__"],
        [cls for cls in scales.values() if cls.__module__ == "__main__"],
    )


def add_projections_and_scales(matplotlib: Any, wanted: tuple[list[type], list[type]]) -> None:
    """Put them in the place of what is called so here."""
    for name, register, classes in zip(
        ("matplotlib.projections", "matplotlib.scale"), ("register_projection", "register_scale"), wanted, strict=True
    ):
        for cls in classes:
            getattr(sys.modules[name], register)(cls)


def plotly_templates(io: Any) -> dict[str, Any]:
    """Those of the session, and what it has made of plotly's own; others are not loaded yet."""
    known = io.templates._templates
    loaded = {name: template for name, template in known.items() if hasattr(template, "to_plotly_json")}
    return {name: template.to_plotly_json() for name, template in loaded.items()}


def set_plotly_templates(io: Any, wanted: dict[str, Any]) -> None:
    """Those that are missing, or are others here."""
    for name, template in wanted.items():
        if name not in io.templates or io.templates[name].to_plotly_json() != template:
            io.templates[name] = template


def own_altair_plugins(altair: Any) -> dict[str, dict[str, Any]]:
    """Functions of the session that are registered as a theme, a renderer or a transformer of data."""
    found = {name: _own_plugins(registry) for name, registry in _altair_registries(altair).items()}
    return {name: own for name, own in found.items() if own}


def _own_plugins(registry: Any) -> dict[str, Any]:
    plugins = registry._plugins.items()
    return {name: made for name, made in plugins if getattr(made, "__module__", "") == "__main__"}


def _altair_registries(altair: Any) -> dict[str, Any]:
    themes = altair.theme._themes if hasattr(altair, "theme") else altair.themes
    return {"renderers": altair.renderers, "data_transformers": altair.data_transformers, "themes": themes}


def add_altair_plugins(altair: Any, wanted: dict[str, dict[str, Any]]) -> None:
    """Put them in the place of what is called so here."""
    registries = _altair_registries(altair)
    for where, plugins in wanted.items():
        for name, made in plugins.items():
            registries[where]._plugins[name] = made
