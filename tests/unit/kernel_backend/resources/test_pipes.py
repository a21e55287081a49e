from __future__ import annotations

import fcntl
import os
import select
from pathlib import Path

import pytest

from kernel_backend.image.descriptions import OTHER_CLOSED, OTHER_OUTSIDE, Pipe
from tests.unit.kernel_backend.resources.carry import Carry, capture, holding, rebuilding

_F_GETPIPE_SZ = 1032


def test_content_size_and_flags(carry: Carry) -> None:
    rebuilt = carry(
        "r, w = os.pipe2(os.O_NONBLOCK); fcntl.fcntl(w, 1031, 1 << 18); os.write(w, b'y' * 100000)\n"
        "os.dup2(r, 100); os.dup2(w, 101)")  # fmt: skip
    assert fcntl.fcntl(rebuilt[100], _F_GETPIPE_SZ) == 1 << 18
    assert os.read(rebuilt[100], 1 << 18) == b"y" * 100000
    with pytest.raises(BlockingIOError):
        os.read(rebuilt[100], 1)
    os.write(rebuilt[101], b"more")
    assert os.read(rebuilt[100], 9) == b"more"


def test_capturing_takes_nothing_away(tmp_path: Path) -> None:
    code = "r, w = os.pipe(); os.write(w, b'abc')"
    with holding(code) as held:
        for _ in range(2):
            found = capture(held.pid, tmp_path)
            pipes = [d for d in found.descriptions if isinstance(d, Pipe) and d.packets]
            assert [pipe.packets for pipe in pipes] == [[b"abc"]]


def test_packets_stay_packets(carry: Carry) -> None:
    rebuilt = carry(
        "r, w = os.pipe2(os.O_DIRECT | os.O_NONBLOCK); [os.write(w, b'x' * n) for n in (3, 1, 5)]\n"
        "os.dup2(r, 100); os.dup2(w, 101)")  # fmt: skip
    assert [len(os.read(rebuilt[100], 100)) for _ in range(3)] == [3, 1, 5]
    assert fcntl.fcntl(rebuilt[101], fcntl.F_GETFL) & os.O_DIRECT


def test_closed_ends_stay_closed(carry: Carry) -> None:
    rebuilt = carry(
        "r, w = os.pipe(); os.write(w, b'last'); os.close(w); os.dup2(r, 100)\n"
        "r, w = os.pipe(); os.close(r); os.dup2(w, 101)")  # fmt: skip
    assert os.read(rebuilt[100], 9) == b"last"
    assert os.read(rebuilt[100], 9) == b""
    with pytest.raises(BrokenPipeError):
        os.write(rebuilt[101], b"x")
    assert rebuilt.captured.at(100).other == OTHER_CLOSED  # type: ignore[union-attr]


def test_several_descriptions_of_one_end(carry: Carry) -> None:
    rebuilt = carry(
        "r, w = os.pipe(); os.dup2(r, 100); os.dup2(w, 101)\n"
        "os.dup2(os.open(f'/proc/self/fd/{r}', os.O_RDONLY | os.O_NONBLOCK), 102)\n"
        "os.dup2(os.open(f'/proc/self/fd/{r}', os.O_RDWR), 103); os.close(r); os.close(w)")  # fmt: skip
    os.write(rebuilt[103], b"ab")
    assert os.read(rebuilt[102], 1) + os.read(rebuilt[100], 1) == b"ab"
    assert not fcntl.fcntl(rebuilt[100], fcntl.F_GETFL) & os.O_NONBLOCK


def test_an_end_outside_is_as_if_closed_and_warned_of(tmp_path: Path) -> None:
    r, w = os.pipe()
    with holding("os.dup2(int(sys.argv[1]), 100)", r, pass_fds=(r,)) as held:
        captured = capture(held.pid, tmp_path)
    with rebuilding(captured) as rebuilt:
        assert captured.at(100).other == OTHER_OUTSIDE  # type: ignore[union-attr]
        assert os.read(rebuilt[100], 1) == b""
        assert any("the other end of the pipe" in warning for warning in rebuilt.warnings)
    os.close(r)
    os.close(w)


def test_standard_streams_of_the_root_are_ours(tmp_path: Path) -> None:
    with holding("") as held:
        captured = capture(held.pid, tmp_path)
        held.kill()
    r, w = os.pipe()
    with rebuilding(captured, stdio=(-1, w, -1)) as rebuilt:
        os.write(rebuilt[1], b"said")
    assert os.read(r, 9) == b"said"
    os.close(r)
    os.close(w)


def test_in_place_the_present_keeps_its_streams(tmp_path: Path) -> None:
    with holding("") as held:
        captured = capture(held.pid, tmp_path)
        r, w = os.pipe()
        with rebuilding(captured, live={1: w}) as rebuilt:
            assert os.path.sameopenfile(rebuilt[1], w)
        os.close(r)
        os.close(w)


def test_a_pipe_is_found_again_through_whoever_holds_its_other_end(tmp_path: Path) -> None:
    r, w = os.pipe()
    with holding("", pass_fds=(r,)), holding("os.dup2(int(sys.argv[1]), 100)", w, pass_fds=(w,)) as held:
        captured = capture(held.pid, tmp_path)
        held.kill()
        with rebuilding(captured, boot_id_same=True) as rebuilt:
            os.write(rebuilt[100], b"again")
            assert os.read(r, 9) == b"again"
    os.close(r)
    os.close(w)


def test_fifos_by_path(carry: Carry, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    rebuilt = carry("os.dup2(os.open(sys.argv[1], os.O_RDWR), 100)", path)
    with path.open("wb", buffering=0) as other:
        other.write(b"x")
    assert os.read(rebuilt[100], 9) == b"x"


def test_poll_tells_of_a_closed_writer(carry: Carry) -> None:
    rebuilt = carry("r, w = os.pipe(); os.close(w); os.dup2(r, 100)")
    poll = select.poll()
    poll.register(rebuilt[100], 0)
    assert poll.poll(0)[0][1] & select.POLLHUP
