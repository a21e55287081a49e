"""What a classic packet filter returns, run as the OS kernel does (include/uapi/linux/bpf_common.h)."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable

INSTRUCTION = struct.Struct("<HBBI")  # struct sock_filter: operation, jumps, constant
RETURN, _RETURN_A = 0x06, 0x16
_MEMORY_WORDS = 16
_WORD = 0xFFFFFFFF
_CLASS, _SUM, _JUMP, _BY_X = 0x07, 0x04, 0x05, 0x08
_DATA, _ALWAYS, _NEGATIVE = 0x20, 0x05, 0x84
_TO_A = {0x00: "constant", 0x80: "length", 0x60: "memory", _DATA: "data", 0x87: "X"}
_TO_X = {0x01: "constant", 0x81: "length", 0x61: "memory", 0x07: "A"}
_FROM = {0x02: "A", 0x03: "X"}
_COMPARE: dict[int, Callable[[int, int], object]] = {
    0x10: operator.eq, 0x20: operator.gt, 0x30: operator.ge, 0x40: operator.and_,
}  # fmt: skip
_COMPUTE: dict[int, Callable[[int, int], int]] = {
    0x00: operator.add, 0x10: operator.sub, 0x20: operator.mul, 0x30: operator.floordiv, 0x40: operator.or_,
    0x50: operator.and_, 0x60: lambda a, b: a << (b & 31), 0x70: lambda a, b: a >> (b & 31), 0x90: operator.mod,
    0xA0: operator.xor,
}  # fmt: skip


def result(code: bytes, data: bytes) -> int:
    """The value that the filter returns for `data`. Jumps lead forward only, so it ends; 0 for what makes no sense."""
    rows = list(INSTRUCTION.iter_unpack(code))
    memory = [0] * _MEMORY_WORDS
    at = 0
    here = {"A": 0, "X": 0, "length": len(data)}
    while at < len(rows):
        operation, yes, no, constant = rows[at]
        at += 1
        here["constant"], place = constant, constant % _MEMORY_WORDS
        here["memory"] = memory[place]
        other = here["X"] if operation & _BY_X else constant
        if operation in (RETURN, _RETURN_A):
            return constant if operation == RETURN else here["A"]
        if operation == _DATA:
            here["A"] = struct.unpack_from("<I", data, constant)[0] if constant + 4 <= len(data) else 0
        elif operation in _TO_A:
            here["A"] = here[_TO_A[operation]]
        elif operation in _TO_X:
            here["X"] = here[_TO_X[operation]]
        elif operation in _FROM:
            memory[place] = here[_FROM[operation]]
        elif operation == _ALWAYS:
            at += constant
        elif operation == _NEGATIVE:
            here["A"] = -here["A"] & _WORD
        elif operation & _CLASS == _JUMP and operation & 0xF0 in _COMPARE:
            at += yes if _COMPARE[operation & 0xF0](here["A"], other) else no
        elif (
            operation & _CLASS == _SUM
            and operation & 0xF0 in _COMPUTE
            and (other or operation & 0xF0 not in (0x30, 0x90))
        ):
            here["A"] = _COMPUTE[operation & 0xF0](here["A"], other) & _WORD
        else:
            return 0
    return 0
