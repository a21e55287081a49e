"""What threads share and processes do not: a rebuilt tree has it so, and no other way.

A thread may have a filter of its own; a child may share its parent's memory without being a thread (clone(2)); a
process may live in namespaces of its own (of which the rooms called after them bring some back). All of that would come
back as something else, so it is refused by name.

Tables that processes share come back: who forks whom so that they do is kinship.forker's to find. So does a thread that
has left the descriptor table or the folders of its process (unshare(2)), and leaves them again.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import libc, proc
from kernel_backend.resources import visits
from kernel_backend.tracee.namespace import first_of_ours
from kernel_backend.tracee.process import Process

TABLES = {linux.KCMP_FILES: "descriptor table", linux.KCMP_FS: "working folder and root"}
_FILTERS = ["Seccomp", "Seccomp_filters"]
_RIGHTS = ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", *_FILTERS]
_NAMESPACES = {
    "uts": "a UTS", "net": "a network", "ipc": "an IPC",
}  # fmt: skip
_CAPTURED = ("uts",)  # by namespaces.py; those of a whole tree that visits.py knows in rooms of their own
_OF_THREADS = {  # which one thread can leave alone (unshare(2)), if it may; or what it starts
    "mnt": "a mount namespace", "net": "a network namespace", "ipc": "an IPC namespace", "uts": "a UTS namespace",
    "time_for_children": "a time namespace for children", "pid_for_children": "a pid namespace for children",
}  # fmt: skip
_CAP_SYS_ADMIN = 1 << 21


def check(tree: Mapping[int, Process]) -> None:
    """Refuse a frozen tree in which something is shared, or is not, that would come back otherwise."""
    visited = visits.of_all(tree.values())
    for process in tree.values():
        check_namespaces(process, visited)
        _check_childrens_namespaces(process)
    for pid, other in together(tree, linux.KCMP_VM).items():
        raise alike(pid, other, "memory", "without being threads")


def check_namespaces(process: Process, visited: Collection[str]) -> None:
    """Refuse a process in a namespace that is neither ours nor of our making, nor one that we may go into."""
    home = first_of_ours(process.view) or os.getpid()  # whose namespaces its own may be
    for name, called in _NAMESPACES.items():
        if name in _CAPTURED or name in visited:
            continue
        try:
            differs = os.stat(f"/proc/{process.view}/ns/{name}").st_ino != os.stat(f"/proc/{home}/ns/{name}").st_ino
        except FileNotFoundError:
            continue  # an OS kernel without it
        if differs:
            raise ResourceUnsupported(
                f"process {process.pid} lives in {called} namespace of its own",
                hint="run nbcr inside that sandbox or container", pid=process.pid,
            )  # fmt: skip


def _check_childrens_namespaces(process: Process) -> None:
    """Refuse a process whose next child will be in another namespace (unshare(2)): it would be in the old one."""
    here = f"/proc/{process.view}/ns"
    try:
        differs = os.stat(f"{here}/pid_for_children").st_ino != os.stat(f"{here}/pid").st_ino
    except FileNotFoundError:
        differs = "pid_for_children" in os.listdir(here)  # nobody has ever been in that one
    if differs:
        raise ResourceUnsupported(
            f"process {process.pid} starts its children in another pid namespace than its own (unshare)",
            hint="end it and checkpoint again", pid=process.pid,
        )  # fmt: skip


def security_label(pid: int) -> str:
    """What SELinux, AppArmor or Smack call a process; empty where none of them is at work."""
    try:
        return Path(f"/proc/{pid}/attr/current").read_text(errors="replace").rstrip("\0\n")
    except OSError:
        return ""


def warn_of_labels(processes: Iterable[Process]) -> list[str]:
    """A restored process has the security label that its program gets where it is restored."""
    ours = security_label(os.getpid())
    labels = {process.pid: security_label(process.view) for process in processes}
    return [
        f"process {pid} has the security label {label!r}; brought back, it is under what who restores it is under"
        for pid, label in labels.items()
        if label != ours
    ]


def warn_of_groups_namespace(processes: Iterable[Process]) -> list[str]:
    """A process that sees control groups from elsewhere than we (cgroup_namespaces(7)) will see them as we do."""
    try:
        ours = os.stat("/proc/self/ns/cgroup").st_ino
        seeing = [p.pid for p in processes if os.stat(f"/proc/{p.view}/ns/cgroup").st_ino != ours]
    except OSError:
        return []  # an OS kernel without them
    return [
        f"process {pid} lives in a cgroup namespace of its own; brought back, it is in that of whoever restores it"
        for pid in seeing
    ]


def apart(tree: Mapping[int, Process], kind: int) -> dict[int, int]:
    """Threads that have left the table or folders of their process: tid → pid.

    Refuses those that share what they have now with somebody else.
    """
    views = {process.view: pid for pid, process in tree.items()}
    found: dict[int, int] = {}
    for pid, process in tree.items():
        for tid in process.threads:
            if tid != process.view and libc.kcmp(process.view, tid, kind, 0, 0):
                found[tid] = pid

    def order(one: int, other: int) -> int:
        return _order(one, other, kind)

    everybody = sorted([*views, *found] if found else [], key=functools.cmp_to_key(order))
    for one, other in itertools.pairwise(everybody):
        tid = one if one in found else other
        if tid in found and _order(one, other, kind) == 0:
            raise _unlike(found[tid], tid, f"a {TABLES[kind]} which it shares, though not with all of its process,")
    for tid, pid in found.items():
        if kind == linux.KCMP_FILES and not _can_be_looked_into(tid):
            raise _unlike(pid, tid, f"a {TABLES[kind]} of its own")
    return found


def _can_be_looked_into(tid: int) -> bool:
    """Whether a thread's own descriptors can be had (since OS kernel 6.9)."""
    try:
        os.close(libc.pidfd_open(tid, thread=True))
    except OSError:
        return False
    return True


def _unlike(pid: int, tid: int, what: str) -> ResourceUnsupported:
    return ResourceUnsupported(
        f"thread {tid} of process {pid} has {what}, which cannot be captured",
        hint="end that thread and checkpoint again", pid=pid, tid=tid,
    )  # fmt: skip


def together(tree: Mapping[int, Process], kind: int) -> dict[int, int]:
    """Processes that share the object which `kind` names with one before them: pid → the first that has it."""

    def order(one: int, other: int) -> int:
        return _order(tree[one].view, tree[other].view, kind)  # kcmp(2) gives an order to sort by

    places = {pid: place for place, pid in enumerate(tree)}
    found: dict[int, int] = {}
    group: list[int] = []
    for pid in sorted(tree, key=functools.cmp_to_key(order)):
        if group and order(group[0], pid):
            group.clear()
        group.append(pid)
        first = min(group, key=places.__getitem__)
        found.update({other: first for other in group if other != first})
    return found


def alike(pid: int, other: int, what: str, why: str) -> ResourceUnsupported:
    """The error about two processes that share what only threads, or only others, may."""
    return ResourceUnsupported(
        f"processes {min(pid, other)} and {max(pid, other)} share their {what} {why}",
        hint="end one of them and checkpoint again", pid=max(pid, other),
    )  # fmt: skip


def _order(one: int, other: int, kind: int) -> int:
    result = libc.kcmp(one, other, kind, 0, 0)
    return -1 if result == 1 else 1 if result else 0


def unlike_threads(pids: Iterable[int]) -> dict[int, int]:
    """Threads whose user, rights, filter or namespaces differ from their leader's: tid → pid. Looked for before the
    freeze.
    """
    found = {}
    for pid in pids:
        try:
            tids = proc.task_ids(pid)
            usual = _rights(pid, proc.view(pid)) if len(tids) > 1 else None
            found.update({tid: pid for tid in tids if usual and (_rights(pid, tid) or usual) != usual})
            if usual and (int(usual[_RIGHTS.index("CapEff")], 16) & _CAP_SYS_ADMIN or _has_moved(pid)):
                found.update(dict.fromkeys(_elsewhere(pid, tids), pid))
        except (OSError, KeyError):
            continue  # it ended meanwhile
    return found


def _rights(pid: int, tid: int) -> list[str] | None:
    status = proc.status(pid, tid)
    return None if status["State"][0] in "ZX" else [status.get(name, "") for name in _RIGHTS]


def check_rights(process: Process, suspects: Mapping[int, int]) -> None:
    """Look again, now that it is frozen, at the threads that were unlike the others, and refuse what cannot be read."""
    for tid in _among(process, suspects):
        for name in _OF_THREADS:
            if _namespace(process.view, tid, name) != _namespace(process.view, process.view, name):
                raise _unlike(process.pid, tid, f"{_OF_THREADS[name]} of its own")
    usual = process.status()
    for tid in own_rights(process, suspects):
        _check_filter(process.pid, tid, usual)


def check_filters(suspects: Mapping[int, int]) -> None:
    """Refuse threads with filters of their own, before a stop wakes them: the filter may forbid what follows."""
    for tid, pid in suspects.items():
        with contextlib.suppress(OSError):  # it ended meanwhile
            _check_filter(pid, tid, proc.status(proc.view(pid)))


def _check_filter(pid: int, tid: int, usual: Mapping[str, str]) -> None:
    found = proc.status(pid, tid)
    if [found.get(name) for name in _FILTERS] != [usual.get(name) for name in _FILTERS]:
        raise _unlike(pid, tid, "a seccomp filter of its own")


def _elsewhere(pid: int, tids: Iterable[int]) -> Iterator[int]:
    """Threads that have left a namespace of their process."""
    view = proc.view(pid)
    usual = [_namespace(pid, view, name) for name in _OF_THREADS]
    for tid in tids:
        found = [_namespace(pid, tid, name) for name in _OF_THREADS]
        if any(found) and found != usual:
            yield tid


def _has_moved(pid: int) -> bool:
    """Whether a process is where it may have gone with rights that it has given up since."""
    view, own = proc.view(pid), os.getpid()
    return any(_namespace(pid, view, name) != _namespace(own, own, name) for name in ("uts", "ipc"))


def _namespace(pid: int, tid: int, name: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/task/{tid}/ns/{name}").st_ino
    except OSError:
        return 0  # an OS kernel without it, or a thread that has ended


def own_rights(process: Process, suspects: Mapping[int, int]) -> set[int]:
    """Threads of a frozen process that still are somebody else than the others."""
    mine = _among(process, suspects)
    usual = _rights(process.pid, process.view) if mine else None
    return {tid for tid in mine if _rights(process.pid, tid) != usual}


def _among(process: Process, suspects: Mapping[int, int]) -> set[int]:
    return {tid for tid, pid in suspects.items() if pid == process.pid and tid in process.threads}
