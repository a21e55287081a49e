"""What a process may have inside the OS kernel that would not come back: refused by name.

Segment descriptors of its own (modify_ldt(2)), which old emulators use; keys in keyrings that are its own or a thread's
(keyrings(7)), whose contents need not be readable even by itself; what of pressure it wants to be told (PSI).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from kernel_backend.errors import ResourceUnsupported
from kernel_backend.resources.descriptors import Look
from kernel_backend.tracee.chorus import Asking
from kernel_backend.tracee.inject import WORD, Call

_PRESSURE = re.compile(r"^/proc/pressure/\w+$|/(cpu|memory|io|irq)\.pressure$")
_READ_LDT = 0
_LDT_BYTES = 8  # one descriptor is enough to know
_KEYCTL_GET_KEYRING_ID = 0
_OWN_KEYRINGS = {WORD - 1: "process", WORD: "thread"}  # KEY_SPEC_PROCESS_KEYRING -2, KEY_SPEC_THREAD_KEYRING -1


def segments_call(data: int) -> Call:
    """Tells how much of an own descriptor table there is: nothing, nearly always."""
    return Call("modify_ldt", _READ_LDT, data, _LDT_BYTES)


def check_segments(pid: int, size: int) -> None:
    """Refuse a process for which `segments_call` gave `size`."""
    if size > 0:
        raise ResourceUnsupported(
            f"process {pid} has segment descriptors of its own (modify_ldt), which cannot be captured",
            hint="a program that needs them cannot be checkpointed", pid=pid,
        )  # fmt: skip


def keyrings_about() -> bool:
    """Whether anybody has a keyring of that kind: only then is it worth while to ask."""
    try:
        lines = Path("/proc/keys").read_text(errors="replace").splitlines()
    except OSError:
        return False  # an OS kernel without keys
    return any(
        "keyring" in line and line.split("keyring", 1)[1].lstrip().startswith(("_pid", "_tid")) for line in lines
    )


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


def check_trigger(look: Look) -> None:
    """Refuse pressure information (PSI) that is open for writing: nobody can ask what its reader waits for."""
    if look.flags & (os.O_WRONLY | os.O_RDWR) and _PRESSURE.search(look.link):
        raise ResourceUnsupported(
            f"{look.holder} waits for pressure on this host ({look.link}), which cannot be captured",
            hint="close it and checkpoint again", pid=look.process.pid, fd=look.fd, link=look.link,
        )  # fmt: skip
