"""Raw memory that several objects look at: bytearray, memoryview, array.array."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey


class _PyBuffer(ctypes.Structure):
    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


_FULL_READ_ONLY = 0x011C
_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_PyBuffer),)
_release_buffer.restype = None


def address_of(obj: Any) -> int:
    """Where the memory begins that `obj` exports."""
    view = _PyBuffer()
    _get_buffer(obj, ctypes.byref(view), _FULL_READ_ONLY)
    try:
        return int(view.buf or 0)
    finally:
        _release_buffer(ctypes.byref(view))


class Memory(Kind):
    """What owns memory that others may look at."""

    types = ("builtins.bytearray", "array.array", "_ctypes._CData")

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any] | None:
        survey.note_memory(obj, obj)
        return None


class Views(Kind):
    """memoryview: saved as a window into what it looks at."""

    types = ("builtins.memoryview",)

    def parts(self, obj: memoryview, survey: Survey) -> Iterable[Any]:
        survey.note_memory(obj.obj, obj)
        return (obj.obj,)

    def reduce(self, obj: memoryview, pickler: UnitPickler) -> Reduction:
        owner = obj.obj
        if not obj.c_contiguous or type(owner).__module__ == "mmap":
            pickler.remarks.add("its memoryview no longer shares memory")
            return memoryview, (bytearray(obj.tobytes()),)
        start = address_of(obj) - address_of(owner)
        shape = obj.shape if obj.ndim != 1 else None
        return make_view, (owner, start, obj.nbytes, obj.format, shape, obj.readonly)


def make_view(
    owner: Any, start: int, size: int, format_: str, shape: tuple[int, ...] | None, readonly: bool
) -> memoryview:
    """A window into `owner`."""
    view = memoryview(owner).cast("B")[start : start + size]
    if shape is not None:
        view = view.cast(format_, shape)  # type: ignore[call-overload]
    elif format_ != "B":
        view = view.cast(format_)  # type: ignore[call-overload]
    return view.toreadonly() if readonly and not view.readonly else view


KINDS: tuple[Kind, ...] = (Memory(), Views())
