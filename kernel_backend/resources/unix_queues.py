"""Receive queues of Unix sockets: peeked at when captured, filled by the other end when rebuilt.

Peeking takes nothing away. SO_PEEK_OFF lets a peek begin behind what was seen already; it is put back. A peek in a
stream ends behind the message that descriptors in flight belong to, and gives us duplicates of them; where that message
began it does not tell. So they travel with its last byte: whoever receives the message whole gets them, and whoever
reads what was sent before with a plain read(2) does not lose them.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported
from kernel_backend.image.descriptions import Message
from kernel_backend.resources import unix_credentials
from kernel_backend.resources.descriptors import CaptureTables, RebuildTables
from kernel_backend.resources.socket_options import SO_PEEK_OFF, enlarge_send_buffer
from kernel_backend.resources.unix_credentials import CREDENTIALS, SCM_CREDENTIALS

_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_CONTROL_BYTES = socket.CMSG_SPACE(4 * 253) + socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4)
_BUFFER_BYTES = 1 << 20
_MESSAGE_COST = 1280  # bytes that the OS kernel may count for a message besides its data


_Sender = tuple[int, int, int]  # pid, user, group; pid 0: not told


def _sender(control: Sequence[tuple[int, int, bytes]]) -> _Sender:
    """Who sent it, which the OS kernel tells where the receiver wants to know (SO_PASSCRED)."""
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, SCM_CREDENTIALS):
            pid, uid, gid = CREDENTIALS.unpack(data[: CREDENTIALS.size])
            return (pid, uid, gid) if pid > 0 else (0, 0, 0)
    return 0, 0, 0


def _rights(control: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % 4])
        elif level == socket.SOL_SOCKET and kind == 4:  # SCM_PIDFD
            _close(struct.unpack("<i", data[:4]))
    return list(found)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def peek(s: socket.socket, tables: CaptureTables, who: str, *, ended: bool) -> list[Message]:
    """All messages, without taking them; `ended`: nothing more will come, so an empty one means the end."""
    before = s.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF)
    s.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    try:
        if s.type == socket.SOCK_STREAM:
            return _peek_stream(s, tables, who)
        return _peek_packets(s, tables, ended)
    finally:
        s.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, before)


def _peek_packets(s: socket.socket, tables: CaptureTables, ended: bool) -> list[Message]:
    messages: list[Message] = []
    left = _waiting_bytes(s) if s.type == socket.SOCK_SEQPACKET else 0
    if (left or not ended) and begins_with_empty(s):
        s.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, -1)
        _, control, _, address = s.recvmsg(0, _CONTROL_BYTES, _PEEK)
        messages.append(_message(b"", _rights(control), tables, _sender(control), _as_bytes(address)))
        s.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    while True:
        try:
            data, control, _, address = s.recvmsg(_BUFFER_BYTES, _CONTROL_BYTES, _PEEK)
        except BlockingIOError:
            return messages
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            return messages
        rights = _rights(control)
        left -= len(data)
        if not data and not rights and ended and left <= 0 and s.type == socket.SOCK_SEQPACKET:
            return messages
        messages.append(_message(data, rights, tables, _sender(control), _as_bytes(address)))


def begins_with_empty(s: socket.socket) -> bool:
    """Whether the first message is one without data; at an offset (SO_PEEK_OFF) it will not be seen any more.

    Once somebody has peeked at an empty one, us included, a peek at an offset passes it over (net/core/datagram.c).
    """
    s.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, -1)
    try:
        return not s.recvmsg(1, 0, _PEEK)[0]
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return False
    finally:
        s.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)


def _waiting_bytes(s: socket.socket) -> int:
    return int(struct.unpack("<i", fcntl.ioctl(s.fileno(), linux.FIONREAD, bytes(4)))[0])


def _as_bytes(address: object) -> bytes:
    if isinstance(address, bytes):
        return address
    return address.encode(errors="surrogateescape") if isinstance(address, str) else b""


def _message(data: bytes, rights: list[int], tables: CaptureTables, sender: _Sender, address: bytes = b"") -> Message:
    pid, uid, gid = sender
    message = Message(data=data, address=address, rights=[-1] * len(rights), pid=pid, uid=uid, gid=gid)
    tables.in_flight += [(message, position, fd) for position, fd in enumerate(rights)]
    return message


def _refuse_urgent(s: socket.socket, who: str) -> None:
    """Where in the stream a byte of urgent data stands, a peek does not tell."""
    try:
        urgent = s.recv(1, _PEEK | socket.MSG_OOB)
    except OSError:  # there is none, or this OS kernel knows none
        return
    if urgent:
        raise ResourceUnsupported(
            f"urgent data (MSG_OOB) waits in the Unix socket at {who}", hint="let the program receive it, and try again"
        )


def _peek_stream(s: socket.socket, tables: CaptureTables, who: str) -> list[Message]:
    messages: list[Message] = []
    _refuse_urgent(s, who)
    size = _waiting_bytes(s)
    at = 0
    while at < size:  # not once more: at the end of the queue a receive takes the error that waits (ECONNRESET)
        s.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, at)
        try:
            data, control, _, _ = s.recvmsg(size + 1, _CONTROL_BYTES, _PEEK)
        except BlockingIOError:
            return messages
        if not data:
            return messages
        rights, sender = _rights(control), _sender(control)
        plain = data[:-1] if rights else data
        last = messages[-1] if messages else None
        if plain and last and not last.rights and (last.pid, last.uid, last.gid) == sender:
            last.data += plain
        elif plain:
            messages.append(_message(plain, [], tables, sender))
        if rights:
            messages.append(_message(data[-1:], rights, tables, sender))
        at += len(data)
    return messages


# --- filling ----------------------------------------------------------------------------------------------------------


def fill(sender: socket.socket, messages: Sequence[Message], tables: RebuildTables, who: str, to: bytes = b"") -> None:
    """Send a queue's messages from the other end (or, `to`, to a bound datagram socket); never waits."""
    size = sum(2 * len(message.data) + _MESSAGE_COST for message in messages)
    enlarge_send_buffer(sender, size)
    for message in messages:
        try:
            _send_as(sender, message, tables, who, to)
        except BlockingIOError as error:
            raise HostUnsupported(
                f"the queue of the socket at {who} ({size} bytes) does not fit into this host's socket buffers",
                hint="raise /proc/sys/net/core/wmem_max and /proc/sys/net/unix/max_dgram_qlen", errno=errno.EAGAIN,
            ) from error  # fmt: skip


def _send_as(sender: socket.socket, message: Message, tables: RebuildTables, who: str, to: bytes) -> None:
    """In the name of who had sent it, where we may: else it bears our name, which is told if anybody will see it."""
    rights = [tables.own[index] for index in message.rights]
    named = unix_credentials.of_sender(message, tables)
    try:
        _send(sender, message.data, named, rights, to)
    except (PermissionError, ProcessLookupError):
        _send(sender, message.data, [], rights, to)
        tables.warn(f"what waits at {who} names another process as its sender (SCM_CREDENTIALS)")


def _send(
    sender: socket.socket, data: bytes, named: list[tuple[int, int, bytes]], rights: list[int], to: bytes
) -> None:
    carried = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", rights).tobytes())] if rights else []
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    view = memoryview(data)
    while True:
        control = [*carried, *named]
        sent = sender.sendmsg([view], control, flags, to) if to else sender.sendmsg([view], control, flags)
        view, carried = view[sent:], []
        if not view:
            return
