"""Automatic checkpoints at moments that no cell marks: every so often, when memory runs out, on a signal."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from nbcr.errors import NbcrError, UsageProblem
from nbcr.handlers.signals import number_of
from nbcr.session import auto, inprocess
from nbcr.session.auto import SettingsOf
from nbcr.session.auto_points import Points
from nbcr.states import Outcome

THREAD_NAME = "nbcr-auto"
TICK_S = 1.0
_CALM = 0.05  # how far memory in use must fall again before it may alarm once more
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU)


class Ticker:
    """A thread that looks once a second whether it is time for a checkpoint. It is part of each image, and goes on."""

    def __init__(self, points: Points, settings: SettingsOf, fail: Callable[[str], None]) -> None:
        self.every_s: float | None = None
        self._alarm: MemoryAlarm | None = None
        self._points, self._settings, self._fail = points, settings, fail
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._waited_s = 0.0

    @property
    def memory_share(self) -> float | None:
        """How much of the memory in use asks for a checkpoint."""
        return None if self._alarm is None else self._alarm.share

    def set(self, *, every_s: float | None, memory_share: float | None) -> None:
        """What to look for; None: not for this. Without either the thread ends."""
        self.every_s, self._waited_s = every_s, 0.0
        self._alarm = None if memory_share is None else MemoryAlarm(memory_share)
        if every_s is None and memory_share is None:
            self._wake.set()
        elif self._thread is None or not self._thread.is_alive() or self._wake.is_set():
            self._wake = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._wake,), name=THREAD_NAME, daemon=True)
            self._thread.start()

    def _run(self, ended: threading.Event) -> None:
        while True:
            begun = time.monotonic()
            if ended.wait(TICK_S):
                return
            # Counted, not read from a clock: a restored life may be on another boot of the host.
            self._waited_s += min(max(time.monotonic() - begun, TICK_S), 2 * TICK_S)
            try:
                self._look()
            except Exception as error:  # told to the user; the next tick tries again
                self._fail(error.line() if isinstance(error, NbcrError) else f"{type(error).__name__}: {error}")

    def _look(self) -> None:
        if self._alarm is not None and (used := self._alarm.rings()):
            auto.take("memory", f"{used:.0%} of the memory in use", self._settings(), spared=self._points.ids)
        if self.every_s is not None and self._waited_s >= self.every_s:
            self._waited_s = 0.0
            if not inprocess.writing() and (self._points.running or self._points.unchanged_since() is None):
                result = auto.take("timer", f"every {span_text(self.every_s)}", self._settings())
                if not self._points.running:
                    self._points.noted(result)


class MemoryAlarm:
    """Rings once when so much of the memory is in use, and again only after it had fallen."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._rung = False

    def rings(self) -> float:
        """The share that is in use, when it rings; else 0."""
        used = memory_in_use()
        if used < self.share - _CALM:
            self._rung = False
        elif used >= self.share and not self._rung:
            self._rung = True
            return used
        return 0.0


class OnSignal:
    """A checkpoint when a signal comes; after one that ends programs, this one ends when it is written."""

    def __init__(self, points: Points, settings: SettingsOf, fail: Callable[[str], None]) -> None:
        self.number: int | None = None
        self._points, self._settings, self._fail = points, settings, fail

    @property
    def name(self) -> str:
        """Of the signal; empty where there is none."""
        return "" if self.number is None else signal.Signals(self.number).name

    def set(self, name: str | None) -> None:
        """Which signal; None: no one any more. Call in the main thread. Raises NotPossible."""
        from nbcr.session import service

        if name is None:
            if self.number is not None:
                self.number = None
                service.no_request_on_signal()
            return
        number = number_of(name)
        service.request_on(number, answer=self._answer)
        self.number = number

    def _answer(self, begun: Callable[[], None]) -> None:
        number = self.number
        if number is None:
            return
        name = signal.Signals(number).name
        ends = number in _ENDING
        try:
            result = auto.take("signal", f"{name} came", self._settings(), wait=True)
        except Exception as error:
            self._fail(f"no checkpoint was taken when {name} came: {error}")
            return  # who sent it will insist; we may yet be asked again
        finally:
            begun()
        if ends and result.outcome is Outcome.CONTINUE:
            _end_by(number)


def _end_by(number: int) -> None:
    """End this process as the signal would have, had nobody waited for it. From any thread."""
    ctypes.CDLL(None).signal(number, None)  # Python's own function works in the main thread only
    os.kill(os.getpid(), number)


def span_from(text: str) -> float:
    """Seconds of "10m", "90s", "1.5h" or "90". Raises UsageProblem."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)(?:in|ec|ours?)?\s*", text)
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if seconds < 1:
        raise UsageProblem(f"{text!r} is no span of time of at least a second", hint="use 90s, 10m or 1h")
    return seconds


def span_text(seconds: float) -> str:
    """As `span_from` reads it."""
    for unit in ("h", "m"):
        if seconds >= _UNITS_S[unit] and seconds % _UNITS_S[unit] == 0:
            return f"{seconds / _UNITS_S[unit]:g}{unit}"
    return f"{seconds:g}s"


def share_from(text: str) -> float:
    """0.9 of "90%" or "0.9". Raises UsageProblem."""
    try:
        share = float(text.rstrip("% ")) / (100 if text.rstrip().endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UsageProblem(f"{text!r} is no share of the memory", hint="use 90%")
    return share


def memory_in_use() -> float:
    """Share of the memory that is in use: of the host's, or of what our control group may have, whichever is more."""
    return max(_host_share(), _group_share())


def _host_share() -> float:
    known = {}
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        known[name] = int(rest.split()[0])
    return 1 - known["MemAvailable"] / known["MemTotal"]


def _group_share() -> float:
    """Control groups of version 2; 0 where there is no limit. What the OS kernel can drop at once does not count."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        path = next(line[3:] for line in groups if line.startswith("0::"))
        folder = Path("/sys/fs/cgroup" + path)
        limit = (folder / "memory.max").read_text().strip()
        if limit != "max":
            lines = (folder / "memory.stat").read_text().splitlines()
            cached = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
            return (int((folder / "memory.current").read_text()) - cached) / int(limit)
    return 0.0
