"""An IPC namespace of a tree's own: System V objects and POSIX message queues of nobody else (ipc_namespaces(7)).

Nothing of a new namespace is there but what the image holds: so an image holds all there is, or it is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported
from kernel_backend.host import messages, proc
from kernel_backend.image.entries import Inventory, IpcEntry
from kernel_backend.image.limits import IPC_LIMITS
from kernel_backend.resources import visits
from kernel_backend.resources.visits import Visit
from kernel_backend.tracee.process import Process

_SETTINGS = Path("/proc/sys")


# --- dump -------------------------------------------------------------------------------------------------------------


def capture(root: Process, visit: Visit) -> IpcEntry | None:
    """Go into the tree's namespace, where that is another one than ours."""
    number = visits.go_to_tree("ipc", root, visit)
    return IpcEntry(inode=number, limits=_limits()) if number else None


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
    wanted = inventory.ipc_namespace.inode if inventory.ipc_namespace is not None else 0
    visits.check("ipc", wanted, inventory.root_pid, present, same_boot=same_boot)


def enter(inventory: Inventory, present: Process | None, visit: Visit, *, for_a_user: bool) -> list[str]:
    """Be in the tree's namespace, where that is another one than ours, and have its limits hold there; warnings."""
    wanted = inventory.ipc_namespace
    if wanted is None or (present is not None and visits.identity("ipc", present.view) == visits.here("ipc")):
        return []
    ours = visits.here("ipc")
    if present is None:
        visit.begin("ipc")
    else:
        visit.join("ipc", proc.view(present.pid))
    if visits.here("ipc") in (ours, linux.FIRST_IPC_NAMESPACE):  # whose limits are everybody's
        return []
    present_limits = _limits()
    differing = {name: value for name, value in wanted.limits.items() if present_limits.get(name, value) != value}
    if for_a_user:  # whom limits are for
        return [
            f"{name} is {present_limits[name]}; it was {value}, which takes --trust"
            for name, value in differing.items()
        ]
    for name, value in differing.items():  # now, though the present is there still: they decide what can be made
        if present is not None:
            visit.undo(partial(_set_limit, _SETTINGS / name, present_limits[name]))
        _set_limit(_SETTINGS / name, value)
    return []


def _set_limit(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        raise HostUnsupported(f"{path} cannot be set to {value}, as it was in the image: {error.strerror}") from error
