"""Landlock domains: what a thread and all that it makes may do no more (landlock_restrict_self(2)), for ever.

The OS kernel shows nobody whether a thread is in one, or what it forbids; a restored life would be free, so it is
refused. It can be found out, because who is in a domain may not even look at a process outside (kcmp(2) needs the same
rights as ptrace(2), to read). So the thread is made to try: with us, if we are the same user, else with a process of
ours that has become that user, and has gone into the user namespace that it may live in. Whether it is that and nothing
else is seen by trying the same as somebody of that user who is in no domain that we are not in.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache, partial
from types import TracebackType

from kernel_backend.abi import linux
from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import libc, proc
from kernel_backend.host.identity import lower_capabilities
from kernel_backend.resources import sharing
from kernel_backend.tracee.inject import Call, failed_with
from kernel_backend.tracee.process import Process

_CREATE_RULESET_VERSION = 1
_CAP_SYS_ADMIN = 1 << 21  # with it, or when no more privileges can be gained, a thread may confine itself
_User = tuple[int, int]  # its user and group id
NOBODY = 0


@cache
def _is_there() -> bool:
    """Whether this OS kernel confines anybody."""
    try:
        return libc.syscall("landlock_create_ruleset", None, 0, _CREATE_RULESET_VERSION) > 0
    except OSError:
        return False


class Outsiders:
    """Processes in no domain that we are not in, one for each user, at whom threads of that user may look."""

    def __init__(self) -> None:
        self._made: dict[tuple[_User | None, int], int] = {}  # pids, by user and user namespace (0: ours)
        self._mine = proc.status(os.getpid())
        self._label = sharing.security_label(os.getpid())

    def __enter__(self) -> Outsiders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in self._made.values():
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    def of(self, process: Process, tids: Iterable[int], unlike: Collection[int] = ()) -> dict[int, int]:
        """Thread → at whom it is to try to look; threads that cannot tell anything, or need not, are left out.

        `unlike`: those that are somebody else than their process, and so may be confined when that is not.
        """
        if not _is_there() or _differs(process.view, "pid"):
            return {}
        if self._label != sharing.security_label(process.view):
            return {}  # others forbid such looks, too
        theirs = process.status()
        may_be = theirs.get("NoNewPrivs") == "1" or bool(int(theirs["CapEff"], 16) & _CAP_SYS_ADMIN)
        asked = [tid for tid in tids if may_be or tid == process.view or tid in unlike]
        if _differs(process.view, "user"):  # it may look at nobody outside
            outsider = self._inside(process.view, theirs)
            return dict.fromkeys(asked, outsider) if outsider else {}
        if self._are_alike(theirs):
            return dict.fromkeys(asked, os.getpid())
        user = _user_of(theirs)
        if os.geteuid() != 0 or user is None or not (may_be or {*asked} - {process.view}):
            return {}
        if (user, 0) not in self._made:
            self._made[user, 0] = _become_and(user, _wait_for_ever)
        return dict.fromkeys(asked, self._made[user, 0])

    def _inside(self, view: int, theirs: dict[str, str]) -> int:
        """One of the process's user, without rights, in its user namespace; NOBODY where none can go there."""
        user, fd = _user_of(theirs), os.open(f"/proc/{view}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            key = (user, os.fstat(fd).st_ino)
            if user is not None and key not in self._made:
                made = _become_and(user if os.geteuid() == 0 else None, _wait_for_ever, partial(_go_inside, fd))
                if not _lives(made):
                    os.waitpid(made, 0)
                    return NOBODY
                self._made[key] = made
            return self._made.get(key, NOBODY)
        finally:
            os.close(fd)

    def _are_alike(self, theirs: dict[str, str]) -> bool:
        mine = self._mine
        same = all(mine[ids].split()[:3] == theirs[ids].split()[:3] for ids in ("Uid", "Gid"))
        return same and _user_of(theirs) is not None and not int(mine["CapPrm"], 16) & ~int(theirs["CapPrm"], 16)

    def confirm(self, pid: int, tid: int, outsider: int) -> None:
        """Refuse a thread that may not look at `outsider`, if another who is like it may."""
        theirs = proc.status(pid, tid)
        user = _user_of(theirs)
        if user is None:
            return

        def look() -> None:
            lower_capabilities(int(theirs["CapEff"], 16), int(theirs["CapPrm"], 16))  # whoever has fewer may not look
            libc.kcmp(outsider, outsider, 0, 0, 0)

        other = os.geteuid() == 0 and outsider != os.getpid()
        child = _become_and(user if other else None, look)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            raise ResourceUnsupported(
                f"thread {tid} of process {pid} is confined by Landlock, which cannot be read back",
                hint="start it without the sandbox, or run nbcr inside the same one", pid=pid, tid=tid,
            )  # fmt: skip


def question(outsider: int) -> list[Call]:
    """The call that tells whether a thread may not look at somebody, for `forbids`; none where there is nobody."""
    return [Call("kcmp", outsider, outsider, linux.KCMP_FILES, 0, 0)] if outsider != NOBODY else []


def forbids(answer: Sequence[int]) -> bool:
    """Whether it may not, by the raw result."""
    return failed_with(errno.EPERM) in answer


def _differs(view: int, kind: str) -> bool:
    """Whether a process lives in another namespace than we do."""
    return os.readlink(f"/proc/{view}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def _user_of(status: dict[str, str]) -> _User | None:
    """Who a thread is; None where its ids are several, who may look at nobody."""
    uids, gids = set(status["Uid"].split()[:3]), set(status["Gid"].split()[:3])
    return (int(uids.pop()), int(gids.pop())) if len(uids) == len(gids) == 1 else None


def _go_inside(fd: int) -> None:
    """Into a user namespace, to be one at whom everybody of the same user there may look."""
    libc.syscall("setns", fd, linux.CLONE_NEWUSER)
    lower_capabilities(0, 0)
    libc.prctl(linux.PR_SET_DUMPABLE, 1)


def _lives(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _become_and(user: _User | None, work: Callable[[], object], before: Callable[[], object] = lambda: None) -> int:
    """A child of ours that becomes that user, does what comes before, and then `work`; its pid. It ends with us."""
    told, tell = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            if user is not None:
                libc.syscall("setgroups", 0, None)
                libc.syscall("setresgid", *[user[1]] * 3)
                libc.syscall("setresuid", *[user[0]] * 3)
                libc.prctl(linux.PR_SET_DUMPABLE, 1)
            before()
            libc.prctl(linux.PR_SET_PDEATHSIG, 9)
            if os.getppid() != parent:
                os._exit(1)
            if work is _wait_for_ever:
                os.write(tell, b"x")
            work()
            os._exit(0)
        finally:
            os._exit(1)
    os.close(tell)
    os.read(told, 1)
    os.close(told)
    return pid


def _wait_for_ever() -> None:
    while True:
        libc.syscall("pause")


def check(process: Process) -> None:
    """Refuse a process that is about to be replaced: what it is confined to stays. Raises ResourceUnsupported."""
    with Outsiders() as outsiders:
        for tid, outsider in outsiders.of(process, [process.view]).items():
            with process.borrow() as borrowed:
                try:
                    borrowed.call("kcmp", outsider, outsider, linux.KCMP_FILES, 0, 0)
                    continue
                except OSError as error:
                    if error.errno != errno.EPERM:
                        continue
            outsiders.confirm(process.pid, tid, outsider)
