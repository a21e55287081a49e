"""Parsers of /proc: each returns live values of one process or thread (proc(5)).

These are facts of the moment, not what is written to an image: the image has types of its own (image/entries.py).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec


class Mapping(msgspec.Struct, gc=False):
    """One line of /proc/PID/maps."""

    start: int
    end: int
    perms: str
    offset: int
    device: str
    inode: int
    path: str
    flags: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def shared(self) -> bool:
        """Whether it is a MAP_SHARED mapping."""
        return self.perms[3] == "s"


def _read(path: str) -> str:
    """The text of a file in /proc. Several times as fast as Path.read_text, and read in the pause of every dump."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts).decode(errors="surrogateescape")


def _parse_map_line(line: str) -> Mapping:
    span, perms, offset, device, inode, *rest = line.split(None, 5)
    start, end = span.split("-")
    path = rest[0].rstrip("\n") if rest else ""
    return Mapping(int(start, 16), int(end, 16), perms, int(offset, 16), device, int(inode), _unescape(path))


def _unescape(path: str) -> str:
    r"""The OS kernel writes a newline in a path as \012."""
    return path.replace("\\012", "\n") if "\\012" in path else path


def maps(pid: int) -> list[Mapping]:
    """The address space of `pid`, in address order, without VmFlags."""
    return parse_maps(maps_text(pid))


def maps_text(pid: int) -> str:
    """/proc/PID/maps. Reading it takes a tenth of the time that `parse_maps` does."""
    return _read(f"/proc/{pid}/maps")


def parse_maps(text: str, only: str = "") -> list[Mapping]:
    """The mappings in a maps_text: all, or those with the letter `only` (x, s …) in their permissions."""
    lines = text.split("\n")[:-1]
    return [_parse_map_line(line) for line in lines if not only or only in line.split(" ", 2)[1]]


_SMAPS_LINES = re.compile(rb"^([0-9a-f]+)-[0-9a-f]+ |^ProtectionKey: +(\d+)$|^VmFlags:(.*)$", re.MULTILINE)


def smaps(pid: int) -> bytes:
    """/proc/PID/smaps. The OS kernel walks the page tables for it: slow on large processes."""
    return Path(f"/proc/{pid}/smaps").read_bytes()


def smaps_flags(text: bytes) -> dict[int, frozenset[str]]:
    """VmFlags by start address, and pkN for a protection key, from `smaps`."""
    flags: dict[int, frozenset[str]] = {}
    start, key = 0, ""
    for found in _SMAPS_LINES.finditer(text):
        if found[1] is not None:
            start, key = int(found[1], 16), ""
        elif found[2] is not None:
            key = "" if found[2] == b"0" else f"pk{int(found[2])}"
        else:
            flags[start] = frozenset((*found[3].decode().split(), *([key] if key else ())))
    return flags


def page_bytes(pid: int, start: int) -> int:
    """The page size of the mapping that begins at `start`; 0 when there is none."""
    head = f"{start:x}-"
    with Path(f"/proc/{pid}/smaps").open(errors="surrogateescape", newline="\n") as lines:
        for line in lines:
            if line.startswith(head):
                break
        for line in lines:
            if line.startswith("KernelPageSize:"):
                return int(line.split()[1]) * 1024
    return 0


def status(pid: int, tid: int | None = None) -> dict[str, str]:
    """/proc/PID/status (or a thread's) as name → text."""
    path = f"/proc/{pid}/status" if tid is None else f"/proc/{pid}/task/{tid}/status"
    return dict(line.split(":\t", 1) for line in _read(path).splitlines() if ":\t" in line)


def root_of(pid: int) -> int:
    """Who is user 0 where a process lives, as we call users; -1: nobody. That one keeps capabilities over execve(2)."""
    if os.stat(f"/proc/{pid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino:
        return 0
    rows = [[int(number) for number in line.split()] for line in _read(f"/proc/{pid}/uid_map").splitlines()]
    return next((outside for inside, outside, _ in rows if inside == 0), -1)


class Stat(msgspec.Struct, gc=False):
    """The fields of /proc/PID/stat that we use; addresses and the exit code are 0 where we may not see them."""

    pid: int
    comm: str
    state: str
    ppid: int
    pgid: int
    sid: int
    tty: int
    tpgid: int
    flags: int
    priority: int
    nice: int
    num_threads: int
    start_ticks: int
    start_code: int
    end_code: int
    start_stack: int
    exit_signal: int
    rt_priority: int
    policy: int
    start_data: int
    end_data: int
    start_brk: int
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    exit_code: int


def stat(pid: int, tid: int | None = None) -> Stat:
    """/proc/PID/stat, or a thread's."""
    text = _read(f"/proc/{pid}/stat" if tid is None else f"/proc/{pid}/task/{tid}/stat")
    head, _, tail = text.rpartition(")")
    f = tail.split()

    def n(index: int) -> int:  # numbered as in proc(5), where the state is field 3
        return int(f[index - 3])

    return Stat(
        pid=int(head.split(" (", 1)[0]), comm=head.split(" (", 1)[1], state=f[0], ppid=n(4), pgid=n(5), sid=n(6),
        tty=n(7), tpgid=n(8), flags=n(9), priority=n(18), nice=n(19), num_threads=n(20), start_ticks=n(22),
        start_code=n(26), end_code=n(27), start_stack=n(28), exit_signal=n(38), rt_priority=n(40), policy=n(41),
        start_data=n(45), end_data=n(46), start_brk=n(47), arg_start=n(48), arg_end=n(49), env_start=n(50),
        env_end=n(51), exit_code=n(52),
    )  # fmt: skip


def may_see(pid: int) -> bool:
    """Whether we are shown what of a process only those see who may trace it; it may have ended."""
    try:
        os.readlink(f"/proc/{pid}/cwd")
    except PermissionError:
        return False
    except OSError:  # of a zombie nobody is shown that
        pass
    return True


def comm(pid: int, tid: int) -> str:
    """A thread's name."""
    return _read(f"/proc/{pid}/task/{tid}/comm").removesuffix("\n")


def personality(pid: int, tid: int) -> int:
    """A thread's execution domain (personality(2)), without a call in it."""
    return int(_read(f"/proc/{pid}/task/{tid}/personality"), 16)


def inner_id(tid: int) -> int:
    """The number that a process or thread has in its own pid namespace (pid_namespaces(7))."""
    return namespaced_ids(tid, tid)[0][-1]


def namespaced_ids(pid: int, tid: int) -> list[list[int]]:
    """The numbers of a thread, its process group and its session: each in our pid namespace and all further in."""
    found = _NAMESPACED.findall(_read(f"/proc/{pid}/task/{tid}/status"))
    return [[int(number) for number in numbers.split()] for numbers in found]


_NAMESPACED = re.compile(r"^NS(?:pid|pgid|sid):(.*)$", re.MULTILINE)


def view(pid: int) -> int:
    """The number under which /proc shows the memory and the descriptors of a process.

    That is its pid, unless the leading thread has ended before the others: then it is another thread's tid.
    """
    if stat(pid).state not in "ZX":
        return pid
    for tid in task_ids(pid):
        try:
            if stat(pid, tid).state not in "ZX":
                return tid
        except OSError:
            continue
    return pid


def system_call(pid: int, tid: int) -> int:
    """The number of the system call that a thread is blocked in; -1 where it is in none or we may not know."""
    try:
        first = _read(f"/proc/{pid}/task/{tid}/syscall").split()[0]
    except (OSError, IndexError):
        return -1
    return int(first) if first.isdigit() else -1


def blocked_call(pid: int, tid: int) -> tuple[int, ...]:
    """Number and arguments of the system call that a thread is blocked in; empty where it is in none."""
    words = _read(f"/proc/{pid}/task/{tid}/syscall").split()
    return (int(words[0]), *(int(word, 16) for word in words[1:7])) if len(words) == 9 else ()


def waits_in(pid: int, tid: int) -> str:
    """The OS kernel's function that a thread waits in; "0" where it runs, empty where we may not know."""
    try:
        return _read(f"/proc/{pid}/task/{tid}/wchan")
    except OSError:
        return ""


class RanLast(msgspec.Struct, gc=False):
    """When and where a thread was last on a processor."""

    at_ns: int  # of that processor's scheduler clock
    switches: int
    processor: int


_EXEC_START = re.compile(r"^se\.exec_start\s*:\s*(\d+)\.(\d{6})$", re.M)
_SWITCHES = re.compile(r"^nr_switches\s*:\s*(\d+)$", re.M)


def ran_last(pid: int, tid: int) -> RanLast:
    """From /proc/PID/task/TID/sched. Raises ValueError where the OS kernel does not tell."""
    text = _sched(pid, tid)
    milliseconds, rest = map(int, _found(_EXEC_START, text).groups())
    processor = _read(f"/proc/{pid}/task/{tid}/stat").rpartition(")")[2].split()[39 - 3]
    return RanLast(milliseconds * 10**6 + rest, int(_found(_SWITCHES, text)[1]), int(processor))


def switches(pid: int, tid: int) -> int:
    """How often a thread was taken off its processor. Raises ValueError where the OS kernel does not tell."""
    return int(_found(_SWITCHES, _sched(pid, tid))[1])


def _sched(pid: int, tid: int) -> str:
    try:
        return _read(f"/proc/{pid}/task/{tid}/sched")
    except FileNotFoundError as error:
        raise ValueError("the OS kernel tells nothing of the scheduler") from error


def _found(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.search(text)
    if found is None:
        raise ValueError("the OS kernel tells something else of the scheduler")
    return found


def task_ids(pid: int) -> list[int]:
    """The tids of a process, the leader's included, ascending."""
    return sorted(map(int, os.listdir(f"/proc/{pid}/task")))


_PF_IO_WORKER, _PF_USER_WORKER = 0x10, 0x4000  # linux/sched.h; the second is said of all such since OS kernel 6.4


def is_worker(pid: int, tid: int) -> bool:
    """Whether a thread that is listed is a worker of the OS kernel's (io_uring(7)), which never runs the program.

    What it is called proves nothing: threads choose their names.
    """
    try:
        words = _read(f"/proc/{pid}/task/{tid}/stat").rpartition(")")[2].split(None, 7)
    except OSError:
        return False  # it has ended
    return bool(int(words[6]) & (_PF_IO_WORKER | _PF_USER_WORKER))


def children(pid: int) -> list[int]:
    """The pids of a process's children, over all of its threads."""
    found: list[int] = []
    for tid in task_ids(pid):
        try:
            found += map(int, _read(f"/proc/{pid}/task/{tid}/children").split())
        except OSError:
            continue  # the thread ended meanwhile; its children moved to a sibling, which is read too
    return sorted(set(found))


def pids() -> list[int]:
    """Of all processes that there are."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def fd_numbers(pid: int) -> list[int]:
    """Open descriptor numbers, ascending."""
    return sorted(map(int, os.listdir(f"/proc/{pid}/fd")))


class FdInfo(msgspec.Struct):
    """/proc/PID/fdinfo/N: the common head and the lines of its kind."""

    pos: int
    flags: int
    mnt_id: int
    lines: list[str] = []

    def value(self, name: str) -> str | None:
        """The text behind `name:` of the first such line."""
        for line in self.lines:
            if line.startswith(name + ":"):
                return line[len(name) + 1 :].strip()
        return None


def fdinfo(pid: int, fd: int) -> FdInfo:
    """Position (bytes), open flags (octal in the file) and what is special to the kind."""
    info = FdInfo(0, 0, 0)
    for line in _read(f"/proc/{pid}/fdinfo/{fd}").splitlines():
        name, _, value = line.partition(":")
        if name == "pos":
            info.pos = int(value)
        elif name == "flags":
            info.flags = int(value, 8)
        elif name == "mnt_id":
            info.mnt_id = int(value)
        else:
            info.lines.append(line)
    return info


def fd_link(pid: int, fd: int) -> str:
    """Where /proc/PID/fd/N points."""
    return os.readlink(f"/proc/{pid}/fd/{fd}")


def auxv(pid: int) -> bytes:
    """The auxiliary vector as the OS kernel keeps it."""
    return Path(f"/proc/{pid}/auxv").read_bytes()


class PosixTimer(msgspec.Struct, gc=False):
    """One entry of /proc/PID/timers."""

    timer_id: int
    signo: int
    value: int
    notify: int
    target_tid: int
    clock: int


def posix_timers(pid: int) -> list[PosixTimer]:
    """POSIX timers of a process; empty where the OS kernel does not tell."""
    try:
        text = _read(f"/proc/{pid}/timers")
    except OSError:
        return []
    timers = []
    for block in re.split(r"^(?=ID: )", text, flags=re.MULTILINE)[1:]:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        signo, value = fields["signal"].split("/")
        how, target = fields["notify"].split("/")
        kind, _, tid = target.partition(".")
        notify = {"signal": 0, "none": 1, "thread": 2}[how] | (4 if kind == "tid" else 0)
        timers.append(
            PosixTimer(int(fields["ID"]), int(signo), int(value, 16), notify, int(tid), int(fields["ClockID"]))
        )
    return timers


def tasks_of_user(uid: int) -> int:
    """How many threads of this (real) user the host has, as far as they show."""
    found = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            fields = status(int(folder.name))
        except OSError:
            continue  # it ended
        if fields.get("Uid", "").split()[:1] == [str(uid)]:
            found += int(fields.get("Threads", "1"))
    return found
