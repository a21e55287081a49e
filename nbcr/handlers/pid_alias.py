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
from dataclasses import dataclass
from pathlib import Path

PAGE = mmap.PAGESIZE
PT_LOAD, PT_DYNAMIC = 1, 2
DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_JMPREL = 2, 5, 6, 7, 8, 23
R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT = 6, 7
PROT = {"r": mmap.PROT_READ, "w": mmap.PROT_WRITE, "x": mmap.PROT_EXEC}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


@dataclass(frozen=True)
class MappedObject:
    """A shared object of this process: its file and where it is mapped."""

    path: str
    base: int


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
        for mapped in _objects_concerned():
            if mapped.path not in self._patched:
                for slot in _slots(mapped, b"getpid"):
                    _write_pointer(slot, self._code)
                self._patched.add(mapped.path)
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


def _objects_concerned() -> list[MappedObject]:
    found: dict[str, int] = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[2] == "00000000" and _concerned(fields[5]):
            found.setdefault(fields[5], int(fields[0].split("-")[0], 16))
    return [MappedObject(path, base) for path, base in found.items()]


def _concerned(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith(("libzmq", "_zmq.", "_asyncio."))


def _slots(mapped: MappedObject, symbol: bytes) -> list[int]:
    """Addresses of the import slots of `symbol` in a mapped object, read from its file (x86-64 ELF)."""
    data = Path(mapped.path).read_bytes()
    if data[:5] != b"\x7fELF\x02":
        return []
    loads, dynamic = _segments(data)
    tags = dict(struct.iter_unpack("<qQ", data[dynamic[0] : dynamic[0] + dynamic[1]]))

    def at(address: int) -> int:
        start, _, offset = next(load for load in loads if load[0] <= address < load[0] + load[1])
        return offset + address - start

    slots = []
    for table, size in ((DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)):
        if table not in tags:
            continue
        start = at(tags[table])
        for where, info, _ in struct.iter_unpack("<QQq", data[start : start + tags[size]]):
            if info & 0xFFFFFFFF in (R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT):
                (name,) = struct.unpack_from("<I", data, at(tags[DT_SYMTAB]) + 24 * (info >> 32))
                text = at(tags[DT_STRTAB]) + name
                if data[text : data.index(b"\0", text)] == symbol:
                    slots.append(mapped.base - _lowest(loads) + where)
    return slots


def _segments(data: bytes) -> tuple[list[tuple[int, int, int]], tuple[int, int]]:
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    loads, dynamic = [], (0, 0)
    for index in range(count):
        header = struct.unpack_from("<IIQQQQQQ", data, start + index * size)
        kind, _, offset, address, _, in_file, _, _ = header
        if kind == PT_LOAD:
            loads.append((address, in_file, offset))
        elif kind == PT_DYNAMIC:
            dynamic = (offset, in_file)
    return loads, dynamic


def _lowest(loads: list[tuple[int, int, int]]) -> int:
    return min(address for address, _, _ in loads) & ~(PAGE - 1)


def _write_pointer(address: int, value: int) -> None:
    page = address & ~(PAGE - 1)
    before = _protection(address)
    if not before & mmap.PROT_WRITE and _libc.mprotect(page, PAGE, before | mmap.PROT_WRITE) != 0:
        raise OSError(ctypes.get_errno(), "the import table cannot be changed")
    ctypes.c_uint64.from_address(address).value = value
    if not before & mmap.PROT_WRITE:
        _libc.mprotect(page, PAGE, before)


def _protection(address: int) -> int:
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, flags = line.split(maxsplit=2)[:2]
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= address < end:
            return sum(PROT[flag] for flag in flags if flag in PROT)
    raise ValueError(f"{address:#x} is not mapped")
