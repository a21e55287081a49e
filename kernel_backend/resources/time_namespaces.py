"""Time namespaces: clocks that are not those of everybody (time_namespaces(7)).

A process comes into one only by being born there: who asks for a new one (unshare(2)) stays where it is, and its next
children live in it. So of each process there are two to know. All that are made again go into theirs when they have
run their programs, which would take them into that of their children (execve(2), since OS kernel 6.1), and before
they have threads, with which nobody may move.

Within the same boot clocks go on as they would have. After another one they go on from where they were.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported, TargetDenied
from kernel_backend.host.features import effective_capabilities
from kernel_backend.image.entries import Inventory, ProcessEntry, TimeEntry
from kernel_backend.resources import processes
from kernel_backend.resources.placing_fds import lend
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.process import Process

OURS = -1  # instead of an index into Inventory.time_namespaces: that of who made the image
_CAP_SYS_ADMIN = 1 << 21
_S = 10**9
_MOST_NS = 2**62  # KTIME_SEC_MAX / 2: what no clock of a namespace may show more than
_OWN, _OF_CHILDREN = "time", "time_for_children"


def _identity(pid: int, which: str) -> int:
    """Which namespace a process, or what it starts, is in; 0 for all where the OS kernel has none."""
    try:
        return os.stat(f"/proc/{pid}/ns/{which}").st_ino
    except FileNotFoundError:
        return 0


def _ours() -> int:
    return _identity(os.getpid(), _OWN)


def _offsets(pid: int) -> tuple[int, int]:
    """How far the clocks of what a process starts are ahead of the host's, in ns: monotonic, since boot."""
    found = {}
    for line in Path(f"/proc/{pid}/timens_offsets").read_text().splitlines():
        name, seconds, nanoseconds = line.split()
        found[name] = int(seconds) * _S + int(nanoseconds)
    return found["monotonic"], found["boottime"]


def _hosts_clocks() -> tuple[int, int]:
    """What the clocks show where no namespace changes them, in ns: monotonic, since boot."""
    monotonic, since_boot = _offsets(os.getpid()) if _ours() else (0, 0)
    clocks = time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return clocks[0] - monotonic, clocks[1] - since_boot


# --- dump -------------------------------------------------------------------------------------------------------------


def capture(views: Mapping[int, int]) -> tuple[list[TimeEntry], dict[int, tuple[int, int]]]:
    """The namespaces of a tree that are not ours, and pid → index of its own and of that of its children.

    Raises ResourceUnsupported for what cannot be made again.
    """
    ours = _ours()
    found = {pid: (_identity(view, _OWN), _identity(view, _OF_CHILDREN)) for pid, view in views.items()}
    if all(own == later == ours for own, later in found.values()):
        return [], {}
    inhabited = {own for own, _ in found.values()}
    about: dict[int, int] = {}  # namespace → who tells about it
    starters: dict[int, int] = {}  # namespace → who has asked for it and stayed outside
    for pid, (own, later) in found.items():
        about.setdefault(later, pid)
        if later == own:
            continue
        if later not in inhabited or later == ours:  # a twin would be the first in it, which closes its settings
            raise ResourceUnsupported(
                f"process {pid} starts its children in another time namespace than its own (unshare), where none of "
                "the tree is yet",
                hint="checkpoint it when it has started one, or end it", pid=pid,
            )  # fmt: skip
        if starters.setdefault(later, pid) != pid:
            raise ResourceUnsupported(
                f"processes {starters[later]} and {pid} start their children in the same time namespace, and are not "
                "in it",
                hint="end one of them and checkpoint again", pid=pid,
            )  # fmt: skip
    numbers = sorted((inhabited | starters.keys()) - {ours})
    for number in numbers:
        if number not in about:
            pid = next(pid for pid, (own, _) in found.items() if own == number)
            raise ResourceUnsupported(
                f"process {pid} lives in a time namespace that nobody of the tree starts children in: its clocks "
                "cannot be read",
                hint="end it and checkpoint again", pid=pid,
            )  # fmt: skip
    index = {number: i for i, number in enumerate(numbers)} | {ours: OURS}
    entries = [_entry(number, views[about[number]]) for number in numbers]
    return entries, {pid: (index[own], index[later]) for pid, (own, later) in found.items()}


def _entry(number: int, teller: int) -> TimeEntry:
    monotonic, since_boot = _offsets(teller)
    now = _hosts_clocks()
    return TimeEntry(
        inode=number, monotonic_ns=monotonic, boottime_ns=since_boot,
        monotonic_then_ns=now[0] + monotonic, boottime_then_ns=now[1] + since_boot,
    )  # fmt: skip


# --- before a restore -------------------------------------------------------------------------------------------------


def check(inventory: Inventory, present: Process | None, *, same_boot: bool, for_a_user: bool) -> None:
    """Raise unless every process can have its namespace; `present` is who is replaced, if any."""
    for entry in inventory.time_namespaces:
        _check_clocks(entry, inventory.root_pid, same_boot=same_boot)
    who = _who_moves(inventory, present, same_boot=same_boot)
    if not who:
        return
    may = {"CAP_SYS_ADMIN", "CAP_SYS_TIME"} <= effective_capabilities()
    if present is not None:
        inside = inventory.processes[0].user >= 0
        may = may and not inside and processes.keeps_capability(present.view, _CAP_SYS_ADMIN)
    if not may:
        raise TargetDenied(
            f"process {who} of the image lives in another time namespace (with clocks of its own) than "
            f"{'who restores it' if present is None else 'the process that it replaces'}: that takes CAP_SYS_ADMIN and "
            "CAP_SYS_TIME",
            hint="restore it as root", pid=who,
        )  # fmt: skip
    if for_a_user and inventory.time_namespaces:  # sudo(8), say, looks at a clock for how long a password is valid
        raise TargetDenied(
            f"process {who} of the image has clocks of its own (a time namespace), which root gives no user",
            hint="restore it with --trust if you know where the image comes from", pid=who,
        )  # fmt: skip


def _check_clocks(entry: TimeEntry, pid: int, *, same_boot: bool) -> None:
    ahead = zip(_hosts_clocks(), _wanted(entry, same_boot), strict=True)
    if not all(0 <= now + more < _MOST_NS for now, more in ahead):
        raise HostUnsupported("the clocks of a time namespace of the image cannot be set to what they were", pid=pid)


def _who_moves(inventory: Inventory, present: Process | None, *, same_boot: bool) -> int:
    """A process that is not born where it belongs, and cannot make that itself; 0: there is none."""
    here = there = OURS
    if present is not None:
        here, there = (_index_of(present.view, which, inventory, same_boot=same_boot) for which in (_OWN, _OF_CHILDREN))
    spaces = inventory.time_namespaces
    for entry in inventory.processes:
        places = (entry.time, entry.time_of_children)
        if places != (here, there) and not all(_is_of_programs(index, spaces) for index in places):
            return entry.pid
    return 0


_STRANGE = -2


def _is_of_programs(index: int, spaces: Sequence[TimeEntry]) -> bool:
    """Whether it belongs to a user namespace which a program has made: that takes no rights outside."""
    return index != OURS and spaces[index].owner >= 0


def _index_of(pid: int, which: str, inventory: Inventory, *, same_boot: bool) -> int:
    """Which of the image's namespaces one is; _STRANGE: none."""
    number = _identity(pid, which)
    if number == _ours():
        return OURS
    found = (i for i, entry in enumerate(inventory.time_namespaces) if same_boot and entry.inode == number)
    return next(found, _STRANGE)


def _wanted(entry: TimeEntry, same_boot: bool) -> tuple[int, int]:
    """How far its clocks are to be ahead of this host's."""
    if same_boot:
        return entry.monotonic_ns, entry.boottime_ns
    monotonic, since_boot = _hosts_clocks()
    return entry.monotonic_then_ns - monotonic, entry.boottime_then_ns - since_boot


# --- restore ----------------------------------------------------------------------------------------------------------


class Places:
    """The namespaces of a tree that is made again: who is in which by now."""

    def __init__(self, entries: Sequence[TimeEntry], *, same_boot: bool) -> None:
        self._entries = entries
        self._same_boot = same_boot
        self._there: dict[int, int] = {}  # by index, our descriptor of one that is there
        self._waiting: dict[int, tuple[ProcessEntry, Workshop]] = {}
        self._of_programs = False
        self._starters: dict[int, int] = {}  # by index, who is yet to ask for it

    def stays(self, inventory: Inventory, present: int) -> None:
        """Who is replaced lives in a namespace of the image, maybe."""
        index = _index_of(present, _OWN, inventory, same_boot=self._same_boot)
        if index >= 0 and index == inventory.processes[0].time:
            self._there[index] = os.open(f"/proc/{present}/ns/{_OWN}", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self, everybody: Iterable[tuple[ProcessEntry, Workshop]], *, of_programs: bool) -> None:
        """Let all go where they belong, who have run their programs and have no threads and no descriptors.

        `of_programs`: into those of user namespaces, in which they are by now; or into the others.
        """
        self._of_programs = of_programs
        self._waiting = {entry.pid: (entry, shop) for entry, shop in everybody}
        inside = self._waiting.values()
        self._starters = {e.time_of_children: e.pid for e, _ in inside if e.time_of_children not in (e.time, OURS)}
        for pid in list(self._waiting):
            self._enter(pid)

    def _enter(self, pid: int) -> None:
        if pid not in self._waiting:
            return
        entry, shop = self._waiting.pop(pid)
        if self._is_due(entry.time):
            self._go(shop, entry.time)
        if entry.time_of_children != entry.time and self._is_due(entry.time_of_children):
            self._begin(shop, entry.time_of_children)

    def _is_due(self, index: int) -> bool:
        return _is_of_programs(index, self._entries) == self._of_programs

    def _go(self, shop: Workshop, index: int) -> None:
        if index not in self._there and index in self._starters:
            self._enter(self._starters[index])  # it may be yet to come: it is who forked this one, usually
        if index not in self._there and index != OURS:
            self._begin(shop, index)
        pid = shop.thread.tgid
        number = os.fstat(self._there[index]).st_ino if index != OURS else _ours()
        if (_identity(pid, _OWN), _identity(pid, _OF_CHILDREN)) == (number, number):
            return
        ours = self._there[index] if index != OURS else os.open(f"/proc/self/ns/{_OWN}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            theirs = lend(shop, [ours])[0]
        finally:
            if index == OURS:
                os.close(ours)
        shop.run([Call("setns", theirs, linux.CLONE_NEWTIME), Call("close", theirs)])

    def _begin(self, shop: Workshop, index: int) -> None:
        """Have a process ask for a namespace: what it starts from now on is in it."""
        shop.call("unshare", linux.CLONE_NEWTIME)
        pid = shop.thread.tgid
        ahead = zip(("monotonic", "boottime"), _wanted(self._entries[index], self._same_boot), strict=True)
        lines = "".join("{} {} {}\n".format(name, *divmod(value, _S)) for name, value in ahead)
        Path(f"/proc/{pid}/timens_offsets").write_text(lines)
        if index not in self._there:
            self._there[index] = os.open(f"/proc/{pid}/ns/{_OF_CHILDREN}", os.O_RDONLY | os.O_CLOEXEC)

    def ahead_ns(self, index: int, clock: int) -> int:
        """How far a clock is ahead of ours where a process lives."""
        if index == OURS or clock not in (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME):
            return 0
        which = 0 if clock == time.CLOCK_MONOTONIC else 1
        host = _hosts_clocks()[which]
        return host + _wanted(self._entries[index], self._same_boot)[which] - time.clock_gettime_ns(clock)

    def close(self) -> None:
        """Close what is ours."""
        for fd in self._there.values():
            os.close(fd)
        self._there.clear()
