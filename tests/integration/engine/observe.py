"""What /proc says about a process, reduced to what a restore has to bring back."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

# Not compared: pids and counters, and what is the harness's (the parent).
STATUS = (
    "Name Umask State Uid Gid Groups Threads SigPnd ShdPnd SigBlk SigIgn SigCgt CapInh CapPrm CapEff CapBnd CapAmb "
    "NoNewPrivs Seccomp Cpus_allowed VmLck THP_enabled"
).split()
THREAD_STATUS = "Name SigPnd SigBlk Cpus_allowed".split()

_SETTLES_S, _LOOK_S = 5.0, 0.02
SIGNAL_FRAME = 64 << 10  # bytes; more than the largest register state takes
OPENED_WITH = os.O_NOFOLLOW | 0o100000  # said to open(2), of no effect afterwards; the second is O_LARGEFILE


@dataclass(frozen=True)
class Observed:
    """One process as /proc shows it."""

    status: dict[str, str]
    threads: list[dict[str, str]]
    maps: list[str]
    descriptors: dict[int, str]

    def differences(self, other: Observed) -> list[str]:
        """What `other` (afterwards) shows differently, one line each."""
        found = [
            f"status {key}: {value!r} became {other.status.get(key)!r}"
            for key, value in self.status.items()
            if other.status.get(key) != value
        ]
        if self.threads != other.threads:
            found.append(f"threads: {self.threads} became {other.threads}")
        lost, new = [line for line in self.maps if line not in other.maps], set(other.maps) - set(self.maps)
        for line in lost:
            grown = next((after for after in new if _has_grown(line, after)), None)
            new.discard(grown or "")
            found += [f"mapping lost: {line}"] if grown is None else []
        found += [f"mapping new: {line}" for line in sorted(new)]
        for number in sorted(self.descriptors.keys() | other.descriptors.keys()):
            before, after = self.descriptors.get(number), other.descriptors.get(number)
            if before != after:
                found.append(f"descriptor {number}: {before} became {after}")
        return found


def _has_grown(stack: str, after: str) -> bool:
    """Whether the main thread's stack has grown by some pages: a thread that is stopped gets a signal frame on it."""
    (low, end), (after_low, after_end) = stack.split("-", 1), after.split("-", 1)
    return end == after_end and end.endswith(" [stack]") and 0 < int(low, 16) - int(after_low, 16) <= SIGNAL_FRAME


def observe_settled(pid: int) -> Observed:
    """What there is to see when two looks in a row see the same: a thread that was joined may be there for a moment
    longer, and one that will wait may not have come to its call yet."""
    deadline, before = time.monotonic() + _SETTLES_S, None
    while True:
        try:
            found = observe(pid)
        except (FileNotFoundError, ProcessLookupError):  # of a thread that went away meanwhile
            found = None
        if found is not None and (found == before or len(found.threads) == 1):
            return found
        assert time.monotonic() < deadline, f"process {pid} does not settle: {before} became {found}"
        before = found
        time.sleep(_LOOK_S)


def differences_that_stay(before: Observed, pid: int) -> list[str]:
    """What `pid` shows differently from `before`, when its threads have had time to come to where they wait again."""
    deadline = time.monotonic() + _SETTLES_S
    while (found := before.differences(observe_settled(pid))) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return found


def observe(pid: int) -> Observed:
    """Read everything about `pid`."""
    process = Path(f"/proc/{pid}")
    threads = [_status(task, THREAD_STATUS) for task in sorted(process.glob("task/*"), key=lambda t: int(t.name))]
    living = max(
        process.glob("task/*"), key=lambda task: int(task.name)
    )  # a leader that has ended shows nobody anything
    return Observed(_status(process, STATUS), threads, _maps(living), _descriptors(living))


def _status(process: Path, keys: list[str]) -> dict[str, str]:
    pairs = [line.split(":", 1) for line in (process / "status").read_text().splitlines()]
    found = {key: value.strip() for key, value in pairs if key in keys}
    if dict(pairs)["State"].split()[0] == "Z":
        found.pop("SigBlk", None)  # of no effect any more
    if found.get("State", "")[:1] in ("S", "R", "D"):
        found["State"] = "alive"  # waiting or just awake: either will do
    return found


def _path_of(name: str) -> str:
    # What replaces a deleted file may have another name; a semaphore shows the one that it was made under.
    return "" if name.endswith("(deleted)") or name.startswith("/dev/shm/sem.") else name


def _maps(process: Path) -> list[str]:
    """The mappings; neighbours that differ in nothing but the OS kernel's bookkeeping count as one."""
    merged: list[tuple[int, int, str, str]] = []
    for line in (process / "maps").read_text().splitlines():
        span, rights, _offset, _device, _inode, *name = line.split(None, 5)
        low, high = (int(end, 16) for end in span.split("-"))
        path = _path_of(name[0] if name else "")
        if merged and merged[-1][1] == low and merged[-1][2:] == (rights, path):
            low = merged.pop()[0]
        merged.append((low, high, rights, path))
    return [f"{low:x}-{high:x} {rights} {path}".strip() for low, high, rights, path in merged]


def _descriptors(process: Path) -> dict[int, str]:
    found = {}
    for link in (process / "fd").iterdir():
        try:
            target = _path_of(re.sub(r":\[\d+\]$", "", os.readlink(link)))
            info = (process / "fdinfo" / link.name).read_text()
        except FileNotFoundError:
            continue
        fields = dict(re.findall(r"^(pos|flags):\s+(\d+)$", info, re.M))
        if re.fullmatch(r"/dev/pts/\d+", target):
            target = "/dev/pts"  # another number is another terminal's chance
        flags = int(fields.get("flags", "0"), 8) & ~OPENED_WITH
        found[int(link.name)] = f"{target} at {fields.get('pos')} with flags {flags:#o}"
    return found
