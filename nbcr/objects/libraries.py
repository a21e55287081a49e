"""Settings of single libraries that change how later cells compute, draw and name things.

Where a library has no public way to read one, another version of it may keep it otherwise: `surroundings` leaves out
what cannot be read, and tells what cannot be set.
"""

from __future__ import annotations

import sys
from typing import Any

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
