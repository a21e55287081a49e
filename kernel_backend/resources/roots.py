"""Root folders of processes (chroot(2)). Paths in an image are seen from our own root, those of jailed processes, too.

So a process that is made looks at things from our root until all that bears a path is there, and gets its own root just
before it becomes its user. A name that a Unix socket was bound to is what the process itself called it: it could only
be bound again from inside, and is refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import FileChanged, ResourceUnsupported, TargetDenied
from kernel_backend.host.features import effective_capabilities
from kernel_backend.image.entries import FoldersEntry, Inventory, ProcessEntry
from kernel_backend.resources import processes
from kernel_backend.resources.placing_fds import lend
from kernel_backend.tracee.inject import Call, Workshop

_CAP_SYS_CHROOT = 1 << 18


def root_of(pid: int) -> str:
    """Where a process's root folder is, as we see it."""
    return os.readlink(f"/proc/{pid}/root")


def capture(pid: int, view: int) -> str:
    """The root folder of a process. Raises ResourceUnsupported where it has no path any more."""
    link = f"/proc/{view}/root"
    found = root_of(view)
    if found != "/":
        there, seen = os.stat(link), Path(found)
        if not seen.exists() or not seen.samefile(link) or there.st_nlink == 0:
            raise ResourceUnsupported(
                f"process {pid} lives in another root folder ({found}), which we do not see at that path",
                hint="run nbcr inside the same container or chroot", pid=pid,
            )  # fmt: skip
    return found


def check_name(pid: int, view: int, name: str) -> None:
    """Refuse the name of a Unix socket that means something else to us. Raises ResourceUnsupported."""
    if name.startswith("/") and (root := root_of(view)) != "/":
        raise ResourceUnsupported(
            f"process {pid}, whose root folder is {root}, has a socket with the name {name!r}, which only a process in "
            "there can give",
            hint="run nbcr inside the same container or chroot", pid=pid,
        )  # fmt: skip


# --- coming back ------------------------------------------------------------------------------------------------------


def check(inventory: Inventory, present: int, *, own_namespace: bool, for_a_user: bool) -> None:
    """Raise unless all root folders are there and can be had: `present` is the process that is replaced, 0 for none."""
    every = [(entry.pid, entry.root) for entry in inventory.processes]
    every += [(e.pid, t.folders.root) for e in inventory.processes for t in e.threads if t.folders is not None]
    jailed = [(pid, root) for pid, root in every if root != "/"]
    for pid, root in jailed:
        if not Path(root).is_dir():
            raise FileChanged(
                f"{root}, the root folder of process {pid}, is gone", hint="make it again, then restart", path=root
            )
    if jailed and for_a_user:  # a folder full of that user's own programs and passwords
        raise TargetDenied(
            f"process {jailed[0][0]} of the image has the root folder {jailed[0][1]}, where root puts no user",
            hint="restore it as that user, or with --trust if you know where the image comes from", pid=jailed[0][0],
        )  # fmt: skip
    if not jailed and (not present or root_of(present) == "/"):
        return
    if present:
        may = processes.keeps_capability(present, _CAP_SYS_CHROOT)
    else:
        may = own_namespace or "CAP_SYS_CHROOT" in effective_capabilities()
    if not may:
        raise TargetDenied(
            f"process {jailed[0][0] if jailed else present} cannot get its root folder "
            f"({jailed[0][1] if jailed else '/'}) again: that takes CAP_SYS_CHROOT",
            hint="restore the image as a fresh process" if present else "restore it as root, or without --pid any",
            pid=present,
        )


def leave(shop: Workshop) -> None:
    """Let a process that lives in another root folder, and has no descriptors, see what we see."""
    if root_of(shop.thread.tgid) == "/":
        return
    ours = os.open("/", linux.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        theirs = lend(shop, [ours])[0]
    finally:
        os.close(ours)
    here = shop.put(b".\0")
    shop.run([Call("fchdir", theirs), Call("chroot", here), Call("close", theirs)])


def enter_calls(entry: ProcessEntry | FoldersEntry, data: int) -> tuple[Sequence[Call], bytes]:
    """The process's own root, unless it shares that of one which is in it by now; its working folder stays as it is."""
    enters = entry.root != "/" and not (isinstance(entry, ProcessEntry) and entry.folders_of)
    return [Call("chroot", data)] if enters else [], os.fsencode(entry.root) + b"\0"
