"""How a restored tree gets its pids, and whether it can have the old ones. Asked before the point of no return."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kernel_backend import kinship
from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported
from kernel_backend.host import proc
from kernel_backend.host.features import probe_one
from kernel_backend.image.entries import Inventory
from kernel_backend.resources import user_namespaces
from kernel_backend.tracee.process import Process

if TYPE_CHECKING:
    from kernel_backend.rebuild import Rebuild

_CHOOSING = 1 << 21 | 1 << 40  # CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE: either lets clone3(2) choose pids
_SECBIT_NOROOT = 1
_INIT_REAPS_WITHIN_S = 3.0


def choose(rebuild: Rebuild, policy: str, leaving: set[int], present: Process | None) -> None:
    """Decide how the tree gets its pids: the old ones, the old ones inside a namespace of its own, or new ones.

    `present` is the process that is taken over, if one is; its numbers and those below it are `leaving`.

    Raises HostUnsupported when the old ones are insisted on and cannot be had.
    """
    if policy == "any":
        return
    fresh = present is None
    permitted = we_may_choose() if present is None else it_may_choose(present)
    inside = os.getpid() if present is None else present.pid
    taken = await_free(rebuild.inventory, leaving, inside, threads=fresh) if permitted else []
    if permitted and not taken:
        rebuild.set_tids = True
        return
    why = f"pid {taken[0]} is in use" if taken else "this user may not choose pids (CAP_CHECKPOINT_RESTORE)"
    if policy == "same":
        raise HostUnsupported(f"the old pids cannot be had: {why}", hint="use --pid auto, or free the pid")
    if fresh and probe_one("user_namespaces").available:
        rebuild.set_tids = rebuild.own_namespace = rebuild.tables.own_mounts = True
        rebuild.warnings.append(f"the processes keep their pids only inside a pid namespace of their own: {why}")
        return
    if fresh:
        rebuild.warnings.append(f"the processes have new pids: {why}")
    elif len(kinship.members(rebuild.inventory)) > 1:  # the root has the target's; thread ids are known to libc alone
        rebuild.warnings.append(f"child processes have new pids: {why}")


def we_may_choose() -> bool:
    """Whether stubs of ours may choose pids."""
    return bool(int(proc.status(os.getpid())["CapEff"], 16) & _CHOOSING)


def it_may_choose(process: Process) -> bool:
    """Whether a process that is taken over may choose pids, both before and after it runs the image's program.

    It is asked with its own rights, not with ours, and execve(2) leaves ambient capabilities and those of root only.
    """
    status = proc.status(process.view)
    effective, bounding, ambient = (int(status[name], 16) for name in ("CapEff", "CapBnd", "CapAmb"))
    mine = user_namespaces.identity(process.view)
    if not effective & _CHOOSING or user_namespaces.owner_of(process.view, "pid") != mine:
        return False
    if ambient & _CHOOSING:
        return True
    if status["Uid"].split()[1] != str(proc.root_of(process.view)) or not bounding & effective & _CHOOSING:
        return False
    with process.borrow() as borrowed:
        return not borrowed.call("prctl", linux.PR_GET_SECUREBITS) & _SECBIT_NOROOT


def await_free(inventory: Inventory, leaving: set[int], inside: int, *, threads: bool) -> list[int]:
    """Numbers of the image that somebody else has in the pid namespace of process `inside`.

    Without `threads` (in place) only those of further processes matter: the root keeps the number that the present has,
    and a thread can do with a new one.

    `leaving` are our numbers of the tree that will be replaced.
    """
    wanted = [tid for tid in kinship.all_tids(inventory, threads=threads) if threads or tid != inventory.root_pid]
    return await_numbers(wanted, leaving, inside)


def await_numbers(wanted: list[int], leaving: set[int], inside: int) -> list[int]:
    """Those of the numbers `wanted` that somebody has in the pid namespace of process `inside`, but for `leaving`.

    Where only init has to reap somebody, it is given a moment (some are slow at it).
    """
    deadline = time.monotonic() + _INIT_REAPS_WITHIN_S
    ours = _namespace(inside) == _namespace(os.getpid())
    while True:
        holders = _holders(wanted, leaving) if ours else _holders_inside(leaving, _namespace(inside))
        taken = [tid for tid in wanted if tid in holders]
        waits = all(_waits_for_init(holder) for tid in taken for holder in holders[tid])
        if not taken or time.monotonic() > deadline or not waits:
            return taken
        time.sleep(0.01)  # no event tells that somebody else's zombie was reaped


def _namespace(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/pid").readlink()


def _holders(wanted: list[int], leaving: set[int]) -> dict[int, list[int]]:
    """Number → pids of those who have it, or are in the group or the session that it names, in our own namespace."""
    found = {tid: [tid] for tid in wanted if tid not in leaving and Path(f"/proc/{tid}").exists()}
    for pid in _others(leaving):
        try:
            stat = proc.stat(pid)
        except OSError:
            continue
        for number in (stat.pgid, stat.sid):
            found.setdefault(number, []).append(pid)
    return found


def _holders_inside(leaving: set[int], namespace: Path) -> dict[int, list[int]]:
    """The same in another pid namespace: inner number → our numbers."""
    found: dict[int, list[int]] = {}
    for pid in _others(leaving):
        try:
            if _namespace(pid) != namespace:
                continue
            numbers = {inner[-1] for inner in proc.namespaced_ids(pid, pid)[1:]}
            numbers |= {proc.inner_id(tid) for tid in proc.task_ids(pid)}
        except OSError:
            continue
        for number in numbers:
            found.setdefault(number, []).append(pid)
    return found


def _others(leaving: set[int]) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in leaving]


def _waits_for_init(pid: int) -> bool:
    """Whether it is dead and only init has to reap it; another parent may never do so."""
    try:
        stat = proc.stat(pid)
    except OSError:
        return True
    return stat.state in "ZX" and stat.ppid == 1
