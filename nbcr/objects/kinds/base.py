"""What nbcr knows about a kind of object, both directions in one room: how it is saved, and what makes it again.

Types are named by dotted names and found along the type's MRO, so that no room has to import the library it
serves. The functions that a reduction refers to are part of the format (FORMAT.md): they keep their names, or
snapshots become unreadable.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey

Reduction = Any  # what __reduce_ex__ may return, or NotImplemented: as pickle does it


class CannotSave(pickle.PicklingError):
    """An object of this kind does not come back alive; the message says why."""


class Kind:
    """How objects of some types are saved. The defaults leave everything to pickle and the garbage collector."""

    types: tuple[str, ...] = ()
    refuses = False  # `reduce` does nothing but say no, at least to some: dill must not be asked either

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any] | None:
        """What would be saved with `obj`; None: whatever the garbage collector finds in it."""
        return None

    def shares(self, obj: Any) -> bool:
        """Whether names that reach `obj` have to be saved in one piece, because one could change it for all."""
        return True

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        """As __reduce_ex__. Raises CannotSave."""
        return NotImplemented


class Leaf(Kind):
    """Values: nothing in them, and it does not matter which of two equal ones somebody has."""

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return ()

    def shares(self, obj: Any) -> bool:
        return False


class Saver(Kind):
    """A kind that somebody registered.

    `save` makes something picklable of an object, `load` makes the object again.
    """

    def __init__(self, save: Callable[[Any], Any], load: Callable[[Any], Any]) -> None:
        self.save, self.load = save, load

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        return self.load, (self.save(obj),)


# --- who is registered --------------------------------------------------------------------------------------

_registered: dict[type, Saver] = {}
_ENTRY_POINTS = "nbcr.savers"
_advertised: dict[str, Any] | None = None  # dotted type name: entry point, or the saver it loaded


def register_saver(type_: type, save: Callable[[Any], Any], load: Callable[[Any], Any]) -> None:
    """Save objects of `type_` and its subclasses by ``save(obj)``, and make them again by ``load(what save returned)``.

    `load` must be importable where the snapshot is loaded, or be defined in the notebook. `save` may raise
    to say that an object cannot be saved. It may run in a forked child: it must not change anything that
    outlives the process.
    """
    if not isinstance(type_, type):
        raise TypeError(f"register_saver needs a type, not {type_!r}")
    _registered[type_] = Saver(save, load)


def unregister_saver(type_: type) -> None:
    """Forget what `register_saver` was told about `type_`."""
    _registered.pop(type_, None)


def advertised() -> dict[str, Any]:
    """The savers of installed packages: entry points of the group ``nbcr.savers``, named by the type they save.

    An entry point leads to an object with two functions, ``save`` and ``load``. It is loaded when a value of
    its type is met.
    """
    global _advertised
    if _advertised is None:
        from importlib.metadata import entry_points

        _advertised = {point.name: point for point in entry_points(group=_ENTRY_POINTS)}
    return _advertised


def _advertised_saver(dotted: str) -> Saver | None:
    known = advertised()
    found = known.get(dotted)
    if found is None or isinstance(found, Saver):
        return found
    try:
        served = found.load()
        known[dotted] = Saver(served.save, served.load)
    except Exception as error:
        known[dotted] = _missing_saver(f"its saver {found.value} cannot be loaded: {type(error).__name__}: {error}")
    return known[dotted]  # type: ignore[no-any-return]


def _missing_saver(reason: str) -> Saver:
    """Says why, when an object of its type is to be saved: until then it does no harm."""

    def save(obj: Any) -> Any:
        raise CannotSave(reason)

    return Saver(save, lambda saved: saved)


def dotted_name(type_: type) -> str:
    """How rooms name a type."""
    return f"{type_.__module__}.{type_.__qualname__}"


def find_saver(type_: type) -> Saver | None:
    """The saver that a user or a package registered for `type_` or the nearest of its bases."""
    for base in type_.__mro__:
        saver = _registered.get(base) or (_advertised_saver(dotted_name(base)) if advertised() else None)
        if saver is not None:
            return saver
    return None
