from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kernel_backend.errors import HostUnsupported, ResourceUnsupported
from kernel_backend.host import fds
from kernel_backend.host.libc import pidfd_getfd
from kernel_backend.image.descriptions import TcpSocket, UnixSocket
from tests.support import needs
from tests.unit.kernel_backend.resources.carry import Carry, Rebuilt, capture, holding, rebuilding

_PAIR = "a, b = socket.socketpair(socket.AF_UNIX, socket.{kind})\nos.dup2(a.fileno(), 100); os.dup2(b.fileno(), 101)\n"
_CLOSE = "\na.close(); b.close()"


def sock(rebuilt: Rebuilt, fd: int) -> socket.socket:
    """A socket object of its own for a rebuilt descriptor."""
    found = socket.socket(fileno=os.dup(rebuilt[fd]))
    found.setblocking(False)
    return found


# --- Unix -------------------------------------------------------------------------------------------------------------


def test_a_stream_pair_with_queues_both_ways(carry: Carry) -> None:
    rebuilt = carry(_PAIR.format(kind="SOCK_STREAM") + "a.send(b'to b'); b.send(b'x' * 150000)")
    with sock(rebuilt, 100) as a, sock(rebuilt, 101) as b:
        assert b.recv(99) == b"to b"
        assert len(a.recv(1 << 20, socket.MSG_WAITALL)) == 150000
        a.send(b"on")
        assert b.recv(99) == b"on"


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_SEQPACKET"])
def test_messages_keep_their_bounds(carry: Carry, kind: str) -> None:
    rebuilt = carry(_PAIR.format(kind=kind) + "[a.send(b'x' * n) for n in (3, 1, 5)]")
    with sock(rebuilt, 101) as b:
        assert [len(b.recv(99)) for _ in range(3)] == [3, 1, 5]


def test_capturing_disturbs_no_queue(tmp_path: Path) -> None:
    code = _PAIR.format(kind="SOCK_STREAM") + (
        "r, w = os.pipe(); a.send(b'one'); socket.send_fds(a, [b'two'], [r]); a.send(b'three')\n"
        "a.setsockopt(socket.SOL_SOCKET, 42, 2)"
    )
    with holding(code) as held:
        for _ in range(2):
            found = capture(held.pid, tmp_path)
            entry = found.at(101)
            assert isinstance(entry, UnixSocket)
            assert [message.data for message in entry.queue] == [b"onetw", b"o", b"three"]
            assert [len(message.rights) for message in entry.queue] == [0, 1, 0], "with the last byte of their message"
            peer = found.at(100)
            assert isinstance(peer, UnixSocket)
            assert (1, 42, struct.pack("<i", 2)) in [(o.level, o.name, o.value) for o in peer.options]


def test_a_tcp_stream_that_is_peeked_into_from_an_offset(tmp_path: Path) -> None:
    """It is in the image from its beginning, and the offset stands where it stood."""
    code = (
        "door = socket.create_server(('127.0.0.1', 0)); b = socket.create_connection(door.getsockname())\n"
        "a, _ = door.accept(); b.send(b'onetwothree'); a.recv(1, socket.MSG_PEEK)\n"
        "os.dup2(a.fileno(), 100); os.dup2(b.fileno(), 101)\n"
        "a.setsockopt(socket.SOL_SOCKET, 42, 3)"
    )
    if not can_peek_from_an_offset():
        needs("OS kernel 6.9, where streams over TCP know SO_PEEK_OFF")
    with holding(code) as held:
        for _ in range(2):
            entry = capture(held.pid, tmp_path).at(100)
            assert isinstance(entry, TcpSocket)
            assert entry.queue == b"onetwothree"
            assert (1, 42, struct.pack("<i", 3)) in [(o.level, o.name, o.value) for o in entry.options]


def can_peek_from_an_offset() -> bool:
    with socket.socket() as s:
        try:
            s.setsockopt(socket.SOL_SOCKET, 42, 0)
        except OSError:
            return False
    return True


def test_descriptors_in_flight_arrive_with_their_byte(carry: Carry) -> None:
    rebuilt = carry(
        _PAIR.format(kind="SOCK_STREAM") + "r, w = os.pipe(); os.write(w, b'inside')\n"
        "a.send(b'head'); socket.send_fds(a, [b'!'], [r, w]); os.dup2(w, 102); os.close(r); os.close(w)"
    )
    with sock(rebuilt, 101) as b:
        assert b.recv(4) == b"head"
        data, fds, _, _ = socket.recv_fds(b, 1, 4)
    assert data == b"!"
    assert os.read(fds[0], 99) == b"inside"
    os.write(rebuilt[102], b"more")
    assert os.read(fds[0], 99) == b"more", "the one in flight and the one in the table are one pipe"
    for fd in fds:
        os.close(fd)


def test_a_socket_in_flight_through_itself(carry: Carry) -> None:
    rebuilt = carry(_PAIR.format(kind="SOCK_DGRAM") + "socket.send_fds(a, [b'.'], [b.fileno(), a.fileno()])")
    with sock(rebuilt, 101) as b:
        _, fds, _, _ = socket.recv_fds(b, 1, 4)
        assert os.fstat(fds[0]).st_ino == os.fstat(rebuilt[101]).st_ino
    for fd in fds:
        os.close(fd)


def test_half_closed_and_closed_ends(carry: Carry) -> None:
    rebuilt = carry(
        _PAIR.format(kind="SOCK_STREAM") + "a.send(b'last'); a.shutdown(socket.SHUT_WR)\n"
        "c, d = socket.socketpair(); d.send(b'left'); d.close(); os.dup2(c.fileno(), 102)"
    )
    with sock(rebuilt, 100) as a, sock(rebuilt, 101) as b, sock(rebuilt, 102) as c:
        assert (b.recv(9), b.recv(9)) == (b"last", b"")
        b.send(b"back")
        assert a.recv(9) == b"back"
        assert (c.recv(9), c.recv(9)) == (b"left", b"")
        with pytest.raises(BrokenPipeError):
            a.send(b"x")


def test_options_come_back(carry: Carry) -> None:
    rebuilt = carry(
        _PAIR.format(kind="SOCK_STREAM") + "a.setsockopt(1, socket.SO_SNDBUF, 30000)\n"
        "a.setsockopt(1, socket.SO_PASSCRED, 1); a.setsockopt(1, socket.SO_RCVTIMEO, struct.pack('ll', 3, 0))\n"
        "b.send(b'q' * 1000)"
    )
    with sock(rebuilt, 100) as a, sock(rebuilt, 101) as b:
        assert a.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 60000
        assert a.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == 1
        assert struct.unpack("ll", a.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))[0] == 3
        with socket.socket(socket.AF_UNIX) as fresh:
            usual = fresh.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert b.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == usual, "as before it was filled"


def test_names_backlog_and_accepted_connections(carry: Carry, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    rebuilt = carry(
        "l = socket.socket(socket.AF_UNIX); l.bind(sys.argv[1]); l.listen(7)\n"
        "c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[1]); s, _ = l.accept(); s.send(b'hello')\n"
        "w = socket.socket(socket.AF_UNIX); w.connect(sys.argv[1]); w.send(b'early')\n"
        "[os.dup2(x.fileno(), 100 + i) for i, x in enumerate([l, c, s, w])]", path)  # fmt: skip
    with sock(rebuilt, 100) as door, sock(rebuilt, 101) as client, sock(rebuilt, 102) as server:
        assert client.recv(9) == b"hello"
        assert client.getpeername() == server.getsockname() == str(path)
        accepted = door.accept()[0]
        assert accepted.recv(9) == b"early", "read as the last thing before the process was killed"
        with socket.socket(socket.AF_UNIX) as fresh:
            fresh.connect(str(path))
            door.accept()[0].close()
        accepted.close()


def test_early_data_of_a_process_that_goes_on_is_warned_of(carry: Carry, tmp_path: Path) -> None:
    rebuilt = carry(
        "l = socket.socket(socket.AF_UNIX); l.bind(sys.argv[1]); l.listen(7)\n"
        "w = socket.socket(socket.AF_UNIX); w.connect(sys.argv[1]); w.send(b'early'); os.dup2(w.fileno(), 100)",
        tmp_path / "sock", ending=False,
    )  # fmt: skip
    assert any("not accepted yet" in warning for warning in rebuilt.captured.warnings)
    with sock(rebuilt, 100) as client:
        assert client.recv(9) == b""


def test_an_unconnected_datagram_socket_with_its_queue(carry: Carry) -> None:
    rebuilt = carry(
        "r = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); r.bind(b'\\0nbcr-r-%d' % os.getpid())\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(b'\\0nbcr-s-%d' % os.getpid())\n"
        "s.connect(r.getsockname()); s.send(b'one'); s.send(b'two')\n"
        "os.dup2(r.fileno(), 100); os.dup2(s.fileno(), 101)")  # fmt: skip
    with sock(rebuilt, 100) as r, sock(rebuilt, 101) as s:
        assert r.recvfrom(9) == (b"one", s.getsockname())
        assert r.recv(9) == b"two"
        s.send(b"three")
        assert r.recv(9) == b"three"


def test_a_name_in_use_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    code = "l = socket.socket(socket.AF_UNIX); l.bind(sys.argv[1]); l.listen(7)"
    with holding(code, tmp_path / "sock") as held:
        captured = capture(held.pid, tmp_path)
        with pytest.raises(HostUnsupported, match="in use by another process"), rebuilding(captured):
            pass


def test_a_name_that_a_dead_process_had_is_free(tmp_path: Path) -> None:
    """Its socket is on its way through sockets that are on their way themselves: the OS kernel has to look for it."""
    code = (
        "l = socket.socket(socket.AF_UNIX); l.bind('\\0' + sys.argv[1]); l.listen(7); a, b = socket.socketpair()\n"
        "rights = array.array('i', [l.fileno(), a.fileno(), b.fileno()])\n"
        "for s in a, b: s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])"
    )
    with holding(code, tmp_path.name) as held:
        captured = capture(held.pid, tmp_path)
        held.kill()
        with rebuilding(captured):
            pass


# --- TCP and UDP ------------------------------------------------------------------------------------------------------

_TCP = (
    "l = socket.create_server((sys.argv[1], 0), family={family}); c = socket.socket({family})\n"
    "c.connect(l.getsockname()); s, _ = l.accept(); [os.dup2(x.fileno(), 100 + i) for i, x in enumerate([l, c, s])]\n"
)


@pytest.mark.parametrize(("family", "host"), [("socket.AF_INET", "127.0.0.1"), ("socket.AF_INET6", "::1")])
def test_a_connection_inside_with_queues_and_addresses(carry: Carry, family: str, host: str) -> None:
    rebuilt = carry(
        _TCP.format(family=family) + "c.send(b'request'); s.send(b'x' * 100000)\n"
        "c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)", host)  # fmt: skip
    before = rebuilt.captured.at(101)
    assert isinstance(before, TcpSocket)
    with sock(rebuilt, 100) as door, sock(rebuilt, 101) as client, sock(rebuilt, 102) as server:
        assert server.recv(99) == b"request"
        client.setblocking(True)
        assert len(client.recv(100000, socket.MSG_WAITALL)) == 100000
        assert client.getsockname()[:2] == (before.host, before.port)
        assert client.getpeername() == server.getsockname() == door.getsockname()
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with socket.create_connection(door.getsockname()[:2]):
            door.setblocking(True)
            door.accept()[0].close()


def test_a_connection_that_was_not_accepted_yet(carry: Carry) -> None:
    rebuilt = carry(
        "l = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(l.getsockname()); c.send(b'early')\n"
        "os.dup2(l.fileno(), 100); os.dup2(c.fileno(), 101)")  # fmt: skip
    with sock(rebuilt, 100) as door:
        server, _ = door.accept()
        server.setblocking(True)
        assert server.recv(9) == b"early"
        server.close()


def test_a_connection_that_is_being_made(tmp_path: Path) -> None:
    """It is made anew, here when there is room in the backlog."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as door, socket.socket() as filling:
        filling.connect(door.getsockname())
        code = (
            "import select, time; c = socket.socket(); c.setblocking(False); c.setsockopt(socket.IPPROTO_TCP, 1, 1)\n"
            f"c.connect_ex({door.getsockname()!r}); os.dup2(c.fileno(), 100); time.sleep(.01)"
        )
        with holding(code) as held:
            captured = capture(held.pid, tmp_path)
            entry = captured.at(100)
            assert isinstance(entry, TcpSocket)
            if entry.state != 2:
                needs("a backlog that can be filled")
            assert (entry.peer_host, entry.peer_port) == door.getsockname()
            held.kill()
            door.accept()[0].close()
            with rebuilding(captured) as rebuilt, sock(rebuilt, 100) as client:
                accepted, _ = door.accept()
                with accepted:
                    accepted.sendall(b"at last")
                    assert fds.is_ready(client.fileno(), wait_ms=2000)
                    assert client.recv(9) == b"at last"
                    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_had_come_before_a_reset(carry: Carry) -> None:
    rebuilt = carry(
        _TCP.format(family="socket.AF_INET") + "c.send(b'last words'); import time; time.sleep(.01)\n"
        "c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); c.close(); os.close(101)",
        "127.0.0.1",
    )
    with sock(rebuilt, 102) as server:
        assert server.recv(99) == b"last words"
        with pytest.raises(ConnectionResetError):
            server.recv(99)


def test_half_closed_connections(carry: Carry) -> None:
    rebuilt = carry(_TCP.format(family="socket.AF_INET") + "c.send(b'last'); c.shutdown(socket.SHUT_WR)", "127.0.0.1")
    with sock(rebuilt, 101) as client, sock(rebuilt, 102) as server:
        server.setblocking(True)
        assert (server.recv(9), server.recv(9)) == (b"last", b"")
        server.send(b"back")
        client.setblocking(True)
        assert client.recv(9) == b"back"


def test_a_connection_to_outside_is_reset(carry: Carry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        rebuilt = carry(
            "c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); os.dup2(c.fileno(), 100)",
            door.getsockname()[1],
        )
        with sock(rebuilt, 100) as client, pytest.raises(ConnectionResetError):
            client.recv(9)


def test_what_an_ended_peer_had_sent_is_still_read(carry: Carry) -> None:
    rebuilt = carry(
        "l = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(l.getsockname())\n"
        "s, _ = l.accept(); s.send(b'answer'); s.close(); os.dup2(c.fileno(), 100)")  # fmt: skip
    with sock(rebuilt, 100) as client:
        client.setblocking(True)
        assert (client.recv(9), client.recv(9)) == (b"answer", b"")


def test_a_port_in_use_names_who_has_it(tmp_path: Path) -> None:
    with holding("l = socket.create_server(('127.0.0.1', 0)); os.dup2(l.fileno(), 100)") as held:
        captured = capture(held.pid, tmp_path)
        entry = captured.at(100)
        assert isinstance(entry, TcpSocket)
        who = rf"127.0.0.1:{entry.port}.*in use by process {held.pid} "
        with pytest.raises(HostUnsupported, match=who), rebuilding(captured):
            pass


def test_in_place_a_listener_keeps_its_backlog(tmp_path: Path) -> None:
    code = "l = socket.create_server(('127.0.0.1', 0)); os.dup2(l.fileno(), 100); os.set_blocking(100, False)"
    with holding(code) as held:
        captured = capture(held.pid, tmp_path)
        entry = captured.at(100)
        assert isinstance(entry, TcpSocket)
        pidfd = os.pidfd_open(held.pid)
        live = pidfd_getfd(pidfd, 100)
        with (
            socket.create_connection((entry.host, entry.port)),
            rebuilding(captured, live={100: live}, same_place=True) as rebuilt,
            sock(rebuilt, 100) as door,
        ):
            door.accept()[0].close()
        os.close(live)
        os.close(pidfd)


def test_in_place_of_another_process_a_busy_port_is_replaced(tmp_path: Path) -> None:
    with holding("l = socket.create_server(('127.0.0.1', 0)); os.dup2(l.fileno(), 100)") as held:
        captured = capture(held.pid, tmp_path)
        with rebuilding(captured, live={0: 0}) as rebuilt, sock(rebuilt, 100) as door:
            assert door.getsockname()[1]
            assert any("listens on port" in warning for warning in rebuilt.warnings)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_with_their_senders(carry: Carry, host: str) -> None:
    rebuilt = carry(
        "f = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET\n"
        "r, s = (socket.socket(f, socket.SOCK_DGRAM) for _ in 'ab')\n"
        "r.bind((sys.argv[1], 0)); s.bind((sys.argv[1], 0))\n"
        "s.connect(r.getsockname()); s.send(b'one'); s.send(b''); s.send(b'three')\n"
        "os.dup2(r.fileno(), 100); os.dup2(s.fileno(), 101)", host)  # fmt: skip
    with sock(rebuilt, 100) as r, sock(rebuilt, 101) as s:
        assert r.recvfrom(9) == (b"one", s.getsockname())
        assert [r.recv(9), r.recv(9)] == [b"", b"three"]
        assert s.getpeername() == r.getsockname()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("socket.socket(40, socket.SOCK_STREAM, 0)", "vsock"),
        ("socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.listen()", "Multipath TCP, in use"),
    ],
)
def test_other_families_are_refused_by_name(tmp_path: Path, code: str, name: str) -> None:
    code = f"try:\n    s = {code}\nexcept OSError: print('not here', flush=True)\n"
    try:
        with holding(code) as held, pytest.raises(ResourceUnsupported, match=rf"descriptor 3 .*\({name}\)"):
            capture(held.pid, tmp_path)
    except AssertionError:
        needs(f"{name} sockets")


def test_an_error_that_waits_is_left_to_the_program(tmp_path: Path) -> None:
    """UDP-Lite, connected to where nobody is: the OS kernel tells that once."""
    code = (
        "a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136); a.bind(('127.0.0.1', 0))\n"
        "b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136); b.connect(a.getsockname())\n"
        "a.close(); b.send(b'?')"
    )
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136).close()
    except OSError:
        needs("UDP-Lite")
    with holding(code) as held:
        warnings = capture(held.pid, tmp_path).warnings
        with theirs(held.pid, 4) as b:
            assert b.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        assert any("an error waits" in warning for warning in warnings)


# --- packet sockets ---------------------------------------------------------------------------------------------------

_BOUND = "s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0); s.bind((sys.argv[1], 0x88B5))\n"


@contextmanager
def theirs(pid: int, fd: int) -> Iterator[socket.socket]:
    """A socket of a living process."""
    pidfd = os.pidfd_open(pid)
    try:
        with socket.socket(fileno=pidfd_getfd(pidfd, fd)) as found:
            yield found
    finally:
        os.close(pidfd)


@contextmanager
def network_device() -> Iterator[str]:
    """One that is down."""
    try:
        made = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        needs("/dev/net/tun and CAP_NET_ADMIN")
    try:
        wanted = struct.pack("<16sH22x", b"nbcr%d", 0x1002)  # IFF_TAP, IFF_NO_PI
        yield fcntl.ioctl(made, 0x400454CA, wanted)[:16].rstrip(b"\0").decode()
    finally:
        os.close(made)


def test_frames_that_wait_stay_with_the_program_and_are_told(tmp_path: Path) -> None:
    needs("CAP_NET_RAW", available=os.geteuid() == 0)
    code = _BOUND + "s.sendto(b'frame', ('lo', 0x88B5)); select.select([s], [], [])"
    with holding(code, "lo") as held:
        for _ in range(2):
            captured = capture(held.pid, tmp_path)
            assert captured.warnings == [
                f"what waits in the socket at descriptor 3 of process {held.pid} (packet) is not captured"
            ]
        with theirs(held.pid, 3) as s:
            assert s.recv(99, socket.MSG_DONTWAIT) == b"frame"
    with rebuilding(captured) as rebuilt, sock(rebuilt, 3) as s, pytest.raises(BlockingIOError):
        assert s.recv(99)


def test_a_packet_socket_of_a_device_that_is_down(tmp_path: Path) -> None:
    needs("CAP_NET_RAW", available=os.geteuid() == 0)
    with network_device() as device, holding(_BOUND, device) as held:
        captured = capture(held.pid, tmp_path)
        assert any("an error waits" in warning for warning in captured.warnings)
        with theirs(held.pid, 3) as s:
            assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENETDOWN, "the program is not told"
        with rebuilding(captured) as rebuilt, sock(rebuilt, 3) as s:
            assert s.getsockname()[:2] == (device, 0x88B5)
            assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_packet_socket_whose_device_is_gone_hears_no_other(tmp_path: Path, when: str) -> None:
    needs("CAP_NET_RAW", available=os.geteuid() == 0)
    with ExitStack() as stack:
        with network_device() as device:
            held = stack.enter_context(holding(_BOUND, device))
            captured = capture(held.pid, tmp_path)
        if when == "before":
            captured = capture(held.pid, tmp_path)
    with rebuilding(captured) as rebuilt, sock(rebuilt, 3) as s:
        assert s.getsockname()[:2] == ("", 0)
        assert any("it hears nothing" in warning for warning in rebuilt.warnings)


def test_a_queue_of_credentials_is_no_obstacle(carry: Carry) -> None:
    rebuilt = carry(_PAIR.format(kind="SOCK_DGRAM") + "b.setsockopt(1, socket.SO_PASSCRED, 1); a.send(b'signed')")
    with sock(rebuilt, 101) as b:
        data, control, _, _ = b.recvmsg(9, 99)
    assert data == b"signed"
    assert control
    assert array.array("i", control[0][2])[1] == os.geteuid()
