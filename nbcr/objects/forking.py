"""The processes of a save: the worker, forked from the user's process, and its spare.

The user is blocked for one fork. The worker then has the namespace to itself, as it was at that moment, and
must not be noticed: it runs no exit handlers, flushes nobody's buffers, answers no signals, and gives up
every pipe and socket it inherited, so that what the user closes meanwhile is closed.

Of the other threads' locks, glibc's fork and Python's own put malloc, the GIL, imports and `logging` in
order. Any other lock may be held for ever in the worker, and pickling runs code of anybody's. So before the
first object whose type we do not know, the worker forks a spare, which does nothing but watch. Should the
worker crash, or stand still (no bytes written, no processor time used), the spare goes on from where it was
forked, without the name that was being saved; that name is lost, with the reason, and so is nothing else. A
spare is a copy of the same moment: the snapshot stays consistent.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import select
import signal
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from nbcr.objects.board import Board, Late, Orphaned, Stage, State

STALL_S = 5.0
SPIN_S = 60.0  # of processor time for one name without a byte that is written
GRACE_S = 5.0  # that a worker gets to stop by itself when the deadline is over
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_ALARM_S = 60.0  # after the deadline, the OS kernel ends whoever is left
_LOOK_S = 0.5
_CALCULATED = "another thread calculates, and OpenBLAS would wait for ever for what meets a fork"
_KEEPING_THE_LOCK = ctypes.PyDLL(None)
_FUTEX, _FUTEX_COMMAND, _FUTEX_WAIT = 202, 0x7F, 0  # x86-64; linux/futex.h
_LOOKS, _LOOK_AGAIN_US = 500, 1000  # half a second in all
_WAITING = (
    "/threading.py", "/selectors.py", "/queue.py", "/socket.py", "/multiprocessing/connection.py",
    "/ipykernel/heartbeat.py", "/ipykernel/iostream.py", "/ipykernel/parentpoller.py", "/zmq/utils/garbage.py",
    "/zmq/sugar/__init__.py",  # zmq.device, in which the heartbeat's thread stays
)  # fmt: skip
_POOL, _OURS = "/concurrent/futures/thread.py", str(Path(__file__).parents[1]) + os.sep
_ACCELERATORS = ("/dev/nvidia", "/dev/kfd", "/dev/dri/render", "/dev/davinci", "/dev/accel")


def why_not() -> str:
    """Why this process must not be forked; empty: it may."""
    if sys.platform != "linux" or not hasattr(os, "fork"):
        return f"forking is not safe on {sys.platform}"
    torch = sys.modules.get("torch")
    with contextlib.suppress(Exception):  # whatever happens to be called torch
        if torch is not None and torch.cuda.is_initialized():
            return "CUDA is in use, which a forked process cannot read from"
    for device in _open_devices():
        return f"{device} is open, which a forked process cannot read from"
    return ""


@contextlib.contextmanager
def _no_calculation() -> Iterator[None]:
    """Keep the interpreter's lock in the block, which is begun when no other thread calculates.

    OpenBLAS ends its threads before every fork (pthread_atfork). Where a calculation begins or ends in another thread
    at that moment, the word to end is lost, and the fork waits for ever, with the interpreter's lock in its hands. So
    that lock is kept until every calculation has come to its end, and its thread to waiting for us. Raises OSError
    (EBUSY) when one does not end.

    Who waits for the lock longer than the switch interval is given it between any two instructions. So the interval is
    made longer than all this takes; and those who wait already, by the old one, are given the lock once more.
    """
    if not _openblas_is_loaded() or all(_others().values()):
        yield
        return
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(2 * _LOOKS * _LOOK_AGAIN_US / 1e6)
    try:
        _KEEPING_THE_LOCK.usleep(round(1.2e6 * interval_s))
        time.sleep(0)
        if _somebody_calculates():
            raise OSError(errno.EBUSY, _CALCULATED)
        yield
    finally:
        sys.setswitchinterval(interval_s)
        time.sleep(0)  # who waits by our interval waits by the old one from here on


def _others() -> dict[int, bool]:
    """Other threads of Python's by tid, each with whether what it does in Python is to wait for others."""
    frames = sys._current_frames()
    del frames[threading.get_ident()]  # it would keep itself, with what our callers hold
    threads = ((t.native_id, frames.get(t.ident or 0)) for t in threading.enumerate())
    us = threading.get_native_id()
    return {tid: frame is not None and _waits(frame) for tid, frame in threads if tid is not None and tid != us}


def _waits(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    pool = name.endswith(_POOL) and frame.f_code.co_name == "_worker"
    return name.endswith(_WAITING) or name.startswith(_OURS) or pool


def _somebody_calculates() -> bool:
    """Whether another thread of Python's is in native code still, after half a second in which the lock was ours."""
    suspects = [tid for tid, waits in _others().items() if not waits]
    for _ in range(_LOOKS):
        suspects = [tid for tid in suspects if not _is_called_away(tid)]
        if not suspects:
            return False
        _KEEPING_THE_LOCK.usleep(_LOOK_AGAIN_US)
    return True


def _is_called_away(tid: int) -> bool:
    """Whether a thread waits for a lock of Python's, or in a system call that no calculation makes.

    Python waits for the interpreter's lock and all others by FUTEX_WAIT_BITSET (conditions and semaphores of glibc).
    FUTEX_WAIT is a mutex: one of the library's, say, whose owner lets this thread in at any moment.
    """
    room = ctypes.create_string_buffer(256)
    fd = _KEEPING_THE_LOCK.open(f"/proc/self/task/{tid}/syscall".encode(), os.O_RDONLY | os.O_CLOEXEC)
    if fd < 0:
        return bool(_KEEPING_THE_LOCK.access(f"/proc/self/task/{tid}".encode(), os.F_OK) != 0)  # it has ended
    count = _KEEPING_THE_LOCK.read(fd, room, len(room))
    _KEEPING_THE_LOCK.close(fd)
    words = room.raw[: max(0, count)].split()
    if len(words) < 3:  # "running"
        return False
    return int(words[0]) != _FUTEX or int(words[2], 16) & _FUTEX_COMMAND != _FUTEX_WAIT


def _openblas_is_loaded() -> bool:
    if "numpy" not in sys.modules:  # whoever else brings it along
        return b"openblas" in Path("/proc/self/maps").read_bytes()
    return True


def _open_devices() -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for word in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                path = os.readlink(f"/proc/self/fd/{word}")
                if path.startswith(_ACCELERATORS):
                    found.append(path)
    return found


def fork(work: Callable[[], None]) -> int:
    """The pid of a child that runs `work` and nothing else, ever.

    Raises OSError when there is no room for one, or when another thread calculates and does not come to an end.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are threads: that is what all this is about
            with _no_calculation():
                pid = os.fork()
        if pid == 0:
            try:
                gc.disable()  # nothing of the parent's may be finalized here
                work()
            finally:
                os._exit(0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return pid


def isolate(deadline: float, keep: tuple[int, ...]) -> None:
    """Make the freshly forked process one that nobody notices; `keep` are descriptors of ours."""
    import resource

    signal.set_wakeup_fd(-1)  # an event loop of the parent's listens at the other end
    _forget_imports_of_other_threads()
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):  # meant for the whole process group
        signal.signal(number, signal.SIG_IGN)
    _arm(deadline)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # should memory run out, the user's process is not the one to go
        Path("/proc/self/oom_score_adj").write_text("500")
    warnings.simplefilter("ignore")
    _let_go_of_descriptors(keep)
    nowhere = Path(os.devnull).open("r+")  # noqa: SIM115
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, name, nowhere)
        setattr(sys, f"__{name}__", nowhere)
    if "logging" in sys.modules:
        sys.modules["logging"].disable(sys.maxsize)


def _forget_imports_of_other_threads() -> None:
    """A module that another thread was importing at the fork is locked for ever, and so would be whoever imports it.

    Without the lock it is there as far as it came.
    """
    with contextlib.suppress(Exception):  # a Python that keeps them elsewhere
        bootstrap: Any = sys.modules["_frozen_importlib"]
        bootstrap._module_locks.clear()
        bootstrap._blocking_on.clear()


def _arm(deadline: float) -> None:
    """Whatever happens, this process does not outlive its deadline for long."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, deadline - time.monotonic()) + _ALARM_S)


def _let_go_of_descriptors(keep: tuple[int, ...]) -> None:
    """Everything but regular files becomes /dev/null.

    Still there under its number, but nobody waits for our end of it.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for word in os.listdir("/proc/self/fd"):
        number = int(word)
        if number in (null, *keep):
            continue
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.fstat(number).st_mode):
                os.dup2(null, number, inheritable=False)
    os.close(null)


class Guard:
    """Keeps a spare in readiness, and remembers what became of earlier workers."""

    def __init__(self, board: Board, deadline: float, requester: int) -> None:
        self.board, self.deadline = board, deadline
        self.given_up: dict[
            str, tuple[str, bool]
        ] = {}  # names that are not tried again: why, and whether they only hung
        self.suspects: set[str] = set()  # names of which one ended a worker: from now on one at a time
        self.undescribed: set[str] = set()
        self._requester = requester  # pidfd of the process that asked for the snapshot
        self._has_spare = False
        self._spare = 0

    def pulse(self) -> None:
        """Raise when there is no time left, or nobody to save for."""
        if time.monotonic() > self.deadline:
            raise Late
        if _has_ended(self._requester, 0):
            raise Orphaned

    def stand_by(self) -> bool:
        """See to it that there is a spare. True.

        This process has just taken over, and what came later is to be done again.
        """
        took_over = False
        while not self._has_spare:
            worker = os.getpid()
            self._spare = fork_plain()
            if self._spare:
                self._has_spare = True
                self.board.enlist(spare=self._spare)
                break
            _arm(self.deadline)
            self._watch(worker)
            took_over = True
        return took_over

    def dismiss(self) -> None:
        """The worker has done its work: the spare goes."""
        if self._spare:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._spare, signal.SIGKILL)
                os.waitpid(self._spare, 0)
        self._has_spare, self._spare = False, 0

    # --- as the spare

    def _watch(self, worker: int) -> None:
        """Return when the worker has ended without having finished; until then do nothing."""
        done = self.board.done, self.board.written
        ended = os.pidfd_open(worker) if _is_parent(worker) else -1
        last, since = None, time.monotonic()
        written, used_before = None, 0.0
        stalled = spinning = False
        while not _has_ended(ended, _LOOK_S):
            if _has_ended(self._requester, 0):
                kill(worker)
                os._exit(0)
            self.board.read()
            now = (self.board.written, self.board.done, used_s := _processor_time_s(worker))
            if now != last or not _is_idle(worker):
                last, since = now, time.monotonic()
            if written != (self.board.stage, *now[:2]):
                written, used_before = (self.board.stage, *now[:2]), used_s
            stalled = time.monotonic() - since > STALL_S
            spinning = self.board.stage is Stage.SAVING and used_s - used_before > SPIN_S
            if stalled or spinning or time.monotonic() > self.deadline + GRACE_S:
                kill(worker)
        if ended >= 0:
            os.close(ended)
        self._judge(_HUNG if stalled else _SPUN if spinning else _CRASHED)
        self.board.done, self.board.written = done

    def _judge(self, why: str) -> None:
        if self.board.read().state is not State.UNDER_WAY:
            os._exit(0)
        stage, names = self.board.stage, self.board.names
        if stage is Stage.DESCRIBING:
            self.undescribed.update(names)
        elif stage is Stage.SAVING and len(names) == 1:
            self.suspects.clear()
            self.given_up[names[0]] = (why, why is _HUNG)
        elif stage is Stage.SAVING and not self.suspects.issuperset(names):
            self.suspects.update(names)
        else:
            self.board.fail("the process that saved it ended without a word")
            os._exit(0)


_HUNG = "saving it came to a standstill, as if waiting for a lock that another thread holds"
_SPUN = f"saving it took more than {SPIN_S:g} s of processor time and wrote nothing"
_CRASHED = "saving it ended the process that did so, as a fault in an extension module does"


def fork_plain() -> int:
    """fork, without anything around it: in a worker there is nobody left to mind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def _is_parent(pid: int) -> bool:
    return os.getppid() == pid


def _has_ended(pidfd: int, timeout_s: float) -> bool:
    """Whether a process ends within the time; a process we never got hold of has ended."""
    if pidfd < 0:
        return True
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1e3))


def _processor_time_s(pid: int) -> float:
    """Processor time the process has used."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0


def _is_idle(pid: int) -> bool:
    """Whether all it does is wait; for the disk it may."""
    fields = _stat(pid)
    return bool(fields) and fields[0] in "SZTX"


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def kill(pid: int) -> None:
    """End a process of ours that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
