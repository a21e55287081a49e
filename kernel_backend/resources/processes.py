"""What belongs to a process as a whole: credentials, limits, folders, mm fields, prctl settings."""

from __future__ import annotations

import os
import resource
import struct
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import proc
from kernel_backend.image.entries import CredentialsEntry, MmEntry, ProcessEntry
from kernel_backend.tracee.inject import Borrowed, Call, Workshop

RLIMITS = range(16)
_CAP_VERSION_3 = 0x20080522
_PF_EXITING = 0x4
_CAP_SETPCAP = 8
_SECBIT_NO_SETUID_FIXUP = 1 << 2  # capabilities outlive a change of user until capset says what stays


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


def capture_mm(borrowed: Borrowed, pid: int) -> MmEntry:
    """The addresses that /proc shows of a process's layout, and its auxiliary vector."""
    s = proc.stat(pid)
    return MmEntry(
        start_code=s.start_code, end_code=s.end_code, start_data=s.start_data, end_data=s.end_data,
        start_brk=s.start_brk, brk=borrowed.call("brk", 0), start_stack=s.start_stack, arg_start=s.arg_start,
        arg_end=s.arg_end, env_start=s.env_start, env_end=s.env_end, auxv=proc.auxv(pid),
    )  # fmt: skip


def capture_limits(pid: int) -> list[tuple[int, int]]:
    """(soft, hard) of every resource limit; infinity as 2**64-1."""
    infinity = 2**64 - 1
    found = []
    for which in RLIMITS:
        soft, hard = resource.prlimit(pid, which)
        found.append((soft if soft >= 0 else infinity, hard if hard >= 0 else infinity))
    return found


def capture_prctl(borrowed: Borrowed) -> dict[str, int]:
    """Settings that only the process itself can ask for."""
    borrowed.call("prctl", linux.PR_GET_CHILD_SUBREAPER, borrowed.data)
    borrowed.call("prctl", linux.PR_GET_PDEATHSIG, borrowed.data + 8)
    subreaper, pdeathsig = struct.unpack("<i4xi", borrowed.get(12))
    return {
        "subreaper": subreaper,
        "pdeathsig": pdeathsig,
        "dumpable": borrowed.call("prctl", linux.PR_GET_DUMPABLE),
        "thp_disable": borrowed.call("prctl", linux.PR_GET_THP_DISABLE, 0, 0, 0, 0),
        "securebits": borrowed.call("prctl", linux.PR_GET_SECUREBITS),
        "keepcaps": borrowed.call("prctl", linux.PR_GET_KEEPCAPS),
        "timerslack": borrowed.call("prctl", linux.PR_GET_TIMERSLACK),
    }


def check_seccomp(pid: int, status: dict[str, str]) -> None:
    """A filter that we do not share could not be put back; a container's own filter, which we share, needs not be."""
    mine = proc.status(os.getpid())
    theirs = (status.get("Seccomp", "0"), status.get("Seccomp_filters", "0"))
    if theirs != (mine.get("Seccomp", "0"), mine.get("Seccomp_filters", "0")):
        raise ResourceUnsupported(
            f"process {pid} runs under a seccomp filter of its own, which cannot be read back",
            hint="start it without the sandbox, or run nbcr inside the same one", pid=pid,
        )  # fmt: skip


def is_exiting(stat: proc.Stat) -> bool:
    """Whether the process is on its way out."""
    return bool(stat.flags & _PF_EXITING)


# --- coming back ------------------------------------------------------------------------------------------------------


def set_mm(workshop: Workshop, entry: MmEntry) -> None:
    """Tell the OS kernel the image's layout (prctl(2), PR_SET_MM_MAP; needs no privilege while exe_fd is -1)."""
    auxv_at = workshop.put(entry.auxv, 256)
    fields = struct.pack(
        "<11QQIi", entry.start_code, entry.end_code, entry.start_data, entry.end_data, entry.start_brk, entry.brk,
        entry.start_stack, entry.arg_start, entry.arg_end, entry.env_start, entry.env_end,
        auxv_at, len(entry.auxv), -1,
    )  # fmt: skip
    at = workshop.put(fields)
    workshop.call("prctl", linux.PR_SET_MM, linux.PR_SET_MM_MAP, at, len(fields), 0)


def folder_calls(entry: ProcessEntry, data: int) -> tuple[list[Call], bytes]:
    """Working directory and umask."""
    path = os.fsencode(entry.cwd) + b"\0"
    return [Call("chdir", data), Call("umask", entry.umask)], path


def prctl_calls(entry: ProcessEntry) -> list[Call]:
    """Settings that survive nothing and need nothing."""
    return [
        Call("prctl", linux.PR_SET_CHILD_SUBREAPER, int(entry.subreaper), 0, 0, 0),
        Call("prctl", linux.PR_SET_THP_DISABLE, int(entry.thp_disable), 0, 0, 0),
    ]


def late_prctl_calls(entry: ProcessEntry, timerslack_ns: int) -> list[Call]:
    """Settings that a change of credentials resets, so they come after it."""
    calls = [Call("prctl", linux.PR_SET_DUMPABLE, 1 if entry.dumpable == 1 else 0, 0, 0, 0)]
    if timerslack_ns:
        calls.append(Call("prctl", linux.PR_SET_TIMERSLACK, timerslack_ns, 0, 0, 0))
    leader = entry.threads[0]
    calls.append(Call("prctl", linux.PR_SET_PDEATHSIG, leader.pdeathsig, 0, 0, 0))  # a stub has one of its own
    if entry.credentials.no_new_privs:
        calls.append(Call("prctl", linux.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    return calls


def credential_calls(present: CredentialsEntry, wanted: CredentialsEntry, data: int) -> tuple[list[Call], bytes]:
    """Calls of ONE thread that change who it is (credentials belong to threads in the OS kernel).

    Only what differs is called for, so without privileges, where nothing may differ but capabilities to be dropped,
    nothing is refused.
    """
    groups = struct.pack(f"<{len(wanted.groups)}I", *wanted.groups)
    cap_at = data + len(groups) + (-len(groups) % 8)
    calls: list[Call] = []
    dropped = present.bounding & ~wanted.bounding
    if present.effective & (1 << _CAP_SETPCAP):
        calls += [Call("prctl", linux.PR_CAPBSET_DROP, cap, 0, 0, 0) for cap in range(64) if dropped >> cap & 1]
    if present.groups != wanted.groups:
        calls.append(Call("setgroups", len(wanted.groups), data))
    if present.gids != wanted.gids:
        calls += [Call("setresgid", *wanted.gids[:3]), Call("setfsgid", wanted.gids[3])]
    if present.uids != wanted.uids:
        calls += [
            Call("prctl", linux.PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0),
            Call("setresuid", *wanted.uids[:3]),
            Call("setfsuid", wanted.uids[3]),
            Call("prctl", linux.PR_SET_SECUREBITS, wanted.securebits, 0, 0, 0),
        ]
    if present.ambient & ~wanted.ambient:
        calls.append(Call("prctl", linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    sets = (wanted.effective, wanted.permitted, wanted.inheritable)
    if (present.effective, present.permitted, present.inheritable) != sets or present.uids != wanted.uids:
        calls.append(Call("capset", cap_at, cap_at + 8))
    header = struct.pack("<Ii", _CAP_VERSION_3, 0)
    low, high = [s & 0xFFFFFFFF for s in sets], [s >> 32 for s in sets]
    return calls, groups.ljust(cap_at - data, b"\0") + header + struct.pack("<6I", *low, *high)


def apply_limits(pid: int, limits: list[tuple[int, int]]) -> list[str]:
    """Resource limits, from outside."""
    warnings = []
    for which, (soft, hard) in enumerate(limits):
        wanted = (soft if soft < 2**63 else -1, hard if hard < 2**63 else -1)
        if resource.prlimit(pid, which) == wanted:
            continue
        try:
            resource.prlimit(pid, which, wanted)
        except (OSError, ValueError) as error:
            warnings.append(f"resource limit {which} of process {pid} was not restored: {error}")
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
