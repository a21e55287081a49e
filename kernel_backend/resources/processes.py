"""What belongs to a process as a whole: credentials, limits, folders, mm fields, prctl settings."""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import ResourceUnsupported, TargetDenied
from kernel_backend.host import limits, proc
from kernel_backend.image.entries import CredentialsEntry, FoldersEntry, MmEntry, ProcessEntry
from kernel_backend.resources import settings
from kernel_backend.tracee.chorus import Asking
from kernel_backend.tracee.inject import WORD, Borrowed, Call, Workshop, failed_with
from kernel_backend.tracee.namespace import first_of_ours
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.thread import ALL_BUT_SIGTRAP

_NOBODY_LOGGED_IN = 2**32 - 1
_NAMING = 1 << 21 | 1 << 40  # CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE

_CAP_VERSION_3 = 0x20080522
_PF_EXITING = 0x4
_CAP_SETPCAP = 8
_CAP_SETGID, _CAP_SETUID = 1 << 6, 1 << 7
_SECBIT_NOROOT = 1
SECBIT_KEEP_CAPS = 1 << 4
_SECBIT_NO_SETUID_FIXUP = 1 << 2  # capabilities outlive a change of user until capset says what stays


def rights_of(entry: ProcessEntry) -> list[CredentialsEntry]:
    """Who a process is, and who those of its threads are that are somebody else."""
    return [entry.credentials, *(thread.credentials for thread in entry.threads if thread.credentials)]


def credentials(status: dict[str, str], securebits: int, keepcaps: bool) -> CredentialsEntry:
    """From /proc/PID/status."""
    return CredentialsEntry(
        uids=[int(n) for n in status["Uid"].split()],
        gids=[int(n) for n in status["Gid"].split()],
        groups=[int(n) for n in status["Groups"].split()],
        inheritable=int(status["CapInh"], 16),
        permitted=int(status["CapPrm"], 16),
        effective=int(status["CapEff"], 16),
        bounding=int(status["CapBnd"], 16),
        ambient=int(status["CapAmb"], 16),
        no_new_privs=status.get("NoNewPrivs", "0") == "1",
        securebits=securebits,
        keepcaps=keepcaps,
    )


SUBREAPER_BYTES = 4


def subreaper_question(at: int) -> Call:
    """The call that tells, at `at`, whether orphans below a process become its children: a fork does not copy that."""
    return Call("prctl", linux.PR_GET_CHILD_SUBREAPER, at)


def is_subreaper(raw: bytes) -> bool:
    """Whether they do."""
    return bool(int.from_bytes(raw[:SUBREAPER_BYTES], "little"))


_PROT_NONE = 0
_PROBE_AT = 1 << 20  # vm.mmap_min_addr is less, everywhere; the same for all, so that they share the frames of a batch


def lock_questions(process: Process) -> list[Call]:
    """The calls that tell `may_lock` whether new mappings may be locked; none where that is to be asked step by step.

    Pages that are locked are not thrown away (madvise(2)). The one that is tried lies below everything that the process
    has mapped, where nothing is: nobody can map anything meanwhile.
    """
    lowest = int(process.maps_text.partition("-")[0], 16)
    if process.status().get("VmLck", "0").split()[0] != "0" or lowest < _PROBE_AT + 16 * linux.PAGE_SIZE:
        return []
    flags = linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | linux.MAP_FIXED_NOREPLACE
    return [
        Call("mmap", _PROBE_AT, linux.PAGE_SIZE, _PROT_NONE, flags, WORD, 0),
        Call("madvise", _PROBE_AT, linux.PAGE_SIZE, linux.MADV_DONTNEED),
        Call("munmap", _PROBE_AT, linux.PAGE_SIZE),
    ]


def may_lock(answers: Sequence[int]) -> bool:
    """Whether new mappings may be locked, by the raw results of `lock_questions`."""
    if not answers:
        return True
    mapped, thrown_away, _ = answers
    return mapped == failed_with(errno.EAGAIN) or thrown_away == failed_with(errno.EINVAL)  # the first: beyond a limit


def ask_lock_future(borrowed: Borrowed) -> Asking[int]:
    """Whether new mappings are locked (mlockall(2), MCL_FUTURE), which only a new mapping shows: MCL_ flags."""
    pid = borrowed.thread.tid
    before = proc.status(pid)["VmLck"]
    flags = linux.MAP_PRIVATE | linux.MAP_ANONYMOUS
    try:
        at = yield Call("mmap", 0, linux.PAGE_SIZE, linux.PROT_READ | linux.PROT_WRITE, flags, WORD, 0)
    except OSError as error:
        if error.errno == errno.EAGAIN:  # it would be locked, beyond RLIMIT_MEMLOCK
            return linux.MCL_FUTURE | (linux.MCL_ONFAULT if _locks_on_fault(pid) else 0)
        if error.errno == errno.ENOMEM:  # nothing can be mapped: nothing will be locked either
            return 0
        raise
    locks = at_once = False
    if proc.status(pid)["VmLck"] != before:
        locks = True
        yield Call("mincore", at, linux.PAGE_SIZE, borrowed.data)
        at_once = borrowed.get(1) != b"\0"
    yield Call("munmap", at, linux.PAGE_SIZE)
    return (linux.MCL_FUTURE | (0 if at_once else linux.MCL_ONFAULT)) if locks else 0


def _locks_on_fault(pid: int) -> bool:
    """Whether what is locked now is locked when it is first touched (MCL_ONFAULT), as far as mappings tell."""
    flags = proc.smaps_flags(proc.smaps(pid)).values()
    return any("lf" in each for each in flags)


def check_trap(pid: int, status: dict[str, str]) -> None:
    """Refuse a process in which a SIGTRAP waits: tracing needs that signal, and would take it away."""
    if (int(status["ShdPnd"], 16) | int(status["SigPnd"], 16)) & ~ALL_BUT_SIGTRAP:
        raise ResourceUnsupported(
            f"in process {pid} a SIGTRAP waits to be delivered, which cannot be captured",
            hint="let the program take it and checkpoint again", pid=pid,
        )  # fmt: skip


def is_exiting(stat: proc.Stat) -> bool:
    """Whether the process is on its way out."""
    return bool(stat.flags & _PF_EXITING)


def keeps_capability(pid: int, bit: int) -> bool:
    """Whether a process that is taken over has a capability, also when it has run the image's program."""
    status = proc.status(pid)
    if _stays_itself(pid):
        return bool(int(status["CapEff"], 16) & bit)
    mine, ambient = int(status["CapEff"], 16), int(status["CapAmb"], 16)
    return bool(mine & bit and (ambient & bit or status["Uid"].split()[1] == str(proc.root_of(pid))))


def check_identity(process: Process, wanted: CredentialsEntry) -> None:
    """Whether a process that is taken over can become who the image says, with the rights that execve(2) leaves it.

    Without privileges, a saved user or group id that differs from the others is lost by execve(2). Raises TargetDenied.
    """
    status = proc.status(process.view)
    _check_capabilities(process, status, wanted)
    rights = int(status["CapEff"], 16) & (_CAP_SETUID | _CAP_SETGID)
    if status["Uid"].split()[1] == str(proc.root_of(process.view)) == "0" and rights:
        return
    for name, ids in (("user", wanted.uids), ("group", wanted.gids)):
        left = set(status["Uid" if name == "user" else "Gid"].split()[: 4 if _stays_itself(process.view) else 2])
        lost = [number for number in ids if str(number) not in left]
        if lost:
            raise TargetDenied(
                f"process {process.pid} may not become {name} {lost[0]}, which the image says it was",
                hint="restore the image as a fresh process, as root", pid=process.pid,
            )  # fmt: skip


def _check_capabilities(process: Process, status: dict[str, str], wanted: CredentialsEntry) -> None:
    """The capabilities that are left when a process runs another program (capabilities(7)) must do for the image."""
    with process.borrow() as borrowed:
        powerless_root = borrowed.call("prctl", linux.PR_GET_SECUREBITS) & _SECBIT_NOROOT
    if str(proc.root_of(process.view)) in status["Uid"].split()[:2] and not powerless_root:
        left = int(status["CapBnd"], 16) | int(status["CapInh"], 16)
        left &= int(status["CapPrm"], 16) if status.get("NoNewPrivs") == "1" else left
    else:
        left = int(status["CapAmb"], 16)
    if _stays_itself(process.view):
        left = int(status["CapPrm"], 16)  # it need not run the program
    if lost := wanted.permitted & ~left:
        raise TargetDenied(
            f"process {process.pid} would lose capabilities that the image has ({lost:#x}) on the way",
            hint="restore the image as a fresh process, as root", pid=process.pid,
        )  # fmt: skip


# --- coming back ------------------------------------------------------------------------------------------------------


def may_name_program(pid: int) -> bool:
    """Whether a process may say which program it runs without running it (PR_SET_MM_MAP with a descriptor)."""
    return bool(int(proc.status(pid)["CapEff"], 16) & _NAMING)


def is_of_a_programs_users(pid: int) -> bool:
    """Whether a process lives in a user namespace that a program has made."""
    mine, home = (f"/proc/{number}/ns/user" for number in (pid, first_of_ours(pid) or os.getpid()))
    return os.stat(mine).st_ino != os.stat(home).st_ino


def _stays_itself(pid: int) -> bool:
    """Whether a process that is taken over need not run the image's program, and keeps its rights."""
    return is_of_a_programs_users(pid) and may_name_program(pid)


def set_mm(workshop: Workshop, entry: MmEntry, program: str = "") -> None:
    """Tell the OS kernel the image's layout (prctl(2), PR_SET_MM_MAP), and which `program` it is, where that is not so.

    It needs no privilege without a program.
    """
    exe = -1
    if program and not Path(f"/proc/{workshop.thread.tgid}/exe").samefile(program):
        exe = workshop.call("open", workshop.put(os.fsencode(program) + b"\0"), os.O_RDONLY | os.O_CLOEXEC)
    auxv_at = workshop.put(entry.auxv, 256)
    fields = struct.pack(
        "<11QQIi", entry.start_code, entry.end_code, entry.start_data, entry.end_data, entry.start_brk, entry.brk,
        entry.start_stack, entry.arg_start, entry.arg_end, entry.env_start, entry.env_end,
        auxv_at, len(entry.auxv), exe,
    )  # fmt: skip
    at = workshop.put(fields)
    workshop.call("prctl", linux.PR_SET_MM, linux.PR_SET_MM_MAP, at, len(fields), 0)
    if exe >= 0:
        workshop.call("close", exe)


def is_own_proc_folder(entry: ProcessEntry) -> bool:
    """Whether its working folder is what /proc shows of itself, which is there as soon as it is."""
    return f"{entry.cwd}/".startswith(f"/proc/{entry.pid}/")


_PROC_FOLDER = re.compile(r"/proc/(\d+)(?:/.*?)?( \(deleted\))?", re.DOTALL)


def is_proc_folder_of_dead(cwd: str) -> bool:
    """Whether a working folder is what /proc showed of a process that has ended: nothing is found in it any more."""
    return re.fullmatch(r"/proc/\d+ \(deleted\)", cwd) is not None


def check_proc_folder(entry: ProcessEntry, tree: Collection[int]) -> None:
    """No working folder is one below /proc that is not there before all processes are. Raises ResourceUnsupported."""
    found = _PROC_FOLDER.fullmatch(entry.cwd)
    if found is None or is_own_proc_folder(entry) or is_proc_folder_of_dead(entry.cwd):
        return
    if found[2] or int(found[1]) in tree:
        raise ResourceUnsupported(
            f"the working folder of process {entry.pid} is what /proc shows of another process: {entry.cwd}",
            hint="let it go elsewhere (chdir) and checkpoint again", pid=entry.pid, path=entry.cwd,
        )  # fmt: skip


def check_folder_of_thread(pid: int, tid: int, cwd: str) -> None:
    """A thread of its own folders is in none below /proc that is about a process. Raises ResourceUnsupported."""
    if _PROC_FOLDER.fullmatch(cwd):
        raise ResourceUnsupported(
            f"the working folder of thread {tid} of process {pid} is what /proc shows of a process: {cwd}",
            hint="let it go elsewhere (chdir) and checkpoint again", pid=pid, path=cwd,
        )  # fmt: skip


def folder_calls(entry: ProcessEntry | FoldersEntry, path: str, data: int) -> tuple[list[Call], bytes]:
    """Working directory and umask."""
    if isinstance(entry, ProcessEntry) and is_own_proc_folder(entry):
        path = re.sub(r"^/proc/\d+", "/proc/self", path)
    return [Call("chdir", data), Call("umask", entry.umask)], os.fsencode(path) + b"\0"


def prctl_calls(entry: ProcessEntry) -> list[Call]:
    """Settings that need nothing and that new threads inherit."""
    calls = [
        Call("prctl", linux.PR_SET_CHILD_SUBREAPER, int(entry.subreaper), 0, 0, 0),
        Call("prctl", linux.PR_SET_THP_DISABLE, entry.thp_disable & 1, entry.thp_disable & ~1, 0, 0),
        Call("personality", entry.personality),
        *settings.early_calls(entry.settings),
    ]
    if entry.credentials.no_new_privs and not any(thread.credentials for thread in entry.threads):
        calls.append(no_new_privs_call())
    return calls


def no_new_privs_call() -> Call:
    """It is of a thread, and inherited by those that it makes."""
    return Call("prctl", linux.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def late_prctl_calls(entry: ProcessEntry) -> list[Call]:
    """Settings that a change of credentials resets, so they come after it."""
    return [
        Call("prctl", linux.PR_SET_DUMPABLE, 1 if entry.dumpable == 1 else 0, 0, 0, 0),
        *settings.late_calls(entry.settings),
    ]


def death_signal_call(signo: int) -> Call:
    """What a thread is sent when the thread that forked its process ends."""
    return Call("prctl", linux.PR_SET_PDEATHSIG, signo, 0, 0, 0)


def credential_calls(present: CredentialsEntry, wanted: CredentialsEntry, data: int) -> tuple[list[Call], bytes]:
    """Calls of ONE thread that change who it is (credentials belong to threads in the OS kernel).

    Only what differs is called for, so without privileges, where nothing may differ but capabilities to be dropped,
    nothing is refused. The order is that of what each call still needs: ambient capabilities must be inheritable and
    permitted first, the bounding set and the securebits need CAP_SETPCAP, which the last call may drop.
    """
    groups = struct.pack(f"<{len(wanted.groups)}I", *wanted.groups)
    cap_at = data + len(groups) + (-len(groups) % 8)
    calls = _identity_calls(present, wanted, data)
    if present.ambient & ~wanted.ambient:
        calls.append(Call("prctl", linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        present.ambient = 0
    inherit = (present.effective, present.permitted, wanted.inheritable)
    if present.ambient != wanted.ambient:
        calls.append(Call("capset", cap_at, cap_at + 8))
        calls += [_raise_ambient(cap) for cap in range(64) if wanted.ambient >> cap & 1]
    dropped = present.bounding & ~wanted.bounding
    if present.effective & (1 << _CAP_SETPCAP):
        calls += [Call("prctl", linux.PR_CAPBSET_DROP, cap, 0, 0, 0) for cap in range(64) if dropped >> cap & 1]
    calls += _securebits_calls(present, wanted)
    sets = (wanted.effective, wanted.permitted, wanted.inheritable)
    if (present.effective, present.permitted, present.inheritable) != sets or present.uids != wanted.uids:
        calls.append(Call("capset", cap_at, cap_at + 32))
    header = struct.pack("<Ii", _CAP_VERSION_3, 0)
    return calls, groups.ljust(cap_at - data, b"\0") + header + _cap_data(inherit) + _cap_data(sets)


def _identity_calls(present: CredentialsEntry, wanted: CredentialsEntry, data: int) -> list[Call]:
    """Groups and users; with capabilities kept over the change, until capset says what stays."""
    calls: list[Call] = []
    if present.groups != wanted.groups:
        calls.append(Call("setgroups", len(wanted.groups), data))
    if present.gids != wanted.gids:
        calls += [Call("setresgid", *wanted.gids[:3]), Call("setfsgid", wanted.gids[3])]
    if present.uids != wanted.uids:
        present.securebits |= _SECBIT_NO_SETUID_FIXUP
        calls += [
            Call("prctl", linux.PR_SET_SECUREBITS, present.securebits, 0, 0, 0),
            Call("setresuid", *wanted.uids[:3]),
            Call("setfsuid", wanted.uids[3]),
        ]
    return calls


def _raise_ambient(cap: int) -> Call:
    return Call("prctl", linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_RAISE, cap, 0, 0)


def _securebits_calls(present: CredentialsEntry, wanted: CredentialsEntry) -> list[Call]:
    """PR_SET_KEEPCAPS, which is one of these bits (execve clears it), needs no privilege; the others do."""
    differ = present.securebits ^ wanted.securebits
    if differ == SECBIT_KEEP_CAPS:
        return [Call("prctl", linux.PR_SET_KEEPCAPS, int(wanted.keepcaps), 0, 0, 0)]
    return [Call("prctl", linux.PR_SET_SECUREBITS, wanted.securebits, 0, 0, 0)] if differ else []


def _cap_data(sets: tuple[int, int, int]) -> bytes:
    """struct __user_cap_data_struct[2]: effective, permitted, inheritable."""
    low, high = [s & 0xFFFFFFFF for s in sets], [s >> 32 for s in sets]
    return struct.pack("<6I", *low, *high)


def apply_limits(workshop: Workshop, wanted: list[tuple[int, int]], pid: int, *, last: bool) -> list[str]:
    """Resource limits, from inside: one may always lower one's own, whoever one is.

    `last`: the one that the queueing of signals must not meet, or all the others.
    """
    present, warnings = limits.read(pid), []
    for which, pair in enumerate(wanted):
        if present[which] == pair or (which == limits.SIGPENDING) != last:
            continue
        try:
            workshop.call("prlimit64", 0, which, workshop.put(struct.pack("<QQ", *pair)), 0)
        except OSError as error:
            warnings.append(f"resource limit {which} of process {pid} was not restored: {error.strerror}")
    return warnings


def apply_oom_score(pid: int, value: int) -> list[str]:
    """oom_score_adj; lowering it needs privilege."""
    path = Path(f"/proc/{pid}/oom_score_adj")
    try:
        if int(path.read_text()) != value:
            path.write_text(str(value))
    except OSError as error:
        return [f"oom_score_adj of process {pid} was not restored: {error.strerror}"]
    return []


def login_uid(pid: int) -> int:
    """As whom somebody logged in who started this process in the end (audit(8)); -1: the host does not tell."""
    try:
        return int(Path(f"/proc/{pid}/loginuid").read_text())
    except (OSError, ValueError):
        return -1


def apply_login_uid(shop: Workshop, entry: ProcessEntry, may_be: Callable[[int], bool]) -> list[str]:
    """Before there are threads, which inherit it; warnings. Only the process itself may write it.

    Where nobody has logged in it may be set by anybody, else it takes CAP_AUDIT_CONTROL. `may_be`: whether an image may
    say that of a user, since the audit log is to tell who did things.
    """
    pid = shop.thread.tgid
    present, wanted = login_uid(pid), entry.login_uid
    if present == wanted or -1 in (present, wanted):
        return []
    reason = "the image's user may not say so"
    if wanted == _NOBODY_LOGGED_IN or may_be(wanted):
        text = str(wanted).encode()
        try:
            fd = shop.call("open", shop.put(b"/proc/self/loginuid\0"), os.O_WRONLY | os.O_CLOEXEC)
            shop.call("write", fd, shop.put(text), len(text))
            shop.call("close", fd)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
        else:
            return []
    then, now = (("nobody", f"user {number}")[number != _NOBODY_LOGGED_IN] for number in (wanted, present))
    return [f"for the audit log (/proc/PID/loginuid) what was {then}'s is {now}'s: {reason}"]
