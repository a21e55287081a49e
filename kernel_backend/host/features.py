"""What this host allows: each feature is tried, never guessed from a version."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from kernel_backend.abi import linux
from kernel_backend.host import libc, proc

_CAPABILITY_BITS = {
    "CAP_SYS_CHROOT": 18, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24,
    "CAP_SYS_TIME": 25, "CAP_CHECKPOINT_RESTORE": 40,
}  # fmt: skip


class Feature(msgspec.Struct, frozen=True):
    """One probed ability: whether it is there, and what follows from that."""

    name: str
    available: bool
    detail: str


def probe() -> dict[str, Feature]:
    """Try everything the engine relies on or profits from."""
    return {name: probe_one(name) for name in _CHECKS}


def probe_one(name: str) -> Feature:
    """Try one of these."""
    return Feature(name, *_CHECKS[name]())


def effective_capabilities() -> set[str]:
    """Those of the capabilities we care about that this process has."""
    bits = int(proc.status(os.getpid())["CapEff"], 16)
    return {name for name, bit in _CAPABILITY_BITS.items() if bits >> bit & 1}


def _in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; its errno, or 0. The child does nothing else."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except OSError as error:
            os._exit(min(error.errno or 255, 255))
        except BaseException:
            os._exit(255)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)


def _ptrace() -> tuple[bool, str]:
    scope_file = Path("/proc/sys/kernel/yama/ptrace_scope")
    scope = int(scope_file.read_text()) if scope_file.exists() else 0
    if scope and "CAP_SYS_PTRACE" not in effective_capabilities():
        return False, (
            f"Yama's ptrace_scope is {scope}: only descendants may be traced; a Jupyter kernel that loaded the "
            "extension allows its own helper, others cannot be checkpointed from outside"
        )
    if refused := _seize_child(0):
        return False, f"tracing is forbidden here ({refused}): only the objects tier can work"
    return True, "processes of this user can be checkpointed from outside"


def _seize_child(options: int) -> str:
    """Trace a child of ours; why that is refused, or nothing."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until we end, in whichever way
        os._exit(0)
    os.close(reading)
    try:
        libc.ptrace(linux.PTRACE_SEIZE, child, 0, options)
        return ""
    except OSError as error:
        return error.strerror or "refused"
    finally:
        os.close(writing)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _seccomp() -> tuple[bool, str]:
    if refused := _seize_child(linux.PTRACE_O_SUSPEND_SECCOMP):
        return False, f"programs under a seccomp filter of their own are refused: nbcr may not suspend it ({refused})"
    return True, "programs under seccomp filters can be checkpointed"


def _set_tid() -> tuple[bool, str]:
    if effective_capabilities() & {"CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"}:
        return True, "restored processes get their old pids wherever these are free"
    return False, (
        "this user may not choose pids (CAP_CHECKPOINT_RESTORE): a fresh process tree keeps its own only inside a pid "
        "namespace (see user_namespaces), and otherwise gets new ones; a restart in place keeps the pid of the process"
    )


def _pagemap_scan() -> tuple[bool, str]:
    try:
        with Path("/proc/self/pagemap").open("rb") as file:
            libc.pagemap_scan(file.fileno(), 0, 1 << 20, mask=0, any_of=linux.PAGE_IS_PRESENT)
    except OSError:
        return False, "used pages are found by reading /proc/PID/pagemap, which is slower"
    return True, "used pages are found quickly"


def _user_namespaces() -> tuple[bool, str]:
    failed = _in_child(_own_namespaces)
    if failed:
        return False, f"user namespaces cannot be made here ({os.strerror(failed)})"
    return True, "pids can be kept inside a namespace of one's own without privileges"


def _own_namespaces() -> None:
    """… where we are who we are: root without capabilities may make them, but not be root in them."""
    user = os.geteuid()
    libc.syscall("unshare", linux.CLONE_NEWUSER | linux.CLONE_NEWPID)
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")


def refuses_segment(order: bytes) -> str:
    """Why a process here may not have a segment descriptor (struct user_desc); empty: it may."""

    def try_it() -> None:
        if told := libc.syscall("modify_ldt", 0x11, order, len(order)):
            raise OSError(2**32 - told & 0xFF, "")

    failed = _in_child(try_it)
    return os.strerror(failed) if failed else ""


def _tcp_repair() -> tuple[bool, str]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as s:
        try:
            s.setsockopt(socket.IPPROTO_TCP, linux.TCP_REPAIR, 1)
        except OSError as error:
            return False, f"connections to other programs are reset by a restart after --stop ({error.strerror})"
    return True, "connections to other programs can be kept (--stop --tcp keep)"


def _pidfd_getfd() -> tuple[bool, str]:
    try:
        pidfd = libc.pidfd_open(os.getpid())
        os.close(libc.pidfd_getfd(pidfd, pidfd))
        os.close(pidfd)
    except OSError as error:
        return False, f"descriptors cannot be looked into ({error.strerror}): nothing can be captured"
    return True, "descriptors can be looked into"


def _kcmp() -> tuple[bool, str]:
    try:
        libc.kcmp(os.getpid(), os.getpid(), linux.KCMP_FILE, 0, 0)
    except OSError as error:
        if error.errno != errno.EBADF:
            return False, f"shared descriptors cannot be told apart ({error.strerror}): nothing can be captured"
    return True, "descriptors shared by dup and fork are recognised"


def _vdso() -> tuple[bool, str]:
    try:
        libc.syscall("arch_prctl", linux.ARCH_MAP_VDSO_64, 0)
    except OSError as error:
        if error.errno == errno.EEXIST:
            return True, "the OS kernel's own code can be put where an image expects it"
        return False, "the OS kernel lacks CONFIG_CHECKPOINT_RESTORE: images cannot be restored, only taken"
    return True, "the OS kernel's own code can be put where an image expects it"


_CHECKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "ptrace": _ptrace,
    "pidfd_getfd": _pidfd_getfd,
    "kcmp": _kcmp,
    "map_vdso": _vdso,
    "set_tid": _set_tid,
    "user_namespaces": _user_namespaces,
    "pagemap_scan": _pagemap_scan,
    "tcp_repair": _tcp_repair,
    "seccomp": _seccomp,
}
