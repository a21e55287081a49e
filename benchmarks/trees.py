"""A tree of processes with threads, and one process with very many: pause, dump and restore by the command line."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from pathlib import Path

from benchmarks.commands import PR_SET_CHILD_SUBREAPER, Engine
from benchmarks.table import Report, Row, Verdict

# PROCESSES children, each with THREADS threads in all, that sleep.
_SOURCE = r"""
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static void *sleeper(void *unused) { for (;;) pause(); return unused; }

static void threads(int count)
{
    pthread_attr_t small;
    pthread_t made;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    while (count-- > 1)
        if (pthread_create(&made, &small, sleeper, NULL))
            exit(1);
}

int main(int argc, char **argv)
{
    int processes = argc > 2 ? atoi(argv[1]) : 1, count = argc > 2 ? atoi(argv[2]) : 1, ready[2];
    char byte;
    if (pipe(ready))
        return 1;
    for (int i = 1; i < processes; i++)
        if (fork() == 0) {
            threads(count);
            if (write(ready[1], "x", 1) != 1)
                return 1;
            sleeper(NULL);
        }
    threads(count);
    for (int i = 1; i < processes; i++)
        if (read(ready[0], &byte, 1) != 1)
            return 1;
    if (write(1, "ready\n", 6) != 6)
        return 1;
    sleeper(NULL);
}
"""
_TREE, _THREADS = (50, 10), (1, 2000)


def measure(folder: Path, report: Report, repetitions: int, *, small: bool) -> None:
    """Both shapes, one after the other; a fifth of their size when `small`."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        report.rows.append(Row("trees", "not measured", note="there is no C compiler here"))
        return
    program = folder / "tree"
    source = program.with_suffix(".c")
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-O1", "-pthread", "-o", str(program), str(source)], check=True)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for processes, threads in (_TREE, _THREADS):
        if small:
            processes, threads = max(processes // 5, 1), threads if processes > 1 else threads // 5
        _measure_one([str(program), str(processes), str(threads)], folder, report, repetitions)


def _measure_one(words: list[str], folder: Path, report: Report, repetitions: int) -> None:
    processes, threads = words[1:]
    shape = f"{processes} processes with {threads} threads each" if processes != "1" else f"{threads} threads"
    tree = _Tree(words, folder / "trees")
    try:
        for _ in range(repetitions):
            tree.turn()
    finally:
        tree.end()
    row = tree.row(shape)
    report.rows.append(row)
    if (int(processes), int(threads)) == _TREE:
        report.verdicts.append(Verdict(f"pause of a dump of {shape}", 0.3, row.pause, best=min(tree.pauses)))
        report.verdicts.append(Verdict(f"restore of {shape}, whole command", 3.0, row.back, best=min(tree.restores)))


class _Tree(Engine):
    """A whole tree, which is one process group."""

    def start(self, words: list[str]) -> None:
        started = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        assert started.stdout is not None
        started.stdout.readline()
        started.stdout.close()
        started.returncode = 0  # we reap it ourselves, by its pid
        self.pid = started.pid

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # its orphans become ours
            while os.waitpid(-1, 0)[0]:
                continue
