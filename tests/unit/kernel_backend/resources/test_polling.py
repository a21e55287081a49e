from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from kernel_backend.image.descriptions import Epoll, Inotify, TimerFd
from kernel_backend.resources import inotify
from tests.unit.kernel_backend.resources.carry import Carry, capture, holding

_TIMERFD = (
    "import ctypes; libc = ctypes.CDLL(None)\n"
    "def timer(value, interval=0, clock=1, flags=0):\n"
    "    fd = libc.timerfd_create(clock, 0)\n"
    "    ns = lambda s: (int(s), int(s % 1 * 1e9))\n"
    "    libc.timerfd_settime(fd, flags, struct.pack('4q', *ns(interval), *ns(value)), None)\n"
    "    return fd\n"
)


def test_eventfds(carry: Carry) -> None:
    rebuilt = carry("os.dup2(os.eventfd(5, os.EFD_NONBLOCK), 100); os.dup2(os.eventfd(3, os.EFD_SEMAPHORE), 101)")
    assert os.eventfd_read(rebuilt[100]) == 5
    with pytest.raises(BlockingIOError):
        os.eventfd_read(rebuilt[100])
    assert [os.eventfd_read(rebuilt[101]) for _ in range(3)] == [1, 1, 1]


def test_many_alike_are_told_apart(tmp_path: Path) -> None:
    with holding("fds = [os.eventfd(i) for i in range(300)]; [os.dup2(fd, fd + 400) for fd in fds]") as held:
        captured = capture(held.pid, tmp_path)
    counts = [d.count for d in captured.descriptions if hasattr(d, "count")]
    assert sorted(counts) == list(range(300))
    shared = [rows for rows in captured.holders.values() if len(rows) == 2]
    assert len(shared) == 300
    assert all(second - first == 400 for (_, first), (_, second) in shared)


def test_timers_keep_what_remained(carry: Carry) -> None:
    rebuilt = carry(_TIMERFD + "os.dup2(timer(50, 7), 100); os.dup2(timer(0.001), 101); time.sleep(0.05)")
    entry = rebuilt.captured.at(100)
    assert isinstance(entry, TimerFd)
    assert 40e9 < entry.value_ns < 50e9
    assert entry.interval_ns == 7e9
    assert os.read(rebuilt[101], 8) == (1).to_bytes(8, "little"), "it had expired and was not read"


def test_a_wall_clock_time_stays_that_time(carry: Carry) -> None:
    rebuilt = carry(_TIMERFD + "os.dup2(timer(time.time() + 100, 0, 0, 1), 100)")
    line = next(x for x in Path(f"/proc/self/fdinfo/{rebuilt[100]}").read_text().splitlines() if "it_value" in x)
    seconds = int(line.split("(")[1].split(",")[0])
    assert 90 <= seconds <= 100
    assert "settime flags: 01" in Path(f"/proc/self/fdinfo/{rebuilt[100]}").read_text()


def test_signalfd(carry: Carry) -> None:
    code = "import ctypes; os.dup2(ctypes.CDLL(None).signalfd(-1, struct.pack('Q', 1 << 9).ljust(128, b'\\0'), 0), 100)"
    rebuilt = carry(code)
    assert "sigmask:\t0000000000000200" in Path(f"/proc/self/fdinfo/{rebuilt[100]}").read_text()


def test_epoll_items_keep_number_events_and_data(carry: Carry) -> None:
    rebuilt = carry(
        "e = select.epoll(); r, w = os.pipe(); os.dup2(r, 100); os.dup2(w, 101); os.dup2(e.fileno(), 102)\n"
        "e.register(100, select.EPOLLIN | select.EPOLLET); f = os.eventfd(0); e.register(f, select.EPOLLIN)\n"
        "os.dup2(f, 103); os.close(f); os.close(r); os.close(w)")  # fmt: skip
    entry = rebuilt.captured.at(102)
    assert isinstance(entry, Epoll)
    gone = next(item.fd for item in entry.items if item.fd != 100)
    with select.epoll.fromfd(os.dup(rebuilt[102])) as epoll:
        assert epoll.poll(0) == []
        os.eventfd_write(rebuilt[103], 1)
        assert epoll.poll(0) == [(gone, select.EPOLLIN)], "its number was closed long ago"
        os.write(rebuilt[101], b"x")
        assert (100, select.EPOLLIN) in epoll.poll(0)


def test_nested_epolls(carry: Carry) -> None:
    rebuilt = carry(
        "a, b = select.epoll(), select.epoll(); f = os.eventfd(0); b.register(f, 1); a.register(b.fileno(), 1)\n"
        "os.dup2(a.fileno(), 100); os.dup2(f, 101)")  # fmt: skip
    with select.epoll.fromfd(os.dup(rebuilt[100])) as outer:
        assert outer.poll(0) == []
        os.eventfd_write(rebuilt[101], 1)
        assert len(outer.poll(0)) == 1


def test_a_pidfd_of_a_process_that_is_gone(carry: Carry) -> None:
    rebuilt = carry("p = os.fork()\nif not p: os._exit(0)\nos.dup2(os.pidfd_open(p), 100); os.waitpid(p, 0)\n")
    assert select.select([rebuilt[100]], [], [], 0)[0]


def test_inotify_keeps_its_watch_numbers(carry: Carry, tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    rebuilt = carry(
        "import ctypes; libc = ctypes.CDLL(None); i = libc.inotify_init1(os.O_NONBLOCK); p = sys.argv[1].encode()\n"
        "[libc.inotify_rm_watch(i, libc.inotify_add_watch(i, p, 256)) for _ in range(4)]\n"
        "libc.inotify_add_watch(i, p, 256); os.read(i, 4096); os.dup2(i, 100)\n"
        "os.chdir(p)  # where an ordinary user's inodes are looked for", watched)  # fmt: skip
    entry = rebuilt.captured.at(100)
    assert isinstance(entry, Inotify)
    assert [(watch.wd, watch.path) for watch in entry.watches] == [(5, str(watched))]
    inotify.watch_again(rebuilt.tables)
    (watched / "new").touch()
    assert int.from_bytes(os.read(rebuilt[100], 4096)[:4], "little") == 5


def test_capture_is_quick(tmp_path: Path) -> None:
    with holding("x = [socket.socketpair() for _ in range(100)]; y = [os.pipe() for _ in range(100)]") as held:
        start = time.perf_counter()
        found = capture(held.pid, tmp_path)
        taken = time.perf_counter() - start
    assert len(found.descriptions) > 400
    assert taken < 2, f"{taken:.2f} s for 400 descriptions"
