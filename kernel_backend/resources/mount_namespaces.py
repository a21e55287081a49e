"""Mount namespaces in which the same is mounted as outside (mount_namespaces(7)): what will be mounted differs.

Programs make one before they mount something, or lest they see what others mount. A process that is made again gets a
copy of where it is restored, with what its mounts tell others, and hear of them (propagation). One in which something
else is mounted than outside is refused by the name of that: paths of an image are those that its writer saw.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from kernel_backend.abi import linux
from kernel_backend.errors import ResourceUnsupported, TargetDenied, TargetUnsupported
from kernel_backend.host.features import effective_capabilities
from kernel_backend.image.descriptions import pack_path, unpack_path
from kernel_backend.image.entries import Inventory, MountEntry, ProcessEntry, Propagation
from kernel_backend.resources import processes
from kernel_backend.resources.placing_fds import lend
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.namespace import first_of_ours
from kernel_backend.tracee.process import Process

OURS = -1  # instead of an index into Inventory.mount_namespaces: that of who made the image
_CAP_SYS_CHROOT, _CAP_SYS_ADMIN = 1 << 18, 1 << 21
_FILE_SYSTEM = 3
_ESCAPED = re.compile(r"\\([0-7]{3})")


class _Mount(msgspec.Struct):
    """A line of /proc/PID/mountinfo."""

    path: str
    what: tuple[str, ...]  # device, root, options, file system, source
    tags: dict[str, str]  # of propagation


def _mounts(view: int) -> list[_Mount]:
    found = []
    for line in Path(f"/proc/{view}/mountinfo").read_text(errors="surrogateescape").splitlines():
        _, _, device, root, path, options, *rest = line.split(" ")
        at = rest.index("-")
        tags = dict(tag.partition(":")[::2] for tag in rest[:at])
        unescaped = _ESCAPED.sub(lambda m: chr(int(m[1], 8)), path)  # blanks, tabs, newlines and backslashes
        found.append(_Mount(unescaped, (device, root, options, *rest[at + 1 : at + 3]), tags))
    return found


def identity(view: int) -> int:
    """Which mount namespace a process is in."""
    return os.stat(f"/proc/{view}/ns/mnt").st_ino


def _home(view: int) -> int:
    """A process in the one that is ours, or that of the pid namespace which a restore has made."""
    return first_of_ours(view) or os.getpid()


# --- dump -------------------------------------------------------------------------------------------------------------


def capture(views: Mapping[int, int]) -> tuple[list[MountEntry], dict[int, int]]:
    """The namespaces of a tree that its programs have made, and pid → index of those who live in them.

    Raises ResourceUnsupported where something else is mounted there than outside.
    """
    home = _home(next(iter(views.values())))  # a tree is all in one pid namespace
    own, members = identity(home), dict[int, list[int]]()
    for pid, view in views.items():
        if (number := identity(view)) != own:
            members.setdefault(number, []).append(pid)
    entries = []
    for number, pids in members.items():
        outside, inside = _mounts(home), _mounts(views[pids[0]])
        if different := _difference(inside, outside):
            raise ResourceUnsupported(
                f"process {pids[0]} lives in a mount namespace of its own {different}",
                hint="run nbcr inside that sandbox or container", pid=pids[0],
            )  # fmt: skip
        entries.append(MountEntry(inode=number, propagation=_propagation(inside, outside)))
    return entries, {pid: index for index, pids in enumerate(members.values()) for pid in pids}


def _by_path(mounts: Sequence[_Mount]) -> dict[str, list[tuple[str, ...]]]:
    """What is mounted at each path, the one that is seen last. In which order paths are listed differs."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for mount in mounts:
        found.setdefault(mount.path, []).append(mount.what)
    return found


def _difference(inside: Sequence[_Mount], outside: Sequence[_Mount]) -> str:
    """What is mounted on one side only; empty: nothing."""
    here, there = _by_path(inside), _by_path(outside)
    for path, what in here.items():
        if what != there.get(path):
            return f"in which something else is mounted at {path} ({what[-1][_FILE_SYSTEM]}) than outside"
    missing = [path for path in there if path not in here]
    return f"in which nothing is mounted at {missing[0]}" if missing else ""


def _propagation(inside: Sequence[_Mount], outside: Sequence[_Mount]) -> list[Propagation]:
    """How mounts differ in that from a copy of those outside; of several at a path, the one that is seen."""
    there = {mount.path: mount.tags for mount in outside}
    found = {}
    for mount in inside:
        if "shared" in mount.tags and mount.tags == there[mount.path]:
            continue  # as a copy is
        steps = [linux.MS_SLAVE if "master" in mount.tags else linux.MS_PRIVATE]
        steps += [linux.MS_SHARED] if "shared" in mount.tags else []
        steps += [linux.MS_UNBINDABLE] if "unbindable" in mount.tags else []
        found[mount.path] = Propagation(pack_path(mount.path), steps)
    return list(found.values())


def check_captured(entry: ProcessEntry, sharing: Collection[int]) -> None:
    """Refuse a process that could not go into its namespace; `sharing` are pids that share folders."""
    if entry.mount != OURS and entry.pid in sharing:
        raise ResourceUnsupported(
            f"process {entry.pid} lives in a mount namespace of its own and shares its working folder with another "
            "process",
            hint="end one of them and checkpoint again", pid=entry.pid,
        )  # fmt: skip


# --- before a restore -------------------------------------------------------------------------------------------------


def check_present(inventory: Inventory, present: Process, *, same_boot: bool) -> None:
    """Raise TargetUnsupported unless who is replaced is where the image's root was, and sees there what we see."""
    root, here, home = inventory.processes[0], identity(present.view), _home(present.view)
    if root.mount == OURS:
        fits = here == identity(home)
    else:
        fits = same_boot and here == inventory.mount_namespaces[root.mount].inode
    if not fits:
        raise TargetUnsupported(
            f"process {present.pid} lives in another mount namespace than process {root.pid} of the image did, so that "
            "cannot take its place",
            hint="restore the image as a fresh process", pid=present.pid,
        )  # fmt: skip
    if root.mount != OURS and (different := _difference(_mounts(present.view), _mounts(home))):
        raise TargetUnsupported(
            f"process {present.pid} lives in a mount namespace of its own {different} by now",
            hint="restore the image as a fresh process", pid=present.pid,
        )  # fmt: skip


def check(inventory: Inventory, present: Process | None) -> None:
    """Raise unless every process can have its namespace; `present` is who is replaced, if any."""
    root, spaces = inventory.processes[0], inventory.mount_namespaces
    born_in = OURS if present is None else root.mount
    foreign = [e for e in inventory.processes if not _is_of_programs(e.mount, spaces) and e.mount != born_in]
    if present is None:
        may = {"CAP_SYS_ADMIN", "CAP_SYS_CHROOT"} <= effective_capabilities()
    else:
        rights = (_CAP_SYS_ADMIN, _CAP_SYS_CHROOT)
        may = root.user < 0 and all(processes.keeps_capability(present.view, bit) for bit in rights)
    if foreign and not may:
        raise TargetDenied(
            f"process {foreign[0].pid} of the image lives in another mount namespace than "
            f"{'who restores it' if present is None else 'its root'}: that takes CAP_SYS_ADMIN",
            hint="restore it as root", pid=foreign[0].pid,
        )  # fmt: skip


def _is_of_programs(index: int, spaces: Sequence[MountEntry]) -> bool:
    """Whether it belongs to a user namespace which a program has made: that takes no rights outside."""
    return index != OURS and spaces[index].owner >= 0


# --- restore ----------------------------------------------------------------------------------------------------------


class Places:
    """The namespaces of a tree that is made again."""

    def __init__(self, entries: Sequence[MountEntry]) -> None:
        self._entries = entries
        self._there: dict[int, int] = {}  # by index, our descriptor of one that is there
        self.warnings: list[str] = []

    def stays(self, root: ProcessEntry, present: int) -> None:
        """Who is replaced is where the image's root belongs."""
        if root.mount != OURS:
            self._there[root.mount] = os.open(f"/proc/{present}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self, entry: ProcessEntry, shop: Workshop, *, of_programs: bool) -> None:
        """Let a process that has neither threads nor descriptors go where it belongs.

        `of_programs`: into those of user namespaces, in which it is by now; or into the others.
        """
        pid, index = shop.thread.tgid, entry.mount
        if _is_of_programs(index, self._entries) != of_programs:
            return
        if index == OURS:
            if not self._there or identity(pid) not in {os.fstat(fd).st_ino for fd in self._there.values()}:
                return  # born there
            home = os.open(f"/proc/{_home(pid)}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _join(shop, home)
            finally:
                os.close(home)
        elif index not in self._there:
            shop.call("unshare", linux.CLONE_NEWNS)
            self._there[index] = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            self._propagate(self._entries[index], shop)
        elif os.fstat(self._there[index]).st_ino != identity(pid):
            _join(shop, self._there[index])

    def _propagate(self, entry: MountEntry, shop: Workshop) -> None:
        for mount in entry.propagation:
            path = unpack_path(mount.path)
            for how in mount.steps:
                try:
                    shop.call("mount", 0, shop.put(os.fsencode(path) + b"\0"), 0, how, 0)
                except OSError as error:
                    self.warnings.append(f"the mount at {path} tells others what it told where it is: {error.strerror}")

    def close(self) -> None:
        """Close what is ours."""
        for fd in self._there.values():
            os.close(fd)
        self._there.clear()


def _join(shop: Workshop, ours: int) -> None:
    theirs = lend(shop, [ours])[0]
    shop.run([Call("setns", theirs, linux.CLONE_NEWNS), Call("close", theirs)])
