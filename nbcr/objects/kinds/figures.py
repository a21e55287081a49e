"""Figures of matplotlib that pyplot knows: they come back under the number that they had.

matplotlib itself gives each that is unpickled the next number, beside the one that it replaces, which stays open.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler

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


KINDS: tuple[Kind, ...] = (Figures(),)
