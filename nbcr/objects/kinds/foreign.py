"""ctypes.

Libraries are loaded again, values copied; addresses mean nothing in another process and are refused.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.absent import absent
from nbcr.objects.kinds.base import CannotSave, Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey

_ADDRESS = "it is an address in the memory of this process"


class Libraries(Kind):
    """ctypes.CDLL and its kin, with the signatures that were given to their functions."""

    types = ("ctypes.CDLL",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return ()

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if type(obj).__module__ != "ctypes":
            raise CannotSave("a library object of a class of one's own cannot be loaded again")
        signatures = {
            name: (function.argtypes, function.restype)
            for name, function in vars(obj).items()
            if isinstance(function, ctypes._CFuncPtr)  # type: ignore[attr-defined]
        }
        return load_library, (type(obj), obj._name, signatures)


def load_library(cls: Any, name: str | None, signatures: dict[str, tuple[Any, Any]]) -> Any:
    """The library loaded again."""
    try:
        library = cls(name)
    except OSError as error:
        return absent(f"the library {name} cannot be loaded: {error}")
    for function, (argtypes, restype) in signatures.items():
        loaded = getattr(library, function)
        loaded.restype = restype
        if argtypes is not None:
            loaded.argtypes = argtypes
    return library


class Pointers(Kind):
    """Pointers and functions of ctypes."""

    types = (
        "_ctypes.CFuncPtr",
        "_ctypes._Pointer",
        "ctypes.c_void_p",
        "ctypes.c_char_p",
        "ctypes.c_wchar_p",
        "_cffi_backend._CDataBase",
    )
    refuses = True

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return ()

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if isinstance(obj, ctypes.c_void_p | ctypes.c_char_p | ctypes.c_wchar_p) and not obj:
            return type(obj), ()
        raise CannotSave(_ADDRESS)


class ArrayTypes(Kind):
    """``c_int * 3``: a class without a name that could be imported."""

    types = ("_ctypes.PyCArrayType",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return (obj._type_,)

    def shares(self, obj: Any) -> bool:
        return False

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        return make_array_type, (obj._type_, obj._length_)


def make_array_type(element: Any, length: int) -> Any:
    """The type of an array of ctypes."""
    return element * length


class PointerTypes(Kind):
    """``POINTER(c_int)``."""

    types = ("_ctypes.PyCPointerType",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return (obj._type_,)

    def shares(self, obj: Any) -> bool:
        return False

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        return ctypes.POINTER, (obj._type_,)


class Structures(Kind):
    """Structure and Union classes of the notebook: their fields have to be there when the class is made."""

    types = ("_ctypes.PyCStructType", "_ctypes.UnionType")

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return [*obj.__bases__, *(field[1] for field in getattr(obj, "_fields_", ()))]

    def shares(self, obj: Any) -> bool:
        return False

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if obj.__module__ != "__main__":
            return NotImplemented
        fields = {field[0] for field in getattr(obj, "_fields_", ())}
        skipped = fields | {"__dict__", "__weakref__"}
        contents = {name: value for name, value in vars(obj).items() if name not in skipped}
        return make_structure, (obj.__name__, obj.__bases__, contents)


def make_structure(name: str, bases: tuple[type, ...], contents: dict[str, Any]) -> Any:
    """The class of a structure; the living one when it is the same."""
    import __main__

    metaclass = type(bases[0])  # it has no name under which it could be imported
    alive = getattr(__main__, name, None)
    if isinstance(alive, metaclass) and getattr(alive, "_fields_", None) == contents.get("_fields_"):
        return alive
    return metaclass(name, bases, contents)


KINDS: tuple[Kind, ...] = (Libraries(), Pointers(), ArrayTypes(), PointerTypes(), Structures())
