"""An IPC namespace of a tree's own: System V objects and POSIX message queues of nobody else (ipc_namespaces(7)).

Who looks at such objects, and makes them, does so in the namespace that it is in itself. So we go there: for a dump
into the tree's, for a restore into a new one, which all that we fork is born in, or in place into that of the process
which is replaced. Then everything else is done as in our own. That takes CAP_SYS_ADMIN, and a tree that is all in one.

Nothing of a new namespace is there but what the image holds: so an image holds all there is, or it is refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported, TargetDenied, TargetUnsupported
from kernel_backend.host import libc, messages, proc
from kernel_backend.host.features import effective_capabilities
from kernel_backend.image.entries import Inventory, IpcEntry
from kernel_backend.image.limits import IPC_LIMITS
from kernel_backend.tracee.process import Process

_SETTINGS = Path("/proc/sys")
_HINT = "restore the image as a fresh process"


def identity(view: int) -> int:
    """Which IPC namespace a process is in; 0 for all where the OS kernel has none."""
    return _number(f"/proc/{view}/ns/ipc")


def here() -> int:
    """The one that we are in just now."""
    return _number("/proc/thread-self/ns/ipc")


def _number(link: str) -> int:
    try:
        return os.stat(link).st_ino
    except FileNotFoundError:
        return 0


class Visit:
    """Our stay in another IPC namespace: of the calling thread alone, which is back in its own afterwards."""

    def __init__(self) -> None:
        self._home = -1

    def __enter__(self) -> Visit:
        return self

    def join(self, pid: int) -> None:
        """Go where a process is."""
        self._note_home()
        there = os.open(f"/proc/{pid}/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.syscall("setns", there, linux.CLONE_NEWIPC)
        finally:
            os.close(there)

    def begin(self) -> None:
        """Go into a new one."""
        self._note_home()
        libc.syscall("unshare", linux.CLONE_NEWIPC)

    def _note_home(self) -> None:
        self._home = os.open("/proc/thread-self/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)

    def __exit__(self, *_: object) -> None:
        if self._home >= 0:
            libc.syscall("setns", self._home, linux.CLONE_NEWIPC)
            os.close(self._home)
            self._home = -1


# --- dump -------------------------------------------------------------------------------------------------------------


def is_of_all(tree: Iterable[Process]) -> bool:
    """Whether a tree is in one namespace, which we may look into."""
    return len({identity(process.view) for process in tree}) == 1 and "CAP_SYS_ADMIN" in effective_capabilities()


def capture(root: Process, visit: Visit) -> IpcEntry | None:
    """Go into the tree's namespace, where that is another one than ours."""
    number = identity(root.view)
    if number == here():
        return None
    if "CAP_SYS_ADMIN" not in effective_capabilities():
        raise ResourceUnsupported(
            f"process {root.pid} lives in an IPC namespace of its own", hint="checkpoint it as root", pid=root.pid
        )
    visit.join(root.view)
    return IpcEntry(inode=number, limits=_limits())


def _limits() -> dict[str, str]:
    """What may be in the namespace that we are in, by the names of the settings below /proc/sys."""
    return {name: (_SETTINGS / name).read_text().strip() for name in IPC_LIMITS if (_SETTINGS / name).exists()}


def check_whole(pid: int, unattached: Iterable[int], queues: set[str], in_use: Iterable[int]) -> None:
    """Refuse a namespace with shared memory that nobody has attached, or a POSIX queue that nobody has open; or with
    objects (`in_use`) that processes outside the tree use as well.
    """
    for number in in_use:
        raise ResourceUnsupported(
            f"process {pid} lives in an IPC namespace of its own, where others use the System V object {number}, too",
            hint="end them and checkpoint again", pid=pid,
        )  # fmt: skip
    for number in unattached:
        raise _unused(pid, f"System V shared memory {number}", "attached", f"remove it (ipcrm -m {number})")
    for name in sorted(messages.names() - queues):
        raise _unused(pid, f"the message queue /{name}", "open", "remove it (mq_unlink)")


def _unused(pid: int, what: str, how: str, hint: str) -> ResourceUnsupported:
    return ResourceUnsupported(
        f"process {pid} lives in an IPC namespace of its own with {what}, which no process of the tree has {how}",
        hint=f"{hint} and checkpoint again", pid=pid,
    )  # fmt: skip


# --- restore ----------------------------------------------------------------------------------------------------------


def check(inventory: Inventory, present: Process | None, *, same_boot: bool) -> None:
    """Raise unless the tree can have its namespace; `present` is the process that is replaced, None for none."""
    wanted = inventory.ipc_namespace
    if present is not None:
        there = identity(present.view)
        if there != (here() if wanted is None else wanted.inode) or (wanted is not None and not same_boot):
            raise TargetUnsupported(
                f"process {present.pid} lives in another IPC namespace than process {inventory.root_pid} of the image "
                "did, so that cannot take its place",
                hint=_HINT, pid=present.pid,
            )  # fmt: skip
    if wanted is not None and "CAP_SYS_ADMIN" not in effective_capabilities():
        raise TargetDenied(
            f"process {inventory.root_pid} of the image lives in an IPC namespace of its own: that takes CAP_SYS_ADMIN",
            hint="restore it as root", pid=inventory.root_pid,
        )  # fmt: skip


def enter(inventory: Inventory, present: Process | None, visit: Visit, *, for_a_user: bool) -> list[str]:
    """Be in the tree's namespace, where that is another one than ours, and have its limits hold there; warnings."""
    wanted = inventory.ipc_namespace
    if wanted is None or (present is not None and identity(present.view) == here()):
        return []
    ours = here()
    if present is None:
        visit.begin()
    else:
        visit.join(proc.view(present.pid))
    if here() in (ours, linux.FIRST_IPC_NAMESPACE):  # whose limits are everybody's
        return []
    present_limits = _limits()
    differing = {name: value for name, value in wanted.limits.items() if present_limits.get(name, value) != value}
    if for_a_user:  # whom limits are for
        return [
            f"{name} is {present_limits[name]}; it was {value}, which takes --trust"
            for name, value in differing.items()
        ]
    for name, value in differing.items():
        _set_limit(_SETTINGS / name, value)
    return []


def _set_limit(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        raise HostUnsupported(f"{path} cannot be set to {value}, as it was in the image: {error.strerror}") from error
