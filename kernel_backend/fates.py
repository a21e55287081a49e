"""What has become of processes: those that ended and were not waited for, those that a signal stopped.

Both are made to happen again. Parents are told by signals meanwhile; so what a restored program is to hear of it is put
right afterwards: each process gets its signal actions again, and an empty queue.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal

from kernel_backend.abi import linux
from kernel_backend.furnishing import reset_signals
from kernel_backend.host import proc
from kernel_backend.image.entries import ZombieEntry
from kernel_backend.rebuild import Building, Rebuild
from kernel_backend.resources import jobs
from kernel_backend.tracee import stub
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.thread import ThreadGone

_CORE_DUMPED = 0x80  # of what wait(2) tells
_NO_CORE = 1  # bytes; also where the OS kernel hands cores to a program, which 0 would not prevent (core(5))


def happen_again(rebuild: Rebuild) -> None:
    """End the dead, stop the stopped, and let parents have heard what they had heard."""
    moved = [building for building in rebuild.built.values() if building.entry.stopped_by or building.entry.untold]
    concerned = {entry.ppid for entry in rebuild.inventory.zombies} | {building.entry.ppid for building in moved}
    parents = [rebuild.built[pid] for pid in concerned if pid in rebuild.built]
    for parent in parents:
        _defaults(parent.shop, signal.SIGCHLD)  # ignored, it would reap the dead
    for zombie in rebuild.inventory.zombies:
        _end(rebuild, zombie)
    for building in moved:
        _stop(rebuild, building)
    for building in {building.pid: building for building in (*parents, *moved)}.values():
        reset_signals(building)


def _defaults(shop: Workshop, *numbers: int) -> None:
    calls, arguments = jobs.default_calls(numbers, shop.data)
    shop.put(arguments)
    shop.run(calls)


# --- the dead ---------------------------------------------------------------------------------------------------------


def _end(rebuild: Rebuild, entry: ZombieEntry) -> None:
    """Let the stub of a dead child die as it did, unreaped."""
    shop = rebuild.zombies[entry.pid]
    rebuild.tables.pids[entry.pid] = rebuild.number_inside(entry.pid, shop.thread.tgid)
    if entry.uid >= 0 and entry.uid != int(proc.status(shop.thread.tgid)["Uid"].split()[0]):
        with contextlib.suppress(OSError):  # ours may be the only user that there is
            shop.call("setresuid", entry.uid, entry.uid, entry.uid)
    shop.call("prctl", linux.PR_SET_NAME, shop.put(entry.name.encode(errors="surrogateescape")[:15] + b"\0"))
    if entry.exit_code & _CORE_DUMPED:
        rebuild.tables.warn(f"of process {entry.pid}, which has ended, its parent is told that it left no core")
    with contextlib.suppress(ThreadGone):
        if number := entry.exit_code & 0x7F:
            _end_by_signal(shop, number)
        else:
            shop.call("exit_group", entry.exit_code >> 8 & 0xFF)
    stub.collect(shop.thread.tgid)


def _end_by_signal(shop: Workshop, number: int) -> None:
    """By its default action, whatever the stub inherited; and without a core, which its parent is told."""
    thread = shop.thread
    if number != signal.SIGKILL:
        _defaults(shop, number)
        hard = resource.prlimit(thread.tgid, resource.RLIMIT_CORE)[1]
        resource.prlimit(thread.tgid, resource.RLIMIT_CORE, (_NO_CORE if hard else 0, hard))
    os.kill(thread.tgid, number)
    thread.set_sigmask(0)
    thread.resume()
    thread.wait()  # the signal on its way
    thread.resume(sig=number)


# --- the stopped ------------------------------------------------------------------------------------------------------


def _stop(rebuild: Rebuild, building: Building) -> None:
    entry = building.entry
    number = entry.stopped_by if entry.stopped_by and _heeds_terminals(rebuild, building) else signal.SIGSTOP
    if number != signal.SIGSTOP:
        _defaults(building.shop, number)
    jobs.stop(building.shop, building.threads.values(), number)
    parent = rebuild.built.get(entry.ppid)
    if not entry.stopped_by:
        jobs.go_on(building.shop)
    elif parent is not None and not entry.untold:
        jobs.hear(parent.shop, rebuild.tables.pids[entry.pid])


def _heeds_terminals(rebuild: Rebuild, building: Building) -> bool:
    """Whether its group is surely not orphaned: in one that is, only SIGSTOP stops anybody (setpgid(2))."""
    own = proc.stat(building.pid)
    for member in rebuild.built.values():
        parent = rebuild.built.get(member.entry.ppid)
        if parent is None or proc.stat(member.pid).pgid != own.pgid:
            continue
        above = proc.stat(parent.pid)
        if own.sid == above.sid and own.pgid != above.pgid:
            return True
    return False
