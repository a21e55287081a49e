"""Pseudo-terminals with both sides inside, terminals whose other side is a real one outside, and /dev/tty.

A new pseudo-terminal gets the lowest free number; the old one is had by taking further ones until its turn comes,
where it is free. In place it is the present's where that can be (live_terminals.py).

What a terminal has not delivered yet (typed and not read, printed and not fetched) is the work of tty_queues.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import termios

from kernel_backend.errors import ResourceUnsupported
from kernel_backend.image.descriptions import (
    OTHER_INSIDE,
    OTHER_OUTSIDE,
    ControllingTerminal,
    Description,
    PtyMaster,
    RegularFile,
    Terminal,
    Termios,
    pack_path,
    unpack_path,
)
from kernel_backend.resources import live_terminals, tty_queues
from kernel_backend.resources import terminal_sessions as sessions
from kernel_backend.resources.descriptors import (
    CaptureTables,
    Kind,
    Look,
    RebuildTables,
    open_flags,
    open_path,
    restore_owner,
    set_status_flags,
)
from kernel_backend.resources.pidfd import passed_on, replace_everywhere
from kernel_backend.tracee.inject import Workshop

# asm-generic/ioctls.h
_TCGETS2, _TCSETS2, _TERMIOS2_BYTES = 0x802C542A, 0x402C542B, 44
_TIOCGPTN, _TIOCSPTLCK, _TIOCGPTLCK, _TIOCGPKT = 0x80045430, 0x40045431, 0x80045439, 0x80045438
_TIOCPKT, _TIOCGETD = 0x5420, 0x5424
_TIOCGLCKTRMIOS, _TIOCSLCKTRMIOS, _TERMIOS_BYTES = 0x5456, 0x5457, 36
_UNLOCKED = bytes(_TERMIOS_BYTES)
_MAX_TRIES = 512

_PTMX = (5, 2)
_TTY = (5, 0)
_SLAVE_MAJOR = 136  # the minor number is that of the terminal, however high
_OTHER_MAJORS = (4, 5, 204, 229)  # consoles and serial lines


def _device(look: Look) -> tuple[int, int]:
    if not stat.S_ISCHR(look.stat.st_mode):
        return 0, 0
    return os.major(look.stat.st_rdev), os.minor(look.stat.st_rdev)


def _read_termios(fd: int) -> Termios | None:
    try:
        raw = fcntl.ioctl(fd, _TCGETS2, bytes(_TERMIOS2_BYTES))
        rows, columns, width, height = struct.unpack("<4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
        locked = fcntl.ioctl(fd, _TIOCGLCKTRMIOS, _UNLOCKED)
    except OSError:
        return None  # hung up
    return Termios(
        raw=raw, rows=rows, columns=columns, width_pixels=width, height_pixels=height,
        locked=locked if any(locked) else b"",
    )  # fmt: skip


def _write_termios(fd: int, wanted: Termios | None) -> None:
    if wanted is not None and len(wanted.raw) == _TERMIOS2_BYTES:
        _lock(fd, _UNLOCKED)
        fcntl.ioctl(fd, _TCSETS2, wanted.raw)
        size = struct.pack("<4H", wanted.rows, wanted.columns, wanted.width_pixels, wanted.height_pixels)
        fcntl.ioctl(fd, termios.TIOCSWINSZ, size)


def _lock(fd: int, locked: bytes) -> None:
    """Say what of a terminal's modes nobody may change; the OS kernel lets only CAP_SYS_ADMIN do so."""
    if fcntl.ioctl(fd, _TIOCGLCKTRMIOS, _UNLOCKED) != locked:
        fcntl.ioctl(fd, _TIOCSLCKTRMIOS, locked)


class PtyMasterKind(Kind):
    """The side that stands for the terminal itself."""

    entry = PtyMaster

    def matches(self, look: Look) -> bool:
        return _device(look) == _PTMX

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        fd = look.own
        index = tty_queues.word(fd, _TIOCGPTN)
        session, foreground = sessions.of_device(os.makedev(_SLAVE_MAJOR, index), tables)
        return PtyMaster(
            index=index,
            path=pack_path(look.link),
            locked=bool(tty_queues.word(fd, _TIOCGPTLCK)),
            packet=bool(tty_queues.word(fd, _TIOCGPKT)),
            hung_up=tty_queues.is_hung_up(fd),
            session=session,
            foreground=foreground,
            termios=_read_termios(fd),
        )

    def capture_links(self, index: int, look: Look, entry: PtyMaster, tables: CaptureTables) -> None:
        if not entry.locked:
            tty_queues.capture(look, entry, tables)

    def rebuild(self, index: int, entry: PtyMaster, tables: RebuildTables) -> None:
        masters: dict[int, int] = tables.cache.setdefault("pty masters", {})
        path = unpack_path(entry.path)
        if live_terminals.take(index, entry, tables):
            masters.setdefault(entry.index, tables.own[index])
            return
        fd = _new_master(path if path in ("/dev/ptmx", "/dev/pts/ptmx") else "/dev/ptmx", entry.index)
        tables.own[index] = fd
        masters.setdefault(entry.index, fd)
        number = tty_queues.word(fd, _TIOCGPTN)
        if number != entry.index:
            who = tables.who(index)
            tables.warn(f"/dev/pts/{entry.index} is in use; the terminal at {who} is /dev/pts/{number} now")
        _set_up(fd, entry)

    def settle(self, index: int, entry: PtyMaster, tables: RebuildTables) -> None:
        if not live_terminals.was_taken(entry, tables):
            _settle(index, entry, tables)

    def finish(
        self, index: int, entry: PtyMaster, tables: RebuildTables, workshop: Workshop, pid: int, fd: int
    ) -> None:
        _rewind(entry, tables)
        restore_owner(entry, tables, workshop, fd)


def _settle(index: int, entry: PtyMaster, tables: RebuildTables) -> None:
    """Fill a terminal. Packet mode (TIOCPKT) comes last: it would tell of all this."""
    master = tables.own[index]
    if left := tty_queues.fill(master, entry):
        tables.warn(f"{left} bytes that waited in the terminal at {tables.who(index)} found no room and are lost")
    for at, other in enumerate(tables.descriptions):
        whole = isinstance(other, Terminal) and other.index == entry.index and not other.hung_up
        if isinstance(other, Terminal) and whole and (other.stopped or other.stopped_by_key):
            how = tty_queues.STOPPED if other.stopped else tty_queues.STOPPED_BY_KEY
            tty_queues.stop_flow(master, tables.own[at], how)
            break
    set_status_flags(master, entry.flags)
    if entry.termios and len(entry.termios.locked) == _TERMIOS_BYTES:
        try:
            _lock(master, entry.termios.locked)
        except OSError as error:
            tables.warn(f"the modes of the terminal at {tables.who(index)} may be changed again: {error.strerror}")
    if entry.packet:
        fcntl.ioctl(master, _TIOCPKT, struct.pack("<i", 1))
    if entry.locked:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("<i", 1))


def _rewind(entry: PtyMaster | Terminal, tables: RebuildTables) -> None:
    """The present is gone: a terminal that was taken from it becomes the image's."""
    index = live_terminals.to_rewind(entry, tables)
    if index < 0:
        return
    master = tables.descriptions[index]
    assert isinstance(master, PtyMaster)
    every = enumerate(tables.descriptions)
    sides = [(i, other) for i, other in every if isinstance(other, Terminal) and other.index == master.index]
    slave = next(i for i, other in sides if not other.hung_up)
    live_terminals.empty(tables.own[index], tables.own[slave])
    _write_termios(tables.own[index], master.termios)
    _settle(index, master, tables)


def _new_master(path: str, wanted: int) -> int:
    """A master with the wanted number if that is free, else with any."""
    spare: list[int] = []
    try:
        while True:
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            number = tty_queues.word(fd, _TIOCGPTN)
            if number == wanted:
                return fd
            spare.append(fd)
            if number > wanted or len(spare) > _MAX_TRIES:
                return spare.pop(0)
    finally:
        for other in spare:
            os.close(other)


def _set_up(fd: int, entry: PtyMaster) -> None:
    fcntl.ioctl(fd, _TIOCSPTLCK, struct.pack("<i", 0))
    _write_termios(fd, entry.termios)
    if entry.hung_up:
        os.close(tty_queues.open_slave(fd, os.O_RDWR))


class TerminalKind(Kind):
    """The side a program has: of a pseudo-terminal, a console, a serial line."""

    entry = Terminal
    every_process = True  # one of them may be the leader of the session that it controls

    def matches(self, look: Look) -> bool:
        major, minor = _device(look)
        known = major == _SLAVE_MAJOR or major in _OTHER_MAJORS
        return known and (major, minor) not in (_PTMX, _TTY)

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        major, minor = _device(look)
        if major != _SLAVE_MAJOR and not os.isatty(look.own):
            raise ResourceUnsupported(
                f"{look.holder} is the device {look.link}, which cannot be captured",
                pid=look.process.pid, fd=look.fd, link=look.link,
            )  # fmt: skip
        if discipline := tty_queues.word(look.own, _TIOCGETD):
            raise ResourceUnsupported(
                f"{look.holder} is {look.link} with line discipline {discipline}, which cannot be captured",
                hint="set the usual one (TIOCSETD, N_TTY)", pid=look.process.pid, fd=look.fd, link=look.link,
            )  # fmt: skip
        session, foreground = sessions.of_device(look.stat.st_rdev, tables)
        return Terminal(
            path=pack_path(look.link.removesuffix(" (deleted)")),
            device=look.stat.st_rdev,
            index=minor if major == _SLAVE_MAJOR else -1,
            ctime_ns=look.stat.st_ctime_ns,
            uid=look.stat.st_uid,
            gid=look.stat.st_gid,
            mode=stat.S_IMODE(look.stat.st_mode),
            termios=_read_termios(look.own),
            exclusive=bool(tty_queues.word(look.own, tty_queues.TIOCGEXCL)),
            session=session,
            foreground=foreground,
            hung_up=major == _SLAVE_MAJOR and tty_queues.is_hung_up(look.own),
        )

    def capture_links(self, index: int, look: Look, entry: Terminal, tables: CaptureTables) -> None:
        if entry.index < 0 or entry.hung_up:
            return
        for other, master in zip(tables.looks, tables.descriptions, strict=True):
            if isinstance(master, PtyMaster) and master.index == entry.index:
                entry.other = OTHER_INSIDE
                if not other.in_flight:
                    flow = tty_queues.flow_of(look.own, other.own, master, tables)
                    entry.stopped, entry.stopped_by_key = flow == tty_queues.STOPPED, flow == tty_queues.STOPPED_BY_KEY

    def rebuild(self, index: int, entry: Terminal, tables: RebuildTables) -> None:
        if entry.hung_up:
            tables.own[index] = _hung_up_again(entry)
        elif entry.other == OTHER_OUTSIDE:
            tables.own[index] = _outside(index, entry, tables)
        else:
            _inside(index, entry, tables)

    def finish(self, index: int, entry: Terminal, tables: RebuildTables, workshop: Workshop, pid: int, fd: int) -> None:
        _rewind(entry, tables)
        if pid == entry.session:
            sessions.control(entry, tables, workshop, fd)
        if entry.exclusive and entry.other != OTHER_OUTSIDE:
            workshop.call("ioctl", fd, tty_queues.TIOCEXCL)  # last: nobody could open it again
        restore_owner(entry, tables, workshop, fd)


def _hung_up_again(entry: Terminal) -> int:
    """The program's side of a terminal whose controlling side is closed."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("<i", 0))
        return tty_queues.open_slave(master, open_flags(entry.flags))
    finally:
        os.close(master)


def _inside(index: int, entry: Terminal, tables: RebuildTables) -> None:
    """Open the program's side of the rebuilt master, which is built now if it was not yet."""
    masters: dict[int, int] = tables.cache.setdefault("pty masters", {})
    if entry.index not in masters:
        every = enumerate(tables.descriptions)
        at, master = next((i, m) for i, m in every if isinstance(m, PtyMaster) and m.index == entry.index)
        PtyMasterKind().rebuild(at, master, tables)
    taken = live_terminals.was_taken(entry, tables)
    with tty_queues.not_exclusive(live_terminals.present_slave(entry, tables) if taken else -1):
        fd = tables.own[index] = tty_queues.open_slave(masters[entry.index], open_flags(entry.flags))
    set_status_flags(fd, entry.flags)
    _dress(index, fd, entry, tables)


def _dress(index: int, fd: int, entry: Terminal, tables: RebuildTables) -> None:
    """Owner and mode, which grantpt(3) and login programs change."""
    found = os.fstat(fd)
    if entry.uid < 0 or (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (entry.uid, entry.gid, entry.mode):
        return
    try:
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
            os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
    except OSError as error:
        tables.warn(f"owner and mode of the terminal at {tables.who(index)} are not what they were: {error.strerror}")


def leads_inside(entry: RegularFile, tables: RebuildTables) -> bool:
    """Whether what is open with O_PATH is the file of a pseudo-terminal that will be rebuilt."""
    return stat.S_ISCHR(entry.mode) and _master_of(entry, tables) is not None


def _master_of(entry: RegularFile, tables: RebuildTables) -> tuple[int, PtyMaster] | None:
    number = unpack_path(entry.path).removeprefix("/dev/pts/")
    for index, other in enumerate(tables.descriptions):
        if isinstance(other, PtyMaster) and str(other.index) == number:
            return index, other
    return None


def open_by_path(entry: RegularFile, tables: RebuildTables) -> int:
    """It, under the number that it has now."""
    found = _master_of(entry, tables)
    assert found is not None
    index, master = found
    if index not in tables.own:
        PtyMasterKind().rebuild(index, master, tables)
    number = tty_queues.word(tables.own[index], _TIOCGPTN)
    return os.open(f"/dev/pts/{number}", open_flags(entry.flags) | os.O_CLOEXEC)


def _outside(index: int, entry: Terminal, tables: RebuildTables) -> int:
    """A real terminal: the present's, the very same one by path, or else our own standard stream."""
    number = tables.stdio_number(index)
    for fd in tables.live.values():
        found = os.fstat(fd)
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == entry.device:
            return os.dup(fd)
    if number in tables.live:
        return os.dup(tables.live[number])
    fd = _same_terminal(entry, tables)
    if fd >= 0:
        return fd
    if number < 0:
        tables.warn(f"{unpack_path(entry.path)}, the terminal of {tables.who(index)}, is gone")
    return tables.stdio_for(max(number, 0))


def _is_terminal(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) in (_SLAVE_MAJOR, *_OTHER_MAJORS)


def _same_terminal(entry: Terminal, tables: RebuildTables) -> int:
    """By path, when it still is the terminal that it was; -1 otherwise."""
    path = unpack_path(entry.path)
    try:
        found = os.lstat(path)
        same = _is_terminal(found) and found.st_rdev == entry.device
        ours = tables.boot_id_same and found.st_uid == os.geteuid()
        if not same or (os.major(found.st_rdev) == _SLAVE_MAJOR and not ours):
            return -1
        fd = open_path(path, entry.flags | os.O_NONBLOCK, _is_terminal)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.EIO, errno.ENXIO, errno.ENODEV, errno.EPERM):
            return -1
        raise
    set_status_flags(fd, entry.flags)
    return fd


class ControllingTerminalKind(Kind):
    """/dev/tty: opened again from inside, where the controlling terminal is known."""

    entry = ControllingTerminal
    every_process = True

    def matches(self, look: Look) -> bool:
        return _device(look) == _TTY

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        return ControllingTerminal()

    def rebuild(self, index: int, entry: ControllingTerminal, tables: RebuildTables) -> None:
        try:
            tables.own[index] = os.open("/dev/tty", open_flags(entry.flags) | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            tables.own[index] = tables.stdio_for(0)

    def finish(
        self, index: int, entry: ControllingTerminal, tables: RebuildTables, workshop: Workshop, pid: int, fd: int
    ) -> None:
        if passed_on(index, tables, workshop, pid):
            return
        try:
            made = workshop.call("open", workshop.put(b"/dev/tty\0"), open_flags(entry.flags))
        except OSError:
            tables.warn(f"process {pid} has no controlling terminal here; its /dev/tty is another terminal or none")
            return
        replace_everywhere(index, made, tables, workshop, pid)
        restore_owner(entry, tables, workshop, fd)


KINDS: list[Kind] = [PtyMasterKind(), TerminalKind(), ControllingTerminalKind()]
