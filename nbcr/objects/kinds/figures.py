"""Figures of matplotlib that pyplot knows: they come back under the number that they had.

matplotlib itself gives each that is unpickled the next number, beside the one that it replaces, which stays open.
It also forgets who is told of changes (``CallbackRegistry.__getstate__`` in matplotlib/cbook.py): a colour bar would
no longer follow its image.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey

_OPEN = "_restore_to_pylab"  # in what matplotlib pickles


class Figures(Kind):
    """Figures, also of the subclasses that `plt.figure(FigureClass=…)` takes."""

    types = ("matplotlib.figure.Figure",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        maker, arguments, state, *more = obj.__reduce_ex__(4)
        if not isinstance(state, dict) or not state.get(_OPEN) or any(more):
            return maker, arguments, state, *more
        return maker, arguments, state, None, None, set_figure_state


def set_figure_state(figure: Any, state: dict[str, Any]) -> None:
    """Give a figure its contents, and let pyplot know it."""
    number = state.get("_number")
    figure.__setstate__({name: value for name, value in state.items() if name != _OPEN})
    pyplot = _pyplot()
    known = pyplot._pylab_helpers.Gcf
    there = known.figs.get(number)
    if there in _present:
        known.destroy(there)
    elif there is not None or number is None:
        number = max(known.figs, default=0) + 1
    known._set_new_active_manager(pyplot._get_backend_mod().new_figure_manager_given_figure(number, figure))
    pyplot.draw_if_interactive()


def _pyplot() -> Any:
    from matplotlib import pyplot

    return pyplot


# --- those of the present, when all of a snapshot is loaded -------------------------------------------------------

_present: list[Any] = []  # pyplot's managers of figures that were there before
_wanted: list[int] = []


def numbers_by_use(pyplot: Any) -> list[int]:
    """The numbers of pyplot's figures, the current one last."""
    return list(pyplot._pylab_helpers.Gcf.figs)


def begin_to_replace(pyplot: Any, wanted: Iterable[int]) -> None:
    """Until `end_to_replace` a figure that comes back takes the place of one that has its number."""
    _present[:] = pyplot._pylab_helpers.Gcf.get_all_fig_managers()
    _wanted[:] = wanted


def end_to_replace(pyplot: Any) -> None:
    """Close what came since the snapshot, unless a variable is such a figure; the current figure is what it was."""
    known = pyplot._pylab_helpers.Gcf
    named = set(map(id, vars(sys.modules["__main__"]).values()))
    for manager in _present:
        if (
            known.figs.get(manager.num) is manager
            and manager.num not in _wanted
            and id(manager.canvas.figure) not in named
        ):
            known.destroy(manager)
    for number in _wanted:
        known.get_fig_manager(number)
    _present.clear()
    _wanted.clear()


# --- who is told of changes ---------------------------------------------------------------------------------------


class Registries(Kind):
    """Those to whom norms, images and axes tell that they have changed. A figure's events are the canvas's matter."""

    types = ("matplotlib.cbook.CallbackRegistry",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return [vars(obj), *(told for _, _, told in _told(obj) if _is_part(told))]

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        maker, arguments, state, *more = obj.__reduce_ex__(4)
        for signal, number, told in _told(obj):
            if (_is_part(told) and not signal.endswith(_OF_CANVAS)) or _is_simple(told):
                state["callbacks"][signal][number] = told
            elif number not in obj._pickled_cids and _is_of_session(told):
                pickler.remarks.add(f"its figure no longer tells {told.__qualname__} of {signal}: connect it again")
        return maker, arguments, state, *more


_OF_CANVAS = "_event"
_PARTS = ("matplotlib.colors", "matplotlib.colorizer", "matplotlib.colorbar", "matplotlib.cm")


def _told(registry: Any) -> Iterable[tuple[str, int, Callable[..., Any]]]:
    """Signal, number, and who is told of it."""
    for signal, proxies in registry.callbacks.items():
        for number, proxy in proxies.items():
            told = proxy()
            if told is not None:
                yield signal, number, told


def _is_part(told: Callable[..., Any]) -> bool:
    """Whether it is a method of what belongs to a figure: a norm, an image, a colour bar."""
    owner = type(getattr(told, "__self__", None))
    return any(base.__module__ in _PARTS for base in owner.__mro__)


def _is_simple(told: Callable[..., Any]) -> bool:
    """Whether it is a function of the session with nothing in it that could fail to be saved."""
    extra = ("__closure__", "__defaults__", "__kwdefaults__", "__dict__")
    return type(told) is FunctionType and _is_of_session(told) and not any(getattr(told, name) for name in extra)


def _is_of_session(told: Callable[..., Any]) -> bool:
    return getattr(told, "__module__", "") == "__main__" and hasattr(told, "__qualname__")


KINDS: tuple[Kind, ...] = (Figures(), Registries())
