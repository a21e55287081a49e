"""Connections to outside that go on in the restored life (`--tcp keep`): which, and until when they keep still.

Only where the original ends with its image: two lives cannot share a connection. They are read when all else is
written, in this order, so that the other ends are quiet and lose nothing:

1. What was sent is given a moment to be acknowledged: an acknowledgement that comes when the original is gone would be
   answered with a reset. From then on a packet filter of ours drops what comes (see `tcp_repair`).
2. What had come is acknowledged, which the OS kernel delays a little; else the other end would send it again.
3. Queues and numbers are read. Repair mode is switched on for that moment and off again: a program that ran with it on,
   because we were killed, would find that its calls fail. The filter alone does it no harm for a while.
4. The image is published. Only then repair mode is switched on for good, and the tree is killed at once.

Should the dump fail, or we be killed before that (`Guardian`), filters and repair mode go, and the program goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from kernel_backend.abi import linux
from kernel_backend.errors import EngineError, HostUnsupported
from kernel_backend.host import fds, features, libc
from kernel_backend.host.guardian import Guardian
from kernel_backend.image.descriptions import OTHER_OUTSIDE, TcpSocket
from kernel_backend.resources import inet, socket_options, tcp_repair, tcp_states
from kernel_backend.resources.descriptors import CaptureTables, Look, RebuildTables

POLICIES = ("reset", "keep")
_T = TypeVar("_T")
_STREAM = socket.SOCK_STREAM
_TCP_QUICKACK = 12
_ACKNOWLEDGED_WITHIN_S = 0.25  # a round trip, and what an acknowledgement may be delayed (TCP_DELACK_MAX)
_LOOK_AGAIN_S = 0.004
_MEMBARRIER_GLOBAL = 1
_MAX_FILTER_BYTES = 8192


def check(policy: str, leave: str) -> None:
    """Before anything is touched: raise where connections cannot be kept."""
    if policy not in POLICIES:
        raise ValueError(f"tcp must be one of {', '.join(POLICIES)}")
    if policy == "reset":
        return
    if leave != "killed":
        raise EngineError(
            "connections to outside can be kept only where the process ends with its image: one that goes on needs "
            "them itself",
            hint="ask for --leave killed, or leave out --tcp keep",
        )
    if not features.probe_one("tcp_repair").available:
        raise HostUnsupported(
            "keeping connections to outside (TCP_REPAIR) takes CAP_NET_ADMIN in the user namespace that owns this "
            "network namespace",
            hint="run as root there, or leave out --tcp keep: they are reset then",
        )


# --- a dump -----------------------------------------------------------------------------------------------------------


class _Held(msgspec.Struct):
    """A connection that keeps still: our duplicate, and what it was before."""

    index: int
    entry: TcpSocket
    fd: int
    program: bytes  # its own packet filter
    reuse: int

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[socket.socket]:
        with socket_options.borrowed(self.fd, self.entry.family, _STREAM) as s:
            yield s


class Keeping:
    """From `take` on connections keep still; when this is left with an error, they go on."""

    def __init__(self) -> None:
        self._held: list[_Held] = []
        self._guardian = Guardian({"connection": _let_go_on})

    def __enter__(self) -> Keeping:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for held in self._held:
            if kind is not None:
                _let_go_on(held.entry.family, held.program.hex(), held.reuse, [held.fd])
            os.close(held.fd)
        self._held.clear()
        self._guardian.dismiss()

    def __bool__(self) -> bool:
        return bool(self._held)

    def take(self, tables: CaptureTables) -> None:
        """Read every connection to outside, as late as can be, and let it keep still from then on."""
        found = list(_to_outside(tables))
        _await(found, lambda one: not _in_flight(one[1].own))
        elsewhere = _other_holders(tables) if found else {}
        for index, look, entry in found:
            if holder := elsewhere.get(look.stat.st_ino):
                _tell(look, entry, f"process {holder}, which is not of the tree, has it too", tables)
            else:
                self._hold(index, look, entry, tables)
        if self._held:
            _let_filters_work()
            _await(list(self._held), _is_acknowledged)
        for held in list(self._held):
            look = tables.looks[held.index]
            try:
                with held.borrowed() as s:
                    tcp_states.note(s, look.holder, held.entry)
                    if why := _unfit(s, held.entry):
                        raise OSError(why)
                    held.entry.repair = tcp_repair.read(s, held.entry)
            except (OSError, EngineError) as error:
                self._give_back(held)
                _tell(look, held.entry, str(error), tables)

    def silence(self) -> None:
        """The tree is about to be killed: its connections end with it, and nobody is told."""
        for held in self._held:
            with contextlib.suppress(OSError), held.borrowed() as s:  # reset meanwhile
                tcp_repair.begin(s)
        self._guardian.dismiss()

    def _hold(self, index: int, look: Look, entry: TcpSocket, tables: CaptureTables) -> None:
        with socket_options.borrowed(look.own, entry.family, _STREAM) as s:
            program = fds.socket_filter(look.own)
            reuse = s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            if s.getsockopt(socket.SOL_SOCKET, socket_options.SO_LOCK_FILTER) or len(program) > _MAX_FILTER_BYTES:
                _tell(look, entry, "its packet filter is locked, or too long", tables)
                return
            held = _Held(index, entry, os.dup(look.own), program, reuse)
            self._held.append(held)
            self._guardian.tell("connection", entry.family, program.hex(), reuse, fds=[held.fd])
            fds.attach_socket_filter(held.fd, tcp_repair.DROP_ALL)
            s.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)

    def _give_back(self, held: _Held) -> None:
        _let_go_on(held.entry.family, held.program.hex(), held.reuse, [held.fd])
        os.close(held.fd)
        self._held.remove(held)


def _let_go_on(family: int, program: str, reuse: int, ours: list[int]) -> None:
    """Undo whatever was done to a connection."""
    with socket_options.borrowed(ours[0], family, _STREAM) as s, contextlib.suppress(OSError):
        if tcp_repair.is_repaired(s):
            tcp_repair.end(s, reuse)
        if fds.socket_filter(ours[0]) == tcp_repair.DROP_ALL:
            s.setsockopt(socket.SOL_SOCKET, socket_options.SO_DETACH_FILTER, 0)
            if program:
                fds.attach_socket_filter(ours[0], bytes.fromhex(program))


def _to_outside(tables: CaptureTables) -> Iterator[tuple[int, Look, TcpSocket]]:
    for index, (look, entry) in enumerate(zip(tables.looks, tables.descriptions, strict=True)):
        if not isinstance(entry, TcpSocket) or entry.state not in tcp_repair.STATES:
            continue
        if entry.other == OTHER_OUTSIDE and entry.peer < 0 and entry.listener < 0:
            yield index, look, entry


def _unfit(s: socket.socket, entry: TcpSocket) -> str:
    if entry.state not in tcp_repair.STATES:
        return "the other end has just ended it"
    if entry.urgent >= 0:
        return "urgent data waits in it"
    return "" if inet.waiting(s) == len(entry.queue) else "what waits in it cannot be read"


def _tell(look: Look, entry: TcpSocket, why: str, tables: CaptureTables) -> None:
    tables.warnings.append(
        f"the connection of {look.holder} to {entry.peer_host} port {entry.peer_port} is not kept, a restored process "
        f"finds it reset: {why}"
    )


def _in_flight(fd: int) -> int:
    """Bytes (and a FIN) that were sent and not acknowledged."""
    waiting, unsent = (
        struct.unpack("<i", fcntl.ioctl(fd, what, bytes(4)))[0] for what in (linux.SIOCOUTQ, linux.SIOCOUTQNSD)
    )
    return int(waiting - unsent)


def _is_acknowledged(held: _Held) -> bool:
    with held.borrowed() as s, contextlib.suppress(OSError):
        return tcp_repair.owes_nothing(s)
    return True


def _await(every: Iterable[_T], is_done: Callable[[_T], object]) -> None:
    """Give all of these a moment; nothing announces it."""
    deadline = time.monotonic() + _ACKNOWLEDGED_WITHIN_S
    pending = [one for one in every if not is_done(one)]
    while pending and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN_S)
        pending = [one for one in pending if not is_done(one)]


def _let_filters_work() -> None:
    """Wait until no packet is on its way through the OS kernel that has passed before our filters were there."""
    try:
        libc.syscall("membarrier", _MEMBARRIER_GLOBAL, 0)
    except OSError:
        time.sleep(_LOOK_AGAIN_S)


def _other_holders(tables: CaptureTables) -> dict[int, int]:
    """Sockets that processes outside the tree hold, as far as we may see: inode → pid."""
    found: dict[int, int] = {}
    ours = {process.view for process in tables.processes.values()} | {*tables.processes, os.getpid()}
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) in ours:
            continue
        with contextlib.suppress(OSError):  # it ends, or is not ours to look at
            for number in os.listdir(f"/proc/{name}/fd"):
                link = os.readlink(f"/proc/{name}/fd/{number}")
                if link.startswith("socket:["):
                    found[int(link[8:-1])] = int(name)
    return found


# --- a restore --------------------------------------------------------------------------------------------------------


def rebuild(index: int, entry: TcpSocket, tables: RebuildTables) -> bool:
    """Put the connection into `tables.own`, still keeping still; False where it cannot be had, with a warning."""
    if entry.repair is None:
        return False
    try:
        tables.own[index] = tcp_repair.rebuild(entry, entry.repair)
    except OSError as error:
        why = "that takes CAP_NET_ADMIN (TCP_REPAIR)" if isinstance(error, PermissionError) else error.strerror or error
        tables.warn(
            f"the connection of {tables.who(index)} to {entry.peer_host} port {entry.peer_port} cannot go on, and is "
            f"reset: {why}"
        )
        return False
    _kept(tables).append(index)
    return True


def is_kept(index: int, tables: RebuildTables) -> bool:
    """Whether `rebuild` has it."""
    return index in _kept(tables)


def resume(tables: RebuildTables) -> None:
    """The last step before anything runs: a restore that fails earlier can be done again, nobody outside has heard."""
    for index in _kept(tables):
        entry = tables.descriptions[index]
        assert isinstance(entry, TcpSocket)
        assert entry.repair is not None
        with socket_options.borrowed(tables.own[index], entry.family, _STREAM) as s:
            try:
                tcp_repair.resume(s, entry, entry.repair)
                socket_options.restore(s, entry.family, _STREAM, entry.options, tables, tables.who(index))
            except (OSError, EngineError) as error:
                tables.warn(f"the connection of {tables.who(index)} to {entry.peer_host} could not go on: {error}")


def _kept(tables: RebuildTables) -> list[int]:
    kept: list[int] = tables.cache.setdefault("tcp kept", [])
    return kept
