"""UTS namespaces: host and domain names that are not those of everybody (uts_namespaces(7)).

A process that is made begins in the namespace of who forked it. It goes to its own before it has threads, which would
stay behind, and while it still may: the first of a namespace makes it, the others join that one. The process that is
replaced in place stays where it lives; it has to be where the image's root was.

Names are set in a namespace only that is neither ours nor the host's first one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from kernel_backend.abi import linux
from kernel_backend.errors import TargetDenied, TargetUnsupported
from kernel_backend.host.features import effective_capabilities
from kernel_backend.image.entries import Inventory, ProcessEntry, UtsEntry
from kernel_backend.resources import processes
from kernel_backend.resources.placing_fds import lend
from kernel_backend.tracee.chorus import Asking, Chorus
from kernel_backend.tracee.inject import Borrowed, Call, Workshop
from kernel_backend.tracee.process import Process

OURS = -1  # instead of an index into Inventory.uts_namespaces: the one of who made the image
_CAP_SYS_ADMIN = 1 << 21
_HINT = "restore the image as a fresh process"


def identity(view: int) -> int:
    """Which UTS namespace a process is in; 0 for all where the OS kernel has none."""
    with suppress(FileNotFoundError):
        return os.stat(f"/proc/{view}/ns/uts").st_ino
    return 0


def _ours() -> int:
    return identity(os.getpid())


# --- dump -------------------------------------------------------------------------------------------------------------


def capture(
    views: Mapping[int, int], chorus: Chorus, mains: Mapping[int, Borrowed]
) -> tuple[list[UtsEntry], dict[int, int]]:
    """The namespaces of a tree that are not ours, and pid → index of those who live in them."""
    members: dict[int, list[int]] = {}
    for pid, view in views.items():
        members.setdefault(identity(view), []).append(pid)
    members.pop(_ours(), None)
    asked = {number: mains[pids[0]] for number, pids in members.items()}
    names = chorus.run({main: _ask_names(main) for main in asked.values()})
    entries = [
        UtsEntry(inode=number, host_name=names[main][0], domain_name=names[main][1]) for number, main in asked.items()
    ]
    return entries, {pid: index for index, pids in enumerate(members.values()) for pid in pids}


def _ask_names(borrowed: Borrowed) -> Asking[tuple[bytes, bytes]]:
    yield Call("uname", borrowed.data)
    return _names(borrowed.get(linux.UTSNAME_BYTES))


def _names(found: bytes) -> tuple[bytes, bytes]:
    """Host and domain name of a struct utsname."""
    fields = [found[at : at + linux.UTS_FIELD_BYTES] for at in range(0, linux.UTSNAME_BYTES, linux.UTS_FIELD_BYTES)]
    return fields[1].rstrip(b"\0"), fields[5].rstrip(b"\0")


# --- before a restore -------------------------------------------------------------------------------------------------


def check(inventory: Inventory, present: Process | None, *, same_boot: bool, for_a_user: bool) -> None:
    """Raise unless every process can have its namespace, and that its names; `present` is who is replaced, if any."""
    root = inventory.processes[0]
    foreign = [entry for entry in inventory.processes if not _is_of_programs(entry, inventory.uts_namespaces)]
    if present is None:
        moving = [entry for entry in foreign if entry.uts != OURS]
        may = "CAP_SYS_ADMIN" in effective_capabilities()
    else:
        _check_present(inventory, present, same_boot=same_boot, for_a_user=for_a_user)
        moving = [entry for entry in foreign if entry.uts != root.uts]
        may = root.user < 0 and processes.keeps_capability(present.view, _CAP_SYS_ADMIN)
    for entry in moving:
        if not may:
            raise TargetDenied(
                f"process {entry.pid} of the image lives in another UTS namespace (with names of its own for the "
                f"host) than {'who restores it' if present is None else 'its root'}: that takes CAP_SYS_ADMIN",
                hint="restore it as root", pid=entry.pid,
            )  # fmt: skip
        if for_a_user and entry.uts != OURS:  # sudo(8), say, looks for what a user may do under the host's name
            raise TargetDenied(
                f"process {entry.pid} of the image has names of its own for the host (a UTS namespace), which root "
                "gives no user",
                hint="restore it with --trust if you know where the image comes from", pid=entry.pid,
            )  # fmt: skip


def _is_of_programs(entry: ProcessEntry, spaces: Sequence[UtsEntry]) -> bool:
    """Whether it lives in one of the user namespace which its program has made: that takes no rights outside."""
    return entry.uts != OURS and spaces[entry.uts].owner >= 0


def _check_present(inventory: Inventory, present: Process, *, same_boot: bool, for_a_user: bool) -> None:
    """Who is replaced stays in its namespace: it has to be the right one, with its names or such as can be set."""
    root, here = inventory.processes[0], identity(present.view)
    if root.uts == OURS:
        if here != _ours():
            raise TargetUnsupported(
                f"process {present.pid} lives in a UTS namespace of its own, so no other can take its place",
                hint=_HINT, pid=present.pid,
            )  # fmt: skip
        return
    then = inventory.uts_namespaces[root.uts]
    if not same_boot or here != then.inode:
        raise TargetUnsupported(
            f"process {present.pid} lives in another UTS namespace than process {root.pid} of the image did, so that "
            "cannot take its place",
            hint=_HINT, pid=present.pid,
        )  # fmt: skip
    with present.borrow() as borrowed:
        borrowed.call("uname", borrowed.data)
        names = _names(borrowed.get(linux.UTSNAME_BYTES))
    if names == (then.host_name, then.domain_name):
        return
    if for_a_user or _is_everybodys(here) or not processes.keeps_capability(present.view, _CAP_SYS_ADMIN):
        raise TargetDenied(
            f"the names of the host have changed for process {present.pid} (in its UTS namespace), which may not set "
            "them back",
            hint=_HINT, pid=present.pid,
        )  # fmt: skip


def _is_everybodys(number: int) -> bool:
    """Whether the names of a namespace are ours, or the host's own."""
    return number in (_ours(), linux.FIRST_UTS_NAMESPACE, 0)


# --- restore ----------------------------------------------------------------------------------------------------------


class Places:
    """The namespaces of a tree that is made again: who is in which by now."""

    def __init__(self, entries: Iterable[UtsEntry]) -> None:
        self._entries = list(entries)
        self._somebody = {OURS: os.getpid()}  # by index, a process that is in it
        self._named: set[int] = set()

    def stays(self, root: ProcessEntry, present: int) -> None:
        """Who is replaced is where the image's root belongs."""
        self._somebody.setdefault(root.uts, present)

    def enter(self, entry: ProcessEntry, shop: Workshop, *, of_programs: bool) -> None:
        """Let a process that has neither threads nor descriptors go where it belongs.

        `of_programs`: into those of user namespaces, in which it is by now; or into the others.
        """
        pid, wanted = shop.thread.tgid, entry.uts
        if _is_of_programs(entry, self._entries) != of_programs:
            return
        if wanted not in self._somebody:
            shop.call("unshare", linux.CLONE_NEWUTS)
            self._somebody[wanted] = pid
        elif identity(self._somebody[wanted]) != identity(pid):
            _join(self._somebody[wanted], shop)
        if wanted != OURS and wanted not in self._named:
            self._named.add(wanted)
            _name(self._entries[wanted], shop)


def _join(other: int, shop: Workshop) -> None:
    ours = os.open(f"/proc/{other}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        theirs = lend(shop, [ours])[0]
    finally:
        os.close(ours)
    shop.run([Call("setns", theirs, linux.CLONE_NEWUTS), Call("close", theirs)])


def _name(entry: UtsEntry, shop: Workshop) -> None:
    """Give the namespace that a process is in the image's names, where they are others."""
    shop.call("uname", shop.data)
    host_name, domain_name = _names(shop.get(linux.UTSNAME_BYTES))
    for call, wanted, present in (
        ("sethostname", entry.host_name, host_name), ("setdomainname", entry.domain_name, domain_name),
    ):  # fmt: skip
        if wanted == present:
            continue
        if _is_everybodys(identity(shop.thread.tgid)):
            raise TargetDenied(
                f"process {shop.thread.tgid} is in the UTS namespace of the host: its names stay as they are",
                hint=_HINT, pid=shop.thread.tgid,
            )  # fmt: skip
        shop.call(call, shop.put(wanted), len(wanted))
