"""A library's own data, and no more."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

from nbcr.mpi.loaded import Library, areas

_MAP_FIXED_NOREPLACE = 0x100000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


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


def test_a_variable_of_it_is_in_its_data() -> None:
    library = Library.of(ctypes.cast(_libc.getpid, ctypes.c_void_p).value or 0)
    assert library is not None
    variable = ctypes.addressof(ctypes.c_int.in_dll(_libc, "opterr"))
    assert any(variable in area for area in library.writable)
    assert variable not in library.text


def test_what_is_in_no_library() -> None:
    room = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = ctypes.c_char.from_buffer(room)
    assert Library.of(ctypes.addressof(view)) is None
    del view
    room.close()
