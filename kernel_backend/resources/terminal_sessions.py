"""Sessions and the terminals that control them.

A terminal is known by its descriptors: the program's side, or, where nobody has that open, the controlling side.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from kernel_backend.host import proc
from kernel_backend.image.descriptions import OTHER_INSIDE, PtyMaster, Terminal, unpack_path
from kernel_backend.resources import tty_queues
from kernel_backend.resources.descriptors import CaptureTables, RebuildTables
from kernel_backend.resources.placing_fds import lend
from kernel_backend.tracee.inject import Call, Workshop

_TIOCSCTTY, _TIOCSPGRP, _TIOCNOTTY = 0x540E, 0x5410, 0x5422  # asm-generic/ioctls.h


def of_device(device: int, tables: CaptureTables) -> tuple[int, int]:
    """(session, foreground process group) which has the terminal as its controlling one, seen in our processes."""
    known: dict[int, tuple[int, int]] | None = tables.cache.get("controlling terminals")
    if known is None:
        known = tables.cache["controlling terminals"] = {}
        for pid in tables.processes:
            found = proc.stat(pid)
            if found.tty:
                number = found.tty & 0xFFFFFFFF
                major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
                known[os.makedev(major, minor)] = (found.sid, found.tpgid)
    return known.get(device, (0, 0))


def warn_unreachable(tables: CaptureTables) -> None:
    """Of sessions whose terminal no descriptor leads to any more: it is lost with their leader's life."""
    reached = {entry.session for entry in tables.descriptions if isinstance(entry, Terminal | PtyMaster)}
    for pid in tables.processes:
        found = proc.stat(pid)
        if found.tty and found.sid == found.pid and pid not in reached:
            tables.warnings.append(
                f"process {pid} controls a terminal that no descriptor leads to; a restored one controls none"
            )


# --- coming back ------------------------------------------------------------------------------------------------------


def take_early(pid: int, tables: RebuildTables, workshop: Workshop) -> None:
    """Let the leader of a session have its terminal before it forks anybody: others get it from their parents only.

    One of ours, that is: were we to fail with a real one, its end would hang that up.
    """
    terminals = [(i, entry) for i, entry in enumerate(tables.descriptions) if isinstance(entry, Terminal)]
    ours = (i for i, entry in terminals if entry.session == pid and entry.other == OTHER_INSIDE and not entry.hung_up)
    index = next(ours, -1)
    with ExitStack() as stack:
        if index >= 0:
            mine = tables.own[index]
        elif (master := _with_closed_side(pid, tables)) is not None:
            mine = stack.enter_context(_opened(master, tables))
        else:
            return
        (fd,) = lend(workshop, [mine])
        with contextlib.suppress(OSError):  # when it is tried again a failure is told
            _take(workshop, fd)
        workshop.call("close", fd)


def _with_closed_side(session: int, tables: RebuildTables) -> PtyMaster | None:
    """The terminal of a session whose program side nobody has open."""
    held = {entry.index for entry in tables.descriptions if isinstance(entry, Terminal)}
    masters = (entry for entry in tables.descriptions if isinstance(entry, PtyMaster) and not entry.locked)
    return next((entry for entry in masters if entry.session == session and entry.index not in held), None)


@contextmanager
def _opened(entry: PtyMaster, tables: RebuildTables) -> Iterator[int]:
    """The program's side of a rebuilt terminal, for the moment."""
    fd = tty_queues.open_slave(tables.cache["pty masters"][entry.index], os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


def control_closed(session: int, tables: RebuildTables, workshop: Workshop) -> None:
    """Tell, from inside a session's leader, who is in the foreground of a terminal that nobody of it has open."""
    if (entry := _with_closed_side(session, tables)) is None:
        return
    with _opened(entry, tables) as mine:
        (fd,) = lend(workshop, [mine])
        terminal = Terminal(
            path=f"/dev/pts/{entry.index}", device=0, session=session, foreground=entry.foreground or session
        )
        control(terminal, tables, workshop, fd)
        workshop.call("close", fd)


def _take(workshop: Workshop, fd: int) -> None:
    try:
        workshop.call("ioctl", fd, _TIOCSCTTY, 0)
    except PermissionError:  # in place: it has another one still
        _give_up_controlling(workshop)
        workshop.call("ioctl", fd, _TIOCSCTTY, 0)


def control(entry: Terminal, tables: RebuildTables, workshop: Workshop, fd: int) -> None:
    """From inside the session's leader: its controlling terminal and the foreground process group."""
    group = tables.pids.get(entry.foreground, entry.foreground)
    try:
        _take(workshop, fd)
        workshop.call("ioctl", fd, _TIOCSPGRP, workshop.put(struct.pack("<i", group)))
    except OSError as error:
        path = unpack_path(entry.path)
        tables.warn(f"{path} cannot control session {entry.session} again: {error.strerror}")


def _give_up_controlling(workshop: Workshop) -> None:
    """Let go of the present's controlling terminal, and of the signals that this brings."""
    old = workshop.call("open", workshop.put(b"/dev/tty\0"), os.O_RDWR | os.O_CLOEXEC)
    workshop.run([Call("ioctl", old, _TIOCNOTTY), Call("close", old)])
    mask = struct.pack("<QQQ", 1 << (signal.SIGHUP - 1) | 1 << (signal.SIGCONT - 1), 0, 0)
    address = workshop.put(mask)
    for _ in range(2):
        try:
            workshop.call("rt_sigtimedwait", address, 0, address + 8, 8)
        except BlockingIOError:
            return
