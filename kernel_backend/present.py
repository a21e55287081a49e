"""The process that a restore in place replaces: whether it can become the image's, and its end."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct

from kernel_backend import family
from kernel_backend.abi import linux
from kernel_backend.errors import EngineError, HostUnsupported, ResourceUnsupported, TargetDenied, TargetUnsupported
from kernel_backend.host import features, limits, proc
from kernel_backend.host.guardian import Guardian
from kernel_backend.image.entries import Inventory
from kernel_backend.resources import landlock, processes, seccomp, settings, sharing, timers, user_namespaces, visits
from kernel_backend.stages import Stage, reach
from kernel_backend.tracee import stub
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.thread import ALL_BUT_SIGTRAP
from kernel_backend.tracee.tree import FrozenTree
from kernel_backend.tracee.twin import reap_all


def check_taking_over(inventory: Inventory, frozen: FrozenTree, process: Process) -> None:
    """What a process that is taken over could not become: refused while it is still unharmed."""
    if process.view != process.pid:
        raise TargetUnsupported(
            f"the main thread of process {process.pid} has ended, so another program cannot take its place",
            hint="restore the image as a fresh process", pid=process.pid,
        )  # fmt: skip
    if settings.denies_execution(process):
        raise TargetUnsupported(
            f"process {process.pid} may not make memory executable (PR_SET_MDWE), so no other can take its place",
            hint="restore the image as a fresh process", pid=process.pid,
        )  # fmt: skip
    _check_confinement(process)
    _check_room(inventory, process)
    _check_stack(process)
    _check_number(inventory, frozen, process)
    for entry in inventory.processes:
        for rights in processes.rights_of(entry):
            processes.check_identity(process, user_namespaces.on_the_way(inventory, entry, rights))
    if any(entry.timers for entry in inventory.processes) and not timers.ids_can_be_chosen():
        raise HostUnsupported(
            "POSIX timers cannot get their old numbers in a process that has had timers before",
            hint="restore the image as a fresh process, or use OS kernel 6.15 or later",
        )


def _check_confinement(process: Process) -> None:
    """What a process has locked itself into stays with it, whatever it becomes."""
    try:
        sharing.check_namespaces(process, visits.KINDS)  # visits.check looks at those
        seccomp.check(process)
        landlock.check(process)
    except ResourceUnsupported as error:
        raise TargetUnsupported(
            f"{error}, so no other can take its place", hint="restore the image as a fresh process", pid=process.pid
        ) from error


def keeps_no_new_privs(inventory: Inventory, process: Process) -> bool:
    """Whether the present has given up privileges for ever (PR_SET_NO_NEW_PRIVS) that the image had not."""
    given_up = proc.status(process.view).get("NoNewPrivs") == "1"
    return given_up and not all(entry.credentials.no_new_privs for entry in inventory.processes)


_LEAST_STACK_BYTES = 64 << 10


def sockets_of(frozen: FrozenTree) -> set[int]:
    """Inodes of the sockets that its processes have."""
    return {inode for process in frozen.processes.values() for inode in process.sockets()}


def sockets_below(frozen: FrozenTree, root: Process) -> dict[int, int]:
    """Inode → our duplicate, for each socket which children of the present have and it has not.

    A forked child keeps listeners that its parent has closed; they are in the image, and nobody else has their ports.
    """
    known = set(root.sockets())
    found: dict[int, int] = {}
    for process in frozen.processes.values():
        for inode, fd in process.sockets().items():
            if inode not in known:
                known.add(inode)
                found[inode] = process.take_fd(fd)
    return found


def _check_room(inventory: Inventory, process: Process) -> None:
    """A limit of the present's address space that may not be lifted must leave room for the image, and for us."""
    if "CAP_SYS_RESOURCE" in features.effective_capabilities():
        return
    own = limits.read(process.view)
    everything = [sum(vma.end - vma.start for vma in entry.vmas) for entry in inventory.processes]
    data = [
        sum(vma.end - vma.start for vma in entry.vmas if vma.private and vma.prot & linux.PROT_WRITE)
        for entry in inventory.processes
    ]
    present = sum(mapping.size for mapping in process.mappings)
    for name, which, sizes in (
        ("RLIMIT_AS", resource.RLIMIT_AS, [present, *everything]), ("RLIMIT_DATA", resource.RLIMIT_DATA, data),
    ):  # fmt: skip
        hard, needed = own[which][1], max(sizes) + 2 * family.WORKSHOP_BYTES
        if needed > hard:
            raise TargetDenied(
                f"process {process.pid} may have {hard} bytes of memory at most ({name}), its restart needs {needed}",
                hint="restore the image as a fresh process", pid=process.pid,
            )  # fmt: skip


def _check_stack(process: Process) -> None:
    """execve(2) lays arguments and more on a new stack, and fails half-way where that may not grow."""
    hard = limits.read(process.view)[resource.RLIMIT_STACK][1]
    if hard < _LEAST_STACK_BYTES and "CAP_SYS_RESOURCE" not in features.effective_capabilities():
        raise TargetDenied(
            f"process {process.pid} may have a stack of {hard} bytes at most (RLIMIT_STACK), its restart needs "
            f"{_LEAST_STACK_BYTES}",
            hint="restore the image as a fresh process", pid=process.pid,
        )  # fmt: skip


def _check_number(inventory: Inventory, frozen: FrozenTree, process: Process) -> None:
    """A limit to how many threads its user may have must leave room for those of the image, and for one of ours."""
    hard = limits.read(process.view)[resource.RLIMIT_NPROC][1]
    may_exceed = {"CAP_SYS_RESOURCE", "CAP_SYS_ADMIN"} & features.effective_capabilities()
    needed = sum(len(entry.threads) for entry in inventory.processes) + len(inventory.zombies)
    if hard == limits.UNLIMITED or needed <= 1 or may_exceed or os.geteuid() == 0:
        return
    others = proc.tasks_of_user(os.getuid()) - sum(len(member.threads) for member in frozen.processes.values())
    if others + needed + 1 > hard:
        raise TargetDenied(
            f"process {process.pid} may have a part in {hard} threads of its user at most (RLIMIT_NPROC): there are "
            f"{others} others, and the image has {needed}",
            hint="restore the image as a fresh process, or end other processes of this user", pid=process.pid,
        )  # fmt: skip


def tie_together(frozen: FrozenTree, guardian: Guardian) -> None:
    """From here on the present ends as a whole, should we be killed."""
    if len(frozen.processes) > 1:
        guardian.processes([process.pidfd for process in frozen.processes.values()])


def empty(frozen: FrozenTree, process: Process) -> None:
    """The point of no return: end the present, its children, its threads but one. That one ends with us from now on."""
    leader = process.main
    gadget = process.gadgets.syscall
    leader.set_options(stub.STUB_OPTIONS)
    reach(Stage.RESTORE_EMPTY, process.pid)
    for thread in process.threads.values():
        if thread.dispatch() is not None:
            thread.set_dispatch(None)  # it is to end by a call of its own
    for pid, member in reversed(frozen.processes.items()):
        if pid != process.pid:
            _reap_in(member)  # its children are dead: free their pids, init may be slow to do it
            stub.kill_and_collect(pid)
            member.threads.clear()
    stub.end_threads([t for t in process.threads.values() if t is not leader], gadget)
    leader.set_sigmask(ALL_BUT_SIGTRAP)
    reap_all(lambda name, *args: stub.step_call(leader, gadget, name, *args))
    stub.step_call(leader, gadget, "munlockall")  # else what we map may be more than it may lock (MCL_FUTURE)
    _stop_lingering(process)
    stub.step_call(leader, gadget, "close_range", 0, 0xFFFFFFFF, linux.CLOSE_RANGE_UNSHARE)
    stub.step_call(leader, gadget, "unshare", linux.CLONE_FS)  # processes outside may have the same folders
    reach(Stage.RESTORE_EMPTIED, process.pid)


def _stop_lingering(process: Process) -> None:
    """Let no socket wait, in close(2), for what nobody will read any more (SO_LINGER)."""
    for number in process.sockets().values():
        with contextlib.suppress(OSError), socket.socket(fileno=process.take_fd(number)) as s:
            lingers, seconds = struct.unpack("<ii", s.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
            if lingers and seconds:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("<ii", 0, 0))


def end(frozen: FrozenTree) -> None:
    """What is left of a present that could not be replaced."""
    for pid in reversed(frozen.processes):
        stub.kill_and_collect(pid)


def _reap_in(member: Process) -> None:
    """Have a process that is about to be killed take the remains of its children."""
    try:
        with member.borrow() as borrowed:
            reap_all(borrowed.call)
    except (EngineError, OSError):
        return  # somebody else will
