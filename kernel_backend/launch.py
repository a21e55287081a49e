"""The last steps of a restore: threads, identity, signals and timers, registers; then everything runs."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from kernel_backend.abi import arch, linux
from kernel_backend.host import libc, proc
from kernel_backend.host.guardian import Guardian
from kernel_backend.host.identity import acting_as
from kernel_backend.image.entries import FoldersEntry, ProcessEntry, ThreadEntry
from kernel_backend.kinship import session_of
from kernel_backend.rebuild import Building, Rebuild
from kernel_backend.resources import (
    control_groups,
    keyrings,
    numa,
    processes,
    roots,
    seccomp,
    settings,
    signals,
    tcp_kept,
    thread_ids,
    threads,
    timeouts,
    timers,
)
from kernel_backend.stages import Stage, reach
from kernel_backend.tracee import namespace, stub
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.thread import Thread, ThreadGone

_THREAD_FLAGS = (
    linux.CLONE_VM | linux.CLONE_FS | linux.CLONE_FILES | linux.CLONE_SIGHAND | linux.CLONE_THREAD | linux.CLONE_SYSVSEM
)
_TABLE_BYTES = threads.MOST_SETUP_CALLS * arch.TABLE_ROW.size
_PER_THREAD_BYTES = _TABLE_BYTES + threads.SETUP_DATA_BYTES


def make_threads(rebuild: Rebuild, building: Building) -> None:
    """All threads, each with its own masks, lists and names, stopped."""
    entry, shop = building.entry, building.shop
    building.threads[entry.pid] = building.leader
    for thread in entry.threads[1:]:
        building.threads[thread.tid] = _clone_thread(rebuild, building, thread)
    pairs = [(thread, building.threads[thread.tid]) for thread in entry.threads if not thread.exited]
    _setup_threads(shop, pairs, entry)
    rebuild.warnings.extend(numa.bind_threads(shop, entry, building.threads))
    _correct_tids(rebuild, building)
    timers.create_timers(shop, entry, building.threads, rebuild.tables.pids)


def _clone_thread(rebuild: Rebuild, building: Building, thread: ThreadEntry) -> Thread:
    shop = building.shop
    chosen = [thread.tid] if rebuild.may_choose_tids(building.entry) else []
    if building.entry.user >= 0:
        _aim_at(rebuild, thread.tid)
    try:
        _clone(shop, chosen)
    except FileExistsError:  # somebody has the number; a thread can do with another
        rebuild.lost_tids.add(thread.tid)
        _clone(shop, [])
    made = Thread(shop.new_tids.pop(), building.pid)
    made.wait()
    if proc.inner_id(made.tid) != thread.tid:
        rebuild.lost_tids.add(thread.tid)
    return made


def _aim_at(rebuild: Rebuild, tid: int) -> None:
    """Have the next thread get that number, if nobody is faster (proc(5), ns_last_pid): inside nobody may choose."""
    path, last = "/proc/sys/kernel/ns_last_pid", str(tid - 1)
    with suppress(OSError):
        if rebuild.init is None:
            Path(path).write_text(last)
            return
        init = rebuild.init
        fd = init.call("open", init.put(path.encode() + b"\0"), os.O_WRONLY | os.O_CLOEXEC)
        init.call("write", fd, init.put(last.encode()), len(last))
        init.call("close", fd)


def _clone(shop: Workshop, set_tid: list[int]) -> None:
    tid_at = shop.put(struct.pack("<i", *set_tid), 128) if set_tid else 0
    args = arch.CLONE_ARGS.pack(_THREAD_FLAGS, 0, 0, 0, 0, 0, 0, 0, tid_at, len(set_tid), 0)
    shop.call("clone3", shop.put(args), len(args))


def _setup_threads(shop: Workshop, pairs: list[tuple[ThreadEntry, Thread]], usual: ProcessEntry) -> None:
    """Run every thread's own calls, many threads at a time."""
    at_once = shop.data_bytes // _PER_THREAD_BYTES
    for first in range(0, len(pairs), at_once):
        started = []
        for i, (entry, thread) in enumerate(pairs[first : first + at_once]):
            table = shop.data + i * _PER_THREAD_BYTES
            data = table + _TABLE_BYTES
            calls, arguments = threads.setup_calls(entry, usual, data)
            libc.vm_write(thread.tgid, data, arguments)
            shop.start(calls, thread, table)
            started.append((calls, thread, table))
        for calls, thread, table in started:
            shop.finish(calls, thread, table)


def _correct_tids(rebuild: Rebuild, building: Building) -> None:
    """Where a tid could not be kept, let the process know."""
    new = {}
    for entry in building.entry.threads:
        if entry.tid not in rebuild.tables.pids:
            rebuild.tables.pids[entry.tid] = rebuild.number_inside(entry.tid, building.threads[entry.tid].tid)
        if rebuild.tables.pids[entry.tid] != entry.tid:
            new[entry.tid] = rebuild.tables.pids[entry.tid]
    thread_ids.correct(building.pid, building.entry, new, rebuild.folder)


def identity(rebuild: Rebuild, building: Building) -> None:
    """Scheduling, limits, credentials: from the least to the most that cannot be undone."""
    entry = building.entry
    with acting_as(rebuild.user):
        rebuild.warnings.extend(control_groups.join(entry, building.pid))  # some have an affinity of their own
        tids = {tid: thread.tid for tid, thread in building.threads.items()}
        rebuild.warnings.extend(control_groups.join_threads(entry, tids))
    for thread in entry.threads:
        if not thread.exited:
            rebuild.warnings.extend(threads.apply_scheduling(building.threads[thread.tid].tid, thread.scheduling))
    rebuild.warnings.extend(processes.apply_oom_score(building.pid, entry.oom_score_adj))
    rebuild.warnings.extend(settings.apply_coredump_filter(building.pid, entry.settings))
    if session_of(rebuild.inventory, entry) == entry.pid:
        rebuild.warnings.extend(settings.apply_autogroup(building.pid, entry.settings))
    rebuild.warnings.extend(processes.apply_limits(building.shop, entry.rlimits, building.pid, last=False))
    if rebuild.own_namespace and os.geteuid() != 0 and building.pid == rebuild.root_pid and entry.user < 0:
        rebuild.warnings.extend(keyrings.link_users(building.shop))
    _enter_roots(rebuild, building)
    seccomp.put_back(building.shop, building.threads.values(), entry)
    _credentials(rebuild, building)
    building.shop.run(processes.late_prctl_calls(entry))
    rebuild.warnings.extend(settings.apply_futex_hash(building.shop, entry.futex_hash, building.pid))
    _set_death_signals(building, later=_parent_ends(rebuild, entry))


def _parent_ends(rebuild: Rebuild, entry: ProcessEntry) -> bool:
    """Whether its parent's main thread, which forks all children here, ends once more: to these a parent's death."""
    parent = rebuild.built.get(entry.ppid)
    return parent is not None and parent.entry.threads[0].exited


def _set_death_signals(building: Building, *, later: bool = False) -> None:
    """What threads are sent at their parent's death; `later`: nothing yet. A stub has a signal of its own."""
    for thread in building.entry.threads:
        if thread.pdeathsig or thread.tid == building.entry.pid:  # the main one also where it is to end
            call = processes.death_signal_call(0 if later else thread.pdeathsig)
            building.shop.run([call], thread=building.threads[thread.tid])


def _enter_roots(rebuild: Rebuild, building: Building) -> None:
    every: list[tuple[Workshop, ProcessEntry | FoldersEntry]] = [(building.shop, building.entry)]
    every += [(rebuild.apart[t.tid], t.folders) for t in building.entry.threads if t.folders is not None]
    for shop, folders in every:
        calls, arguments = roots.enter_calls(folders, shop.data)
        shop.put(arguments)
        shop.run(calls)


def _credentials(rebuild: Rebuild, building: Building) -> None:
    entry, shop = building.entry, building.shop
    own = {thread.tid: thread.credentials for thread in entry.threads if thread.credentials}
    for image_tid, thread in building.threads.items():
        wanted = own.get(image_tid, entry.credentials)
        bits = shop.run([Call("prctl", linux.PR_GET_SECUREBITS)], thread=thread)[0]
        present = processes.credentials(proc.status(building.pid, thread.tid), bits, wanted.keepcaps)
        if rebuild.own_namespace and os.geteuid() != 0:
            present.groups = wanted.groups  # those of our user, which a user namespace does not let us name
        present, wanted = rebuild.users.own_ids(entry, present, wanted)
        calls, arguments = processes.credential_calls(present, wanted, shop.data)
        if calls:
            shop.put(arguments)
            shop.run(calls, thread=thread)
        if own and wanted.no_new_privs:
            shop.run([processes.no_new_privs_call()], thread=thread)
        elif not calls and not own and image_tid == entry.pid:
            return  # as is the leader, so are all: they were cloned from it


def arm(rebuild: Rebuild) -> None:
    """Queue signals, arm timers, take the workshops away, set the registers: everything is whole, and stopped."""
    reach(Stage.RESTORE_SIGNALS, rebuild.root_pid)
    rebuild.sysv.attached()
    pids = rebuild.tables.pids
    for building in rebuild.built.values():
        _arm(rebuild, building)
        limits = building.entry.rlimits
        rebuild.warnings.extend(processes.apply_limits(building.shop, limits, building.pid, last=True))
    for building in rebuild.built.values():
        reach(Stage.RESTORE_REGISTERS, building.pid)
        for thread in building.entry.threads:
            if not thread.exited:
                threads.make_room_for_tiles(building.shop, building.threads[thread.tid], thread)
        if _parent_ends(rebuild, building.entry):  # it has: parents are before their children here
            _set_death_signals(building)
        waiting = _let_wait(building)
        gadget = _take_workshop_away(building)
        for thread in building.entry.threads:
            if not thread.exited:
                threads.final_state(building.threads[thread.tid], thread, pids, waiting=thread.tid in waiting)
        if building.entry.threads[0].exited:
            threads.exit_alone(building.threads.pop(building.entry.pid), gadget)
    if rebuild.init is not None:
        namespace.make_wait(rebuild.init, rebuild.root.pid)


def let_go(rebuild: Rebuild) -> None:
    """Let everything run: all of it or nothing.

    A namespace's first process goes last: it dies with us until then, and everything in it with it.
    """
    reach(Stage.RESTORE_LET_GO, rebuild.root_pid)
    init = rebuild.init
    with _all_or_none([init.thread.tgid] if init else [b.pid for b in rebuild.built.values()], rebuild.tables.guardian):
        tcp_kept.resume(rebuild.tables)
        for building in rebuild.built.values():
            went = [made.detach() for made in building.threads.values()]
            if not all(went):
                raise ThreadGone(f"process {building.pid} was killed before it ran", pid=building.pid)
            reach(Stage.RESTORE_LETTING_GO, building.pid)
        if init is not None:
            init.thread.detach()
        rebuild.sysv.keep()
        rebuild.ipc.keep()
    rebuild.tables.guardian.dismiss()


@contextmanager
def _all_or_none(pids: list[int], guardian: Guardian) -> Iterator[None]:
    """Should we fail or be killed in between, these processes end, although some of them run already."""
    with ExitStack() as stack:
        pidfds = []
        for pid in pids:
            pidfds.append(libc.pidfd_open(pid))
            stack.callback(os.close, pidfds[-1])
        if guardian.is_there or len(pids) > 1:
            guardian.processes(pidfds)
        try:
            yield
        except BaseException:
            for pidfd in pidfds:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            raise


def _arm(rebuild: Rebuild, building: Building) -> None:
    entry, shop, pids = building.entry, building.shop, rebuild.tables.pids
    pid = pids[entry.pid]
    signals.queue(shop, pid, timers.of_no_timer(entry.pending, entry))
    for thread in entry.threads:
        if own := timers.of_no_timer(thread.pending, entry):
            signals.queue(shop, pid, own, building.threads[thread.tid], pids[thread.tid])
    ahead_ns = partial(rebuild.times.ahead_ns, entry.time)
    for calls, arguments in (timers.itimer_calls(entry, shop.data), timers.timer_calls(entry, shop.data, ahead_ns)):
        if calls:
            shop.put(arguments)
            shop.run(calls)


def _let_wait(building: Building) -> set[int]:
    """Let threads that waited with a limit wait again, for what was left; the tids of those that do."""
    may = seccomp.let_restart(building.entry)
    limited = [thread for thread in building.entry.threads if thread.wait_left_ns >= 0 and may]
    return {t.tid for t in limited if timeouts.wait_again(building.shop, building.threads[t.tid], t)}


def _take_workshop_away(building: Building) -> int:
    """The address of a `syscall` instruction that is left: the vdso's, or one in the program's own code."""
    shop = building.shop
    code = [vma for vma in building.entry.vmas if vma.prot & linux.PROT_EXEC]
    code.sort(key=lambda vma: vma.kind != "vdso")
    gadget = next(filter(None, (_find_call(building.pid, vma.start, vma.end) for vma in code)), 0)
    own = shop.address + arch.RUN_TABLE.index(arch.SYSCALL_INSTRUCTION)
    unmap = [Call("munmap", shop.address, shop.size)] if gadget else []  # else the page stays
    if ignoring := signals.ignore_traps_call(building.entry, shop):
        stub.call_without_trap(building.leader, gadget or own, [ignoring, *unmap])
    elif gadget:
        stub.step_call(building.leader, gadget, "munmap", shop.address, shop.size)
    return gadget or own


def _find_call(pid: int, start: int, end: int) -> int:
    try:
        at = libc.vm_read(pid, start, end - start).find(arch.SYSCALL_INSTRUCTION)
    except OSError:  # may not be read, or lies beyond the end of its file
        return 0
    return start + at if at >= 0 else 0
