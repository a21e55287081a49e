"""Touching files as the user whose processes are to come back, when root restores them.

Root's helper opens, creates and removes files for an image. It must not do for it what the image's own user could
not: so it takes that user's identity for file access (setfsuid(2)) meanwhile, and the OS kernel judges. These are
properties of a thread, and only of ours: glibc's own functions would change all threads.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from kernel_backend.abi import linux
from kernel_backend.errors import TargetDenied
from kernel_backend.host import libc

_KEEP = 0xFFFFFFFF
_ASK = 0xFFFFFFFF  # no user has this number: setfsuid(2) only answers


class Identity(msgspec.Struct, frozen=True):
    """Whose rights decide about files."""

    uid: int
    gid: int
    groups: tuple[int, ...]


_own: Identity | None = None  # who we are, while we act as somebody else


@contextmanager
def acting_as(who: Identity | None) -> Iterator[None]:
    """Be `who` towards files; None: nobody but ourselves. Raises TargetDenied where we may not."""
    global _own
    if who is None or _own is not None:
        yield
        return
    before = Identity(os.geteuid(), os.getegid(), tuple(os.getgroups()))
    try:
        _own = before
        _become(who)
        yield
    finally:
        _become(before)
        _own = None


@contextmanager
def as_ourselves() -> Iterator[None]:
    """For a moment not as somebody else: for our own files."""
    global _own
    if _own is None:
        yield
        return
    before, other = _own, _present()
    try:
        _become(before)
        _own = None
        yield
    finally:
        _own = before
        _become(other)


@contextmanager
def without_capabilities() -> Iterator[None]:
    """While we act as somebody else: be that user in all respects. Files in /proc look at more than file access."""
    if _own is None:
        yield
        return
    other = _present()
    libc.syscall("setresgid", _KEEP, other.gid, _KEEP)
    libc.syscall("setresuid", _KEEP, other.uid, _KEEP)  # the effective capabilities go with user 0, and come back
    try:
        yield
    finally:
        libc.syscall("setresuid", _KEEP, _own.uid, _KEEP)
        libc.syscall("setresgid", _KEEP, _own.gid, _KEEP)
        _become(other)


@contextmanager
def without_capability(number: int) -> Iterator[None]:
    """Not to have one of our effective capabilities (capabilities(7)) for a moment."""
    header = struct.pack("<Ii", linux.CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)  # twice effective, permitted, inheritable: 32 bits each
    libc.syscall("capget", header, sets)
    words = list(struct.unpack("<6I", sets.raw))
    words[number // 32 * 3] &= ~(1 << number % 32)
    libc.syscall("capset", header, struct.pack("<6I", *words))
    try:
        yield
    finally:
        libc.syscall("capset", header, sets.raw)


def lower_capabilities(effective: int, permitted: int) -> None:
    """Keep of our capabilities only those, for good."""
    header = struct.pack("<Ii", linux.CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    libc.syscall("capget", header, sets)
    words = list(struct.unpack("<6I", sets.raw))
    for half in (0, 1):
        words[half * 3] &= effective >> 32 * half & 0xFFFFFFFF
        words[half * 3 + 1] &= permitted >> 32 * half & 0xFFFFFFFF
    libc.syscall("capset", header, struct.pack("<6I", *words))


def _present() -> Identity:
    return Identity(libc.syscall("setfsuid", _ASK), libc.syscall("setfsgid", _ASK), tuple(os.getgroups()))


def _become(who: Identity) -> None:
    libc.syscall("setgroups", len(who.groups), struct.pack(f"<{len(who.groups)}I", *who.groups))
    libc.syscall("setfsgid", who.gid)
    libc.syscall("setfsuid", who.uid)
    if (libc.syscall("setfsuid", _ASK), libc.syscall("setfsgid", _ASK)) != (who.uid, who.gid):
        raise TargetDenied(f"we may not act as user {who.uid}", hint="run as root with all capabilities")
