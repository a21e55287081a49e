"""A library's own data, and no more; what it imports."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from pathlib import Path
from typing import Any

from nbcr.loaded import Library, areas
from tests.support import needs

_MAP_FIXED_NOREPLACE = 0x100000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def address_of(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def loaded() -> list[Library]:
    found = {}
    for area, path, rights in areas(Path("/proc/self/maps").read_text()):
        if ".so" in path and "x" in rights:
            found[path] = Library.of(area.start)
    return [library for library in found.values() if library is not None and library.writable]


def test_memory_that_follows_directly_is_somebody_elses() -> None:
    tried = 0
    for library in loaded():
        end = -(-library.writable[-1].stop // mmap.PAGESIZE) * mmap.PAGESIZE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED_NOREPLACE
        if _libc.mmap(end, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) != end:
            continue  # taken
        try:
            again = Library.of(library.text.start)
            assert again == library
        finally:
            _libc.munmap(end, mmap.PAGESIZE)
        assert [len(data) for _, data in again.contents()] == [len(area) for area in library.writable]
        tried += 1
    assert tried, "no library has room behind its data"


def test_a_file_that_is_mapped_once_more_below_it() -> None:
    library = next(each for each in loaded() if each.bias)
    path = next(path for area, path, _ in areas(Path("/proc/self/maps").read_text()) if area == library.text)
    with Path(path).open("rb") as file:
        flags = mmap.MAP_PRIVATE | _MAP_FIXED_NOREPLACE
        below = 1 << 40  # where nothing else is: programs and libraries are far above
        assert _libc.mmap(below, mmap.PAGESIZE, mmap.PROT_READ, flags, file.fileno(), 0) == below
        try:
            assert Library.of(library.text.start) == library
        finally:
            _libc.munmap(below, mmap.PAGESIZE)


def test_a_variable_of_it_is_in_its_data() -> None:
    library = Library.of(address_of(_libc.getpid))
    assert library is not None
    variable = ctypes.addressof(ctypes.c_int.in_dll(_libc, "opterr"))
    assert any(variable in area for area in library.writable)
    assert variable not in library.text


def test_the_slot_by_which_a_library_calls_another() -> None:
    needs("an x86-64 processor", platform.machine() == "x86_64")
    python = Library.of(address_of(ctypes.pythonapi.Py_GetVersion))
    assert python is not None
    os.getpid()  # it may be looked up only when it is first called
    slots = list(python.import_slots("getpid"))
    assert slots
    assert all(ctypes.c_void_p.from_address(slot).value == address_of(_libc.getpid) for slot in slots)
    assert not list(python.import_slots("nothing of that name"))


def test_what_is_in_no_library() -> None:
    room = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = ctypes.c_char.from_buffer(room)
    assert Library.of(ctypes.addressof(view)) is None
    del view
    room.close()
