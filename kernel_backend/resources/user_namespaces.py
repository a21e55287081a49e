"""User namespaces that a program has made: users, groups and capabilities of its own (user_namespaces(7)).

Users and groups of an image are those that its writer saw, whatever their owners call them inside. A process becomes
who made its namespace, then goes into it, and is somebody else only from there; all of this before it has threads, with
which nobody may go. Whatever takes rights outside is over by then: inside, it has all capabilities, but over nothing
of the host's.

Nobody comes back out of one. So a process that is replaced in place has to be where the image's root was.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported, TargetDenied, TargetUnsupported
from kernel_backend.host import proc
from kernel_backend.host.features import probe_one
from kernel_backend.host.identity import Identity
from kernel_backend.image.entries import CredentialsEntry, IdRange, Inventory, ProcessEntry, UserEntry
from kernel_backend.resources import processes
from kernel_backend.resources.placing_fds import lend
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.namespace import first_of_ours
from kernel_backend.tracee.process import Process

OURS = -1  # instead of an index into Inventory.user_namespaces: that of who made the image
_KEEP = 0xFFFFFFFF  # to setresuid(2)


def identity(pid: int) -> int:
    """Which user namespace a process is in; 0 for all where the OS kernel has none."""
    with suppress(FileNotFoundError):
        return os.stat(f"/proc/{pid}/ns/user").st_ino
    return 0


def home(view: int) -> int:
    """Which one a process is in that has made none: ours, or that of the pid namespace which a restore has made."""
    return identity(first_of_ours(view) or os.getpid())


def owner_of(pid: int, kind: str) -> int:
    """Which user namespace another namespace of a process belongs to; 0: none that we may know of."""
    return _related(f"/proc/{pid}/ns/{kind}", linux.NS_GET_USERNS)


def _related(path: str, question: int) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = fcntl.ioctl(fd, question)
    except OSError:
        return 0
    finally:
        os.close(fd)
    try:
        return os.fstat(found).st_ino
    finally:
        os.close(found)


# --- dump -------------------------------------------------------------------------------------------------------------


def capture(views: Mapping[int, int]) -> tuple[list[UserEntry], dict[int, int]]:
    """The namespaces of a tree that its programs have made, and pid → index of those who live in them.

    Raises ResourceUnsupported for one below another.
    """
    outside = home(next(iter(views.values())))  # a tree is all in one pid namespace
    members: dict[int, list[int]] = {}
    for pid, view in views.items():
        if (number := identity(view)) != outside:
            members.setdefault(number, []).append(pid)
    entries = []
    for number, pids in members.items():
        view = views[pids[0]]
        if _related(f"/proc/{view}/ns/user", linux.NS_GET_PARENT) != outside:
            raise ResourceUnsupported(
                f"process {pids[0]} lives in a user namespace below another one, or in one of a container",
                hint="run nbcr inside that sandbox or container", pid=pids[0],
            )  # fmt: skip
        entries.append(_entry(number, view))
    return entries, {pid: index for index, pids in enumerate(members.values()) for pid in pids}


def _entry(number: int, view: int) -> UserEntry:
    fd = os.open(f"/proc/{view}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner = struct.unpack("<I", fcntl.ioctl(fd, linux.NS_GET_OWNER_UID, bytes(4)))[0]
    finally:
        os.close(fd)
    return UserEntry(
        inode=number, owner=owner, uid_map=_map(view, "uid"), gid_map=_map(view, "gid"),
        setgroups=Path(f"/proc/{view}/setgroups").read_text().strip() == "allow",
    )  # fmt: skip


def _map(view: int, kind: str) -> list[IdRange]:
    rows = Path(f"/proc/{view}/{kind}_map").read_text().splitlines()
    return [IdRange(*map(int, row.split())) for row in rows]


_ELSEWHERE = {"net": "a network", "ipc": "an IPC", "pid": "a pid"}  # which are made before, or by others


def check_nothing_else(tree: Iterable[Process], spaces: Collection[int]) -> None:
    """Refuse a process in a namespace that belongs to one of the user namespaces `spaces`: it would be another's."""
    for process in tree:
        for kind, called in _ELSEWHERE.items():
            if owner_of(process.view, kind) in spaces:
                raise ResourceUnsupported(
                    f"process {process.pid} lives in {called} namespace that belongs to a user namespace of its own",
                    hint="run nbcr inside that sandbox or container", pid=process.pid,
                )  # fmt: skip


def check_captured(entry: ProcessEntry, spaces: Sequence[UserEntry], sharing: Iterable[int]) -> None:
    """Refuse a process that could not be made in its namespace again; `sharing` are pids that share folders."""
    if entry.user == OURS:
        return
    space, what = spaces[entry.user], ""
    if any(thread.credentials for thread in entry.threads):
        what = "a thread with rights of its own"
    elif entry.pid in sharing:
        what = "a working folder that it shares with another process"
    elif any(number != space.owner and _inside(number, space.uid_map) is None for number in entry.credentials.uids):
        what = "a user that is not known in there"
    if what:
        raise ResourceUnsupported(
            f"process {entry.pid} lives in a user namespace of its own and has {what}, which cannot be captured",
            hint="end it and checkpoint again", pid=entry.pid,
        )  # fmt: skip


def check_owner(entry: ProcessEntry, kind: str, owner: int) -> None:
    """Refuse a process in another namespace that belongs to a user namespace which it is not in itself."""
    if owner not in (OURS, entry.user):
        raise ResourceUnsupported(
            f"process {entry.pid} lives in a {kind.partition('_')[0]} namespace of a user namespace that it is not in",
            hint="end it and checkpoint again", pid=entry.pid,
        )  # fmt: skip


def _inside(number: int, ranges: Iterable[IdRange]) -> int | None:
    """What a user or group is called inside; None: it has no number there."""
    for row in ranges:
        if row.outside <= number < row.outside + row.count:
            return row.inside + number - row.outside
    return None


# --- before a restore -------------------------------------------------------------------------------------------------


def check(inventory: Inventory, user: Identity | None) -> None:
    """Raise unless every process can have its namespace.

    `user`: whose image it is, where root restores one that it does not trust.
    """
    if not inventory.user_namespaces:
        return
    if not (feature := probe_one("user_namespaces")).available:
        raise HostUnsupported(f"the image has user namespaces of its own, which cannot be made here: {feature.detail}")
    for entry in inventory.user_namespaces:
        _check_maps(entry, user, inventory.root_pid)


def _check_maps(entry: UserEntry, user: Identity | None, pid: int) -> None:
    """Whoever is no root makes only namespaces of himself."""
    if user is None and os.geteuid() == 0:
        return
    uid = user.uid if user is not None else os.geteuid()
    gids = {user.gid, *user.groups} if user is not None else {os.getegid()}
    own_uid = all((row.outside, row.count) == (uid, 1) for row in entry.uid_map)
    own_gid = all(row.outside in gids and row.count == 1 for row in entry.gid_map)
    few = len(entry.uid_map) <= 1 and len(entry.gid_map) <= 1
    if entry.owner == uid and own_uid and own_gid and few and not (entry.gid_map and entry.setgroups):
        return
    raise TargetDenied(
        "the image has a user namespace with other users or groups than its own user",
        hint="restore it as root" if user is None else "restore it with --trust if you know where the image comes from",
        pid=pid,
    )


def check_present(inventory: Inventory, present: Process, *, same_boot: bool) -> None:
    """Raise TargetUnsupported unless who is replaced is where the image's root was, and all that it forks may be."""
    root, here = inventory.processes[0], identity(present.view)
    if root.user == OURS:
        fits = here == home(present.view)
    else:
        fits = same_boot and here == inventory.user_namespaces[root.user].inode
    if not fits:
        raise TargetUnsupported(
            f"process {present.pid} lives in another user namespace than process {root.pid} of the image did, so that "
            "cannot take its place",
            hint="restore the image as a fresh process", pid=present.pid,
        )  # fmt: skip
    left = [entry.pid for entry in inventory.processes if root.user not in (OURS, entry.user)]
    if left:
        raise TargetUnsupported(
            f"process {present.pid} lives in a user namespace which process {left[0]} of the image does not live in: "
            "nobody comes out of one",
            hint="restore the image as a fresh process", pid=present.pid,
        )  # fmt: skip


def on_the_way(inventory: Inventory, entry: ProcessEntry, wanted: CredentialsEntry) -> CredentialsEntry:
    """Who a process has to be that is forked by one that is replaced: who goes into another namespace has all there."""
    if entry.user in (OURS, inventory.processes[0].user):
        return wanted
    owner = inventory.user_namespaces[entry.user].owner
    return msgspec.structs.replace(wanted, uids=[owner] * 4, permitted=0)


# --- restore ----------------------------------------------------------------------------------------------------------


class Places:
    """The namespaces of a tree that is made again."""

    def __init__(self, entries: Sequence[UserEntry]) -> None:
        self._entries = entries
        self._there: dict[int, int] = {}  # by index, our descriptor of one that is there

    def stays(self, root: ProcessEntry, present: int) -> None:
        """Who is replaced is where the image's root belongs."""
        if root.user != OURS:
            self._there[root.user] = os.open(f"/proc/{present}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self, entry: ProcessEntry, shop: Workshop) -> None:
        """Let a process that has neither threads nor descriptors go where it belongs."""
        pid, index = shop.thread.tgid, entry.user
        if index == OURS:
            return
        if index in self._there and os.fstat(self._there[index]).st_ino == identity(pid):
            return  # born there
        _become(self._entries[index].owner, entry.credentials, shop)
        if index in self._there:
            theirs = lend(shop, [self._there[index]])[0]
            shop.run([Call("setns", theirs, linux.CLONE_NEWUSER), Call("close", theirs)])
        else:
            shop.call("unshare", linux.CLONE_NEWUSER)
            _name_ids(self._entries[index], shop)
            self._there[index] = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    def own_ids(
        self, entry: ProcessEntry, present: CredentialsEntry, wanted: CredentialsEntry
    ) -> tuple[CredentialsEntry, CredentialsEntry]:
        """Both as the process itself calls users; groups it has got before."""
        if entry.user == OURS:
            return present, wanted
        ranges = self._entries[entry.user].uid_map
        pairs = list(zip(present.uids, wanted.uids, strict=True))
        now = [_KEEP if here == there else here for here, there in pairs]
        then = [_KEEP if here == there else _inside(there, ranges) for here, there in pairs]
        replace, same = msgspec.structs.replace, {"gids": wanted.gids, "groups": wanted.groups}
        return replace(present, uids=now, **same), replace(wanted, uids=then, **same)

    def close(self) -> None:
        """Close what is ours."""
        for fd in self._there.values():
            os.close(fd)
        self._there.clear()


def _become(owner: int, wanted: CredentialsEntry, shop: Workshop) -> None:
    """The namespace is of who makes it, and those who are in it have rights there only if they are who that was."""
    now = processes.credentials(proc.status(shop.thread.tgid), 0, keepcaps=False)
    groups = shop.put(struct.pack(f"<{len(wanted.groups)}I", *wanted.groups))
    calls = []
    if now.groups != wanted.groups and os.geteuid() == 0:
        calls.append(Call("setgroups", len(wanted.groups), groups))
    if now.gids != wanted.gids:
        calls += [Call("setresgid", *wanted.gids[:3]), Call("setfsgid", wanted.gids[3])]
    if now.uids != [owner] * 4:
        calls.append(Call("setresuid", owner, owner, owner))
    shop.run([*calls, Call("prctl", linux.PR_SET_DUMPABLE, 1, 0, 0, 0)])  # else its files in /proc are root's


def _name_ids(entry: UserEntry, shop: Workshop) -> None:
    """Say who is who in a namespace that was just made: root from outside, everybody else from inside, of himself."""
    texts = {} if entry.setgroups else {"setgroups": "deny"}
    for name, ranges in (("uid_map", entry.uid_map), ("gid_map", entry.gid_map)):
        if ranges:
            texts[name] = "".join(f"{row.inside} {row.outside} {row.count}\n" for row in ranges)
    for name, text in texts.items():
        if os.geteuid() == 0:
            Path(f"/proc/{shop.thread.tgid}/{name}").write_text(text)
            continue
        fd = shop.call("open", shop.put(f"/proc/self/{name}\0".encode()), os.O_WRONLY | os.O_CLOEXEC)
        shop.call("write", fd, shop.put(text.encode()), len(text))
        shop.call("close", fd)
