"""Control groups (cgroups(7)). A restored tree is in those of whoever restores it, in place in the present's.

What is put back is that a process was in other groups than the tree's root, or a thread in others than its process:
where such a group is there and takes it. Groups themselves, and their limits, belong to the host.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from kernel_backend.host import proc
from kernel_backend.image.entries import ControlGroup, ProcessEntry, ThreadEntry

_Groups = dict[str, str]  # hierarchy, by its controllers as /proc/PID/cgroup has them (empty: version 2) → path


def _groups_of(pid: int) -> _Groups:
    found = {}
    for line in os.fsdecode(_raw(pid)).splitlines():
        _, hierarchy, path = line.split(":", 2)
        found[hierarchy] = path
    return found


def _raw(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cgroup").read_bytes()


def threads_elsewhere(pids: Iterable[int]) -> dict[int, int]:
    """Threads that are in other groups than their process: tid → pid. Looked for before the freeze."""
    found = {}
    for pid in pids:
        try:
            tids = proc.task_ids(pid)
            usual = _raw(proc.view(pid)) if len(tids) > 1 else b""
            found.update({tid: pid for tid in tids if usual and _raw(tid) != usual})
        except OSError:
            continue  # it ended meanwhile
    return found


def capture_threads(entry: ProcessEntry, view: int, suspects: Mapping[int, int]) -> list[str]:
    """Note in which groups threads are that their process is not in; warnings."""
    warnings = []
    for thread in entry.threads:
        if suspects.get(thread.tid) == entry.pid and not thread.exited:
            thread.control_groups, lost = _others(thread.tid, _groups_of(view))
            warnings += [_lost(_thread(entry, thread), *words) for words in lost]
    return warnings


def _thread(entry: ProcessEntry, thread: ThreadEntry) -> str:
    return f"thread {thread.tid} of process {entry.pid}"


def capture(entries: Mapping[int, ProcessEntry], views: Mapping[int, int], root: int) -> list[str]:
    """Note in which groups processes are that the root process is not in; warnings."""
    if len(entries) == 1:
        return []
    warnings = []
    usual = _groups_of(views[root])
    for pid, entry in entries.items():
        entry.control_groups, lost = _others(views[pid], usual)
        warnings += [_lost(f"process {pid}", *words) for words in lost]
    return warnings


def _others(pid: int, usual: _Groups) -> tuple[list[ControlGroup], list[tuple[str, str, str]]]:
    """In which groups somebody is besides the usual ones; and what cannot be noted of them: hierarchy, path, why."""
    found, lost = [], []
    for hierarchy, path in _groups_of(pid).items():
        if path == usual.get(hierarchy):
            continue
        if ".." in path.split("/") or path.endswith(" (deleted)"):
            lost.append((hierarchy, path, "we do not see that"))
        else:
            found.append(ControlGroup(hierarchy, path))
    return found, lost


def _lost(who: str, hierarchy: str, path: str, reason: str) -> str:
    of, whose = (
        f" of {hierarchy}" if hierarchy else "",
        "its process" if who.startswith("thread") else "its tree's root",
    )
    return f"{who} was in the control group {path}{of}, and comes back in that of {whose}: {reason}"


# --- coming back ------------------------------------------------------------------------------------------------------


def join(entry: ProcessEntry, pid: int) -> list[str]:
    """Put a process into the groups that it was in, from outside; warnings."""
    return _join(f"process {entry.pid}", entry.control_groups, pid, lambda _: "cgroup.procs")


def join_threads(entry: ProcessEntry, tids: Mapping[int, int]) -> list[str]:
    """The same for those of its threads that were elsewhere; `tids` by image tid. Warnings."""
    warnings = []
    for thread in entry.threads:
        by = _thread(entry, thread)
        warnings += _join(by, thread.control_groups, tids[thread.tid], lambda v1: "tasks" if v1 else "cgroup.threads")
    return warnings


def _join(who: str, groups: Sequence[ControlGroup], number: int, by: Callable[[str], str]) -> list[str]:
    """`by` names the file to write to, by the hierarchy."""
    if not groups:
        return []
    warnings, present = [], _groups_of(number)
    for group in groups:
        if present.get(group.hierarchy) == group.path:
            continue
        try:
            folder = _folder(group)
            if _is_frozen(folder):  # it would stop for ever, half made
                warnings.append(_lost(who, group.hierarchy, group.path, "it is frozen"))
                continue
            (folder / by(group.hierarchy)).write_text(str(number))
        except OSError as error:
            warnings.append(_lost(who, group.hierarchy, group.path, error.strerror or str(error)))
    return warnings


def _folder(group: ControlGroup) -> Path:
    """Where a group is. Raises FileNotFoundError."""
    for root, place in _mounts(group.hierarchy):
        if f"{group.path}/".startswith(f"{root.rstrip('/')}/"):
            folder = Path(place) / group.path[len(root.rstrip("/")) :].lstrip("/")
            if folder.is_dir():
                return folder
    raise FileNotFoundError(2, "there is none here")


def _mounts(hierarchy: str) -> Iterable[tuple[str, str]]:
    """(path of the group, where it is mounted), of what shows a hierarchy."""
    wanted = set(filter(None, hierarchy.split(",")))
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        own, _, other = line.partition(" - ")
        sort, _, options = other.split(" ", 2)
        if sort == ("cgroup" if wanted else "cgroup2") and wanted <= set(options.split(",")):
            root, place = own.split(" ")[3:5]
            yield root, place.encode().decode("unicode_escape")


def _is_frozen(folder: Path) -> bool:
    for name, word in (("cgroup.events", "frozen 1"), ("freezer.state", "FR")):
        path = folder / name
        if path.exists() and word in path.read_text():
            return True
    return False
