"""Things that live as long as processes do: the runtime folder, checkpoint threads' sockets, target locks.

The folder is ``$XDG_RUNTIME_DIR/nbcr``, else ``/run/user/UID/nbcr``, else ``/tmp/nbcr-UID``: 0700 and our
own, or it is not used. A Jupyter kernel and a shell may have different environments, so whoever looks for a
socket tries all of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from nbcr.errors import Busy, NotPossible

_PEER_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_MAX_PATH_BYTES = 107  # of a socket: unix(7)
_LOCK_POLL_S = 0.02
_MARK = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_FIRST_NAMESPACE = 0xEFFFFFFC  # who is in the host's own pid namespace sees every process
_UNTOLD_AFTER_S = 3600.0


def readable(descriptor: int, timeout_s: float | None = 0.0) -> bool:
    """Whether there is something to read, or an end (a pidfd's is its process's), within the time (None: for ever).

    By poll(2): select(2) knows no descriptors from 1024 on, and a busy server has that many.
    """
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))


def candidate_folders() -> list[Path]:
    """Runtime folders in order of preference; none is created."""
    uid = os.geteuid()
    bases = [os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}"]
    found = [Path(base) / "nbcr" for base in dict.fromkeys(bases) if base and Path(base).is_dir()]
    return [*found, Path(os.environ.get("TMPDIR") or "/tmp") / f"nbcr-{uid}"]


def is_private(folder: Path) -> bool:
    """Whether `folder` is a real directory, ours, closed to everybody else."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def runtime_folder() -> Path:
    """The first candidate private to us, created when missing. Raises NotPossible when there is none."""
    for folder in candidate_folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
        if is_private(folder) and os.access(folder, os.W_OK):
            return folder
    tried = ", ".join(str(f) for f in candidate_folders())
    raise NotPossible(
        f"no private runtime folder among {tried}", hint="set XDG_RUNTIME_DIR to a folder of your own (0700)"
    )


def own_pid() -> int:
    """Our pid as the OS kernel has it: what libraries make of getpid() may be another life's answer."""
    return int(Path("/proc/self").readlink().name)


def where_threads_are() -> dict[int, FrameType]:
    """The innermost frame of each thread by its ident; of ours, that in which whoever asks was called.

    Not that of whoever asks, as sys._current_frames() has it: in a variable there, it would keep itself and all that
    its callers held (a user's arrays) until the garbage collector comes.
    """
    frames = sys._current_frames()
    frames[threading.get_ident()] = sys._getframe(2)
    return frames


def start_ticks(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot (pids are re-used); None: no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def pid_namespace(pid: int | str = "self") -> int:
    """Number of the pid namespace of `pid`, the same wherever it is looked at from; 0 when it is not told."""
    try:
        return int(os.readlink(f"/proc/{pid}/ns/pid")[len("pid:[") : -1])
    except (OSError, ValueError):
        return 0


def number_inside(pid: int) -> int:
    """What process `pid` calls itself: its number in its innermost pid namespace.

    A process brought back where pids cannot be chosen keeps its old one inside a pid namespace of its own.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return pid
    numbers = [line.split() for line in text.splitlines() if line.startswith("NSpid:")]
    return int(numbers[0][-1]) if numbers and len(numbers[0]) > 1 else pid


def own_number() -> int:
    """What the OS kernel calls us where our own system calls are concerned, whichever /proc we have."""
    return number_inside(own_pid())


def numbers_here(of: int) -> dict[int, int]:
    """For every process in the pid namespace of `of`: number inside it -> number as we see it."""
    namespace = pid_namespace(of)
    if namespace in (0, pid_namespace()):
        return {}
    return {number_inside(pid): pid for pid in _visible() if pid_namespace(pid) == namespace}


def seen_as(number: int) -> int | None:
    """Our pid of the one process of ours that calls itself `number` in a pid namespace of its own."""
    here, uid = pid_namespace(), os.geteuid()
    found = []
    for pid in _visible():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}").stat().st_uid == uid and number_inside(pid) == number != pid:
                found.append(pid)
    living = [pid for pid in found if start_ticks(pid) is not None and pid_namespace(pid) not in (0, here)]
    return living[0] if len(living) == 1 else None


@dataclass(frozen=True)
class Mark:
    """A process for good: not another one that got its pid later, and from whichever pid namespace one looks."""

    pid: int  # as it calls itself
    start_ticks: int
    namespace: int = 0

    @classmethod
    def of(cls, pid: int) -> Mark:
        """The mark of process `pid`, as we call it."""
        return cls(number_inside(pid), start_ticks(pid) or 0, pid_namespace(pid))

    @classmethod
    def read(cls, text: str) -> Mark | None:
        """The mark that `str` made."""
        match = _MARK.fullmatch(text)
        return cls(*(int(number) for number in match.groups(default="0"))) if match else None

    def __str__(self) -> str:
        return f"{self.pid}.{self.start_ticks}.{self.namespace}"

    @property
    def lives(self) -> bool | None:
        """Whether it is there; None when it cannot be told from here."""
        here = pid_namespace()
        if self.namespace in (0, here):
            return start_ticks(self.pid) == self.start_ticks
        inside = [pid for pid in _visible() if pid_namespace(pid) == self.namespace]
        if any((number_inside(pid), start_ticks(pid)) == (self.pid, self.start_ticks) for pid in inside):
            return True
        return False if inside or here == _FIRST_NAMESPACE else None


def _visible() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def is_stopped(pid: int) -> bool:
    """Whether `pid` stands still, stopped by a signal or by its tracer (or is not there)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return text[text.rindex(")") + 2] in "tTZX"


def boot_id() -> str:
    """Identity of this boot of this host; empty when the OS kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def peer_uid(sock: socket.socket) -> int:
    """User id of the process on the other side of a Unix socket."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    return int(_PEER_CREDENTIALS.unpack(raw)[1])


def peer_pid(sock: socket.socket) -> int:
    """The process on the other side of a Unix socket."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    return int(_PEER_CREDENTIALS.unpack(raw)[0])


def socket_path(pid: int) -> Path:
    """Where the checkpoint thread of process `pid` listens, when we are that process. Raises NotPossible."""
    path = runtime_folder() / _socket_name(pid)
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise NotPossible(f"{path} is too long for a socket", hint="set XDG_RUNTIME_DIR to a shorter path of your own")
    return path


def _socket_name(pid: int) -> str:
    return f"{Mark.of(pid)}.sock"


class ThreadAway(ConnectionRefusedError):
    """The process has a checkpoint thread, but its socket is closed just now: a checkpoint is being taken."""


def sweep() -> None:
    """Unlink sockets and locks that dead processes left in our runtime folder."""
    for path in runtime_folder().iterdir():
        mark = Mark.read(path.stem)
        if mark is not None and _is_left_over(path, mark):
            path.unlink(missing_ok=True)


def _is_left_over(path: Path, mark: Mark) -> bool:
    if path.suffix not in (".sock", ".lock"):
        return False
    lives = mark.lives
    if lives is None:
        return path.suffix == ".sock" and _nobody_listens(path)
    return not lives


def _nobody_listens(path: Path) -> bool:
    """Whether a socket refuses, and has for so long that no checkpoint can be the cause."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                return time.time() - path.stat().st_mtime > _UNTOLD_AFTER_S
        except OSError:
            pass
    return False


def connect_to_thread(pid: int) -> socket.socket | None:
    """A connection to the checkpoint thread of `pid`, None when it has none; raises ThreadAway.

    A socket's name holds the time its process started, so one that is there and refuses is not a dead
    process's.
    """
    away = False
    for folder in candidate_folders():
        path = folder / _socket_name(pid)
        if not is_private(folder) or not path.exists():
            continue
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(os.fspath(path))
            if peer_uid(sock) == os.geteuid():
                return sock
        except ConnectionRefusedError:
            away = True
        except OSError:
            pass
        sock.close()
    if away:
        raise ThreadAway
    return None


@contextlib.contextmanager
def target_lock(pid: int, timeout_s: float, told: str = "") -> Iterator[None]:
    """Hold the lock for work on process `pid`: one checkpoint or restart at a time, whoever asks.

    Raises Busy after `timeout_s` seconds. The lock goes with its holder, also when that is killed. `told` is
    what others hear who wait for it in vain; else it is a checkpoint or restart.
    """
    path = runtime_folder() / f"{Mark.of(pid)}.lock"
    deadline = time.monotonic() + timeout_s
    descriptor = _locked(path)
    while descriptor is None:
        # flock has no timeout and the holder may be killed at any moment: there is no event to wait for.
        if time.monotonic() >= deadline:
            raise Busy(
                _told(path) or f"another checkpoint or restart of process {pid} did not end within {timeout_s:g} s",
                hint="wait for it to end and ask again, or give a longer deadline",
            )
        time.sleep(_LOCK_POLL_S)
        descriptor = _locked(path)
    try:
        os.ftruncate(descriptor, 0)  # a killed holder's words may be in it
        os.write(descriptor, told.encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _told(path: Path) -> str:
    """What the holder of a lock has to say."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _locked(path: Path) -> int | None:
    """A descriptor holding the lock at `path`, None when somebody else does.

    The previous holder unlinks the file before letting go: what we locked may not be what the path names
    any more.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours, named = os.fstat(descriptor), path.stat()
        if (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def allow_tracing_by(pid: int) -> None:
    """Where Yama lets only ancestors trace (scope 1), say that process `pid` and its descendants may."""
    try:
        scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text(encoding="ascii").strip()
    except OSError:
        return
    if scope == "1" and pid:
        import ctypes

        pr_set_ptracer = 0x59616D61
        ctypes.CDLL(None).prctl(pr_set_ptracer, ctypes.c_ulong(pid), 0, 0, 0)


def resident_bytes(pid: int) -> int:
    """Memory that a process has now; 0 of one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
