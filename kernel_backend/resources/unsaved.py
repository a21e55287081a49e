"""What a process may have inside the OS kernel that would not come back: refused by name.

Keys in keyrings that are its own or a thread's (keyrings(7)), whose contents need not be readable even by itself; what
of pressure it wants to be told (PSI).

Keys in a session keyring are told only: it may be that of a whole login, which a restored process may well be in again.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from pathlib import Path

import msgspec

from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import libc
from kernel_backend.resources.descriptors import Look
from kernel_backend.tracee.chorus import Asking
from kernel_backend.tracee.inject import WORD, Call

_PRESSURE = re.compile(r"^/proc/pressure/\w+$|/(cpu|memory|io|irq)\.pressure$")
_KEYCTL_GET_KEYRING_ID = 0
_KEYCTL_READ = 11
_MOST_KEYS = 64
_SESSION_KEYRING = WORD - 2  # KEY_SPEC_SESSION_KEYRING -3
_KEY = re.compile(r"(?P<id>[0-9a-f]+) +(\S+ +){4}-?\d+ +-?\d+ (?P<type>\S+) +(?P<name>.*?) *$")
_OWN_KEYRINGS = {WORD - 1: "process", WORD: "thread"}  # KEY_SPEC_PROCESS_KEYRING -2, KEY_SPEC_THREAD_KEYRING -1


class Keyrings(msgspec.Struct, frozen=True):
    """What keyrings there are: only of those that somebody has is it worth while to ask a stopped process."""

    own: bool = False  # of a process or thread
    session: frozenset[int] = frozenset()  # of sessions, with keys in them


def keyrings_about() -> Keyrings:
    """Look at all keys that we may see (/proc/keys)."""
    try:
        lines = Path("/proc/keys").read_text(errors="replace").splitlines()
    except OSError:
        return Keyrings()  # an OS kernel without keys
    found = {int(key["id"], 16): key for key in map(_KEY.match, lines) if key}
    keyrings = {number: key["name"] for number, key in found.items() if key["type"] == "keyring"}
    everybodys = {number for number, name in keyrings.items() if name.startswith(("_uid", "_persistent"))}
    session = {
        number for number, name in keyrings.items()
        if not name.startswith((".", "_uid", "_pid", "_tid", "_persistent")) and not name.endswith(": empty")
        and not _holds_only(number, everybodys)
    }  # fmt: skip
    return Keyrings(any(name.startswith(("_pid", "_tid")) for name in keyrings.values()), frozenset(session))


def _holds_only(keyring: int, known: set[int]) -> bool:
    """Whether there is nothing in a keyring but what everybody has; False where we may not look."""
    keys = (ctypes.c_char * (4 * _MOST_KEYS))()
    try:
        size = libc.syscall("keyctl", _KEYCTL_READ, keyring, keys, len(keys))
    except OSError:
        return False
    return size <= len(keys) and {key for (key,) in struct.iter_unpack("=i", keys.raw[:size])} <= known


def ask_keyrings(pid: int) -> Asking[None]:
    """Refuse a process that has keys of its own."""
    for which, whose in _OWN_KEYRINGS.items():
        try:
            yield Call("keyctl", _KEYCTL_GET_KEYRING_ID, which, 0)
        except OSError:
            continue  # there is none, as nearly always
        raise ResourceUnsupported(
            f"process {pid} has keys in a {whose} keyring (keyrings(7)), which cannot be captured",
            hint="keep them in the user's keyring instead", pid=pid,
        )  # fmt: skip


def ask_session_keyring() -> Asking[int]:
    """The keyring of the session that a process is in."""
    try:
        return (yield Call("keyctl", _KEYCTL_GET_KEYRING_ID, _SESSION_KEYRING, 0))
    except OSError:
        return 0


def session_keys_lost(pid: int) -> str:
    """The warning about a process whose session keyring has keys."""
    return (
        f"process {pid} has keys in a session keyring (keyrings(7)), which no image holds: "
        f"a process restored afresh has the session keyring of whoever restores it"
    )


def check_trigger(look: Look) -> None:
    """Refuse pressure information (PSI) that is open for writing: nobody can ask what its reader waits for."""
    if look.flags & (os.O_WRONLY | os.O_RDWR) and _PRESSURE.search(look.link):
        raise ResourceUnsupported(
            f"{look.holder} waits for pressure on this host ({look.link}), which cannot be captured",
            hint="close it and checkpoint again", pid=look.process.pid, fd=look.fd, link=look.link,
        )  # fmt: skip
