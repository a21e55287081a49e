"""What a fork copies besides memory: a process's settings, signal actions, limits, folders and credentials.

They are read in the process's twin, when the pause is over; and in the process itself where it has none.
"""

from __future__ import annotations

import os
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.host import limits, proc
from kernel_backend.image.entries import FoldersEntry, MmEntry, ProcessEntry
from kernel_backend.resources import pkeys, processes, roots, segments, settings, signals
from kernel_backend.tracee.chorus import Asking
from kernel_backend.tracee.inject import Borrowed, Call
from kernel_backend.tracee.twin import Twin

_SEGMENTS = 5  # which of the results tells of them
_DATA_BYTES = signals.ACTIONS_DATA_BYTES + settings.DATA_BYTES


def read_in_twin(entry: ProcessEntry, twin: Twin) -> None:
    """Complete the entry of a process from its twin."""
    workshop = twin.workshop
    results = workshop.run(_calls(workshop.data))
    _complete(entry, workshop.thread.tid, results, workshop.get(_DATA_BYTES))
    entry.rlimits = twin.limits  # it has others now
    signals.note_ignored_traps(entry, twin.ignored)
    entry.pkeys = pkeys.look(workshop.call)
    if segments.is_there(results[_SEGMENTS]):
        entry.segments = segments.read(workshop)


def ask(entry: ProcessEntry, borrowed: Borrowed) -> Asking[bool]:
    """Complete the entry of a process from itself."""
    results: list[int] = []
    for call in _calls(borrowed.data):
        results.append((yield call))
    _complete(entry, borrowed.thread.tid, results, borrowed.get(_DATA_BYTES))
    entry.pkeys = yield from pkeys.ask()
    if segments.is_there(results[_SEGMENTS]):
        entry.segments = yield from segments.ask(entry.pid, borrowed)
    return True


def _calls(data: int) -> list[Call]:
    return [
        Call("brk", 0),
        Call("prctl", linux.PR_GET_DUMPABLE),
        Call("prctl", linux.PR_GET_THP_DISABLE, 0, 0, 0, 0),
        Call("prctl", linux.PR_GET_SECUREBITS),
        Call("prctl", linux.PR_GET_KEEPCAPS),
        segments.first_call(data),
        *settings.read_calls(data + signals.ACTIONS_DATA_BYTES),
        *signals.read_calls(data),
    ]


def _complete(entry: ProcessEntry, source: int, results: list[int], room: bytes) -> None:
    """`source` is whom to look up in /proc; the other arguments are what the calls gave."""
    actions, rest = room[: signals.ACTIONS_DATA_BYTES], room[signals.ACTIONS_DATA_BYTES :]
    brk, entry.dumpable, entry.thp_disable, securebits, keepcaps = results[:5]
    session_nice = entry.settings.autogroup_nice  # a twin has a session of its own
    entry.settings = settings.entry_of(results[6 : 6 + len(settings.read_calls(0))], rest, source)
    entry.settings.autogroup_nice = session_nice
    entry.sigactions = signals.actions_of(actions)
    entry.mm = _mm(source, brk)
    entry.argv = _argv(source)
    entry.cwd, entry.cwd_deleted, entry.cwd_identity = _cwd(source)
    entry.rlimits = limits.read(source)
    status = proc.status(source)
    entry.umask = int(status["Umask"], 8)
    entry.credentials = processes.credentials(status, securebits, bool(keepcaps))
    entry.oom_score_adj = int(Path(f"/proc/{source}/oom_score_adj").read_text())
    entry.login_uid = processes.login_uid(source)
    entry.personality = proc.personality(source, source)


def _mm(pid: int, brk: int) -> MmEntry:
    """The addresses that /proc shows of a process's layout, and its auxiliary vector."""
    s = proc.stat(pid)
    return MmEntry(
        start_code=s.start_code, end_code=s.end_code, start_data=s.start_data, end_data=s.end_data,
        start_brk=s.start_brk, brk=brk, start_stack=s.start_stack, arg_start=s.arg_start,
        arg_end=s.arg_end, env_start=s.env_start, env_end=s.env_end, auxv=proc.auxv(pid),
    )  # fmt: skip


def _argv(pid: int) -> list[str]:
    raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [os.fsdecode(part) for part in raw.rstrip(b"\0").split(b"\0")]


def folders_of_thread(pid: int, tid: int) -> FoldersEntry:
    """Those of a stopped thread that has left the ones of its process."""
    cwd, deleted, identity = _cwd(tid)
    processes.check_folder_of_thread(pid, tid, cwd)
    return FoldersEntry(
        cwd=cwd, cwd_deleted=deleted, cwd_identity=identity, root=roots.capture(pid, tid),
        umask=int(proc.status(pid, tid)["Umask"], 8),
    )  # fmt: skip


def _cwd(pid: int) -> tuple[str, bool, tuple[int, int]]:
    """The working folder, whether it has been removed, and if so which one it was."""
    link = f"/proc/{pid}/cwd"
    path, found = os.readlink(link), os.stat(link)
    if found.st_nlink:
        return path, False, (0, 0)
    return path.removesuffix(" (deleted)"), True, (found.st_dev, found.st_ino)
