"""What tests of every kind share: named skips, an ordinary user, and the processes a test started."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
SKIP_PREFIX = "needs "
PROCESSOR = "a processor with "  # how a capability begins that nobody can install
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_libc = ctypes.CDLL(None, use_errno=True)


def needs(capability: str, available: bool = False, why: str = "") -> None:
    """Skip unless `available`, naming what this host lacks. The only way in which a test may skip."""
    if not available:
        pytest.skip(f"{SKIP_PREFIX}{capability}{': ' + why if why else ''}")


def first_line(process: subprocess.Popen[str]) -> str:
    """The next line that `process` prints, and not a byte more: `communicate` forgets what `readline` read ahead."""
    assert process.stdout is not None
    said = b""
    while not said.endswith(b"\n") and (byte := os.read(process.stdout.fileno(), 1)):
        said += byte
    return said.decode()


# --- an ordinary user ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class User:
    """Somebody to run commands as. For ourselves `prefix` is empty."""

    name: str
    uid: int
    gid: int
    home: Path
    prefix: tuple[str, ...] = ()

    @property
    def is_ourselves(self) -> bool:
        return self.uid == os.geteuid()

    def command(self, argv: Sequence[str | Path], cwd: str | Path | None = None) -> list[str]:
        """The argv which runs `argv` as this user, in `cwd`."""
        move = ["env", f"--chdir={cwd}"] if cwd is not None else []
        return [*self.prefix, *move, *(str(word) for word in argv)]

    def environ(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """A small environment of this user's own: home and caches are theirs."""
        keep = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
        own = {} if self.is_ourselves else {"XDG_RUNTIME_DIR": str(self.home / "run")}
        return {
            **keep,
            "HOME": str(self.home),
            "USER": self.name,
            "PYTHONDONTWRITEBYTECODE": "1",
            "NBCR_PACK": "never",
            **({"NBCR_CONFIG": os.environ["NBCR_CONFIG"]} if self.is_ourselves and "NBCR_CONFIG" in os.environ else {}),
            **own,
            **(extra or {}),
        }

    def give(self, *paths: Path) -> None:
        """Make the paths this user's own."""
        if not self.is_ourselves:
            for path in paths:
                os.chown(path, self.uid, self.gid, follow_symlinks=False)


def blocked_folders(paths: Sequence[Path]) -> list[Path]:
    """The outermost folders on the way to `paths` which other users may not pass."""
    blocked: set[Path] = set()
    for path in paths:
        for folder in reversed(path.resolve().parents):
            if not folder.stat().st_mode & 0o001:
                blocked.add(folder)
                break
    return sorted(blocked)


# Processes that serve more than one test: no stray of the test that happened to start them.
SERVANTS: set[int] = set()


# A root's checkout or interpreter often lies below a folder that only root may pass (/root, a mktemp -d). Opening
# that folder to everybody would change the machine, copying a gigabyte of packages would take longer than the tests:
# so the ordinary user gets a mount namespace in which the closed folders hold nothing but what the tests need.
_OPEN_VIEW = r"""
set -e
stash=$(mktemp -d)
mount -t tmpfs -o mode=0755 tmpfs "$stash"
n=0
for path in $NEEDED; do
    n=$((n + 1)); mkdir "$stash/$n"; mount --rbind "$path" "$stash/$n"
done
for folder in $BLOCKED; do
    mount -t tmpfs -o mode=0755 tmpfs "$folder"
done
n=0
for path in $NEEDED; do
    n=$((n + 1)); mkdir -p "$path"; mount --rbind "$stash/$n" "$path"
done
umount -R "$stash"; rmdir "$stash"
echo open
read -r _
"""


@contextmanager
def open_view(needed: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    """A command prefix that enters a mount namespace in which everybody may reach `needed`."""
    blocked = blocked_folders(needed)
    if not blocked:
        yield ()
        return
    inside = [p for p in dict.fromkeys(needed) if any(p.is_relative_to(folder) for folder in blocked)]
    environ = {**os.environ, "NEEDED": " ".join(map(str, inside)), "BLOCKED": " ".join(map(str, blocked))}
    keeper = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", _OPEN_VIEW],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, text=True,
    )  # fmt: skip
    SERVANTS.add(keeper.pid)
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    try:
        if keeper.stdout.readline().strip() != "open":
            needs("a mount namespace", why=keeper.stderr.read().strip().splitlines()[-1:][0])
        yield ("nsenter", f"--mount=/proc/{keeper.pid}/ns/mnt", "--")
    finally:
        keeper.stdin.close()
        keeper.wait()
        SERVANTS.discard(keeper.pid)
        keeper.stdout.close()
        keeper.stderr.close()


# --- processes -----------------------------------------------------------------------------------------


def children_of(pid: int) -> set[int]:
    """The living and dead children of `pid`, whichever of its threads made them."""
    found: set[int] = set()
    with suppress(OSError):  # it has ended
        for tid in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                found.update(int(word) for word in Path(f"/proc/{pid}/task/{tid}/children").read_text().split())
    return found


def family_of(pid: int) -> list[int]:
    """`pid` and everything below it, parents first."""
    found = [pid]
    for parent in found:
        found.extend(sorted(children_of(parent)))
    return found


def describe_process(pid: int) -> str:
    """One line about a process, for messages."""
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return f"{pid} (gone)"
    return f"{pid} [{state}] {argv}"


def kill_told_as(pid: int, number: int) -> int:
    """Send a signal that ends it; what a wait for it tells then: as shells say it, if an init of its own tells it."""
    inside = Path(f"/proc/{pid}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
    os.kill(pid, number)
    return 128 + number if inside else -number


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """Whether `pid`, our child or not, ends within the time."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], timeout_s)[0])
    finally:
        os.close(pidfd)


@dataclass
class ProcessTracker:
    """Knows what a test started, directly or through a restore, and ends that and nothing else.

    While a test runs we are the subreaper: whatever its commands leave behind becomes our child, so a stray process
    is found by looking at our own children, never by name.
    """

    before: set[int] = field(default_factory=lambda: children_of(os.getpid()))
    popens: list[subprocess.Popen[Any]] = field(default_factory=list)
    restored: set[int] = field(default_factory=set)

    def start(self, argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Popen in a session of its own, ended with the test."""
        options.setdefault("start_new_session", True)
        popen: subprocess.Popen[Any] = subprocess.Popen([str(word) for word in argv], **options)
        self.popens.append(popen)
        return popen

    def adopt(self, pid: int) -> None:
        """Count a restored process among the test's own, and so the init of its pid namespace, where it has one."""
        self.restored.add(pid)
        self.restored.update(above for above in children_of(os.getpid()) if pid in children_of(above))

    def strays(self) -> list[int]:
        """Children that the test neither started nor adopted, zombies included."""
        known = SERVANTS | self.before | self.restored | {popen.pid for popen in self.popens}
        return sorted(children_of(os.getpid()) - known)

    def reap(self, pid: int, timeout_s: float = 10.0) -> int | None:
        """Wait for a process that became our child; its status, or None when it isn't ours or still runs."""
        if not wait_for_end(pid, timeout_s):
            return None
        for popen in self.popens:
            if popen.pid == pid and popen.returncode is None:  # a restored process may bear the pid again
                return popen.wait()
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return None

    def end_all(self) -> None:
        """Kill and reap everything of the test's, descendants included."""
        ours = [popen.pid for popen in self.popens if popen.poll() is None]
        ours += [pid for pid in self.restored if pid in children_of(os.getpid())]
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            ours = [*ours, *self.strays()]
            if not ours:
                break
            for pid in [member for root in ours for member in family_of(root)]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for pid in ours:
                self.reap(pid, 5.0)
            ours = []
        for popen in self.popens:
            popen.wait(5)
            for stream in (popen.stdin, popen.stdout, popen.stderr):
                if stream is not None:
                    stream.close()


@contextmanager
def tracked_processes() -> Iterator[ProcessTracker]:
    """A tracker, with us as the subreaper meanwhile."""
    was = ctypes.c_int()
    _libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(was), 0, 0, 0)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    tracker = ProcessTracker()
    try:
        yield tracker
    finally:
        tracker.end_all()
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, was.value, 0, 0, 0)


def fail(message: str) -> NoReturn:
    """pytest.fail without its own frame in the report."""
    pytest.fail(message, pytrace=False)
