"""A small CRS component, installed by entry point in the tests: it keeps what /proc tells of a process.

It is real in everything but memory: it writes files, leaves the process as asked, notices damage, and brings the
recorded command back as a new process. NBCR_TREES holds words that make it
misbehave: ``fail-early``, ``fail-late``, ``full`` (no room), ``slow=SECONDS``, ``die-early``, ``die-late``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from nbcr.crs import (
    Availability,
    Brought,
    CheckpointOptions,
    Component,
    ProcessSummary,
    Progress,
    RestartOptions,
    SnapshotReference,
    SnapshotSummary,
    Taken,
)
from nbcr.errors import EngineFailed, EntryDamaged
from nbcr.states import State


class Trees(Component):
    name = "trees"
    version = "1"
    priority = 10

    def availability(self) -> Availability:
        return Availability(True, "keeps what /proc tells")

    def checkpoint(self, pid: int, snapshot: SnapshotReference, options: CheckpointOptions) -> Taken:
        moods = dict(word.partition("=")[::2] for word in os.environ.get("NBCR_TREES", "").split())
        begun = time.monotonic()
        if not _lives(pid):
            raise EngineFailed(f"there is no process {pid}", kind="TargetNotFound", exit_code=3)
        snapshot.local.mkdir()
        try:
            _misbehave(moods, "early")
            facts = _facts(pid)  # not stopped for it: we may be killed at any moment, it would stay stopped
            if options.leave != "running":
                os.kill(pid, signal.SIGSTOP)
            pause_ms = (time.monotonic() - begun) * 1000
            if options.on_resume is not None and options.leave == "running":
                options.on_resume(Progress(pause_ms, resident_bytes=4096, warnings=("only /proc was kept",)))
            time.sleep(float(moods.get("slow", "0")))
            _misbehave(moods, "late")
            data = json.dumps(facts).encode()
            (snapshot.local / "facts.json").write_bytes(data)
            (snapshot.local / "sum").write_text(hashlib.sha256(data).hexdigest())
        except BaseException:
            shutil.rmtree(snapshot.local)
            raise
        if options.leave == "killed":
            os.kill(pid, signal.SIGKILL)
        state = State.TERM if options.leave == "killed" else State.CONTINUE
        return Taken(state, (pid,), pause_ms, len(data), ("only /proc was kept",))

    def restart(self, snapshot: SnapshotReference, options: RestartOptions) -> Brought:
        facts = _read(snapshot)
        if options.on_ready is not None:
            options.on_ready()
        if options.on_commit is not None:
            options.on_commit()
        if options.into is not None:
            raise EngineFailed("a tree cannot replace a living process", hint="restart it fresh")
        streams = [subprocess.DEVNULL if fd < 0 else fd for fd in options.stdio]
        child = subprocess.Popen(
            facts["argv"],
            cwd=facts["cwd"],
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            start_new_session=True,
        )
        return Brought(child.pid, {facts["pid"]: child.pid}, wait=child.wait)

    def verify(self, snapshot: SnapshotReference) -> None:
        _read(snapshot)

    def inspect(self, snapshot: SnapshotReference) -> SnapshotSummary:
        facts = _read(snapshot)
        argv = tuple(facts["argv"])
        process = ProcessSummary(facts["pid"], facts["ppid"], argv[0], argv, 1, 4096, facts["cwd"])
        return SnapshotSummary(facts["pid"], "", "", (process,))


def _misbehave(moods: dict[str, str], when: str) -> None:
    if f"fail-{when}" in moods:
        raise EngineFailed(f"asked to fail {when}", hint="do not ask", kind="ResourceUnsupported", exit_code=7)
    if f"die-{when}" in moods:
        os.kill(os.getpid(), signal.SIGKILL)
    if when == "late" and "full" in moods:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _facts(pid: int) -> dict[str, object]:
    stat = Path(f"/proc/{pid}/stat").read_text()
    argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    ppid = int(stat[stat.rindex(")") + 2 :].split()[1])
    return {"pid": pid, "ppid": ppid, "argv": argv, "cwd": str(Path(f"/proc/{pid}/cwd").readlink())}


def _read(snapshot: SnapshotReference) -> dict[str, object]:
    missing = [name for name in ("facts.json", "sum") if not (snapshot.local / name).exists()]
    if missing:
        raise EntryDamaged(f"snapshot {snapshot.reference} lacks {missing[0]}")
    data = (snapshot.local / "facts.json").read_bytes()
    if hashlib.sha256(data).hexdigest() != (snapshot.local / "sum").read_text():
        raise EntryDamaged(f"snapshot {snapshot.reference} was changed since it was written")
    facts = json.loads(data)
    assert isinstance(facts, dict)
    return facts
