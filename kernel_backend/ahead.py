"""What is read of a tree before it is stopped, or beside that: it is slow to read, or spoilt by a stop."""

from __future__ import annotations

import contextlib
import os
import threading

import msgspec

from kernel_backend.host import proc
from kernel_backend.resources import control_groups, pages, settings, sharing, timeouts, unsaved
from kernel_backend.tracee.process import look_for_gadgets


class VmaFlags:
    """VmFlags of every mapping (advice, locks …), by process and start address.

    Reading them makes the OS kernel walk all page tables, 10 ms for each GiB in pages of 4 KiB. So a thread of ours
    does it while the tree is being stopped and its threads are looked at; whoever needs the flags waits for the rest.
    """

    def __init__(self, pids: list[int]) -> None:
        self._texts: dict[int, bytes] = {}
        self._flags: dict[int, dict[int, frozenset[str]]] = {}
        self._thread = threading.Thread(target=self._read, args=(pids,), name="smaps", daemon=True)
        self._thread.start()
        if len(os.sched_getaffinity(0)) == 1:
            self._thread.join()  # it would only make the pause longer

    def of(self, pid: int) -> dict[int, frozenset[str]]:
        """Those of one process, which is stopped by now. Raises OSError when it is gone."""
        if pid not in self._flags:
            self._flags[pid] = proc.smaps_flags(self._text(pid))
        return self._flags[pid]

    def forks_otherwise(self, pid: int) -> bool:
        """Whether a fork would not copy some of its memory (MADV_DONTFORK, MADV_WIPEONFORK); quicker than `of`."""
        text = self._text(pid)
        return (b" dc " in text or b" wf " in text) and any(flags & {"dc", "wf"} for flags in self.of(pid).values())

    def served(self, pid: int) -> dict[int, frozenset[str]]:
        """The mappings whose faults somebody serves by userfaultfd(2), by where they begin. Quicker than `of`."""
        text = self._text(pid)
        if not any(flag in text for flag in (b" um ", b" uw ", b" ui ")):  # VM_UFFD_MISSING, _WP, _MINOR
            return {}
        self.forget(pid)  # it may have changed since
        return {start: flags for start, flags in self.of(pid).items() if flags & {"um", "uw", "ui"}}

    def forget(self, pid: int) -> None:
        """Read them anew: they have changed since."""
        self._texts.pop(pid, None)
        self._flags.pop(pid, None)

    def wait(self) -> None:
        """Until everything is read: while the page tables are walked, the process could not be forked."""
        self._thread.join()

    def _text(self, pid: int) -> bytes:
        self.wait()
        if not self._texts.get(pid):  # born since, or its main thread has ended
            self._texts[pid] = proc.smaps(proc.view(pid))
        return self._texts[pid]

    def _read(self, pids: list[int]) -> None:
        for pid in pids:
            try:
                self._texts[pid] = proc.smaps(proc.view(pid))
            except OSError:
                continue  # the freeze will say so, or it has just ended


class Ahead(msgspec.Struct):
    """What was read, or is being read."""

    vma_flags: VmaFlags
    asleep: dict[int, timeouts.Asleep]  # a freeze wakes every thread
    unlike: dict[int, int]  # threads with rights of their own: tid → pid
    keyrings: unsaved.Keyrings
    speculating: set[int]  # threads that speculate otherwise than their process does
    grouped: dict[int, int]  # threads in other control groups than their process: tid → pid
    guarded: set[int]  # processes with guard regions: a fork loses those in memory of files


def look_ahead(pids: list[int]) -> Ahead:
    """Begin to look at the processes of a tree, which run."""
    for pid in pids:
        look_for_gadgets(pid)
    unlike, speculating = sharing.unlike_threads(pids), settings.speculate_otherwise(pids)
    grouped = control_groups.threads_elsewhere(pids)
    keyrings = unsaved.keyrings_about()
    return Ahead(VmaFlags(pids), timeouts.look(pids), unlike, keyrings, speculating, grouped, _guarded(pids))


def _guarded(pids: list[int]) -> set[int]:
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # the freeze will say so
            found |= {pid} if pages.guards(proc.view(pid)) else set()
    return found


def tree_pids(pid: int, *, descend: bool) -> list[int]:
    """The pids of the tree as it is right now."""
    pids = [pid]
    for parent in pids:
        if descend:
            try:
                pids += [child for child in proc.children(parent) if child not in pids]
            except OSError:
                continue
    return pids
