"""Processes that stand in for those of the image before these are there, to make what bears its maker's name.

A Unix socket tells its other end who made it (SO_PEERCRED): user, group and pid of whoever called socketpair(2). It
is made while there is a way back, when the image's processes are not there yet. So a child of ours that has the pid for
the moment, and the user, makes it. In place the numbers are those of the present, which is asked for the favour.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from kernel_backend.errors import EngineError
from kernel_backend.host import libc, proc
from kernel_backend.host.identity import Identity, as_ourselves
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.process import Process

_AF_UNIX = 1
_PAIR = struct.Struct("<ii")


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
        self._made: dict[tuple[int, int, int], Workshop] = {}

    def close(self) -> None:
        """End them all, which frees their numbers."""
        while self._made:
            self._end(self._made.popitem()[1])

    def socketpair(self, kind: int, pid: int, uid: int, gid: int) -> tuple[int, int] | None:
        """Our descriptors of a pair that process `pid` has made; None where nobody can stand in for it."""
        if self._user is not None and uid != self._user.uid:
            uid, gid = self._user.uid, self._user.gid
        with contextlib.suppress(OSError, EngineError), as_ourselves():
            if pid in self._present:
                return _by_present(self._present[pid], kind, uid, gid)
            if self._make is not None:
                return self._by_child(kind, (pid, uid, gid))
        return None

    def _by_child(self, kind: int, whom: tuple[int, int, int]) -> tuple[int, int]:
        shop = self._made.get(whom) or self._begin(whom)
        shop.call("socketpair", _AF_UNIX, kind, 0, shop.data)
        fds = _PAIR.unpack(shop.get(_PAIR.size))
        with _pidfd(shop.thread.tgid) as pidfd:
            ours = libc.pidfd_getfd(pidfd, fds[0]), libc.pidfd_getfd(pidfd, fds[1])
        for fd in fds:
            shop.call("close", fd)
        return ours

    def _begin(self, whom: tuple[int, int, int]) -> Workshop:
        assert self._make is not None
        pid, uid, gid = whom
        for key in [key for key in self._made if key[0] == pid]:
            self._end(self._made.pop(key))  # the same number as another user
        shop = self._make(pid)
        try:
            if gid != os.getegid():
                shop.call("setresgid", gid, gid, gid)
            if uid != os.geteuid():
                shop.call("setresuid", uid, uid, uid)
        except BaseException:
            self._end(shop)
            raise
        self._made[whom] = shop
        return shop


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
