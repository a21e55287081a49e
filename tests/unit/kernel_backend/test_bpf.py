"""Filters, run as the OS kernel runs them."""

from __future__ import annotations

import struct

import pytest

from kernel_backend.abi import arch
from kernel_backend.tracee import bpf
from kernel_backend.tracee.filters import Program, let_restart

DATA = struct.pack("<iI", 219, 7) + bytes(56)
LOAD, LOAD_CONSTANT, X_CONSTANT, STORE, LOAD_STORED = 0x20, 0x00, 0x01, 0x02, 0x60
JUMP, IF_EQUAL, IF_GREATER_X, IF_BITS, RETURN, RETURN_A, TO_X, TO_A = 0x05, 0x15, 0x2D, 0x45, 0x06, 0x16, 0x07, 0x87
ADD, ADD_X, DIVIDE_X, NEGATE, SHIFT = 0x04, 0x0C, 0x3C, 0x84, 0x64
ALLOW, KILL = 0x7FFF0000, 0x80000000


def code(*rows: tuple[int, int] | tuple[int, int, int, int]) -> bytes:
    """(operation, constant) or (operation, yes, no, constant)."""
    full = [row if len(row) == 4 else (row[0], 0, 0, row[1]) for row in rows]
    return b"".join(bpf.INSTRUCTION.pack(*row) for row in full)


@pytest.mark.parametrize(
    ("program", "result"),
    [
        (code((RETURN, 5)), 5),
        (code((LOAD, 0), (RETURN_A, 0)), 219),
        (code((LOAD, 4), (ADD, 3), (RETURN_A, 0)), 10),
        (code((LOAD, 0), (IF_EQUAL, 0, 1, 219), (RETURN, 1), (RETURN, 2)), 1),
        (code((LOAD, 4), (IF_EQUAL, 0, 1, 219), (RETURN, 1), (RETURN, 2)), 2),
        (code((LOAD, 0), (X_CONSTANT, 218), (IF_GREATER_X, 0, 1, 0), (RETURN, 1), (RETURN, 2)), 1),
        (code((LOAD, 0), (IF_BITS, 1, 0, 4), (RETURN, 1), (RETURN, 2)), 1),
        (code((JUMP, 1), (RETURN, 1), (RETURN, 2)), 2),
        (code((LOAD_CONSTANT, 9), (STORE, 3), (LOAD_CONSTANT, 0), (LOAD_STORED, 3), (RETURN_A, 0)), 9),
        (code((LOAD_CONSTANT, 9), (TO_X, 0), (ADD_X, 0), (RETURN_A, 0)), 18),
        (code((X_CONSTANT, 4), (TO_A, 0), (SHIFT, 2), (RETURN_A, 0)), 16),
        (code((LOAD_CONSTANT, 1), (NEGATE, 0), (RETURN_A, 0)), 0xFFFFFFFF),
        (code((LOAD_CONSTANT, 1), (DIVIDE_X, 0), (RETURN, 9)), 0),
    ],
)
def test_what_a_filter_returns(program: bytes, result: int) -> None:
    assert bpf.result(program, DATA) == result


def test_all_filters_have_to_let_a_sleeper_go_on() -> None:
    everything = Program(0, code((RETURN, ALLOW)))
    not_that = Program(
        0, code((LOAD, 0), (IF_EQUAL, 0, 1, arch.SYS["restart_syscall"]), (RETURN, KILL), (RETURN, ALLOW))
    )
    assert let_restart([])
    assert let_restart([everything, everything])
    assert not let_restart([everything, not_that])
    assert not_that.actions == {KILL, ALLOW}
