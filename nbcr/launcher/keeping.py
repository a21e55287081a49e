"""Checkpoints of a job that nobody asks for one by one, and the one from which a later run of it goes on.

Each is taken by a process of its own, as from a shell, which asks the launcher like anybody else: the launcher stays
one thread that sleeps in poll. A signal that asks to end the job has it checkpointed and ended, as a scheduler's
preemption does; what cannot be checkpointed is told, and the signal passed on. A job that ended well needs its
checkpoints no more: automatic ones go, and a later run begins anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from nbcr.errors import NbcrError, NotPossible, UsageProblem
from nbcr.handlers.signals import check_asks, number_of
from nbcr.session import auto
from nbcr.session.auto_triggers import MemoryAlarm, share_from, span_from, span_text
from nbcr.store import Entry, Store

ENDED = "ended"  # tag of what a job that ended well has left
_TICK_S = 1.0  # between two looks at the memory


@dataclass(frozen=True)
class Wants:
    """When a job is to be checkpointed by itself, and how many of these stay."""

    every_s: float | None = None
    memory_share: float | None = None
    signals: tuple[int, ...] = (signal.SIGTERM,)  # it is ended, too
    keep: int | None = None  # None: as many as of sessions
    resume: bool = False

    @classmethod
    def of(
        cls, *, every: str | None, on_memory: str | None, on_signal: Sequence[str], keep: int | None, resume: bool
    ) -> Wants:
        """As a user says it. Raises UsageProblem, NotPossible."""
        if keep is not None and keep < 1:
            raise UsageProblem(f"--keep {keep} would keep none", hint="use 1 or more")
        numbers = tuple(number_of(name) for name in on_signal if name.lower() != "none")
        for number in numbers:
            check_asks(number)
        return cls(
            None if every is None else span_from(every),
            None if on_memory is None else share_from(on_memory),
            numbers if on_signal else cls.signals,
            keep,
            resume,
        )


class _Errand:
    """One checkpoint on its way."""

    def __init__(self, job: str, store: Store, reason: str, note: str, *, stop: bool) -> None:
        self.reason, self.stop = reason, stop
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `outcome`)
        self._err: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        words = ["checkpoint", job, "--json", "--automatic", reason, "--note", note, "--store", str(store.root)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nbcr.cli", *words, *(["--stop"] if stop else [])],
            stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err, start_new_session=True,
        )  # fmt: skip

    def outcome(self) -> tuple[str | None, str]:
        """Its entry's id, when it has ended; or None, and why there is none."""
        self.process.wait()
        with self._out, self._err:
            self._out.seek(0)
            self._err.seek(0)
            said = self._err.read().decode(errors="replace").strip().splitlines()
            if self.process.returncode != 0:
                return None, said[-1].removeprefix("nbcr: ") if said else "the process that takes it ended"
            return str(json.loads(self._out.read())["id"]), ""


class Keeping:
    """What a launcher minds of it. Used in one thread, but for `ring`."""

    def __init__(self, job: str, store: Store, wants: Wants) -> None:
        self.job, self.store, self.wants = job, store, wants
        self.ending: int | None = None  # the signal for which the job is ended
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._asked: list[int] = []
        self._errand: _Errand | None = None
        self._since = time.monotonic()
        self._alarm = None if wants.memory_share is None else MemoryAlarm(wants.memory_share)

    def ring(self, number: int) -> None:
        """A signal has come that asks for the job's end. In a signal's handler."""
        self._asked.append(number)
        os.eventfd_write(self.bell, 1)

    @property
    def filenos(self) -> list[int]:
        """What becomes readable when there is something to do."""
        return [self.bell]

    @property
    def timeout_s(self) -> float | None:
        """After how long there is something to do; None: nothing is known of."""
        if self._errand is not None or self._alarm is not None:
            return _TICK_S
        return None if self.wants.every_s is None else max(0.0, self._since + self.wants.every_s - time.monotonic())

    def look(self) -> int | None:
        """Begin what is due, and take note of what has ended. A signal that the command is to get after all."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.bell)
        if self._errand is not None:
            return self._take_note() if self._errand.process.poll() is not None else None
        if self._asked:
            number = self._asked[-1]
            self._begin("signal", f"{signal.Signals(number).name} came", stop=True)
        elif self.wants.every_s is not None and time.monotonic() >= self._since + self.wants.every_s:
            self._since = time.monotonic()
            self._begin("timer", f"every {span_text(self.wants.every_s)}")
        elif self._alarm is not None and (used := self._alarm.rings()):
            self._begin("memory", f"{used:.0%} of the memory in use")
        return None

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is under way."""
        return self._errand is not None and self._errand.process.poll() is None

    def settle(self) -> None:
        """The command has ended: take note of what was under way."""
        if self._errand is not None:
            self._take_note(told=self._errand.stop)

    def close(self) -> None:
        """Nobody rings any more."""
        os.close(self.bell)

    def _begin(self, reason: str, note: str, *, stop: bool = False) -> None:
        self._errand = _Errand(self.job, self.store, reason, f"job {self.job}, {note}", stop=stop)

    def _take_note(self, *, told: bool = True) -> int | None:
        assert self._errand is not None
        errand, self._errand = self._errand, None
        entry_id, why = errand.outcome()
        if entry_id is not None:
            self._retire(entry_id, errand.reason)
            if errand.stop:
                self.ending = self._asked[-1]
            return None
        if told:
            print(f"nbcr: no checkpoint of job {self.job} was taken: {why}", file=sys.stderr)
        if not errand.stop:
            return None
        number = self._asked[-1]
        self._asked.clear()
        return number

    def _retire(self, entry_id: str, reason: str) -> None:
        with contextlib.suppress(NbcrError, OSError):  # the next one tries again
            auto.retire(self.store.find(entry_id), self.wants.keep or auto.KEEP[reason], self.store)

    # The course of a job over several runs

    def lasts(self, command: Sequence[str]) -> list[Entry]:
        """The checkpoints from which a run with this command can go on, newest first. Raises NotPossible."""
        mine = [entry for entry in _of_job(self.job, self.store) if ENDED not in entry.tags]
        mine.sort(key=lambda entry: (entry.created, entry.id), reverse=True)
        if mine and mark(self.job, command) != mine[0].job:
            raise NotPossible(
                f"checkpoint {mine[0].name} of job {self.job!r} is of another command",
                hint=f"use another --name, or leave out --resume; `nbcr restart {mine[0].name}` brings that one back",
            )
        return [entry for entry in mine if entry.job == mine[0].job]

    def forget(self) -> None:
        """The job has ended well: nothing goes on from what it has left."""
        from nbcr.store import tags

        with contextlib.suppress(NbcrError, OSError):
            for entry in _of_job(self.job, self.store):
                if entry.automatic is not None:
                    self.store.remove(entry)
                elif ENDED not in entry.tags:
                    tags.change(entry, {ENDED: False}, ())


def _of_job(job: str, store: Store) -> Iterable[Entry]:
    return [entry for entry in store.entries() if (entry.job or {}).get("name") == job]


def mark(job: str, command: Sequence[str]) -> Mapping[str, Any]:
    """What a manifest says of the job that it is of; not the command itself, in which there may be secrets."""
    words = b"".join(os.fsencode(word) + b"\0" for word in command)
    return {"name": job, "command": hashlib.sha256(words).hexdigest()}
