"""Control groups (cgroups(7)). A restored tree is in those of whoever restores it, in place in the present's.

What is put back is that a process was in other groups than the tree's root: where such a group is there and takes it.
Groups themselves, and their limits, belong to the host.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from kernel_backend.image.entries import ControlGroup, ProcessEntry

_Groups = dict[str, str]  # hierarchy, by its controllers as /proc/PID/cgroup has them (empty: version 2) → path


def _groups_of(pid: int) -> _Groups:
    found = {}
    for line in os.fsdecode(Path(f"/proc/{pid}/cgroup").read_bytes()).splitlines():
        _, hierarchy, path = line.split(":", 2)
        found[hierarchy] = path
    return found


def capture(entries: Mapping[int, ProcessEntry], views: Mapping[int, int], root: int) -> list[str]:
    """Note in which groups processes are that the root process is not in; warnings."""
    if len(entries) == 1:
        return []
    warnings = []
    usual = _groups_of(views[root])
    for pid, entry in entries.items():
        for hierarchy, path in _groups_of(views[pid]).items():
            if path == usual.get(hierarchy):
                continue
            if ".." in path.split("/") or path.endswith(" (deleted)"):
                warnings.append(_lost(pid, hierarchy, path, "we do not see that"))
            else:
                entry.control_groups.append(ControlGroup(hierarchy, path))
    return warnings


def _lost(pid: int, hierarchy: str, path: str, reason: str) -> str:
    of = f" of {hierarchy}" if hierarchy else ""
    return f"process {pid} was in the control group {path}{of}, and comes back in that of its tree's root: {reason}"


# --- coming back ------------------------------------------------------------------------------------------------------


def join(entry: ProcessEntry, pid: int) -> list[str]:
    """Put a process into the groups that it was in, from outside; warnings."""
    if not entry.control_groups:
        return []
    warnings, present = [], _groups_of(pid)
    for group in entry.control_groups:
        if present.get(group.hierarchy) == group.path:
            continue
        try:
            folder = _folder(group)
            if _is_frozen(folder):  # it would stop for ever, half made
                warnings.append(_lost(entry.pid, group.hierarchy, group.path, "it is frozen"))
                continue
            (folder / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            warnings.append(_lost(entry.pid, group.hierarchy, group.path, error.strerror or str(error)))
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
