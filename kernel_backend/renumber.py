"""The numbers that an image records: those that the processes themselves know.

A tree may live in a pid namespace that is not ours (our own restores make one where pids cannot be had otherwise,
tracee/namespace.py). From outside its processes have other numbers than from inside, and the inner ones are those that
stand in their memory. They are read while everything is stopped, and put in place of the outer ones as the inventory
is written; until then everything is called what we call it.
"""

from __future__ import annotations

import os
import re

from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import proc
from kernel_backend.image.descriptions import (
    Description,
    IoUring,
    MessageQueue,
    PidFd,
    ProcFile,
    PtyMaster,
    Terminal,
    UnixSocket,
)
from kernel_backend.image.entries import Inventory, ProcessEntry, ZombieEntry
from kernel_backend.tracee.tree import FrozenTree

_PROC_NUMBER = re.compile(r"^/proc/(\d+)")


def inner_numbers(tree: FrozenTree) -> dict[int, int]:
    """Our number → the inner one, of every process, thread, group and session of the tree; empty where they agree.

    Raises ResourceUnsupported when the tree spans several pid namespaces.
    """
    namespaces = {pid: os.readlink(f"/proc/{process.view}/ns/pid") for pid, process in tree.processes.items()}
    for pid, namespace in namespaces.items():
        if namespace != namespaces[tree.root]:
            raise ResourceUnsupported(
                f"process {pid} lives in a pid namespace of its own below process {tree.root}",
                hint="checkpoint the processes inside and outside of the sandbox separately", pid=pid,
            )  # fmt: skip
    if namespaces[tree.root] == os.readlink("/proc/self/ns/pid"):
        return {}
    found: dict[int, int] = {}
    for pid, process in tree.processes.items():
        for tid in {pid, *process.threads}:
            _note(proc.namespaced_ids(pid, tid), found)
    for pid in tree.zombies:
        _note(proc.namespaced_ids(pid, pid), found)
    return found


def _note(numbers: list[list[int]], found: dict[int, int]) -> None:
    """A group or a session whose leader is outside has the inner number 0."""
    for outermost, *further_in in numbers:
        found[outermost] = further_in[-1] if further_in else outermost


def renumber(inventory: Inventory, numbers: dict[int, int]) -> None:
    """Replace our numbers by the inner ones; what is not inside the namespace becomes 0, as it is seen from there."""
    if not numbers:
        return
    inventory.root_pid = numbers[inventory.root_pid]
    inventory.outside_sessions = sorted({numbers.get(sid, 0) for sid in inventory.outside_sessions})
    entries: list[ProcessEntry | ZombieEntry] = [*inventory.processes, *inventory.zombies]
    for entry in entries:
        entry.pid, entry.ppid = numbers[entry.pid], numbers.get(entry.ppid, 0)
        entry.pgid, entry.sid = numbers.get(entry.pgid, 0), numbers.get(entry.sid, 0)
    for process in inventory.processes:
        process.table_of = numbers.get(process.table_of, 0)
        process.folders_of = numbers.get(process.folders_of, 0)
        for thread in process.threads:
            thread.tid = numbers[thread.tid]
        for timer in process.timers:
            timer.target_tid = numbers.get(timer.target_tid, 0)
            timer.owner_tid = numbers.get(timer.owner_tid, 0)
    for queue in inventory.message_queues:
        queue.sender, queue.receiver = numbers.get(queue.sender, 0), numbers.get(queue.receiver, 0)
    for found in inventory.semaphore_sets:
        for semaphore in found.semaphores:
            semaphore.pid = numbers.get(semaphore.pid, 0)
        for undo in found.undo:
            undo.pid = numbers.get(undo.pid, 0)
    for description in inventory.descriptions:
        _renumber_description(description, numbers)


def _renumber_description(entry: Description, numbers: dict[int, int]) -> None:
    entry.owner = numbers.get(entry.owner, 0)
    if isinstance(entry, IoUring):
        entry.issuer = numbers.get(entry.issuer, 0)
        for registered in entry.numbers:
            registered.tid = numbers.get(registered.tid, 0)
    for lock in entry.record_locks:
        lock.pid = numbers[lock.pid]
    entry.flock_pid = numbers.get(entry.flock_pid, 0)
    if isinstance(entry, PidFd):
        if entry.pid not in numbers and entry.start_ticks:
            entry.outside = entry.pid
        entry.pid = numbers.get(entry.pid, 0 if entry.outside >= 0 else -1)
    elif isinstance(entry, MessageQueue) and entry.notification:
        entry.notification.pid = numbers.get(entry.notification.pid, 0)
    elif isinstance(entry, UnixSocket):
        for message in entry.messages():
            message.pid = numbers.get(message.pid, 0)
    elif isinstance(entry, Terminal | PtyMaster):
        entry.session, entry.foreground = numbers.get(entry.session, 0), numbers.get(entry.foreground, 0)
    elif isinstance(entry, ProcFile):
        entry.path = _PROC_NUMBER.sub(lambda m: f"/proc/{numbers.get(int(m[1]), int(m[1]))}", entry.path)
