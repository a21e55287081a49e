"""A whole process, frozen: every thread seized and stopped, and let go again on any way out."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from kernel_backend.abi import arch
from kernel_backend.errors import TargetBusy, TargetDenied, TargetNotFound, TargetUnsupported
from kernel_backend.host import libc, proc
from kernel_backend.tracee import filters
from kernel_backend.tracee.inject import Borrowed, FrameSpans, Gadgets, as_interrupted, passes, taken
from kernel_backend.tracee.thread import STOP_TIMEOUT_S, Stop, Thread, ThreadGone

_SOCKET = re.compile(r"socket:\[(\d+)\]")
_APART_BYTES = 32 << 10  # more than the frame of the main thread takes, which may just have made its stack grow
_gadget_cache: dict[tuple[int, int, str], tuple[int, int, int]] = {}


class Process:
    """A process whose threads are all stopped under our trace."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.threads: dict[int, Thread] = {}
        self.workers: set[int] = set()  # tids of the OS kernel's own threads among them, which nobody can stop
        self.view = pid  # under which /proc shows memory and descriptors; another tid when the leader has ended
        self.zombie_leader = False
        self._requeue: list[tuple[Thread, bytes]] = []
        self._pidfd = -1
        self._spare_end = 0
        self._frames = FrameSpans()
        self._lent = (0, 0)  # address and size of code that we have put there
        self._seen: list[Process] = []
        self._status: dict[str, str] = {}
        self.unfiltered = False  # its seccomp filters, which it has, are suspended
        self._restarts = True  # whether they let a sleeper go on that our stop has woken

    # --- freezing -----------------------------------------------------------------------------------------------
    def seize_all(self) -> None:
        """Seize and stop every thread; done when the task list holds no other one.

        Raises TargetNotFound, TargetDenied, TargetBusy, TargetUnsupported. What was seized is in `threads` also when
        this raises, so that `release` can let it go.
        """
        waiting: list[Thread] = []
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not self._are_all_seized(waiting):
            while waiting:
                self._settle(waiting.pop(0))
            if time.monotonic() > deadline:
                raise TargetBusy(
                    f"threads of process {self.pid} begin and end faster than they can be stopped",
                    hint="try again when it does something else", pid=self.pid,
                )  # fmt: skip
        if not self.threads:
            raise TargetNotFound(f"process {self.pid} ended", pid=self.pid)
        self._has_stopped()

    def _are_all_seized(self, waiting: list[Thread]) -> bool:
        """Seize what the task list has new. Whether that was nothing: then nobody is left who could make a thread.

        One that was listed and has ended since proves the contrary: it may have made another before, and the OS kernel
        breaks a list off at a thread that ends just then. Where that one had not been shown yet, the list looks whole:
        so their number, which is kept apart, has to agree (proc_task_readdir and next_tid in fs/proc/base.c). A dead
        leader stays listed, and counted; others are zombies for a moment only.
        """
        complete = True
        tids = self._tasks()
        self._note_workers(tids)
        for tid in tids:
            if tid not in self.threads and tid not in self.workers:
                self._seize_one(tid, waiting)
                complete = complete and tid not in self.threads and self._is_dead_leader(tid)
        return complete and self._count() == len(tids)

    def _is_dead_leader(self, tid: int) -> bool:
        try:
            return tid == self.pid and proc.stat(self.pid, tid).state == "Z"
        except OSError:
            return False

    def _count(self) -> int:
        try:
            return proc.stat(self.pid).num_threads
        except OSError:
            return 0  # it has ended, as the next list tells

    def seize_one(self) -> None:
        """Seize and stop the first thread that lets us, and can make calls. Raises TargetBusy where none can."""
        waiting: list[Thread] = []
        refused: TargetBusy | None = None
        for tid in self._tasks():
            if proc.is_worker(self.pid, tid):
                continue
            self._seize_one(tid, waiting)
            if waiting:
                self._settle(waiting.pop())
            if self.threads:
                self._has_stopped()
                dispatch = self.main.dispatch()
                if dispatch is not None and not passes(self.main, dispatch, self.gadgets):
                    refused = taken(self.main)
                    self.release()
                    continue
                self.return_signals()
                return
        if refused is not None:
            raise refused
        raise ThreadGone(f"process {self.pid} ended", pid=self.pid)

    def _has_stopped(self) -> None:
        self.view = self.main.tid
        self._status = {}
        self._suspend_filters()

    def status(self) -> dict[str, str]:
        """/proc/PID/status, as it was when everybody asked of it first had stopped: read once, for a pause is short."""
        if not self._status:
            self._status = proc.status(self.view)
        return self._status

    def _suspend_filters(self) -> None:
        if self.status().get("Seccomp", filters.NONE) != filters.NONE and filters.can_be_suspended():
            self.unfiltered = filters.suspend(self.threads.values())
            try:
                self._restarts = filters.let_restart(filters.read(self.main))
            except OSError:  # one that cannot be read: who needs to know it says so
                self._restarts = False

    def _tasks(self) -> list[int]:
        try:
            return proc.task_ids(self.pid)
        except OSError as error:
            raise TargetNotFound(f"there is no process {self.pid}", pid=self.pid) from error

    def _seize_one(self, tid: int, waiting: list[Thread]) -> None:
        thread = Thread(tid, self.pid)
        try:
            thread.seize()
        except ThreadGone:
            self.zombie_leader |= tid == self.pid
            return
        self.threads[tid] = thread
        thread.interrupt()
        waiting.append(thread)

    def _note_workers(self, tids: Sequence[int]) -> None:
        """Before any is seized: a worker lets us do that, and then never stops."""
        if len(tids) > 1:
            known = self.workers | self.threads.keys()
            self.workers.update(tid for tid in tids if tid not in known and proc.is_worker(self.pid, tid))

    def _settle(self, thread: Thread) -> None:
        """Bring one interrupted thread to a stop that is not a half-delivered signal."""
        try:
            stop = thread.wait()
        except ThreadGone:
            del self.threads[thread.tid]
            return
        if stop.is_delivery or stop.is_step:
            self._requeue.append((thread, thread.siginfo()))
        elif stop.signal not in (0, 5):
            thread.group_stop = stop.signal

    def return_signals(self) -> None:
        """Queue again the signals that our stop caught on their way (as the thread itself: only it may do so)."""
        while self._requeue:
            thread, info = self._requeue[-1]
            pid, tid = proc.inner_id(self.pid), proc.inner_id(thread.tid)
            with self.borrow(thread) as borrowed:
                number = int.from_bytes(info[:4], "little")
                borrowed.call("rt_tgsigqueueinfo", pid, tid, number, borrowed.put(info))
            thread.stop = Stop(5, 128)
            self._requeue.pop()
        self._status = {}  # others of the tree may have sent it something until they stopped, too

    def release(self) -> None:
        """Let every thread go, with its own registers."""
        if self._lent[1]:
            with contextlib.suppress(OSError):
                libc.poke(self.view, self._lent[0], bytes(self._lent[1]))
        waiting = {thread.tid: int.from_bytes(info[:4], "little") for thread, info in self._requeue}
        for thread in self.threads.values():
            thread.detach(waiting.get(thread.tid, 0))  # what we have not returned it still is about to get
        self.threads.clear()
        self._requeue.clear()
        for one in (self, *self._seen):
            if one._pidfd >= 0:
                os.close(one._pidfd)
                one._pidfd = -1

    def as_seen_by(self, tid: int) -> Process:
        """The process as one of its threads has it, which has left the descriptor table of the others."""
        seen = Process(self.pid)
        seen.view, seen.threads = tid, {tid: self.threads[tid]}
        self._seen.append(seen)
        return seen

    # --- looking and borrowing ----------------------------------------------------------------------------------
    @property
    def main(self) -> Thread:
        """The thread that makes system calls for the whole process: the leader while it lives."""
        return self.threads.get(self.pid) or next(iter(self.threads.values()))

    @cached_property
    def maps_text(self) -> str:
        """The address space at the freeze, as the OS kernel tells it: quick to read, slow to make sense of."""
        return proc.maps_text(self.view)

    @cached_property
    def mappings(self) -> list[proc.Mapping]:
        """The address space at the freeze."""
        return proc.parse_maps(self.maps_text)

    @cached_property
    def shared_mappings(self) -> list[proc.Mapping]:
        """Those of `mappings` that are MAP_SHARED."""
        return proc.parse_maps(self.maps_text, only="s")

    @cached_property
    def private_views(self) -> list[proc.Mapping]:
        """Private mappings of memfds and of files without a name."""
        lines = (line for line in self.maps_text.splitlines(keepends=True) if "/memfd:" in line or "(deleted)" in line)
        return proc.parse_maps("".join(lines), only="p")

    @cached_property
    def gadgets(self) -> Gadgets:
        """Where in this process the code stands that injection uses."""
        syscall = sigreturn = store = 0
        for mapping in _executable(self.maps_text):
            found_call, found_return, found_store = _find_gadgets(self.view, mapping)
            syscall = syscall or found_call
            sigreturn = sigreturn or found_return
            store = store or (found_store if self._may_recite() else 0)
            if syscall and sigreturn:
                return Gadgets(syscall, sigreturn, store)
        if lent := self._lend_gadgets():
            return lent
        if not syscall:
            raise TargetUnsupported(f"process {self.pid} holds no system-call instruction to borrow", pid=self.pid)
        return Gadgets(syscall, sigreturn)

    def _may_recite(self) -> bool:
        """Whether batches may be made in it: no filter (seccomp) hears of their calls, no shadow stack of returns."""
        name, feature = arch.SHADOW_STACK
        unjudged = self.unfiltered or self.status().get("Seccomp", filters.NONE) == filters.NONE
        return unjudged and feature not in self.status().get(name, "").split()

    def _lend_gadgets(self) -> Gadgets | None:
        """Put both where nothing is, behind the end of the OS kernel's own code: for a program without a libc.

        They are taken away again (`release`); should we be killed before, nobody ever comes by there.
        """
        vdso = next((mapping for mapping in self.mappings if mapping.path == "[vdso]"), None)
        code = arch.SIGRETURN_STUBS[0] + arch.SYSCALL_RETURN[len(arch.SYSCALL_INSTRUCTION) :]
        if vdso is None:
            return None
        at = vdso.end - 16
        try:
            if any(self.read(at, 16)):
                return None
            libc.poke(self.view, at, code)
        except OSError:
            return None
        self._lent = at, len(code)
        return Gadgets(at + code.index(arch.SYSCALL_RETURN), at)

    def borrow(self, thread: Thread | None = None) -> Borrowed:
        """A context for system calls made by `thread` (the main one unless given)."""
        return Borrowed(thread or self.main, self.gadgets, self._room_below_stack, self._frames)

    def _room_below_stack(self, size: int) -> int:
        """The end of `size` bytes below the main stack, which grows when they are touched: nobody was ever there."""
        if not self._spare_end:
            stack = next((mapping for mapping in self.mappings if mapping.path == "[stack]"), None)
            if stack is None:
                raise TargetUnsupported(f"a thread of process {self.pid} has no stack to borrow", pid=self.pid)
            self._spare_end = stack.start - _APART_BYTES
        end = self._spare_end
        self._spare_end -= size
        return end

    def read(self, address: int, size: int) -> bytes:
        """Memory of the process."""
        return libc.vm_read(self.view, address, size)

    def take_fd(self, fd: int) -> int:
        """Our own duplicate of one of its descriptors (the caller closes it)."""
        return libc.pidfd_getfd(self.pidfd, fd)

    def sockets(self) -> dict[int, int]:
        """Inode → descriptor, of each socket that it has."""
        links = (
            (fd, _SOCKET.fullmatch(os.readlink(f"/proc/{self.view}/fd/{fd}"))) for fd in proc.fd_numbers(self.view)
        )
        return {int(found.group(1)): fd for fd, found in links if found}

    @property
    def pidfd(self) -> int:
        """Ours until it is let go."""
        if self._pidfd < 0:
            self._pidfd = libc.pidfd_open(self.view, thread=self.view != self.pid)
        return self._pidfd

    def fix_interrupted(self) -> None:
        """Make calls repeat that returned EINTR only because we froze their thread.

        So do those that would go on, where a filter forbids that: the program would die of our stop.
        """
        for thread in self.threads.values():
            try:
                regs = thread.get_regs()
                before = regs.result
                if as_interrupted(thread, regs, keep_block=self._restarts).result != before:
                    thread.set_regs(regs)
            except ThreadGone:
                continue  # killed while it was stopped


def look_for_gadgets(pid: int) -> None:
    """Read the code of a running process in which its freeze will look, which takes milliseconds. Never raises."""
    with contextlib.suppress(OSError):
        for mapping in _executable(proc.maps_text(pid))[:1]:
            _find_gadgets(pid, mapping)


def _executable(maps_text: str) -> list[proc.Mapping]:
    """Where code is, the likeliest first."""
    found = [mapping for mapping in proc.parse_maps(maps_text, only="x") if mapping.path != "[vsyscall]"]
    return sorted(found, key=_gadget_likelihood)


def _gadget_likelihood(mapping: proc.Mapping) -> int:
    name = mapping.path.rsplit("/", 1)[-1]
    return 0 if name.startswith(("libc.", "libc-", "ld-musl")) else 1


def _find_gadgets(pid: int, mapping: proc.Mapping) -> tuple[int, int, int]:
    """Addresses of what Gadgets names in one executable mapping, 0 where it has none."""
    key = (mapping.inode, mapping.offset, mapping.device)
    if mapping.inode == 0 or key not in _gadget_cache:
        try:
            code = libc.vm_read(pid, mapping.start, mapping.size)
        except OSError:
            return 0, 0, 0
        calls = code.find(arch.SYSCALL_RETURN)
        stub = next((at for at in map(code.find, arch.SIGRETURN_STUBS) if at >= 0), -1)
        _gadget_cache[key] = (calls, stub, code.find(arch.STORE_RESULT))
    calls, stub, store = (mapping.start + at if at >= 0 else 0 for at in _gadget_cache[key])
    return calls, stub, store


def check_target(pid: int) -> None:
    """Refuse early what cannot be traced: no such process, a mere thread, somebody else's, not 64-bit x86."""
    try:
        leader = int(proc.status(pid)["Tgid"])
    except OSError as error:
        raise TargetNotFound(f"there is no process {pid}", pid=pid) from error
    if leader != pid:
        raise TargetUnsupported(
            f"{pid} is a thread of process {leader}, not a process", hint=f"name process {leader}", pid=pid
        )
    try:
        exe = Path(f"/proc/{proc.view(pid)}/exe")
        with exe.open("rb") as file:
            head = file.read(20)
    except PermissionError as error:
        raise _denied(pid) from error
    except FileNotFoundError as error:
        raise _without_program(pid) from error
    if head[:4] != b"\x7fELF" or head[4] != 2 or int.from_bytes(head[18:20], "little") != arch.ELF_MACHINE:
        raise TargetUnsupported(
            f"process {pid} is not a 64-bit {arch.MACHINE} program",
            hint=f"only 64-bit {arch.MACHINE} programs can be checkpointed", pid=pid,
        )  # fmt: skip


def _without_program(pid: int) -> TargetNotFound | TargetUnsupported:
    try:
        state = proc.status(pid)["State"]
    except OSError:
        return TargetNotFound(f"there is no process {pid}", pid=pid)
    if state[:1] in "ZX":
        return TargetNotFound(f"process {pid} has ended: it is a zombie, which its parent has not waited for", pid=pid)
    return TargetUnsupported(
        f"process {pid} has no program (an OS kernel thread, or it is ending)",
        hint="choose an ordinary program", pid=pid,
    )  # fmt: skip


def _denied(pid: int) -> TargetDenied:
    """Why the OS kernel does not let us look into a process (ptrace(2), "Ptrace access mode checking")."""
    owner = int(proc.status(pid).get("Uid", "-1").split()[0])
    if owner != os.geteuid():
        return TargetDenied(f"process {pid} belongs to another user", pid=pid)
    return TargetDenied(
        f"process {pid} has rights that we lack, or has closed itself to others (PR_SET_DUMPABLE)",
        hint="run as root with all capabilities", pid=pid,
    )  # fmt: skip


@contextmanager
def frozen(pid: int) -> Iterator[Process]:
    """The process with all of its threads stopped; it runs on afterwards, whatever happens inside."""
    check_target(pid)
    process = Process(pid)
    with ExitStack() as stack:
        stack.callback(process.release)
        process.seize_all()
        process.return_signals()
        try:
            yield process
        finally:
            process.fix_interrupted()


@contextmanager
def frozen_thread(pid: int) -> Iterator[Process]:
    """The process with ONE thread stopped, for a call or two in its name; the others run on."""
    process = Process(pid)
    with ExitStack() as stack:
        stack.callback(process.release)
        process.seize_one()
        try:
            yield process
        finally:
            process.fix_interrupted()
