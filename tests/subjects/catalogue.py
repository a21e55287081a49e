"""The table of subjects: which program shows which kind of resource, and what the engine owes it.

A subject is named after its source: `files/lock` is c/files/lock.c, `py/pool` is py/pool.py; a variant with other
arguments carries them behind a colon. The table holds only what the source cannot say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Subject:
    """One row: a program, and what to expect of it."""

    name: str
    kind: str  # the row of docs/resources.md
    issue: int = 2
    refused: tuple[str, ...] = ()  # words of the message with which a dump is refused; empty: it is captured
    privilege: str = ""  # what it takes to set the resource up; runs as root only
    host: str = ""  # what must be there beside the subject: conftest.py provides it
    keeps_pids: bool = False  # its check needs the pids of before
    steady: bool = True  # threads, descriptors and maps stay as they are while it waits
    into: bool = True  # may be restored in place of itself
    outside: bool = False  # when it ends it has changed what no image holds: folders, System V objects
    trust: bool = False  # it holds what its own user may not open: root has to say that it trusts the image
    dumped_with: tuple[str, ...] = ()  # options of a dump that ends it; it is dumped in no other way
    expects_restore: bool = False  # it checks what only a restore does: an original that goes on must not pass
    running_loses: str = ""  # words of the warning about what a dump that leaves it running cannot hold
    once: bool = False  # what it checks holds after one restore, not after a second one
    long: bool = False  # only among the long sweeps
    representative: bool = False  # runs in every variant by default

    @property
    def arguments(self) -> list[str]:
        return self.name.partition(":")[2].split(",") if ":" in self.name else []

    @cached_property
    def source(self) -> Path:
        stem = self.name.partition(":")[0]
        return FOLDER / (f"{stem}.py" if self.is_python else f"c/{stem}.c")

    @property
    def is_python(self) -> bool:
        return self.name.startswith("py/")

    @cached_property
    def can_spoil(self) -> bool:
        """Whether it can break its own state when told to."""
        return bool(re.search(r"wait\((spoil|lambda)", self.source.read_text()))


def _rows(kind: str, names: str, **what: object) -> list[Subject]:
    return [Subject(name, kind, **what) for name in names.split()]  # type: ignore[arg-type]


CATALOGUE: list[Subject] = [
    *_rows("general registers, segment bases", "cpu/registers cpu/gs_base cpu/rseq cpu/rseq_section"),
    *_rows("FPU, SSE, AVX, AVX-512", "cpu/x87 cpu/mxcsr"),
    Subject("cpu/vectors", "FPU, SSE, AVX, AVX-512", representative=True),
    *_rows("tile registers (AMX)", "cpu/tiles", issue=4),
    *_rows("signal handlers, masks, stacks", "signals/mask signals/thread_masks signals/altstack"),
    *_rows("signal handlers, masks, stacks", "signals/in_handler signals/handlers", representative=True),
    *_rows(
        "signal handlers, masks, stacks",
        "signals/nested signals/autodisarm signals/ignored signals/ignored_traps",
        issue=4,
    ),
    *_rows("pending signals with siginfo", "signals/pending_process signals/pending_thread"),
    *_rows("pending signals with siginfo", "signals/senders signals/many_pending signals/no_room", issue=4),
    *_rows("interrupted system calls", "signals/sigsuspend signals/sigwait"),
    *_rows("interval timers", "timers/itimers"),
    *_rows("interval timers", "timers/ticking", steady=False),  # a tick may be pending at any moment
    *_rows("interval timers", "timers/processor_time", issue=4, steady=False),
    *_rows("POSIX timers", "timers/posix timers/posix_thread"),
    *_rows("POSIX timers", "timers/clocks_of_all_sorts timers/ringing timers/of_threads", issue=4, steady=False),
    *_rows("POSIX timers", "timers/of_the_dead", issue=4),
    *_rows("clocks", "timers/clocks"),
    *_rows("threads", "threads/tls threads/names threads/join threads/stacks"),
    *_rows("threads", "threads/identity threads/many", representative=True),
    *_rows("threads", "threads/exec", issue=4),
    *_rows("threads", "threads/odd_settings threads/own_processor", issue=4),
    Subject("threads/many:2000", "threads", issue=4),
    *_rows("threads that begin and end meanwhile", "threads/churn threads/relay", steady=False),
    *_rows("threads without a stack to speak of", "threads/no_stack threads/small_stacks", issue=4, steady=False),
    *_rows("threads without a stack to speak of", "threads/fibre", issue=4),
    *_rows("computing threads", "threads/compute", steady=False, representative=True),
    *_rows("main thread ended before the others", "threads/leader_gone", issue=4, into=False),
    *_rows("OpenMP", "threads/openmp", issue=4),
    *_rows("membarrier registrations", "threads/membarrier", issue=4),
    *_rows("mutexes, conditions, semaphores", "threads/condition threads/semaphores threads/mutex_of_thread"),
    *_rows("mutexes, conditions, semaphores", "threads/mutex", representative=True),
    *_rows("robust and PI mutexes", "threads/robust", issue=4),
    *_rows("scheduling, affinity", "threads/scheduling identity/affinity"),
    Subject("threads/realtime", "scheduling, affinity", issue=4, privilege="CAP_SYS_NICE"),
    Subject("threads/deadline", "scheduling, affinity", issue=4, privilege="CAP_SYS_NICE"),
    *_rows("private memory", "memory/anonymous memory/heap", representative=True),
    *_rows("private memory", "memory/layout memory/protections memory/code"),
    *_rows("large blocks of malloc, heaps of threads", "memory/big_blocks memory/replaced"),
    *_rows("memory that forks do not copy", "memory/not_forked", representative=True),
    *_rows("memory that forks do not copy", "memory/forked_or_not", steady=False),
    *_rows("mappings that were moved or sealed", "memory/moved memory/sealed_mappings memory/no_vdso", issue=4),
    *_rows(
        "mappings that were moved or sealed",
        "memory/part_of_vdso memory/part_of_vdso:clocks memory/part_of_vdso:moved memory/part_of_vdso:apart",
        issue=4,
    ),
    *_rows("huge pages", "memory/memfd_huge_empty", issue=4),
    *_rows("programs without a C library", "memory/no_libc", issue=4),
    *_rows("protection keys", "memory/pkeys", issue=4),
    *_rows("guard regions", "memory/guard_regions", issue=4),
    Subject("memory/droppable", "droppable memory", issue=4, expects_restore=True),
    *_rows("stacks", "memory/stack memory/grows_down"),
    *_rows("shared memory", "memory/shared_anonymous memory/dev_zero"),
    *_rows("mapped files", "memory/file_private memory/file_shared"),
    *_rows("mapped files", "memory/made_writable", issue=4),
    *_rows(
        "mapped files", "memory/other_name memory/other_name:open", issue=4, steady=False
    ),  # restored, /proc shows the present names
    *_rows("mapped files that were deleted", "memory/deleted_file", issue=4),
    *_rows("file mappings beyond the end", "memory/beyond_end", issue=4),
    *_rows("memfd", "memory/memfd"),
    *_rows("memfd", "memory/memfd_sealed memory/one_memfd_many_views memory/memfd_mode", issue=4),
    *_rows("memfd", "memory/part_of_memfd", issue=4),
    *_rows("memfd", "memory/private_views memory/memfd_run", issue=4),
    *_rows("reserved address space", "memory/sparse"),
    Subject("memory/sparse:1024", "reserved address space", issue=4),
    Subject("memory/reserved", "reserved address space", issue=4),
    *_rows("NUMA policies", "memory/numa", issue=4),
    *_rows("madvise, mlock", "memory/advice memory/locked memory/locked_future memory/locked_future:full", issue=4),
    *_rows("madvise, mlock", "memory/locked_future:alone memory/locked_future:fault", issue=4),
    *_rows("huge pages", "memory/huge_thp", issue=4),
    Subject("memory/hugetlb", "huge pages", issue=4, host="hugepages"),
    Subject("memory/memfd_huge", "huge pages", issue=4, host="hugepages"),
    *_rows("argv, environment, auxiliary vector", "memory/auxv"),
    *_rows("regular files", "files/offset files/flags files/dup", representative=True),
    *_rows("regular files", "files/many files/readonly"),
    *_rows("deleted files", "files/deleted"),
    *_rows("regular files", "files/renamed files/large_offset files/growing files/direct", issue=4),
    *_rows("regular files", "files/written", issue=4, outside=True),
    *_rows("regular files", "files/odd_opens", issue=4, steady=False),  # a dead process's number differs
    *_rows("regular files", "files/odd_names", issue=4, outside=True),
    *_rows("deleted files", "files/tmpfile files/replaced files/hard_link files/deleted_twice", issue=4),
    *_rows("deleted files", "files/deleted_dressed", issue=4),
    *_rows("folders, O_PATH", "files/opath files/folder files/at_base", issue=4, outside=True),
    *_rows("folders, O_PATH", "files/special_paths", issue=4),
    *_rows("devices: null, zero, full, urandom", "files/devices"),
    Subject("files/devices:removed", "devices: null, zero, full, urandom", issue=4, privilege="CAP_MKNOD"),
    *_rows("own files in /proc", "files/proc_self", issue=4),
    Subject("files/proc_of_zombie", "own files in /proc", issue=4, steady=False),  # the path names a dead process
    *_rows("file locks", "files/flock files/posix_lock files/ofd_lock", issue=4),
    *_rows("file locks", "files/lock_other_kinds", issue=4, outside=True),
    *_rows("file locks", "files/flock_owner", issue=4),
    *_rows("file leases", "files/lease", issue=4, outside=True),
    *_rows("descriptor owner and signal", "files/owner", issue=4),
    *_rows("inotify", "files/inotify", issue=4, outside=True),
    *_rows("inotify", "events/inotify_removed", issue=4, outside=True),
    *_rows("inotify", "events/inotify_many", issue=4),
    Subject("files/fanotify", "fanotify", issue=4, outside=True),
    *_rows("fanotify", "files/fanotify:root files/fanotify:mounts", issue=4, privilege="CAP_SYS_ADMIN", outside=True),
    Subject("refused/fanotify", "fanotify", issue=4, refused=("fanotify", "decides"), privilege="CAP_SYS_ADMIN"),
    *_rows("named FIFOs", "files/fifo", issue=4),
    *_rows("named FIFOs", "files/fifo_ends", issue=4),
    *_rows("pipes", "pipes/content", representative=True),
    *_rows("pipes", "pipes/size pipes/half_closed pipes/blocked"),
    *_rows("pipes", "pipes/packets pipes/reopened", issue=4),
    *_rows("pipes", "pipes/spliced pipes/many_small pipes/room", issue=4),
    *_rows("socketpairs", "sockets/pair_stream", representative=True),
    *_rows("socketpairs", "sockets/pair_datagram sockets/pair_closed"),
    *_rows("socketpairs", "sockets/seqpacket", issue=4),
    *_rows("socketpairs", "sockets/peers", issue=4),
    *_rows("socket options", "sockets/options"),
    *_rows("socket options", "sockets/options_more sockets/options_newer sockets/options_odd", issue=4),
    *_rows("packet filters of sockets", "sockets/filter", issue=4),
    *_rows("socket options", "sockets/rewound", issue=4),
    *_rows("socket options", "sockets/freebound", issue=4),
    *_rows("socketpairs", "sockets/empty_messages", issue=4),
    *_rows("multicast groups", "sockets/multicast", issue=4),
    *_rows("descriptors in flight", "sockets/in_flight", issue=4),
    *_rows("descriptors in flight", "sockets/in_flight_nested", issue=4),
    Subject("sockets/in_flight_early", "descriptors in flight", issue=4, running_loses="not accepted yet"),
    Subject(
        "sockets/in_flight_terminal",
        "descriptors in flight",
        issue=4,
        into=False,
        running_loses="not captured, because the process goes on",
    ),
    *_rows("named and abstract Unix sockets", "sockets/unix_abstract", issue=4),
    *_rows("named and abstract Unix sockets", "sockets/unix_more sockets/unix_itself sockets/accepted", issue=4),
    *_rows("named and abstract Unix sockets", "sockets/unix_odd", issue=4, outside=True),
    Subject("sockets/unix_named", "named and abstract Unix sockets", issue=4, running_loses="not accepted yet"),
    Subject("sockets/high_numbers", "named and abstract Unix sockets", issue=4),
    Subject("sockets/in_a_folder", "named and abstract Unix sockets", issue=4, outside=True),
    Subject("sockets/name_of_another", "named and abstract Unix sockets", issue=4, outside=True),
    *_rows("TCP inside", "sockets/tcp_inside", representative=True),
    *_rows("TCP inside", "sockets/tcp_inside:6 sockets/tcp_inside:6,any sockets/blocked"),
    *_rows("TCP inside", "sockets/tcp_half_closed sockets/tcp_fresh", issue=4),
    *_rows("TCP inside", "sockets/tcp_urgent sockets/tcp_mark sockets/tcp_finished sockets/tcp_states", issue=4),
    *_rows("TCP inside", "sockets/failed sockets/tcp_itself sockets/deaf sockets/tcp_small_window", issue=4),
    Subject("sockets/tcp_backlog", "TCP inside", issue=4, running_loses="not accepted yet"),
    Subject("sockets/tcp_doors", "TCP inside", issue=4, running_loses="not accepted yet"),
    Subject("sockets/tcp_doors:flight", "TCP inside", issue=4, running_loses="not accepted yet", into=False),
    Subject("sockets/left_early", "TCP inside", issue=4, running_loses="were not accepted yet"),
    *_rows("listening TCP", "sockets/tcp_listening"),
    *_rows("listening TCP", "sockets/ports sockets/still_listening", issue=4),
    *_rows("listening TCP", "sockets/kept_below", issue=4),
    *_rows(
        "TCP to outside (`--tcp keep`)",
        "sockets/tcp_kept:4 sockets/tcp_kept:6 sockets/tcp_kept:mapped",
        issue=4,
        host="a peer",
        privilege="CAP_NET_ADMIN",
        dumped_with=("--tcp", "keep"),
    ),
    Subject("sockets/tcp_outside", "TCP to outside (reset)", host="a listener", expects_restore=True),
    *_rows("UDP", "sockets/udp sockets/udp:6", issue=4),
    Subject("sockets/flow_label", "UDP", issue=4),
    Subject("sockets/udp_headers", "UDP", issue=4),
    *_rows("UDP", "sockets/udp_more sockets/udp_shut_down sockets/udp_rewound sockets/udp_corked", issue=4),
    *_rows("netlink sockets", "sockets/netlink sockets/netlink_below", issue=4),
    Subject("sockets/raw", "raw and ping sockets", issue=4, privilege="CAP_NET_RAW"),
    *_rows("UDP-Lite", "sockets/udplite", issue=4),
    *_rows(
        "packet sockets",
        "sockets/packet sockets/packet:cooked sockets/packet:old sockets/packet:options sockets/packet:joined",
        issue=4,
        privilege="CAP_NET_RAW",
    ),
    *[
        Subject(f"refused/packet:{kind}", "packet sockets", issue=4, refused=(said,), privilege="CAP_NET_RAW")
        for kind, said in (("ring", "ring"), ("mapped", "ring"), ("fanout", "fanout"))
    ],
    *_rows("eventfd, timerfd, signalfd", "events/eventfd events/timerfd events/signalfd"),
    *_rows("eventfd, timerfd, signalfd", "events/timerfd_more", issue=4),
    Subject("events/timerfd_alarm", "eventfd, timerfd, signalfd", issue=4, privilege="CAP_WAKE_ALARM"),
    *_rows("epoll", "events/epoll", representative=True),
    *_rows("epoll", "events/epoll_modes events/epoll_edges"),
    *_rows("epoll", "events/epoll_many events/epoll_leftover events/epoll_busy_poll", issue=4),
    *_rows("epoll", "events/epoll_exclusive", issue=4),
    *_rows("pidfd", "events/pidfd", issue=4),
    *_rows("pidfd", "events/pidfds_of_the_dead", issue=4),
    *_rows("pidfd", "events/pidfds", issue=4, keeps_pids=True),
    *_rows("pidfd", "events/pidfds_watched", issue=4),
    *_rows("pidfd", "events/pidfd_outside", issue=4),
    *_rows("io_uring", "io_uring/plain io_uring/completions io_uring/submissions io_uring/shared", issue=4),
    *_rows("io_uring", "io_uring/plain:0,1 io_uring/plain:70001,64 io_uring/plain:3000,2,128", issue=4),
    *_rows("io_uring", "io_uring/plain:13,8,0,0x1000 io_uring/plain:13,8,0,0x3000", issue=4),
    *_rows("io_uring", "io_uring/plain:13,8,0,0x10000 io_uring/shared:files", issue=4),
    *_rows("io_uring", "io_uring/issuer io_uring/issuer:deferred io_uring/kept_apart io_uring/waiting", issue=4),
    *_rows("io_uring", "io_uring/numbered io_uring/polling io_uring/polling:issuer", issue=4),
    *_rows("io_uring", "io_uring/busy io_uring/busy:0x3000", issue=4, steady=False),
    *_rows("io_uring", "io_uring/registered io_uring/registered:issuer", issue=4, steady=False),
    Subject("io_uring/numbered:two", "io_uring", issue=4, refused=("io_uring", "numbers of their own")),
    Subject("io_uring/workers", "io_uring", issue=4, steady=False),
    *[
        Subject(f"refused/io_uring:{what}", "io_uring", issue=4, refused=("io_uring", said))
        for what, said in {
            "poll": "in flight",
            "read": "in flight",
            "timeout": "in flight",
            "several": "several completions",
            "overflow": "no room",
            "eventfd": "eventfd",
            "files": "registered files",
            "gone": "registered buffer",
            "forked": "registered buffers",
            "provided": "provided buffers",
            "restricted": "restrictions",
            "disabled": "not enabled",
            "sqpoll": "sqpoll",
            "iopoll": "iopoll",
            "sqe128": "128 bytes",
            "cqe32": "32 bytes",
            "no_array": "no_sqarray",
            "napi": "named",
            "closed": "nobody has open",
        }.items()
    ],
    *_rows("interrupted system calls", "restarts/nanosleep restarts/poll restarts/epoll_eintr"),
    *_rows("interrupted system calls", "restarts/futex", steady=False),
    *_rows("interrupted system calls", "restarts/reads restarts/locks restarts/ipc", issue=4, outside=True),
    *_rows("interrupted system calls", "restarts/polling restarts/futexes restarts/moving", issue=4),
    *_rows("interrupted system calls", "restarts/signal_waits restarts/recvmmsg restarts/splices", issue=4),
    *_rows("interrupted system calls", "restarts/old_calls", issue=4, steady=False),
    *_rows("interrupted system calls", "restarts/children restarts/any_child", issue=4, keeps_pids=True),
    *_rows("interrupted system calls", "restarts/sockets restarts/remaining", issue=4, steady=False),
    Subject("restarts/remaining:all", "interrupted system calls", issue=4, steady=False, once=True),
    *_rows("pseudo-terminals", "terminals/pty terminals/line"),
    Subject("terminals/full", "pseudo-terminals", issue=4, steady=False, once=True),
    Subject("refused/discipline", "pseudo-terminals", issue=4, refused=("line discipline",)),
    *_rows("pseudo-terminals", "terminals/modes terminals/ended terminals/stopped terminals/alone", issue=4),
    *_rows("pseudo-terminals", "terminals/exclusive terminals/dressed", issue=4),
    Subject("terminals/locked_modes", "pseudo-terminals", issue=4, privilege="CAP_SYS_ADMIN"),
    *_rows("controlling terminals", "terminals/controlling", issue=4),
    *_rows("controlling terminals", "terminals/closed_side terminals/closed_side:300", issue=4, keeps_pids=True),
    *_rows("controlling terminals", "terminals/session", issue=4, keeps_pids=True),
    *_rows("working folder, umask", "identity/folder"),
    *_rows("working folder, umask", "identity/deleted_folder identity/proc_folder", issue=4),
    *_rows("working folder, umask", "identity/removed_folder_open", issue=4),
    *_rows("working folder, umask", "identity/proc_folder:dead", issue=4, steady=False),  # a dead process's number
    Subject("identity/root_folder", "root folder", issue=4, privilege="CAP_SYS_CHROOT"),
    Subject("identity/root_folders", "root folder", issue=4, privilege="CAP_SYS_CHROOT"),
    Subject("refused/name_in_root", "root folder", issue=4, refused=("root folder",), privilege="CAP_SYS_CHROOT"),
    *_rows("host and domain names (UTS namespaces)", "identity/uts", issue=4, privilege="CAP_SYS_ADMIN"),
    *_rows("host and domain names (UTS namespaces)", "identity/uts:odd", issue=4, privilege="CAP_SYS_ADMIN"),
    *_rows(
        "host and domain names (UTS namespaces)",
        "trees/uts trees/uts:root",
        issue=4,
        privilege="CAP_SYS_ADMIN",
        keeps_pids=True,
    ),
    *_rows(
        "clocks of their own (time namespaces)",
        "timers/namespaces timers/namespaces:root",
        issue=4,
        privilege="CAP_SYS_ADMIN",
        keeps_pids=True,
    ),
    *_rows(
        "users of their own (user namespaces)",
        "identity/user_namespace identity/user_namespace:uts identity/user_namespace:time "
        "identity/user_namespace:unnamed identity/user_namespace:bounded identity/user_namespace:threads",
        issue=4,
    ),
    Subject("identity/user_namespace:child", "users of their own (user namespaces)", issue=4, keeps_pids=True),
    Subject("identity/user_namespace:many", "users of their own (user namespaces)", issue=4, privilege="root"),
    Subject("trees/namespace_descriptors", "open namespaces", issue=4, privilege="CAP_SYS_ADMIN", keeps_pids=True),
    *_rows(
        "mount namespaces",
        "identity/mount_namespace identity/mount_namespace:child",
        issue=4,
        privilege="CAP_SYS_ADMIN",
        keeps_pids=True,
    ),
    Subject("identity/mount_namespace:user", "mount namespaces", issue=4),
    *_rows("resource limits", "identity/limits"),
    *_rows("resource limits", "identity/tight_limits", issue=4),
    *_rows("resource limits", "identity/tight_limits:files", issue=4, keeps_pids=True),
    *_rows("nice and I/O priority", "identity/priority"),
    *_rows("prctl: name, parent-death signal, subreaper, timer slack", "identity/prctl"),
    *_rows("no_new_privs, personality, oom_score_adj", "identity/no_new_privs", into=False),
    Subject("trees/control_groups", "control groups", issue=4, privilege="root", outside=True),
    Subject("threads/control_groups", "control groups", issue=4, privilege="root", outside=True),
    *_rows("login user of the audit log", "identity/login", issue=4),
    *_rows("no_new_privs, personality, oom_score_adj", "identity/personality identity/oom", issue=4),
    *_rows("further settings (prctl, core dump filter)", "identity/settings identity/session_nice", issue=4),
    Subject("identity/settings:mdwe", "further settings (prctl, core dump filter)", issue=4, into=False),
    Subject("identity/confined:data", "resource limits", issue=4, into=False),  # test_errors.py runs the others
    Subject("identity/merging", "further settings (prctl, core dump filter)", issue=4, privilege="CAP_SYS_RESOURCE"),
    Subject(
        "identity/credentials", "credentials", issue=4, privilege="CAP_SETUID and CAP_SETGID", into=False, trust=True
    ),
    Subject("identity/capabilities", "capabilities", issue=4, privilege="CAP_SETPCAP"),
    Subject("threads/fewer_capabilities", "capabilities", issue=4, privilege="CAP_NET_ADMIN"),
    Subject("identity/rights_given_up", "credentials", issue=4, privilege="CAP_SETUID and CAP_SETGID", into=False),
    *_rows(
        "seccomp filters",
        "identity/seccomp identity/seccomp:threads identity/seccomp:woken identity/seccomp:privileged",
        issue=4,
        privilege="CAP_SYS_ADMIN",
    ),
    *_rows(
        "seccomp filters",
        "identity/seccomp:child identity/seccomp:strict",
        issue=4,
        privilege="CAP_SYS_ADMIN",
        keeps_pids=True,
    ),
    Subject("identity/group", "pid, session, group", keeps_pids=True),
    *_rows("children", "trees/children", issue=4, keeps_pids=True, representative=True),
    *_rows("children", "trees/grandchildren trees/other_programs", issue=4, keeps_pids=True),
    *_rows("children", "trees/deep trees/own_settings trees/spawned", issue=4, keeps_pids=True),
    Subject("trees/waited_for", "children", issue=4),
    *_rows("children with threads", "trees/threads_in_children", issue=4, keeps_pids=True),
    Subject("trees/threads_in_children:50,9", "children with threads", issue=4, keeps_pids=True),
    *_rows("children born and ending meanwhile", "trees/churn", issue=4, keeps_pids=True, steady=False),
    *_rows("pipes and files between processes", "trees/pipes_between", issue=4, keeps_pids=True),
    *_rows("pipes and files between processes", "trees/shared_offset trees/locks_between", issue=4, keeps_pids=True),
    *_rows("pipes and files between processes", "trees/shared_descriptions", issue=4, keeps_pids=True),
    *_rows("memory between processes", "trees/shared_memory trees/copy_on_write", issue=4, keeps_pids=True),
    *_rows("memory between processes", "trees/forked_memory", issue=4, keeps_pids=True),
    *_rows("memory between processes", "trees/synchronised", issue=4, keeps_pids=True),
    *_rows("zombies, stopped and adopted children", "trees/zombies trees/stopped", issue=4, keeps_pids=True),
    *_rows("zombies, stopped and adopted children", "trees/hidden_dead", issue=4, keeps_pids=True),
    *_rows("zombies, stopped and adopted children", "trees/orphans trees/leader_gone", issue=4, keeps_pids=True),
    *_rows("job control", "trees/job_control trees/stop_not_told", issue=4, keeps_pids=True),
    *_rows("job control", "trees/stopped_below", issue=4, keeps_pids=True),
    *_rows("zombies, stopped and adopted children", "trees/dead_leaders", issue=4, keeps_pids=True),
    *_rows("zombies, stopped and adopted children", "trees/dead_in_groups", issue=4, keeps_pids=True),
    *_rows("sessions, process groups", "trees/sessions trees/daemons trees/adopted", issue=4, keeps_pids=True),
    *_rows("signals between processes", "trees/death_signal trees/signals_between", issue=4, keeps_pids=True),
    *_rows("pidfd", "trees/pidfds", issue=4, keeps_pids=True),
    *_rows("signals between processes", "trees/exit_signals", issue=4, keeps_pids=True),
    Subject("trees/vfork", "vfork", issue=4, refused=("vfork",)),
    Subject("memory/userfaultfd", "userfaultfd", issue=4),
    Subject("memory/userfaultfd:kernel", "userfaultfd", issue=4, privilege="CAP_SYS_PTRACE"),
    *[
        Subject(f"refused/userfaultfd{how}", "userfaultfd", issue=4, refused=("userfaultfd", said))
        for how, said in (
            ("", "not set up"),
            (":outside", "somebody else"),
            (":unmapping", "hears of"),
            (":two", "one of two"),
            (":shared", "shared"),
            (":child", "other processes"),
            (":stack", "lives in it"),
        )
    ],
    Subject("refused/perf_event", "performance counters", issue=4, refused=("performance counter",)),
    Subject("refused/pressure", "pressure triggers (PSI)", issue=4, refused=("pressure",)),
    *_rows(
        "BPF maps",
        "files/bpf_map files/bpf_map:sparse files/bpf_map:array files/bpf_map:percpu_hash files/bpf_map:percpu_array "
        "files/bpf_map:lru files/bpf_map_shared",
        issue=4,
        privilege="CAP_BPF and CAP_SYS_ADMIN",
    ),
    Subject("files/bpf_map_shared:forked", "BPF maps", 4, privilege="CAP_BPF and CAP_SYS_ADMIN", keeps_pids=True),
    *[
        Subject(f"refused/bpf_map{name}", "BPF programs, other BPF maps", issue=4, refused=(said,), privilege="CAP_BPF")
        for name, said in (
            ("", "bpf map of a kind that cannot be captured (queue"),
            (":ring", "(ring buffer"),
            (":maps", "(array of maps"),
            (":typed", "bpf map with type information"),
            (":large", "bpf map which takes more than the 64 mib"),
            (":mapped", "bpf map in its memory"),
            (":outside", "bpf map that process"),
            (":used", "bpf map that the bpf program"),
            (":pinned", "bpf map that the file"),
            (":program", "is a bpf program"),
            (":types", "type information of bpf programs"),
        )
    ],
    Subject("refused/landlock", "Landlock", issue=4, refused=("landlock ruleset",)),
    *_rows(
        "Landlock",
        "refused/landlock:process refused/landlock:thread refused/landlock:process,user",
        issue=4,
        refused=("confined by landlock",),
    ),
    *_rows("asynchronous I/O (io_setup)", "events/aio", issue=4),
    Subject("refused/aio", "asynchronous I/O (io_setup)", issue=4, refused=("asynchronous", "in flight")),
    Subject("refused/aio:forked", "asynchronous I/O (io_setup)", issue=4, refused=("asynchronous", "parent")),
    Subject("refused/rseq_area", "restartable sequences (rseq) whose memory is gone", issue=4, refused=("rseq",)),
    Subject("refused/repair", "TCP inside", issue=4, refused=("being repaired",), privilege="CAP_NET_ADMIN"),
    Subject("refused/vsock", "sockets of other protocols", issue=4, refused=("vsock",)),
    Subject("refused/protocol", "Multipath TCP", issue=4, refused=("multipath",)),
    Subject("sockets/multipath", "Multipath TCP", issue=4),
    Subject("refused/trap", "pending signals with siginfo", issue=4, refused=("sigtrap",)),
    Subject("refused/in_flight", "descriptors in flight", issue=4, refused=("pidfd",)),
    Subject("refused/in_flight:file", "descriptors in flight", issue=4, refused=("in flight", "maps")),
    Subject("refused/waiting:datagram", "UDP", issue=4, refused=("held back",)),
    Subject("refused/waiting:urgent", "socketpairs", issue=4, refused=("urgent data",)),
    Subject("refused/waiting:packets", "socketpairs", issue=4, refused=("behind an error",)),
    Subject("refused/waiting:folder", "folders, O_PATH", issue=4, refused=("dnotify",)),
    *[
        Subject(f"refused/namespace:{name}", "other namespaces", 4, (f"{said} namespace",), privilege="CAP_SYS_ADMIN")
        for name, said in (("net,child", "network"), ("ipc,child", "ipc"))
    ],
    *_rows(
        "mount namespaces",
        "refused/namespace:mnt,tmpfs refused/namespace:mnt,gone",
        issue=4,
        refused=("mount namespace of its own", "mounted at"),
        privilege="CAP_SYS_ADMIN",
    ),
    *[
        Subject(f"refused/namespace:{name}", "other namespaces", 4, (said,), privilege="CAP_SYS_ADMIN")
        for name, said in (
            ("net,route", "routes of its own"),
            ("pid_of_children", "another pid"),
            ("time_of_children", "another time"),
            ("thread", "network namespace"),
            ("thread,uts", "uts namespace"),
            ("thread,mnt", "mount namespace of its own"),
            ("thread,time", "time namespace for children"),
            ("thread,uts,powerless", "uts namespace"),
            ("left", "is in"),
            ("user_net", "network namespace that belongs"),
            ("user_ipc", "ipc namespace that belongs"),
            ("ipc,segment", "no process of the tree has attached"),
            ("ipc,queue", "no process of the tree has open"),
        )
    ],
    Subject("refused/device", "devices", issue=4, refused=("device", "driver"), privilege="root"),
    Subject("refused/mount", "mounts in the making", issue=4, refused=("mount",), privilege="CAP_SYS_ADMIN"),
    Subject("refused/mount:alone", "mounts in the making", issue=4, refused=("no path",), privilege="CAP_SYS_ADMIN"),
    *_rows("secret memory", "refused/secret_memory refused/secret_memory:mapped", issue=4, refused=("secret", "keeps")),
    Subject("refused/deleted_program", "removed programs", issue=4, refused=("program file",)),
    Subject("refused/deleted_program:memory", "removed programs", issue=4, refused=("memfd_create",)),
    *_rows("threads with tables of their own", "threads/own_tables threads/own_tables:descriptors", issue=4),
    *_rows("threads with tables of their own", "threads/own_tables:folders", issue=4),
    Subject("threads/own_tables:root", "threads with tables of their own", issue=4, privilege="CAP_SYS_CHROOT"),
    Subject("refused/own_tables", "threads with tables of their own", issue=4, refused=("descriptor table",)),
    Subject("refused/own_tables:folder", "threads with tables of their own", issue=4, refused=("working folder",)),
    *_rows(
        "working folder in another's /proc",
        "refused/proc_folder",
        issue=4,
        refused=("working folder",),
    ),
    *_rows("threads with rights of their own", "identity/of_threads", issue=4),
    Subject(
        "identity/of_threads:all",
        "threads with rights of their own",
        issue=4,
        privilege="CAP_SETUID and CAP_SETPCAP",
        trust=True,
    ),
    *_rows(
        "processes that share tables",
        "trees/shared_tables trees/shared_tables:descriptors trees/shared_tables:folders trees/shared_tables:siblings "
        "trees/shared_tables:chain",
        issue=4,
        keeps_pids=True,
    ),
    Subject("refused/shared_with_child", "processes that share tables", issue=4, refused=("memory",)),
    Subject("refused/shared_with_child:nephew", "processes that share tables", issue=4, refused=("descriptor table",)),
    Subject("refused/traced_child", "traced processes", issue=4, refused=("trace",)),
    *_rows(
        "segment descriptors (modify_ldt)",
        "cpu/segments cpu/segments:full cpu/segments:empty",
        issue=4,
    ),
    Subject("cpu/segments:child", "segment descriptors (modify_ldt)", issue=4, keeps_pids=True),
    Subject("cpu/segments:narrow", "threads in code of 32 bits", issue=4),
    Subject("identity/user_keyring", "a user's keyring", issue=4, outside=True),
    Subject("refused/keyring", "keyrings", issue=4, refused=("keyring",)),
    *_rows(
        "system call user dispatch",
        "threads/dispatch threads/dispatch:region threads/dispatch:inside",
        issue=4,
    ),
    Subject("threads/dispatch:taken", "system call user dispatch", issue=4, refused=("dispatched", "try again")),
    Subject("refused/message_listener", "seccomp filters", issue=4, refused=("seccomp",)),
    Subject("trees/namespace:pid", "other namespaces", 4, ("pid namespace",), privilege="CAP_SYS_ADMIN"),
    *_rows("System V IPC", "ipc/sysv_shm ipc/sysv_sem ipc/sysv_msg", issue=4, outside=True),
    *_rows("System V IPC", "ipc/sysv_msg_more", issue=4, keeps_pids=True, outside=True),
    Subject("ipc/sysv_locked", "System V IPC", issue=4),
    Subject("ipc/sysv_undo", "System V IPC", issue=4, keeps_pids=True, running_loses="SEM_UNDO"),
    Subject("sockets/own_network", "network namespaces", issue=4, privilege="CAP_SYS_ADMIN", keeps_pids=True),
    Subject("ipc/own_namespace", "IPC namespaces", issue=4, privilege="CAP_SYS_ADMIN", keeps_pids=True),
    *_rows("POSIX shared memory", "ipc/posix_shm", issue=4),
    *_rows("POSIX shared memory", "ipc/shm_folder", issue=4, outside=True),
    *_rows("POSIX semaphores by name", "ipc/named_semaphore", issue=4, outside=True),
    *_rows("POSIX message queues", "ipc/posix_mq", issue=4, outside=True),
    *_rows("POSIX message queues", "ipc/mq_notify ipc/mq_notify_thread ipc/mq_room", issue=4),
    *_rows("CPython", "py/objects py/threads", representative=True),
    *_rows("CPython", "py/sqlite py/native py/event_loop py/signals"),
    *_rows("CPython", "py/generations", issue=4, steady=False),
    *_rows("numpy with BLAS threads", "py/numeric"),
    *_rows("numpy with BLAS threads", "py/matmul", issue=4, steady=False),
    *_rows("multiprocessing, subprocess", "py/subprocesses py/pool", issue=4, keeps_pids=True),
    *_rows("multiprocessing, subprocess", "py/pool:spawn py/pool:forkserver", issue=4, keeps_pids=True),
    *_rows("multiprocessing, subprocess", "py/shared_memory", issue=4, keeps_pids=True),
    *_rows("multiprocessing, subprocess", "py/manager", issue=4, keeps_pids=True, outside=True),
    *_rows("multiprocessing, subprocess", "py/async_children", issue=4, keeps_pids=True),
    *_rows("concurrent.futures, joblib (loky)", "py/executor", issue=4, keeps_pids=True, representative=True),
    *_rows("concurrent.futures, joblib (loky)", "py/executor:loky", issue=4, keeps_pids=True),
]

BY_NAME = {subject.name: subject for subject in CATALOGUE}
