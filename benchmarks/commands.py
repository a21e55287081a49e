"""The engine's command line on a small C process, from start to exit, in turns with CRIU where it is installed."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import host
from benchmarks.table import Report, Row, Verdict, median

_SOURCE = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"
_STATE = "small C process, whole command"
PR_SET_CHILD_SUBREAPER = 36
_ENGINE = [sys.executable, "-m", "kernel_backend"]


class CommandFailed(Exception):
    """A command that is measured ended with another status than 0."""


def measure(folder: Path, report: Report, repetitions: int) -> None:
    """dump and restore, many generations in a row, beside CRIU and beside bare interpreter starts."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        report.rows.append(Row(_STATE, "not measured", note="there is no C compiler here"))
        return
    program = folder / "subject"
    source = program.with_suffix(".c")
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-O1", "-o", str(program), str(source)], check=True)
    # Restored processes must become our children: whoever is init here may be slow to free their pids.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ours = Engine([str(program)], folder / "commands")
    criu = _Criu([str(program)], folder / "criu") if shutil.which("criu") and os.geteuid() == 0 else None
    starts: dict[str, list[float]] = {"-c pass": [], "-I -S -c pass": []}
    try:
        ours.turn()  # not counted: it writes the byte code that later ones load
        ours.forget()
        for _ in range(repetitions):
            for contestant in (ours, criu):
                if contestant is not None:
                    contestant.turn()
            for words, samples in starts.items():
                samples.append(_seconds([sys.executable, *words.split()])[0])
    finally:
        ours.end()
        if criu is not None:
            criu.end()
    report.rows.append(ours.row())
    if criu is not None:
        report.rows.append(criu.row())
    else:
        report.remarks.append("CRIU is not installed (or we are not root): no row of its own")
    for words, samples in starts.items():
        report.rows.append(Row(_STATE, f"python {words}", total=median(samples), samples={"total": samples}))
    row, best_dump, best_restore = ours.row(), min(ours.dumps), min(ours.restores)
    report.verdicts.append(Verdict("dump of a small C process, whole command", 0.15, row.total, best=best_dump))
    report.verdicts.append(Verdict("restore of a small C process, whole command", 0.12, row.back, best=best_restore))


def _seconds(words: list[str]) -> tuple[float, str]:
    begun = time.perf_counter()
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=host.environ()
    )
    took = time.perf_counter() - begun
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(words)}: {done.stderr.strip()}")
    return took, done.stdout


class Engine:
    """Dump, kill, restore, and the next generation."""

    who = "kernel_backend dump / restore --detach"

    def __init__(self, words: list[str], image: Path) -> None:
        self.image = image
        self.pid = 0
        self.dumps: list[float] = []
        self.restores: list[float] = []
        self.pauses: list[float] = []
        self.bytes = 0
        self.start(words)

    def start(self, words: list[str]) -> None:
        """Start what is dumped."""
        started = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self.pid = started.pid
        started.returncode = 0  # we reap it ourselves, by its pid
        time.sleep(0.05)  # it has nothing to say when it is ready, and no harm is done when it is not

    def forget(self) -> None:
        for samples in (self.dumps, self.restores, self.pauses):
            samples.clear()

    def turn(self) -> None:
        self.dump()
        self.end()
        self.restore()
        self.bytes = sum(path.stat().st_size for path in self.image.iterdir())
        shutil.rmtree(self.image)

    def dump(self) -> None:
        took, said = _seconds([*_ENGINE, "dump", str(self.pid), str(self.image), "--json"])
        self.dumps.append(took)
        self.pauses.append(json.loads(said)["pause_ms"] / 1e3)

    def restore(self) -> None:
        took, said = _seconds([*_ENGINE, "restore", str(self.image), "--detach"])
        self.restores.append(took)
        self.pid = json.loads(said)["pid"]

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def row(self, state: str = _STATE) -> Row:
        return Row(
            state, self.who, pause=median(self.pauses), total=median(self.dumps), bytes=self.bytes,
            back=median(self.restores), samples={"total": self.dumps, "back": self.restores, "pause": self.pauses},
        )  # fmt: skip


class _Criu(Engine):
    """The same with CRIU."""

    who = "criu dump / restore"

    def dump(self) -> None:
        self.image.mkdir()
        words = ["criu", "dump", "-t", str(self.pid), "-D", str(self.image), "--leave-running", "-v0"]
        self.dumps.append(_seconds(words)[0])

    def restore(self) -> None:
        self.restores.append(_seconds(["criu", "restore", "-D", str(self.image), "-d", "-v0"])[0])
