"""Processes that stand in for those of the image before these are there, to make what bears its maker's name.

A Unix socket tells its other end who made it (SO_PEERCRED): user, groups and pid of whoever called socketpair(2),
connect(2) or listen(2). It is made while there is a way back, when the image's processes are not there yet. So a child
of ours that has the pid for the moment, and the user, makes it. In place the numbers are those of the present, which is
asked for the favour (of a pair; connections through a listener are the present's own, or name us).
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from kernel_backend.errors import EngineError
from kernel_backend.host import libc, proc
from kernel_backend.host.identity import Identity, as_ourselves
from kernel_backend.tracee.courier import courier
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.process import Process

_AF_UNIX = 1
_PAIR = struct.Struct("<ii")


class Whom(NamedTuple):
    """Whose name is to be borne."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]


class StandIns:
    """Makes pairs of sockets as this or that process, named by its number in the image's pid namespace.

    `present` are those that are replaced, if any are. `make` gives a stub with a chosen number, `end` ends it. `user`:
    whose image root restores, if only that user's name is to be borne.
    """

    def __init__(
        self,
        present: Mapping[int, Process],
        make: Callable[[int], Workshop] | None,
        end: Callable[[Workshop], None],
        user: Identity | None,
    ) -> None:
        self._user = user
        self._present = present
        self._make = make
        self._end = end
        self._made: dict[Whom, Workshop] = {}

    def close(self) -> None:
        """End them all, which frees their numbers."""
        while self._made:
            self._end(self._made.popitem()[1])

    def socketpair(self, kind: int, whom: Whom) -> tuple[int, int] | None:
        """Our descriptors of a pair that process `whom` has made; None where nobody can stand in for it."""
        whom = self._known(whom)
        with contextlib.suppress(OSError, EngineError), as_ourselves():
            if whom.pid in self._present:
                return _by_present(self._present[whom.pid], kind, whom.uid, whom.gid)
            if self._make is not None:
                return self._by_child(kind, whom)
        return None

    def listen(self, fd: int, backlog: int, whom: Whom) -> bool:
        """Let `whom` be who listens at our socket; whether somebody could stand in for it."""
        return self._by_child_at(fd, whom, lambda shop, theirs: shop.call("listen", theirs, backlog))

    def connect(self, fd: int, address: bytes, whom: Whom) -> bool:
        """Let `whom` be who connects our Unix socket to the address; whether somebody could stand in for it."""
        raw = struct.pack("<H", _AF_UNIX) + address + (b"" if address.startswith(b"\0") else b"\0")
        return self._by_child_at(fd, whom, lambda shop, theirs: shop.call("connect", theirs, shop.put(raw), len(raw)))

    def be_there(self, whom: Whom) -> None:
        """Let there be a process of that number."""
        with contextlib.suppress(OSError, EngineError), as_ourselves():
            if self._make is not None:
                self._get(self._known(whom))

    def _known(self, whom: Whom) -> Whom:
        if self._user is None or whom.uid == self._user.uid:
            return whom
        return Whom(whom.pid, self._user.uid, self._user.gid, ())

    def _by_child_at(self, fd: int, whom: Whom, act: Callable[[Workshop, int], object]) -> bool:
        with contextlib.suppress(OSError, EngineError), as_ourselves():
            if self._make is None:
                return False
            shop = self._get(self._known(whom))
            with courier(shop) as line:
                (theirs,) = line.send([fd])
            try:
                act(shop, theirs)
            finally:
                shop.call("close", theirs)
            return True
        return False

    def _by_child(self, kind: int, whom: Whom) -> tuple[int, int]:
        shop = self._get(whom)
        shop.call("socketpair", _AF_UNIX, kind, 0, shop.data)
        fds = _PAIR.unpack(shop.get(_PAIR.size))
        with _pidfd(shop.thread.tgid) as pidfd:
            ours = libc.pidfd_getfd(pidfd, fds[0]), libc.pidfd_getfd(pidfd, fds[1])
        for fd in fds:
            shop.call("close", fd)
        return ours

    def _get(self, whom: Whom) -> Workshop:
        assert self._make is not None
        if whom in self._made:
            return self._made[whom]
        for key in [key for key in self._made if key.pid == whom.pid]:
            self._end(self._made.pop(key))  # the same number as another user
        shop = self._make(whom.pid)
        try:
            _become(shop, whom)
        except BaseException:
            self._end(shop)
            raise
        self._made[whom] = shop
        return shop


def _become(shop: Workshop, whom: Whom) -> None:
    if sorted(whom.groups) != sorted(os.getgroups()):
        with contextlib.suppress(OSError):  # without privileges: the socket names our groups
            groups = shop.put(struct.pack(f"<{len(whom.groups)}I", *whom.groups) or bytes(4))
            shop.call("setgroups", len(whom.groups), groups)
    if whom.gid != os.getegid():
        shop.call("setresgid", whom.gid, whom.gid, whom.gid)
    if whom.uid != os.geteuid():
        shop.call("setresuid", whom.uid, whom.uid, whom.uid)


def _by_present(process: Process, kind: int, uid: int, gid: int) -> tuple[int, int] | None:
    status = proc.status(process.view)
    if (int(status["Uid"].split()[1]), int(status["Gid"].split()[1])) != (uid, gid):
        return None
    with process.borrow() as borrowed:
        borrowed.call("socketpair", _AF_UNIX, kind, 0, borrowed.data)
        fds = _PAIR.unpack(borrowed.get(_PAIR.size))
        try:
            return process.take_fd(fds[0]), process.take_fd(fds[1])
        finally:
            for fd in fds:
                borrowed.call("close", fd)


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    found = libc.pidfd_open(pid)
    try:
        yield found
    finally:
        os.close(found)
