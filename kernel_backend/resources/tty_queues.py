"""What waits inside a pseudo-terminal: typed and not read, printed and not fetched.

The OS kernel has no way to look at it without taking it away. It is taken as the very last thing before a tree is
killed; a tree that goes on keeps it, and the image lacks it.

Putting it back goes through the terminal's line discipline, which must not act on it a second time: echo, signals and
special characters are off meanwhile, and line mode as it will be, because changing that would join the lines.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kernel_backend.image.descriptions import PtyMaster, Terminal
from kernel_backend.resources.descriptors import CaptureTables, Look

TCGETS2, TCSETS2, TERMIOS2_BYTES = 0x802C542A, 0x402C542B, 44
TIOCGEXCL, TIOCEXCL, _TIOCNXCL = 0x80045440, 0x540C, 0x540D
_TIOCGPTPEER, _TIOCPKT = 0x5441, 0x5420
_SETTINGS = struct.Struct("<4I")  # input, output, control and local flags, which struct termios2 begins with
_SPECIAL_CHARACTERS = 17  # the line discipline and its special characters, which follow
_WAIT_S = 1.0
_READ_BYTES = 65536


def word(fd: int, request: int) -> int:
    """An ioctl that gives an integer; 0 where it is refused."""
    try:
        return int(struct.unpack("<i", fcntl.ioctl(fd, request, bytes(4)))[0])
    except OSError:
        return 0


def open_slave(master: int, flags: int) -> int:
    """The program's side, close-on-exec (which, given here, would stay visible in the description's flags)."""
    fd = fcntl.ioctl(master, _TIOCGPTPEER, (flags | os.O_NOCTTY) & ~os.O_CLOEXEC)
    os.set_inheritable(fd, False)
    return fd


def capture(look: Look, entry: PtyMaster, tables: CaptureTables) -> None:
    """Take the queues at the end, or say what is not captured."""
    if tables.ending:
        tables.last.append(lambda: _take_printed(look, entry) if entry.hung_up else _take(look, entry, tables))
        return
    waiting = word(look.own, termios.FIONREAD)
    if not entry.hung_up:  # opening the other side would change that
        with _slave(look, entry, tables) as slave:
            waiting += word(slave, termios.FIONREAD)
    if waiting:
        tables.warnings.append(
            f"{waiting} bytes that wait in the terminal at {look.holder} are not captured, because the process goes on"
        )


@contextmanager
def _slave(look: Look, entry: PtyMaster, tables: CaptureTables) -> Iterator[int]:
    """The program's side, opened by us; one that is exclusive (TIOCEXCL) is not, for this moment."""
    inside = _inside(entry, tables)
    exclusive = inside >= 0 and word(inside, TIOCGEXCL)
    if exclusive:
        fcntl.ioctl(inside, _TIOCNXCL)
    try:
        slave = open_slave(look.own, os.O_RDWR | os.O_NONBLOCK)
    finally:
        if exclusive:
            fcntl.ioctl(inside, TIOCEXCL)
    try:
        yield slave
    finally:
        os.close(slave)


def _inside(entry: PtyMaster, tables: CaptureTables) -> int:
    """Our duplicate of a descriptor that the tree has of the program's side, -1: it has none."""
    for look, other in zip(tables.looks, tables.descriptions, strict=True):
        if isinstance(other, Terminal) and other.index == entry.index and not look.in_flight:
            return look.own
    return -1


def _take_printed(look: Look, entry: PtyMaster) -> None:
    fcntl.ioctl(look.own, _TIOCPKT, struct.pack("<i", 0))
    waiting = word(look.own, termios.FIONREAD)
    if waiting:
        entry.printed = os.read(look.own, waiting)


def _take(look: Look, entry: PtyMaster, tables: CaptureTables) -> None:
    with _slave(look, entry, tables) as slave:
        _take_printed(look, entry)
        entry.typed = _drain(slave)
        if _local_flags(slave) & termios.ICANON:
            _set_local_flags(slave, _local_flags(slave) & ~termios.ICANON)
            entry.typing = _drain(slave)


def _drain(fd: int) -> bytes:
    found = b""
    while True:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return found
        if not data:
            return found
        found += data


def _local_flags(fd: int) -> int:
    return int(_SETTINGS.unpack_from(fcntl.ioctl(fd, TCGETS2, bytes(TERMIOS2_BYTES)))[3])


def _set_local_flags(fd: int, flags: int) -> None:
    raw = bytearray(fcntl.ioctl(fd, TCGETS2, bytes(TERMIOS2_BYTES)))
    struct.pack_into("<I", raw, 12, flags)
    fcntl.ioctl(fd, TCSETS2, bytes(raw))


def fill(master: int, entry: PtyMaster) -> None:
    """Put the queues into a new terminal, whose settings are in place already."""
    if not (entry.typed or entry.typing or entry.printed):
        return
    slave = open_slave(master, os.O_RDWR | os.O_NONBLOCK)
    settings = fcntl.ioctl(slave, TCGETS2, bytes(TERMIOS2_BYTES))
    try:
        fcntl.ioctl(slave, TCSETS2, _passive(settings))
        os.write(slave, entry.printed)
        _await(master, len(entry.printed))
        for part in (entry.typed, entry.typing):
            os.write(master, part)
        _await(slave, len(entry.typed))
    finally:
        fcntl.ioctl(slave, TCSETS2, settings)
        os.close(slave)


def _passive(settings: bytes) -> bytes:
    """The same settings without anything that acts on characters."""
    raw = bytearray(settings)
    _, _, control, local = _SETTINGS.unpack_from(raw)
    _SETTINGS.pack_into(raw, 0, 0, 0, control, local & termios.ICANON)
    raw[_SETTINGS.size + 1 : _SETTINGS.size + 1 + _SPECIAL_CHARACTERS] = bytes(_SPECIAL_CHARACTERS)
    return bytes(raw)


def _await(fd: int, size: int) -> None:
    """Wait until the OS kernel has moved `size` bytes to this side: it does so in the background."""
    deadline = time.monotonic() + _WAIT_S
    while word(fd, termios.FIONREAD) < size and time.monotonic() < deadline:
        select.select([fd], [], [], 0.01)
