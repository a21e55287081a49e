"""Several system calls that a stopped thread makes one after the other, without a stop in between.

An injected call costs two stops (inject.py), and most of what a thread is asked in the pause of a dump costs the OS
kernel less than a microsecond. So a batch of calls is made with two stops in all: below the frame that heals the thread
we lay further frames, one for each call to come:

    syscall; ret → store the result; ret → sigreturn, from a frame with the next call in its registers → syscall; …

The last call is a wait of WAIT_S, and that returns into the frame that heals. We stop the thread while it waits. Should
we be killed meanwhile, it waits to the end, and is healed. Should we be held up for longer than WAIT_S, it is healed
too, and has run although it should have stood still: then nothing that was read of its tree can be relied on, and
`finish` raises TargetBusy.

A thread that sleeps with a limit (`Borrowed.sleeps_on`) makes no batches: the frames would end its sleep.

The idea of chained signal frames is that of sigreturn-oriented programming (Bosman and Bos, IEEE S&P 2014).
"""

from __future__ import annotations

import errno
import struct
import time
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from kernel_backend.abi import arch, linux
from kernel_backend.abi.x86_64 import UserRegs
from kernel_backend.errors import TargetBusy
from kernel_backend.host import libc
from kernel_backend.tracee.inject import (
    BATCH_OFFSET,
    SCRATCH_DATA_BYTES,
    SIGFRAME_BYTES,
    Borrowed,
    Call,
    build_sigframe,
)
from kernel_backend.tracee.thread import ALL_BUT_SIGTRAP, STOP_TIMEOUT_S, ThreadGone

WAIT_S = 5.0
_NOT_YET = 0x4E4F5420_59455421  # what no call of ours returns
_STORED = struct.Struct("<QQ")  # where to go on with a call's result, and what that code takes from the stack
_LINK_BYTES = _STORED.size + SIGFRAME_BYTES
_RESULT_BYTES = 8
_WAIT = Call("poll", 0, 0, int(WAIT_S * 1000))
_LOOKS = 20  # some 50 µs: another processor makes ten calls in less
_A_MOMENT_S = 0.00005


class Batch:
    """The calls, in order, and what they returned.

    None of them may block; what they read and write of Borrowed.data lies before BATCH_OFFSET.
    """

    MOST = (SCRATCH_DATA_BYTES - BATCH_OFFSET) // (_LINK_BYTES + _RESULT_BYTES)

    def __init__(self, calls: Sequence[Call]) -> None:
        """At least one call, at most MOST."""
        assert 1 <= len(calls) <= self.MOST, len(calls)
        self.calls = calls
        self.results: list[int] = []


class _Form(NamedTuple):
    """A batch without the address it is made at: most threads of a tree are asked the same, and share one template."""

    syscall: int
    sigreturn: int
    store: int
    stack: int  # from here on relative to Borrowed.data
    fp_address: int
    calls: tuple[tuple[str, tuple[tuple[int, bool], ...]], ...]  # each argument, and whether it is relative


def _links(form: _Form, base: int) -> bytes:
    """The chain of frames, and room for results, for the Borrowed.data that is at `base`."""
    words, places = _template(form)
    words = words[:]
    for place in places:
        words[place] += base
    return words.tobytes()


@lru_cache(maxsize=256)
def _template(form: _Form) -> tuple[array[int], list[int]]:
    """The words of the chain at address 0, and which of them are addresses: those that differ elsewhere."""
    here, there = (array("Q", _written(form, base)) for base in (0, linux.PAGE_SIZE))
    return here, [place for place, (one, other) in enumerate(zip(here, there, strict=True)) if one != other]


def _written(form: _Form, base: int) -> bytes:
    regs, count, links = UserRegs(), len(form.calls), []
    regs.flags = arch.USUAL_FLAGS
    links_at = base + BATCH_OFFSET
    wait = (_WAIT[0], tuple((argument, False) for argument in _WAIT[1]))
    for number, (name, args) in enumerate([*form.calls[1:], wait], 1):
        regs.make_call(form.syscall, arch.SYS[name], [value + base * relative for value, relative in args])
        regs.store_at = links_at + count * _LINK_BYTES + number * _RESULT_BYTES
        regs.sp = links_at + number * _LINK_BYTES if number < count else base + form.stack
        frame = build_sigframe(base + form.fp_address, regs, ALL_BUT_SIGTRAP, form.sigreturn)
        links.append(_STORED.pack(form.store, 0) + frame)
    return b"".join(links) + struct.pack("<Q", _NOT_YET) * count


class BatchRun:
    """One thread's way through a batch, in three steps as for a single call (see Borrowed.begin)."""

    def __init__(self, borrowed: Borrowed, batch: Batch) -> None:
        """The thread's process has to have the code for it: Gadgets.store."""
        self._borrowed = borrowed
        self._batch = batch
        self._links_at = borrowed.data + BATCH_OFFSET
        self._results_at = self._links_at + len(batch.calls) * _LINK_BYTES
        self._until = 0.0

    def begin(self) -> None:
        """Send the thread on its way."""
        borrowed, gadgets = self._borrowed, self._borrowed.gadgets
        base = borrowed.data
        within = range(base, base + SCRATCH_DATA_BYTES)
        calls = tuple(
            (name, tuple((word - base, True) if word in within else (word, False) for word in args))
            for name, args in self._batch.calls
        )
        form = _Form(
            gadgets.syscall, gadgets.sigreturn, gadgets.store, borrowed.stack - base, borrowed.fp_address - base, calls,
        )  # fmt: skip
        libc.vm_write(borrowed.thread.tid, self._links_at, _links(form, base))
        self._until = time.monotonic() + WAIT_S
        borrowed.set_off(self._batch.calls[0], self._links_at, self._results_at)

    def interrupt(self) -> None:
        """When it has made the calls, ask it to stop. Not before: it would make none while that is asked for."""
        thread, looks = self._borrowed.thread, 0
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not self._is_done():
            looks += 1
            if looks <= _LOOKS:
                continue
            if thread.has_stopped():  # for another reason; a thread of a stopped process does so as it is resumed
                thread.resume()
            elif time.monotonic() > deadline:
                break
            else:
                time.sleep(_A_MOMENT_S)
        thread.interrupt()

    def finish(self) -> None:
        """When it has stopped: the results. Raises TargetBusy where the thread has run on meanwhile, or did nothing."""
        thread = self._borrowed.thread
        thread.wait()
        if time.monotonic() >= self._until and not self._still_waits(thread.get_regs()):
            self._borrowed.has_healed()
            raise self._held_up()
        if not self._is_done():
            raise self._held_up()

    def _still_waits(self, regs: UserRegs) -> bool:
        return (regs.call, regs.sp) == (arch.SYS[_WAIT[0]], self._borrowed.stack)

    def _held_up(self) -> TargetBusy:
        thread = self._borrowed.thread
        return TargetBusy(
            f"thread {thread.tid} of process {thread.tgid} could not be looked at within {WAIT_S:g} s",
            hint="this machine is very busy, or nbcr was stopped meanwhile: try again", pid=thread.tgid,
        )  # fmt: skip

    def _is_done(self) -> bool:
        thread, count = self._borrowed.thread, len(self._batch.calls)
        try:
            found = libc.vm_read(thread.tid, self._results_at, count * _RESULT_BYTES)
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise ThreadGone(f"thread {thread.tid} of process {thread.tgid} ended", pid=thread.tgid) from error
            raise
        self._batch.results = list(struct.unpack(f"<{count}Q", found))
        return self._batch.results[-1] != _NOT_YET
