"""Let libzmq, pyzmq and asyncio believe that the pid never changes.

libzmq remembers the pid in every context and in every signaler, and goes silent when `getpid` says another
one: it takes itself for a forked child. So do pyzmq's sockets, and asyncio's running loops. In a restored
life with another pid they would all be deaf from the first instant, and libzmq's own threads do not wait
for a handler that could mend it: a wake-up that is swallowed once is lost for ever. So the remedy must be
in the image already.

Before the first image, these libraries' import slot for `getpid` (their GOT entry) is pointed at a few
bytes of code which return a remembered pid. A forked child forgets it (os.register_at_fork), so it still
notices that it is one. The rest of the process, os.getpid() too, keeps the true answer.

Rejected: changing libc's own `getpid` (the program would signal and write pid files with a pid that is
someone else's); scanning the heap for the remembered numbers (slow, and it may hit the wrong words); a ctypes
callback (libzmq's threads would have to take the GIL).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from pathlib import Path

from nbcr.loaded import Library, areas

PAGE = mmap.PAGESIZE
PROT = {"r": mmap.PROT_READ, "w": mmap.PROT_WRITE, "x": mmap.PROT_EXEC}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class PidAlias:
    """The remembered pid, and the code that tells it. One per process, never taken down."""

    def __init__(self) -> None:
        # Private: what a forked child forgets, its parent must go on remembering.
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._memory = mmap.mmap(-1, 2 * PAGE, flags=private, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self._code = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._pid = ctypes.c_int.from_buffer(self._memory, PAGE)
        self._patched: set[str] = set()

    def build(self) -> None:
        """Write the code: return the remembered pid, or jump to the real getpid when there is none."""
        real = ctypes.cast(_libc.getpid, ctypes.c_void_p).value or 0
        self._memory[PAGE + 8 : PAGE + 16] = struct.pack("<Q", real)
        code = b"\x8b\x05" + struct.pack("<i", PAGE - 6)  # mov eax, [rip + pid]
        code += b"\x85\xc0\x74\x01\xc3"  # test eax, eax; jz over; ret; over:
        code += b"\xff\x25" + struct.pack("<i", PAGE + 8 - (len(code) + 6))  # jmp [rip + real]
        self._memory[: len(code)] = code
        if _libc.mprotect(self._code, PAGE, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
            raise OSError(ctypes.get_errno(), "no executable page for the pid alias")
        self._pid.value = os.getpid()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._pid.value = 0

    def cover(self) -> list[str]:
        """Point every library concerned at the code, also those loaded since. Returns their paths."""
        for path, library in _libraries_concerned().items():
            if path not in self._patched:
                for slot in library.import_slots("getpid"):
                    _write_pointer(slot, self._code)
                self._patched.add(path)
        return sorted(self._patched)


_alias: PidAlias | None = None


def install() -> bool:
    """Make the libraries concerned independent of the pid. False where that is not possible."""
    global _alias
    if platform.machine() != "x86_64":
        return False
    try:
        if _alias is None:
            alias = PidAlias()
            alias.build()
            _alias = alias
        return bool(_alias.cover())
    except (OSError, ValueError, struct.error):
        return False


def _libraries_concerned() -> dict[str, Library]:
    """By the paths of their files."""
    mapped = areas(Path("/proc/self/maps").read_text())
    code = {path: area.start for area, path, rights in mapped if "x" in rights and _concerned(path)}
    found = {path: Library.of(start) for path, start in code.items()}
    return {path: library for path, library in found.items() if library is not None}


def _concerned(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith(("libzmq", "_zmq.", "_asyncio."))


def _write_pointer(address: int, value: int) -> None:
    page = address & ~(PAGE - 1)
    before = _protection(address)
    if not before & mmap.PROT_WRITE and _libc.mprotect(page, PAGE, before | mmap.PROT_WRITE) != 0:
        raise OSError(ctypes.get_errno(), "the import table cannot be changed")
    ctypes.c_uint64.from_address(address).value = value
    if not before & mmap.PROT_WRITE:
        _libc.mprotect(page, PAGE, before)


def _protection(address: int) -> int:
    for area, _, rights in areas(Path("/proc/self/maps").read_text()):
        if address in area:
            return sum(PROT[right] for right in rights if right in PROT)
    raise ValueError(f"{address:#x} is not mapped")
