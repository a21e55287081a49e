"""What the OS kernel refuses us in the middle of an operation, as one of our own errors: where, what, why."""

from __future__ import annotations

import errno

from kernel_backend import stages
from kernel_backend.errors import DumpFailed, EngineError, NoRoom, ResourceUnsupported, RestoreFailed, TargetNotFound
from kernel_backend.host import proc
from kernel_backend.tracee.thread import ThreadGone

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_GONE = (errno.ESRCH, errno.ENOENT)


def of_dump(error: Exception, pid: int) -> EngineError:
    """Why a dump of `pid` failed. There is no image, and the processes go on."""
    gone = isinstance(error, ThreadGone) or (isinstance(error, OSError) and error.errno in _GONE)
    if gone and _has_ended(pid):
        return TargetNotFound(f"process {pid} ended while it was dumped", pid=pid)
    if isinstance(error, EngineError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return ResourceUnsupported(
            f"process {pid} or a child of it has a file or folder whose path is longer than the OS kernel tells"
            + (f" ({error.filename})" if error.filename else ""),
            hint="let the program leave it, or give its folders shorter names", pid=pid,
        )  # fmt: skip
    return _no_room(error, f"the dump of process {pid} failed") or DumpFailed(
        f"the dump of process {pid} failed at {stages.latest()}: {reason(error)}", stage=str(stages.latest())
    )


def of_restore(error: Exception, *, past_no_return: bool = False) -> EngineError:
    """Why a restore failed. Before the point of no return errors of ours stay what they are."""
    if not past_no_return:
        if isinstance(error, EngineError):
            return error
        scarce = _no_room(error, "the restore failed")
        if scarce is not None:
            return scarce
    return RestoreFailed(
        f"the restore failed at {stages.latest()}: {reason(error)}",
        hint="the process was lost; restart the checkpoint into a fresh one" if past_no_return else "",
        stage=str(stages.latest()), past_no_return=past_no_return,
    )  # fmt: skip


def reason(error: Exception) -> str:
    """An error in words, on one line."""
    if isinstance(error, EngineError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def _no_room(error: Exception, what: str) -> NoRoom | None:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return NoRoom(f"{what} at {stages.latest()} for want of memory: {reason(error)}", errno=errno.ENOMEM)
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return NoRoom(f"{what} at {stages.latest()}: {reason(error)}", errno=error.errno)
    if isinstance(error, OSError) and error.errno in _TOO_MANY:
        return NoRoom(
            f"{what} at {stages.latest()}: {error.strerror}; all that the processes have are held at once",
            hint="allow more of them (ulimit -Hn) to who does it, and try again", errno=error.errno,
        )  # fmt: skip
    return None


def _has_ended(pid: int) -> bool:
    try:
        return proc.stat(proc.view(pid)).state in "ZX"
    except OSError:
        return True
