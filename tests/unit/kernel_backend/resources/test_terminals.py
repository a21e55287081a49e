from __future__ import annotations

import fcntl
import os
import struct
import termios
from pathlib import Path

import pytest

from kernel_backend.image.descriptions import OTHER_INSIDE, Terminal
from tests.unit.kernel_backend.resources.carry import Carry, capture, holding

_PTY = "m, s = os.openpty(); os.dup2(m, 100); os.dup2(s, 101); import termios, tty\n"


def test_a_pty_with_settings_size_and_queues(carry: Carry) -> None:
    rebuilt = carry(
        _PTY + "tty.setraw(s); fcntl.ioctl(s, termios.TIOCSWINSZ, struct.pack('4H', 33, 99, 0, 0))\n"
        "os.write(m, b'keyboard'); os.write(s, b'screen\\n')"
    )
    entry = rebuilt.captured.at(101)
    assert isinstance(entry, Terminal)
    assert entry.other == OTHER_INSIDE
    assert struct.unpack("4H", fcntl.ioctl(rebuilt[101], termios.TIOCGWINSZ, bytes(8)))[:2] == (33, 99)
    assert not termios.tcgetattr(rebuilt[101])[3] & termios.ICANON
    assert os.read(rebuilt[101], 99) == b"keyboard"
    assert os.read(rebuilt[100], 99) == b"screen\n"


def test_lines_stay_lines(carry: Carry) -> None:
    rebuilt = carry(
        _PTY + "a = termios.tcgetattr(s); a[3] &= ~termios.ECHO; termios.tcsetattr(s, 0, a)\n"
        "os.write(m, b'one\\ntwo\\npart')"
    )
    os.set_blocking(rebuilt[101], False)
    assert [os.read(rebuilt[101], 99) for _ in range(2)] == [b"one\n", b"two\n"]
    os.write(rebuilt[100], b"ly\n")
    os.set_blocking(rebuilt[101], True)
    assert os.read(rebuilt[101], 99) == b"partly\n"


def test_queues_of_a_process_that_goes_on_are_taken_and_put_back(carry: Carry) -> None:
    rebuilt = carry(_PTY + "tty.setraw(s); os.write(s, b'x' * 10)", ending=False)
    assert os.read(rebuilt[100], 99) == b"x" * 10


def test_what_waits_for_a_program_outside_is_warned_of(tmp_path: Path) -> None:
    master, slave = os.openpty()
    os.write(slave, b"x" * 10)
    try:
        with holding("os.dup2(int(sys.argv[1]), 100)", master, pass_fds=[master]) as held:
            captured = capture(held.pid, tmp_path, ending=False)
    finally:
        os.close(master)
        os.close(slave)
    assert any("10 bytes that wait in the terminal" in warning for warning in captured.warnings)


def test_a_closed_program_side_reads_as_hung_up(carry: Carry) -> None:
    rebuilt = carry("m, s = os.openpty(); os.close(s); os.dup2(m, 100)")
    with pytest.raises(OSError, match="Input/output error"):
        os.read(rebuilt[100], 1)
