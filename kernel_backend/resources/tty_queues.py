"""What waits inside a pseudo-terminal: typed and not read, printed and not fetched.

The OS kernel has no way to look at it without taking it away. It is taken as the very last thing before a tree is
killed. Of a tree that goes on it is taken and put back, where both sides are inside and so nobody can be reading; else
the image lacks it, and a warning says so.

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
from contextlib import contextmanager, suppress

from kernel_backend.host import fds
from kernel_backend.image.descriptions import PtyMaster, Terminal
from kernel_backend.resources.descriptors import CaptureTables, Look

TCGETS2, TCSETS2, TERMIOS2_BYTES = 0x802C542A, 0x402C542B, 44
TIOCGEXCL, TIOCEXCL, TIOCNXCL = 0x80045440, 0x540C, 0x540D
_TIOCGPTPEER, _TIOCPKT, _TCXONC = 0x5441, 0x5420, 0x540A
FLOWS, STOPPED, STOPPED_BY_KEY = 0, 1, 2  # output; the second by tcflow(3), the third by a control-S
_SETTINGS = struct.Struct("<4I")  # input, output, control and local flags, which struct termios2 begins with
_SPECIAL_CHARACTERS = 17  # the line discipline and its special characters, which follow
_CHARACTERS_AT = 17  # in struct termios2
_VEOF, _VSTOP, _VEOL, _VEOL2 = 4, 9, 11, 16
_WAIT_S = 1.0
_FOLLOWS_MS = 200
_PART_BYTES = 512  # written like this, most fits; what large parts leave free of the OS kernel's buffers is lost
_FULL_BYTES = 2048  # more than that waits to be fetched: then output may wait because of it
_MUCH_BYTES = 4000  # a side holds 4095 to be read; what is more waits behind
_MOST_LINES = 4096
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
    """Take the queues at the end, or take them and put them back, or say what is not captured."""
    if entry.packet and _has_news(look.own):
        tables.warnings.append(
            f"what the terminal at {look.holder} has to tell of flushing or flow control (TIOCPKT) is lost: it was not "
            "read in time"
        )
    if tables.ending:
        tables.last.append(lambda: _take_printed(look, entry) if entry.hung_up else _take(look, entry, tables))
        return
    inside = _inside(entry, tables)
    if entry.hung_up:
        _take_back_from_none(look, entry)
    elif inside >= 0 and not look.in_flight:
        _take_and_put_back(look, entry, inside, tables)
    elif waiting := word(look.own, termios.FIONREAD):
        tables.warnings.append(
            f"{waiting} bytes that wait in the terminal at {look.holder} are not captured, because the process goes on"
        )


def _take_and_put_back(look: Look, entry: PtyMaster, inside: int, tables: CaptureTables) -> None:
    master = look.own
    flow = flow_of(inside, master, entry, tables)
    flags = fcntl.fcntl(master, fcntl.F_GETFL)
    settings = fcntl.ioctl(inside, TCGETS2, bytes(TERMIOS2_BYTES))
    try:
        let_flow(inside)
        _take(look, entry, tables)
    finally:
        fcntl.ioctl(inside, TCSETS2, settings)
        with _slave(look, entry, tables) as slave:
            left = fill(master, entry, slave)
        stop_flow(master, inside, flow)
        fcntl.fcntl(master, fcntl.F_SETFL, flags)
        if entry.packet:
            fcntl.ioctl(master, _TIOCPKT, struct.pack("<i", 1))
    if left:
        tables.warnings.append(f"{left} bytes that waited in the terminal at {look.holder} found no room and are lost")


def _take_back_from_none(look: Look, entry: PtyMaster) -> None:
    """What was printed before the other side was closed: that is open for a moment, while nobody can see it."""
    flags = fcntl.fcntl(look.own, fcntl.F_GETFL)
    _take_printed(look, entry)
    fill(look.own, entry)
    fcntl.fcntl(look.own, fcntl.F_SETFL, flags)
    if entry.packet:
        fcntl.ioctl(look.own, _TIOCPKT, struct.pack("<i", 1))


def _has_news(master: int) -> bool:
    """Whether a control byte of packet mode waits to be read."""
    asked = select.poll()
    asked.register(master, select.POLLPRI)
    return any(events & select.POLLPRI for _, events in asked.poll(0))


def is_hung_up(fd: int) -> bool:
    """Whether the other side was closed."""
    asked = select.poll()
    asked.register(fd, 0)
    return any(events & select.POLLHUP for _, events in asked.poll(0))


def flow_of(slave: int, master: int, entry: PtyMaster, tables: CaptureTables) -> int:
    """Whether output is suspended, and how: FLOWS, STOPPED, STOPPED_BY_KEY.

    The OS kernel tells only that there is no room, which is so if much waits, too. tcflow(3) undoes only its like.
    """
    known: dict[int, int] = tables.cache.setdefault("flow of terminals", {})
    if entry.index not in known:
        known[entry.index] = FLOWS
        if not _has_room(slave) and word(master, termios.FIONREAD) < _FULL_BYTES:
            fcntl.ioctl(slave, _TCXONC, termios.TCOON)
            known[entry.index] = STOPPED if _has_room(slave) else STOPPED_BY_KEY
            stop_flow(master, slave, STOPPED if known[entry.index] == STOPPED else FLOWS)
    return known[entry.index]


def _has_room(fd: int) -> bool:
    asked = select.poll()
    asked.register(fd, select.POLLOUT)
    return bool(asked.poll(0))


def let_flow(slave: int) -> None:
    """Output goes on, however it was stopped: taking IXON off undoes a control-S."""
    fcntl.ioctl(slave, _TCXONC, termios.TCOON)
    raw = bytearray(fcntl.ioctl(slave, TCGETS2, bytes(TERMIOS2_BYTES)))
    for flags in (_SETTINGS.unpack_from(raw)[0] & ~termios.IXON, _SETTINGS.unpack_from(raw)[0]):
        struct.pack_into("<I", raw, 0, flags)
        fcntl.ioctl(slave, TCSETS2, bytes(raw))


def stop_flow(master: int, slave: int, flow: int) -> None:
    """Suspend output as it was; what `flow_of` has found."""
    if flow == STOPPED:
        fcntl.ioctl(slave, _TCXONC, termios.TCOOFF)
    elif flow == STOPPED_BY_KEY:
        special = fcntl.ioctl(slave, TCGETS2, bytes(TERMIOS2_BYTES))[_CHARACTERS_AT:]
        os.write(master, special[_VSTOP : _VSTOP + 1])
        deadline = time.monotonic() + _WAIT_S
        while _has_room(slave) and time.monotonic() < deadline:
            time.sleep(0.001)  # it is seen in the background


@contextmanager
def not_exclusive(slave: int) -> Iterator[None]:
    """A terminal that is exclusive (TIOCEXCL) can be opened in the block. `slave`: its program's side; -1: none."""
    exclusive = slave >= 0 and word(slave, TIOCGEXCL)
    if exclusive:
        fcntl.ioctl(slave, TIOCNXCL)
    try:
        yield
    finally:
        if exclusive:
            fcntl.ioctl(slave, TIOCEXCL)


@contextmanager
def _slave(look: Look, entry: PtyMaster, tables: CaptureTables) -> Iterator[int]:
    """The program's side, opened by us."""
    with not_exclusive(_inside(entry, tables)):
        slave = open_slave(look.own, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield slave
    finally:
        os.close(slave)


def _inside(entry: PtyMaster, tables: CaptureTables) -> int:
    """Our duplicate of a descriptor that the tree has of the program's side, -1: it has none."""
    for look, other in zip(tables.looks, tables.descriptions, strict=True):
        if isinstance(other, Terminal) and other.index == entry.index and not (look.in_flight or other.hung_up):
            return look.own
    return -1


def _take_printed(look: Look, entry: PtyMaster) -> None:
    fcntl.ioctl(look.own, _TIOCPKT, struct.pack("<i", 0))
    flags = fcntl.fcntl(look.own, fcntl.F_GETFL)
    fcntl.fcntl(look.own, fcntl.F_SETFL, flags | os.O_NONBLOCK)  # its user is about to end
    with suppress(OSError):  # EIO: the other side was closed
        for piece in _pieces(look.own):
            entry.printed += piece


def _take(look: Look, entry: PtyMaster, tables: CaptureTables) -> None:
    with _slave(look, entry, tables) as slave:
        _take_printed(look, entry)
        _take_typed(slave, entry)
        if _local_flags(slave) & termios.ICANON:
            _set_local_flags(slave, _local_flags(slave) & ~termios.ICANON)
            entry.typing = drain(slave)


def _take_typed(slave: int, entry: PtyMaster) -> None:
    """What waits to be read; in line mode line by line, of which one that was ended by a control-D shows no end."""
    in_lines = _local_flags(slave) & termios.ICANON
    special = fcntl.ioctl(slave, TCGETS2, bytes(TERMIOS2_BYTES))[_CHARACTERS_AT:]
    ends = {ord("\n"), special[_VEOL], special[_VEOL2]} if in_lines else set(range(256))
    for piece in _pieces(slave, most=_MOST_LINES if in_lines else 0):
        entry.typed += piece
        if not piece or piece[-1] not in ends:
            entry.ends.append(len(entry.typed))


def _pieces(fd: int, most: int = 0) -> Iterator[bytes]:
    """What can be read without waiting; an empty piece, of which there are `most`, is an end of file.

    What did not fit where it is read from follows as soon as there is room, in the background.
    """
    asked = select.poll()
    asked.register(fd, select.POLLIN)
    last = 0
    while True:
        if last >= _MUCH_BYTES:
            asked.poll(_FOLLOWS_MS)
        try:
            piece = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        if not piece and not most:
            return
        most -= not piece
        last = max(last, len(piece))
        yield piece


def drain(fd: int) -> bytes:
    """All that can be read without waiting."""
    return b"".join(_pieces(fd))


def _local_flags(fd: int) -> int:
    return int(_SETTINGS.unpack_from(fcntl.ioctl(fd, TCGETS2, bytes(TERMIOS2_BYTES)))[3])


def _set_local_flags(fd: int, flags: int) -> None:
    raw = bytearray(fcntl.ioctl(fd, TCGETS2, bytes(TERMIOS2_BYTES)))
    struct.pack_into("<I", raw, 12, flags)
    fcntl.ioctl(fd, TCSETS2, bytes(raw))


def fill(master: int, entry: PtyMaster, slave: int = -1) -> int:
    """Put the queues into an empty terminal, whose settings are in place already; how many bytes found no room.

    `slave`: the other side, if there is a descriptor of it that does not wait.
    """
    if not (entry.typed or entry.typing or entry.printed or entry.ends):
        return 0
    ours = open_slave(master, os.O_RDWR | os.O_NONBLOCK) if slave < 0 else -1
    slave = ours if slave < 0 else slave
    settings = fcntl.ioctl(slave, TCGETS2, bytes(TERMIOS2_BYTES))
    try:
        mark = _unused(entry.typed + entry.typing) if entry.ends else 0
        fcntl.ioctl(slave, TCSETS2, _passive(settings, mark))
        left = _write(slave, entry.printed)
        _await(master, len(entry.printed))
        left += _write(master, _marked(entry.typed, entry.ends, mark) + entry.typing)
        _await(slave, len(entry.typed))
        return left
    finally:
        fcntl.ioctl(slave, TCSETS2, settings)
        if ours >= 0:
            os.close(ours)


def _passive(settings: bytes, mark: int) -> bytes:
    """The same settings without anything that acts on characters, but for what ends a line. `mark`: an end of file."""
    raw = bytearray(settings)
    _, _, control, local = _SETTINGS.unpack_from(raw)
    _SETTINGS.pack_into(raw, 0, 0, 0, control, local & (termios.ICANON | termios.IEXTEN))
    special = raw[_CHARACTERS_AT : _CHARACTERS_AT + _SPECIAL_CHARACTERS]
    passive = bytearray(_SPECIAL_CHARACTERS)
    for at in (_VEOL, _VEOL2):
        passive[at] = special[at]
    passive[_VEOF] = mark
    raw[_CHARACTERS_AT : _CHARACTERS_AT + _SPECIAL_CHARACTERS] = passive
    return bytes(raw)


def _unused(data: bytes) -> int:
    """A character that is not in the data; 0 where every one is."""
    return next((c for c in range(1, 256) if c not in data and c != ord("\n")), 0)


def _marked(data: bytes, ends: list[int], mark: int) -> bytes:
    """The data with a mark at each of `ends`."""
    if not mark:
        return data
    starts = [0, *ends]
    return bytes([mark]).join([data[a:b] for a, b in zip(starts, [*ends, len(data)], strict=True)])


def _write(fd: int, data: bytes) -> int:
    """Without waiting for a reader: there was room for as much. How many bytes are left."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    deadline = time.monotonic() + _WAIT_S
    while data and time.monotonic() < deadline:
        try:
            data = data[os.write(fd, data[:_PART_BYTES]) :]
        except BlockingIOError:
            fds.is_ready(fd, events=select.POLLOUT, wait_ms=10)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    return len(data)


def _await(fd: int, size: int) -> None:
    """Wait until the OS kernel has moved `size` bytes to this side: it does so in the background."""
    deadline = time.monotonic() + _WAIT_S
    while word(fd, termios.FIONREAD) < min(size, _MUCH_BYTES) and time.monotonic() < deadline:
        fds.is_ready(fd, wait_ms=10)
