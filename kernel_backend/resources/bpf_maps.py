"""BPF maps (bpf(2)): those that can be read whole, and that nobody else has.

A map is an object of its own, known by a number (its id) to the whole host. Whoever else has it, a process outside, a
loaded program, a file of a BPF file system, would not see what the restored life writes to a map of its own: that is
refused by name. (In place, where somebody has come to have it since the checkpoint, a warning tells.) What cannot be
found out: one that is pinned, or open in a process, where this one does not see it (containers), is on its way
through somebody's Unix socket, inside another map, or mapped by a process that has closed it.

The new map has another id, and a hash lists its keys in another order.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported
from kernel_backend.host import bpf_maps as bpf
from kernel_backend.host import proc
from kernel_backend.host.features import effective_capabilities
from kernel_backend.image import bpf_maps as bounds
from kernel_backend.image.descriptions import BpfMap, Description
from kernel_backend.resources.descriptors import CaptureTables, Kind, Look, RebuildTables, set_status_flags

_LINK = "anon_inode:bpf-map"
_OTHER_KINDS = {
    3: "program array", 4: "perf event array", 7: "stack trace", 8: "control group array", 10: "LRU hash per processor",
    11: "longest prefix match", 12: "array of maps", 13: "hash of maps", 14: "device map", 15: "socket map",
    16: "processor map", 17: "XDP socket map", 18: "socket hash", 19: "control group storage", 20: "reuseport array",
    21: "control group storage per processor", 22: "queue", 23: "stack", 24: "socket storage", 25: "device hash",
    26: "struct_ops", 27: "ring buffer", 28: "inode storage", 29: "task storage", 30: "Bloom filter",
    31: "user ring buffer", 32: "control group storage", 33: "arena",
}  # fmt: skip
_ENOTSUPP = 524  # include/linux/errno.h: of arrays per processor before OS kernel 5.13
_REFILLS = 4  # of an LRU hash, which makes room before it has to


class BpfMapKind(Kind):
    """A map of one of the simple kinds."""

    entry = BpfMap

    def matches(self, look: Look) -> bool:
        return look.link == _LINK and not look.flags & linux.O_PATH

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        facts = bpf.facts(look.own)
        _check_kind(look, facts)
        entry = BpfMap(
            id=facts.id, type=facts.type, key_size=facts.key_size, value_size=facts.value_size,
            max_entries=facts.max_entries, map_flags=facts.flags, name=facts.name,
            frozen=look.info.value("frozen") == "1",
            processors=bpf.possible_processors() if facts.type in bounds.PER_PROCESSOR else 1,
        )  # fmt: skip
        known: dict[int, int] = tables.cache.setdefault("bpf maps", {})
        if facts.id not in known:
            known[facts.id] = bounds.room_bytes(entry)
            if sum(known.values()) > bounds.MOST_BYTES:
                most = bounds.MOST_BYTES >> 20
                raise _refusal(look, f"which takes more than the {most} MiB that an image has for them")
            _check_nobody_else(look, facts.id, tables)
            entry.keys, entry.values = _contents(look, entry)
        return entry

    def validate(self, index: int, entry: BpfMap, tables: RebuildTables) -> None:
        here = bpf.possible_processors() if entry.type in bounds.PER_PROCESSOR else 1
        if here != entry.processors:
            raise HostUnsupported(
                f"{tables.who(index)} is a BPF map with values for {entry.processors} processors; this host may have "
                f"{here}"
            )
        if tables.live and "bpf users" not in tables.cache:
            tables.cache["bpf users"] = True
            with contextlib.suppress(PermissionError):  # which `rebuild` tells
                _warn_of_presents(tables)

    def rebuild(self, index: int, entry: BpfMap, tables: RebuildTables) -> None:
        made: dict[int, int] = tables.cache.setdefault("bpf maps", {})
        try:
            first = entry.id not in made
            if first:
                made[entry.id] = _make(index, entry, tables)
            fd = tables.own[index] = _description(made[entry.id], entry, first=first)
            set_status_flags(fd, entry.flags)
        except OSError as error:
            raise HostUnsupported(
                f"the BPF map {entry.name or entry.id}, which {tables.who(index)} has, cannot be made: "
                f"{os.strerror(error.errno or 0)}",
                hint="it takes CAP_BPF and CAP_SYS_ADMIN: restore as root"
                if isinstance(error, PermissionError)
                else "",
            ) from error


# --- capture ----------------------------------------------------------------------------------------------------------


def _refusal(look: Look, why: str, hint: str = "") -> ResourceUnsupported:
    return ResourceUnsupported(f"{look.holder} is a BPF map {why}", hint=hint, pid=look.process.pid, fd=look.fd)


def _check_kind(look: Look, facts: bpf.Facts) -> None:
    if facts.type not in bounds.KINDS:
        kind = _OTHER_KINDS.get(facts.type, f"number {facts.type}")
        raise _refusal(look, f"of a kind that cannot be captured ({kind})")
    if facts.has_types:
        raise _refusal(look, "with type information (BTF), which cannot be captured")
    if facts.device:
        raise _refusal(look, "in a network device, which cannot be captured")
    if facts.flags & ~bounds.FLAGS or facts.extra:
        raise _refusal(look, f"with flags that cannot be captured ({facts.flags:#x})")


def _check_nobody_else(look: Look, number: int, tables: CaptureTables) -> None:
    """Refuse one that somebody outside the tree has as well, as far as that can be told."""
    known: dict[int, str] | None = tables.cache.get("bpf users")
    if known is None:
        try:
            tree = {process.view for process in tables.processes.values()}
            known = tables.cache["bpf users"] = _users(tree)
        except PermissionError as error:
            raise _refusal(
                look,
                "of which it cannot be told who else has it",
                hint="that takes CAP_SYS_ADMIN and CAP_SYS_PTRACE: checkpoint as root",
            ) from error
    if number in known:
        raise _refusal(look, f"that {known[number]} has, too", hint="end that use and checkpoint again")


def _users(tree: set[int]) -> dict[int, str]:
    """By id of a map: who outside the tree has it. Raises PermissionError where we may not see them all."""
    if "CAP_SYS_PTRACE" not in effective_capabilities():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    found = {number: f"the BPF program {program}" for number, program in bpf.used_by_programs().items()}
    for pid in proc.pids():
        if pid not in tree and pid != os.getpid():
            found.update(dict.fromkeys(_maps_of(pid), f"process {pid}"))
    for path in _pins():
        found[bpf.pinned_at(path)] = f"the file {path}"
    return found


def _maps_of(pid: int) -> Iterator[int]:
    """Ids of the maps that a process has open."""
    try:
        numbers = proc.fd_numbers(pid)
    except OSError:
        return  # it has ended
    for fd in numbers:
        with contextlib.suppress(OSError):  # it was closed; that of a process which has ended is not permitted
            if proc.fd_link(pid, fd) == _LINK:
                yield int(proc.fdinfo(pid, fd).value("map_id") or 0)


def _pins() -> Iterator[str]:
    """All that is pinned in the BPF file systems that we see."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        own, _, other = line.partition(b" - ")
        if other.split(b" ")[0] == b"bpf":
            place = re.sub(rb"\\(\d{3})", lambda code: bytes([int(code[1], 8)]), own.split(b" ")[4])
            for folder, _, names in os.walk(os.fsdecode(place)):
                yield from (f"{folder}/{name}" for name in names)


def _contents(look: Look, entry: BpfMap) -> tuple[bytes, bytes]:
    """All keys and values: what can be seen through its descriptor, or through one of ours that may read."""
    write_only = look.flags & os.O_ACCMODE == os.O_WRONLY
    fd = bpf.by_id(entry.id, linux.BPF_F_RDONLY) if write_only else look.own
    try:
        return bpf.read(fd, entry.key_size, bounds.value_bytes(entry), entry.max_entries)
    except OSError as error:
        if error.errno != _ENOTSUPP:
            raise
        raise _refusal(look, "whose entries this OS kernel does not list") from error
    finally:
        if write_only:
            os.close(fd)


# --- coming back ------------------------------------------------------------------------------------------------------


def _warn_of_presents(tables: RebuildTables) -> None:
    """In place: somebody outside may have come to have a map of the present's, which goes on without us."""
    family = {tables.present_pid}
    todo = [tables.present_pid]
    while todo:
        born = proc.children(todo.pop())
        family.update(born)
        todo += born
    users: dict[int, str] = {}
    for number, fd in tables.live.items():
        if os.readlink(f"/proc/self/fd/{fd}") == _LINK:
            users = users or _users(family)
            if user := users.get(bpf.facts(fd).id):
                tables.warn(
                    f"descriptor {number} is a BPF map that {user} has, too: brought back, it is one of its own"
                )


def _make(index: int, entry: BpfMap, tables: RebuildTables) -> int:
    """Our descriptor of a new map, filled."""
    fd = bpf.create(entry.type, entry.key_size, entry.value_size, entry.max_entries, entry.map_flags, entry.name)
    tables.to_close.append(fd)
    size = bounds.value_bytes(entry)
    bpf.write(fd, entry.keys, entry.values, len(entry.keys) // entry.key_size)
    if entry.type == linux.BPF_MAP_TYPE_LRU_HASH:
        _refill(fd, entry, size, tables.who(index), tables)
    if entry.frozen:
        bpf.freeze(fd)
    return fd


def _refill(fd: int, entry: BpfMap, size: int, who: str, tables: RebuildTables) -> None:
    """An LRU hash that is nearly full drops old entries for new ones by the dozen: what is missing is put in again."""
    for _ in range(_REFILLS):
        there = set(_cut(bpf.read(fd, entry.key_size, size, entry.max_entries)[0], entry.key_size))
        missing = [
            (key, value)
            for key, value in zip(_cut(entry.keys, entry.key_size), _cut(entry.values, size), strict=True)
            if key not in there
        ]
        if not missing:
            return
        keys, values = (b"".join(parts) for parts in zip(*missing, strict=True))
        bpf.write(fd, keys, values, len(missing))
    tables.warn(f"{who} is a BPF map of the kind LRU hash, of which not every entry found room")


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _description(made: int, entry: BpfMap, *, first: bool) -> int:
    """The first that reads and writes is the one by which the map was made."""
    access = entry.flags & os.O_ACCMODE
    if first and access == os.O_RDWR:
        return os.dup(made)
    if access not in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    mode = {os.O_RDONLY: linux.BPF_F_RDONLY, os.O_WRONLY: linux.BPF_F_WRONLY, os.O_RDWR: 0}[access]
    return bpf.by_id(bpf.facts(made).id, mode)


KINDS: list[Kind] = [BpfMapKind()]
