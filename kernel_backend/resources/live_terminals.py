"""Pseudo-terminals taken from the present process in a restore in place, so that they keep their number and name.

Until the point of no return the present uses the same terminal: nothing about it is changed before `rewind`, which runs
when the present is gone. One is taken only where this cannot hang it up: while we have it, some process must have its
other side open, and no process that ends may be the leader of the session that it controls.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import termios

from kernel_backend.image.descriptions import OTHER_INSIDE, PtyMaster, Terminal
from kernel_backend.resources import tty_queues
from kernel_backend.resources.descriptors import RebuildTables

_PTMX = os.makedev(5, 2)
_SLAVE_MAJOR = 136
_TIOCGPTN, _TIOCGPTLCK, _TIOCGSID, _TIOCPKT = 0x80045430, 0x80045439, 0x5429, 0x5420
_TAKEN = "terminals taken from the present"


def take(index: int, entry: PtyMaster, tables: RebuildTables) -> bool:
    """Let the controlling side be the present's, if it has the very same terminal."""
    if entry.hung_up or entry.locked or not tables.boot_id_same or not _fits_image(entry, tables):
        return False
    slave = present_slave(entry, tables)
    if slave < 0 or tty_queues.is_hung_up(slave):
        return False
    for fd in tables.live.values():
        if _device(fd) == _PTMX and _number(fd) == entry.index and _may_stay(fd, tables):
            tables.own[index] = os.dup(fd)
            tables.cache.setdefault(_TAKEN, {})[entry.index] = index
            return True
    return False


def present_slave(entry: PtyMaster | Terminal, tables: RebuildTables) -> int:
    """A descriptor of ours of the program's side, where the present has that; else -1."""
    device = os.makedev(_SLAVE_MAJOR, entry.index)
    slaves = [fd for fd in tables.live.values() if _device(fd) == device]
    return next((fd for fd in slaves if not tty_queues.is_hung_up(fd)), slaves[0] if slaves else -1)


def was_taken(entry: PtyMaster | Terminal, tables: RebuildTables) -> bool:
    """Whether a terminal is the present's, by either side."""
    return entry.index in tables.cache.get(_TAKEN, {})


def to_rewind(entry: PtyMaster | Terminal, tables: RebuildTables) -> int:
    """The description of a taken terminal whose state is still the present's; once. -1: nothing to do."""
    rewound: set[int] = tables.cache.setdefault("terminals rewound", set())
    if not was_taken(entry, tables) or entry.index in rewound:
        return -1
    rewound.add(entry.index)
    return int(tables.cache[_TAKEN][entry.index])


def empty(master: int, slave: int) -> None:
    """Throw away what the present left in it. `slave`: any descriptor of ours of the other side."""
    fcntl.ioctl(master, _TIOCPKT, struct.pack("<i", 0))
    fcntl.ioctl(slave, tty_queues.TIOCNXCL)
    tty_queues.let_flow(slave)
    fcntl.fcntl(master, fcntl.F_SETFL, fcntl.fcntl(master, fcntl.F_GETFL) | os.O_NONBLOCK)
    termios.tcflush(slave, termios.TCIOFLUSH)
    termios.tcflush(master, termios.TCIFLUSH)
    reader = tty_queues.open_slave(master, os.O_RDWR | os.O_NONBLOCK)
    try:
        tty_queues.drain(master)
        tty_queues.drain(reader)
    finally:
        os.close(reader)


def _fits_image(entry: PtyMaster, tables: RebuildTables) -> bool:
    """Whether the image has the other side, too, and the terminal controls no child's session."""
    others = [other for other in tables.descriptions if isinstance(other, Terminal) and other.index == entry.index]
    inside = [other for other in others if other.other == OTHER_INSIDE and not other.hung_up]
    return bool(inside) and all(other.session in (0, tables.root_pid) for other in others)


def _device(fd: int) -> int:
    found = os.fstat(fd)
    return found.st_rdev if stat.S_ISCHR(found.st_mode) else 0


def _number(fd: int) -> int:
    try:
        return int(struct.unpack("<i", fcntl.ioctl(fd, _TIOCGPTN, bytes(4)))[0])
    except OSError:
        return -1


def _may_stay(master: int, tables: RebuildTables) -> bool:
    """Whether the end of the present's children would leave it alone."""
    if tty_queues.is_hung_up(master) or tty_queues.word(master, _TIOCGPTLCK):
        return False
    return tty_queues.word(master, _TIOCGSID) in (0, tables.present_pid)
