"""POSIX message queues (mq_overview(7)).

A queue is no process's own: like a file it stays, with its messages, when its users end. So a restore looks for the
name first and makes the queue anew only where it is gone. Either way it gets the image's messages.

The OS kernel shows no message without taking it out. So the messages are received and sent again, the most urgent
first, which leaves every one where it was. That is done only while all who use the queue are frozen: where another
process has it open, or one of the tree is to be notified of the next message, the messages are left alone and a warning
says so. And it is done by a child of ours that nobody kills together with us, so that none is lost on the way.

A notification that starts a thread (SIGEV_THREAD) is a cookie that the OS kernel sends to a netlink socket of the
process, where a thread of the C library waits for it. It shows the cookie only by sending it, so the frozen process is
made to take its notification back, which sends it too, and to ask for it again.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from kernel_backend.abi import linux
from kernel_backend.errors import FileChanged, HostUnsupported, ResourceUnsupported
from kernel_backend.host import libc, messages
from kernel_backend.image.descriptions import (
    Description,
    MessageQueue,
    Notification,
    QueuedMessage,
    pack_path,
    unpack_path,
)
from kernel_backend.resources import contents, live_sockets, visits
from kernel_backend.resources.descriptors import (
    CaptureTables,
    Kind,
    Look,
    RebuildTables,
    restore_owner,
    set_status_flags,
)
from kernel_backend.tracee.inject import Workshop

_DELETED = " (deleted)"
_MOUNT = "/dev/mqueue/"
_SIGEV_BYTES = 64
_SIGEV_SIGNAL, _SIGEV_THREAD = 0, 2
_COOKIE_BYTES = 32  # NOTIFY_COOKIE_LEN, linux/mqueue.h; the last one says what has happened


class MessageQueueKind(Kind):
    """mq_open(3)."""

    entry = MessageQueue
    every_process = True  # a notification belongs to a process

    def matches(self, look: Look) -> bool:
        name = look.link.removeprefix(_MOUNT).removesuffix(_DELETED)
        by_name = name != look.link or look.link.rfind("/") == 0  # queues live in one flat folder
        return by_name and stat.S_ISREG(look.stat.st_mode) and messages.is_queue(look.own)

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        if visits.identity("ipc", look.process.view) != visits.here("ipc"):
            raise ResourceUnsupported(
                f"{look.holder} is a message queue of another IPC namespace",
                hint="run nbcr inside the same container", pid=look.process.pid, fd=look.fd,
            )  # fmt: skip
        facts = messages.facts(look.own)
        name = Path(look.link.removesuffix(_DELETED)).name
        return MessageQueue(
            name=pack_path(name), nameless=look.stat.st_nlink == 0, device=look.stat.st_dev, inode=look.stat.st_ino,
            mode=stat.S_IMODE(look.stat.st_mode), most_messages=facts.most_messages, most_bytes=facts.most_bytes,
            notification=_notification(look, facts),
        )  # fmt: skip

    def capture_links(self, index: int, look: Look, entry: MessageQueue, tables: CaptureTables) -> None:
        if index != tables.with_inode(*look.inode)[0]:
            return  # the messages are with the first description of the queue
        waiting = messages.facts(look.own).waiting
        others = _others(look, tables) if waiting else []
        if waiting and (others or entry.notification):
            why = f"process {others[0]} uses it too" if others else "its next message is to be announced"
            tables.warnings.append(
                f"{waiting} messages that wait in the queue /{unpack_path(entry.name)} are not in the image: {why}"
            )
        else:
            entry.messages = _look_through(look.own, entry) if waiting else []
            entry.complete = True

    def validate(self, index: int, entry: MessageQueue, tables: RebuildTables) -> None:
        there = -1 if entry.nameless else messages.open_queue(unpack_path(entry.name))
        if there < 0:
            return
        try:
            facts = messages.facts(there)
        finally:
            os.close(there)
        if (facts.most_messages, facts.most_bytes) != (entry.most_messages, entry.most_bytes):
            raise FileChanged(
                f"the message queue /{unpack_path(entry.name)}, which {tables.who(index)} had open, is another one now",
                hint="remove it (mq_unlink), then restart",
            )

    def rebuild(self, index: int, entry: MessageQueue, tables: RebuildTables) -> None:
        queues: dict[tuple[int, int], int] = tables.cache.setdefault("message queues", {})
        key = (entry.device, entry.inode)
        if key not in queues:
            queues[key] = _make(index, entry, tables)
            tables.to_close.append(queues[key])
        if entry.nameless:
            named = _openings(tables).pop(index, -1)
        else:
            named = messages.open_queue(unpack_path(entry.name), entry.flags & os.O_ACCMODE)
        fd = tables.own[index] = named if named >= 0 else contents.reopen(queues[key], entry.flags)
        set_status_flags(fd, entry.flags)

    def finish(
        self, index: int, entry: MessageQueue, tables: RebuildTables, workshop: Workshop, pid: int, fd: int
    ) -> None:
        """The present is gone: its messages make room for the image's."""
        filled: set[tuple[int, int]] = tables.cache.setdefault("filled message queues", set())
        key = (entry.device, entry.inode)
        if entry.complete and key not in filled:
            filled.add(key)
            queue = tables.cache["message queues"][key]
            list(_received(queue, entry.most_bytes))
            _send(queue, entry.messages)
        if entry.notification and entry.notification.pid == pid:
            _announce(entry, entry.notification, tables, workshop, fd)
        restore_owner(entry, tables, workshop, fd)


# --- capture ----------------------------------------------------------------------------------------------------------


def _notification(look: Look, facts: messages.Facts) -> Notification | None:
    """Who is to be told of the next message, where that is a process that has this descriptor."""
    if facts.notified_pid != look.process.pid:
        return None
    found = Notification(pid=facts.notified_pid, how=facts.notified_how, signo=facts.notified_signo)
    if found.how == _SIGEV_THREAD:
        found.socket, found.cookie = _thread_of(look)
    return found


def _thread_of(look: Look) -> tuple[int, bytes]:
    """(the netlink socket, the cookie) of a notification that starts a thread."""
    quiet = {}
    try:
        for number in look.process.sockets().values():
            own = look.process.take_fd(number)
            quiet[number] = socket.socket(fileno=own)
            if live_sockets.family_of(own) != socket.AF_NETLINK or _is_readable(quiet[number]):
                quiet.pop(number).close()
        found = _cookie(look, quiet) if quiet else None
    finally:
        for s in quiet.values():
            s.close()
    if found is None:
        raise ResourceUnsupported(
            f"{look.holder} is a message queue whose next message starts a thread (SIGEV_THREAD) by a socket that "
            "cannot be told",
            hint="take the notification back (mq_notify) and checkpoint again", pid=look.process.pid, fd=look.fd,
        )  # fmt: skip
    return found


def _cookie(look: Look, quiet: dict[int, socket.socket]) -> tuple[int, bytes] | None:
    """Have it sent to one of some sockets in which nothing waits, by their numbers."""
    with look.process.borrow() as borrowed:
        borrowed.call("mq_notify", look.fd, 0)
        for number, s in quiet.items():
            try:
                cookie = s.recv(_COOKIE_BYTES, socket.MSG_DONTWAIT)[: _COOKIE_BYTES - 1] + bytes(1)
            except BlockingIOError:
                continue
            event = borrowed.put(b"")
            borrowed.put(_event(event + _SIGEV_BYTES, number, _SIGEV_THREAD) + cookie)
            borrowed.call("mq_notify", look.fd, event)
            return number, cookie
    return None


def _is_readable(s: socket.socket) -> bool:
    try:
        s.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True  # an overrun, which is told once
    return True


def _event(value: int, signo: int, how: int) -> bytes:
    """struct sigevent."""
    return struct.pack("<QiiI", value, signo, how, 0).ljust(_SIGEV_BYTES, b"\0")


def _others(look: Look, tables: CaptureTables) -> list[int]:
    """Processes outside the tree that have the queue open, as far as we can see."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) not in tables.processes and int(process.name) != os.getpid():
            found += [int(process.name)] if _has_open(process, look) else []
    return found


def _has_open(process: Path, look: Look) -> bool:
    try:
        for number in os.listdir(process / "fd"):
            if os.readlink(process / "fd" / number) == look.link:
                there = os.stat(process / "fd" / number)
                if (there.st_dev, there.st_ino) == look.inode:
                    return True
    except OSError:
        return False  # another user's, or it has ended
    return False


def _look_through(fd: int, entry: MessageQueue) -> list[QueuedMessage]:
    """All messages, which afterwards are in the queue as they were."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    queue = contents.reopen(fd, os.O_RDWR | os.O_NONBLOCK)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        child = os.fork()
        if child == 0:
            _take_and_return(queue, entry.most_bytes, writing)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(queue)
        os.close(writing)
    with open(reading, "rb") as told:  # noqa: PTH123
        answer = told.read()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(5, f"the messages in /{unpack_path(entry.name)} could not be read")
    return msgspec.msgpack.decode(answer, type=list[QueuedMessage])


def _take_and_return(queue: int, most_bytes: int, writing: int) -> None:
    """The whole life of the child that looks through a queue; it is in nobody's process group but its own."""
    status = 1
    try:
        os.setsid()
        taken: list[QueuedMessage] = []
        try:
            taken += _received(queue, most_bytes)
        finally:
            _send(queue, taken)
        with open(writing, "wb") as answer:
            answer.write(msgspec.msgpack.encode(taken))
        status = 0
    finally:
        os._exit(status)


def _received(queue: int, most_bytes: int) -> Iterator[QueuedMessage]:
    """What is in a queue, taken out of it; the most urgent first, of those the oldest."""
    while True:
        try:
            priority, data = messages.receive(queue, most_bytes)
        except BlockingIOError:
            return
        yield QueuedMessage(priority=priority, data=data)


def _send(queue: int, taken: list[QueuedMessage]) -> None:
    for message in taken:
        messages.send(queue, message.priority, message.data)


# --- coming back ------------------------------------------------------------------------------------------------------


def _make(index: int, entry: MessageQueue, tables: RebuildTables) -> int:
    """Our descriptor of the queue: the one of that name, the present's without a name, or a new one."""
    name = unpack_path(entry.name)
    there = _presents(entry, tables) if entry.nameless else messages.open_queue(name)
    if there >= 0:
        return there
    made_as = f"nbcr-{os.urandom(6).hex()}" if entry.nameless else name
    try:
        fd = messages.create(made_as, entry.mode, entry.most_messages, entry.most_bytes)
    except OSError as error:
        raise HostUnsupported(
            f"the message queue /{name}, which {tables.who(index)} had open, cannot be made: {error.strerror}",
            hint="raise RLIMIT_MSGQUEUE and the limits in /proc/sys/fs/mqueue",
        ) from error
    if entry.nameless:
        _open_for_all(entry, made_as, tables)
        messages.unlink(made_as)
    else:
        tables.guardian.tell("queue", name)
    return fd


# While a queue has a name, or the present has it: what is opened by another way than mq_open(3) bears O_LARGEFILE.


def _open_for_all(entry: MessageQueue, made_as: str, tables: RebuildTables) -> None:
    for index, other in _all_of(entry, tables):
        with suppress(PermissionError):  # its mode forbids it: the other way has to do
            _openings(tables)[index] = messages.open_queue(made_as, other.flags & os.O_ACCMODE)


def _keep_for_all(entry: MessageQueue, live: Iterable[int], tables: RebuildTables) -> None:
    left: list[int] = []
    for fd in live:
        if not fcntl.fcntl(fd, fcntl.F_GETOWN) and not any(_is_same(fd, other) for other in left):
            left.append(fd)
    for index, other in _all_of(entry, tables):
        mode = other.flags & os.O_ACCMODE
        found = next((fd for fd in left if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == mode), None)
        if found is not None:
            left.remove(found)
            _openings(tables)[index] = os.dup(found)


def _all_of(entry: MessageQueue, tables: RebuildTables) -> Iterator[tuple[int, MessageQueue]]:
    for index, other in enumerate(tables.descriptions):
        if isinstance(other, MessageQueue) and (other.device, other.inode) == (entry.device, entry.inode):
            yield index, other


def _openings(tables: RebuildTables) -> dict[int, int]:
    """By index, descriptors that are opened for a description of a queue without a name."""
    openings: dict[int, int] = tables.cache.setdefault("openings of message queues", {})
    return openings


def _is_same(one: int, other: int) -> bool:
    return libc.kcmp(os.getpid(), os.getpid(), linux.KCMP_FILE, one, other) == 0


def _presents(entry: MessageQueue, tables: RebuildTables) -> int:
    """In place: the very same queue, -1 where there is none. There may be no room for another (RLIMIT_MSGQUEUE)."""
    live = [fd for fd in tables.live.values() if _is_of(fd, entry)] if tables.boot_id_same else []
    if not live:
        return -1
    _keep_for_all(entry, live, tables)
    return contents.reopen(live[0], os.O_RDWR | os.O_NONBLOCK)


def _is_of(live: int, entry: MessageQueue) -> bool:
    found = os.fstat(live)
    if (found.st_dev, found.st_ino, found.st_nlink) != (entry.device, entry.inode, 0) or not messages.is_queue(live):
        return False
    facts = messages.facts(live)
    return (facts.most_messages, facts.most_bytes) == (entry.most_messages, entry.most_bytes)


def _announce(entry: MessageQueue, wanted: Notification, tables: RebuildTables, workshop: Workshop, fd: int) -> None:
    """mq_notify(3), from inside: it is for the process that asks. What value goes with a signal nobody tells."""
    queue = f"/{unpack_path(entry.name)}"
    if wanted.how != _SIGEV_THREAD:
        workshop.call("mq_notify", fd, workshop.put(_event(0, wanted.signo, wanted.how)))
        if wanted.how == _SIGEV_SIGNAL:
            tables.warn(f"process {wanted.pid} is told of the next message in {queue}, but not which value")
        return
    cookie = workshop.put(wanted.cookie.ljust(_COOKIE_BYTES, b"\0"), _SIGEV_BYTES)
    workshop.call("mq_notify", fd, workshop.put(_event(cookie, wanted.socket, wanted.how)))


KINDS: list[Kind] = [MessageQueueKind()]
