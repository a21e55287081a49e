"""What an image says, as types (see FORMAT.md). Persisted types only: nothing here is a live object.

Every structure is closed (unknown fields are an error) and bounded (limits.py): an image may come from anywhere.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from kernel_backend.image.descriptions import Description
from kernel_backend.image.descriptions import PageRun as PageRun
from kernel_backend.image.limits import (
    FEW,
    I64_MAX,
    MANY,
    RUNS,
    Action,
    Address,
    Bits,
    Content,
    Digest,
    FdNumber,
    FileName,
    Id,
    Index,
    Int,
    Key,
    LinkLabel,
    MappingKind,
    Milliseconds,
    Name,
    Nanoseconds,
    Natural,
    NetAddressBytes,
    NetFamily,
    NetSettingName,
    NetSettingText,
    OptionalId,
    PathText,
    Pid,
    PrefixBits,
    SegmentTable,
    SettingText,
    SharedKind,
    SigInfo,
    Signal,
    Size,
    Small,
    Text,
    Timing,
    UtsName,
    Word,
)


class Entry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of every persisted structure."""


class FileIdentity(Entry):
    """Enough to tell whether a file that memory depends on is still the same one."""

    path: PathText
    size: Size
    mtime_ns: Nanoseconds
    device: Word
    inode: Word
    build_id: Name = ""  # hex; of ELF files that have one
    segments: Name = ""  # of ELF files: digest of what is loaded from where to where
    contents: Name = ""  # digest of what is loaded, of other files of all; empty: none was made
    ctime_ns: Nanoseconds = 0


class MemoryPolicy(Entry):
    """On which nodes memory is to lie (set_mempolicy(2))."""

    mode: Natural  # MPOL_, with its flags
    nodes: Annotated[bytes, Meta(max_length=128)] = b""  # bit n for node n


class VmaEntry(Entry):
    """One mapping. `kind` says where its bytes come from; `file` and `shared` are indices into tables."""

    start: Address
    end: Address
    prot: Annotated[int, Meta(ge=0, le=7)]  # PROT_ bits
    kind: MappingKind
    private: bool = True
    offset: Size = 0  # bytes into the file or shared object
    file: Index = -1  # index into ProcessEntry.files
    shared: Key = ""  # key of a SharedMemoryEntry
    growsdown: bool = False
    noreserve: bool = False
    hugetlb: bool = False
    huge_page_bytes: Size = 0  # with hugetlb
    locked: bool = False
    lock_on_fault: bool = False  # locked, page by page as each is touched
    sealed: bool = False
    droppable: bool = False
    advice: Annotated[list[Natural], FEW] = []  # MADV_ values in force
    name: Name = ""  # PR_SET_VMA_ANON_NAME
    may_write: bool | None = None  # whether a shared one may be made writable; None: as `prot` says
    pkey: Annotated[int, Meta(ge=0, le=15)] = 0  # its protection key (pkeys(7))
    numa: MemoryPolicy | None = None  # mbind(2)
    served: bool = False  # by the process itself, with a userfaultfd: pages that are missing stay so
    ring: Index = -1  # index into Inventory.descriptions, of an io_uring instance


class Span(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """`length` bytes at `address`; both page-aligned."""

    address: Address
    length: Size


class MmEntry(Entry):
    """The mm fields that prctl(PR_SET_MM_MAP) takes; addresses."""

    start_code: Address
    end_code: Address
    start_data: Address
    end_data: Address
    start_brk: Address
    brk: Address
    start_stack: Address
    arg_start: Address
    arg_end: Address
    env_start: Address
    env_end: Address
    auxv: Annotated[bytes, Meta(max_length=1024)]


class RseqEntry(Entry):
    """A registered restartable-sequences area."""

    address: Address
    size: Natural
    signature: Bits
    flags: Bits = 0


class DispatchEntry(Entry):
    """System calls that are handed to the program itself (PR_SET_SYSCALL_USER_DISPATCH): all but those of a range."""

    selector: Address  # 0: none
    offset: Word
    length: Word  # the range may lead around the end of the address space


class SettingsEntry(Entry):
    """Settings that few programs touch (prctl(2)), and /proc/PID/coredump_filter."""

    tsc: Natural = 1
    mce_kill: Natural = 2
    mdwe: Natural = 0
    memory_merge: bool = False
    speculation: Annotated[list[Natural], FEW] = []  # PR_GET_SPECULATION_CTRL of each sort
    coredump_filter: Bits = 0x33
    membarrier: Bits = 0  # the registrations (membarrier(2))
    autogroup_nice: Annotated[int, Meta(ge=-20, le=19)] = 0  # of its session (sched(7))
    io_flusher: bool = False
    state_asked_for: Bits = 0  # parts of the processor state that need a permission (ARCH_REQ_XCOMP_PERM)


class SchedulingEntry(Entry):
    """sched_getattr(2) and affinity of one thread."""

    policy: Natural = 0
    priority: Int = 0
    nice: Int = 0
    flags: Bits = 0  # SCHED_FLAG_
    runtime_ns: Size = 0  # of SCHED_DEADLINE; of others the slice
    deadline_ns: Size = 0
    period_ns: Size = 0
    affinity: Annotated[list[Natural], MANY] = []
    ioprio: Natural = 0
    timerslack_ns: Size = 0


class CredentialsEntry(Entry):
    """Who a process, or one of its threads, is."""

    uids: Annotated[list[Id], Meta(min_length=4, max_length=4)]  # real, effective, saved, file system
    gids: Annotated[list[Id], Meta(min_length=4, max_length=4)]
    groups: Annotated[list[Id], MANY]
    inheritable: Word
    permitted: Word
    effective: Word
    bounding: Word
    ambient: Word
    no_new_privs: bool
    securebits: Bits = 0
    keepcaps: bool = False


class DescriptorEntry(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """One row of a descriptor table: number, close-on-exec, index into Inventory.descriptions."""

    fd: FdNumber
    cloexec: bool
    description: Index


class ControlGroup(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """A group that a process is in (cgroups(7))."""

    hierarchy: Name  # by its controllers, as /proc/PID/cgroup has them; empty: version 2
    path: PathText


class FoldersEntry(Entry):
    """Where a thread is that has left the folders of its process; see ProcessEntry."""

    cwd: PathText
    root: PathText
    umask: Annotated[int, Meta(ge=0, le=0o777)]
    cwd_deleted: bool = False
    cwd_identity: tuple[Word, Word] = (0, 0)


class ThreadEntry(Entry):
    """The core of one thread."""

    tid: Pid
    name: Name
    regs: Small
    xstate: Annotated[bytes, Meta(max_length=1 << 16)]
    sigmask: Word
    pending: Annotated[list[SigInfo], MANY] = []  # siginfo records queued for this thread
    altstack: Small = b""  # struct sigaltstack
    robust_head: Word = 0
    robust_length: Natural = 0
    tid_address: Word = 0
    rseq: RseqEntry | None = None
    dispatch: DispatchEntry | None = None
    scheduling: SchedulingEntry = msgspec.field(default_factory=SchedulingEntry)
    pdeathsig: Signal = 0
    numa: MemoryPolicy | None = None  # set_mempolicy(2)
    tsc: Natural = 0  # PR_GET_TSC; 0: not noted
    speculation: Annotated[list[Natural], FEW] = []  # PR_GET_SPECULATION_CTRL of each sort; empty: not noted
    mce_kill: Annotated[int, Meta(ge=-1, le=2)] = -1  # PR_MCE_KILL_GET; -1: not noted
    personality: Annotated[int, Meta(ge=-1, lt=1 << 32)] = -1  # personality(2); -1: not noted
    cpuid_faults: bool = False  # the CPUID instruction raises SIGSEGV (arch_prctl(2))
    wait_left_ns: Nanoseconds = -1  # of the limit of the call that it waits in; -1: none
    exited: bool = False  # a leader that ended while other threads go on
    credentials: CredentialsEntry | None = None  # where it is somebody else than its process
    descriptors: Annotated[list[DescriptorEntry], MANY] | None = None  # where it has left its process's table
    folders: FoldersEntry | None = None  # where it has left its process's folders
    control_groups: Annotated[list[ControlGroup], FEW] = []  # those that the first thread of its process is not in


class TimerEntry(Entry):
    """One POSIX timer (timer_create(2))."""

    timer_id: Natural
    clock: Int
    notify: Natural
    signo: Signal
    value: Word
    target_tid: Pid
    setting: Timing  # struct itimerspec: interval, remaining
    owner_tid: Natural = 0  # whose processor time it measures (CLOCK_THREAD_CPUTIME_ID), 0: the leader's


class AioEntry(Entry):
    """A context for asynchronous I/O (io_setup(2)), whose ring is the mapping of that kind at `address`."""

    address: Address
    head: Natural  # the place of the first event that nobody has fetched
    tail: Natural  # where the next one goes
    events: Annotated[bytes, Meta(max_length=8 << 20)] = b""  # [struct io_event] between them


class SeccompFilter(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """A filter of system calls: SECCOMP_FILTER_FLAG_ and struct sock_filter[]."""

    flags: Annotated[int, Meta(ge=0, le=2)]  # SECCOMP_FILTER_FLAG_LOG
    program: Annotated[bytes, Meta(min_length=8, max_length=1 << 15)]


class SeccompEntry(Entry):
    """What system calls a process may make (seccomp(2)); its filters are in force together, the oldest first."""

    strict: bool = False
    filters: Annotated[list[SeccompFilter], MANY] = []


class UtsEntry(Entry):
    """A UTS namespace that is not that of who made the image."""

    inode: Word  # of /proc/PID/ns/uts, within the same boot
    host_name: UtsName
    domain_name: UtsName
    owner: Index = -1  # index into Inventory.user_namespaces; -1: none of these


class IdRange(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """Users or groups that follow each other, as they are called inside a user namespace and outside."""

    inside: Id
    outside: Id
    count: Id


class UserEntry(Entry):
    """A user namespace that a program of the image has made."""

    inode: Word  # of /proc/PID/ns/user, within the same boot
    owner: Id  # who made it
    uid_map: Annotated[list[IdRange], Meta(max_length=340)]
    gid_map: Annotated[list[IdRange], Meta(max_length=340)]
    setgroups: bool  # whether setgroups(2) is allowed inside


class Propagation(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """What a mount tells others, and hears of them: a flag for each step (mount(2)) that a copy of it takes."""

    path: PathText
    steps: Annotated[list[Natural], Meta(max_length=3)]  # MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE


class MountEntry(Entry):
    """A mount namespace that a program of the image has made, in which the same is mounted as outside."""

    inode: Word  # of /proc/PID/ns/mnt, within the same boot
    propagation: Annotated[list[Propagation], MANY]
    owner: Index = -1  # as of UtsEntry


class TimeEntry(Entry):
    """A time namespace that is not that of who made the image: how far its clocks are ahead of the host's."""

    inode: Word  # of /proc/PID/ns/time, within the same boot
    monotonic_ns: Nanoseconds
    boottime_ns: Nanoseconds
    monotonic_then_ns: Nanoseconds  # what they showed
    boottime_then_ns: Nanoseconds
    owner: Index = -1  # as of UtsEntry


class IpcEntry(Entry):
    """The IPC namespace of all processes of an image, where that is not that of who made it."""

    inode: Word  # of /proc/PID/ns/ipc, within the same boot
    limits: Annotated[dict[Name, SettingText], FEW]  # by their names below /proc/sys


class NetAddress(Entry):
    """An address of the loopback device of a network namespace."""

    family: NetFamily
    prefix: PrefixBits
    scope: Annotated[int, Meta(ge=0, le=255)]
    address: NetAddressBytes
    label: LinkLabel


class NetEntry(Entry):
    """The network namespace of all processes of an image, where that is not that of who made it."""

    inode: Word  # of /proc/PID/ns/net, within the same boot
    is_up: bool  # its loopback device
    mtu: Natural
    addresses: Annotated[list[NetAddress], FEW]
    settings: Annotated[dict[NetSettingName, NetSettingText], MANY] = {}  # by their names below /proc/sys


class ProcessEntry(Entry):
    """Everything that belongs to one process and not to a shared open file description."""

    pid: Pid
    ppid: Pid
    pgid: Pid
    sid: Pid
    exe: FileIdentity
    argv: Annotated[list[Text], MANY]
    mm: MmEntry
    files: Annotated[list[FileIdentity], MANY]
    vmas: Annotated[list[VmaEntry], MANY]
    pagemap: Annotated[list[PageRun], RUNS]
    threads: Annotated[list[ThreadEntry], MANY]
    sigactions: dict[Signal, Action]  # by signal number; those not default
    pending: Annotated[list[SigInfo], MANY]  # siginfo records queued for the process
    itimers: Annotated[list[Timing], Meta(min_length=3, max_length=3)]  # struct itimerval: ITIMER_REAL, _VIRTUAL, _PROF
    timers: Annotated[list[TimerEntry], MANY]
    descriptors: Annotated[list[DescriptorEntry], MANY]
    cwd: PathText
    root: PathText
    umask: Annotated[int, Meta(ge=0, le=0o777)]
    rlimits: Annotated[list[tuple[Word, Word]], FEW]
    credentials: CredentialsEntry
    dumpable: Natural = 1
    personality: Bits = 0
    subreaper: bool = False
    thp_disable: Natural = 0
    settings: SettingsEntry = msgspec.field(default_factory=SettingsEntry)
    oom_score_adj: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    untold: Literal[0, 5, 6] = 0  # CLD_STOPPED, CLD_CONTINUED: what its parent has not heard of it yet
    stopped_by: Signal = 0  # job-control signal, 0 when running
    exit_signal: Signal = 17
    cwd_deleted: bool = False  # the folder had been removed; `cwd` is where it stood
    cwd_identity: tuple[Word, Word] = (0, 0)  # device and inode of one that had been removed
    pkeys: Annotated[list[Annotated[int, Meta(ge=1, le=15)]], FEW] = []  # protection keys that are allocated
    as_parent: Annotated[list[Span], RUNS] = []  # pages with the contents of the parent's at the same address
    guards: Annotated[list[Span], RUNS] = []  # where touching is a fault (MADV_GUARD_INSTALL)
    lock_future: Natural = 0  # MCL_ flags in force for mappings to come
    futex_hash: Int = -1  # slots of its own table of futex waiters (PR_FUTEX_HASH); -1: not known
    aio: Annotated[list[AioEntry], MANY] = []
    control_groups: Annotated[list[ControlGroup], FEW] = []  # those that the root process is not in
    login_uid: OptionalId = -1  # /proc/PID/loginuid; 2^32-1: nobody has logged in, -1: not known
    table_of: Pid = 0  # the first process with the same descriptor table (CLONE_FILES of clone(2)); 0: itself
    folders_of: Pid = 0  # … with the same working folder, root folder and umask (CLONE_FS)
    seccomp: SeccompEntry | None = None  # None: nothing but what whoever made the image was under, too
    uts: Index = -1  # index into Inventory.uts_namespaces; -1: that of who made the image
    user: Index = -1  # index into Inventory.user_namespaces; -1: that of who made the image
    mount: Index = -1  # index into Inventory.mount_namespaces; -1: that of who made the image
    time: Index = -1  # index into Inventory.time_namespaces; -1: that of who made the image
    time_of_children: Index = -1  # … of those that it will start
    segments: SegmentTable = b""  # descriptors of its own (modify_ldt(2)); empty: it has no table of them


def filled_ranges(entry: ProcessEntry) -> list[tuple[int, int]]:
    """[start, end) of all private contents, by address."""
    own = [(run.address, run.address + run.length) for run in entry.pagemap]
    return sorted([*own, *((span.address, span.address + span.length) for span in entry.as_parent)])


class ZombieEntry(Entry):
    """A child that ended and was not waited for."""

    pid: Pid
    ppid: Pid
    pgid: Pid
    sid: Pid
    exit_code: Natural  # wait status
    name: Name
    exit_signal: Signal = 17
    uid: OptionalId = -1  # as waitid(2) tells it


class SharedMemoryEntry(Entry):
    """An object mapped MAP_SHARED whose bytes are in the image (anonymous, memfd, deleted file, SysV)."""

    key: Key
    kind: SharedKind
    size: Size
    name: PathText
    runs: Annotated[list[PageRun], RUNS]  # address: offset inside the object
    pages: FileName  # file name in the image folder
    seals: Bits = 0
    mode: Bits = 0o600  # of a file, should it have to be made anew
    sysv_key: Int = 0
    sysv_mode: Bits = 0
    sysv_id: Natural = 0
    sysv_uid: Id = 0
    sysv_gid: Id = 0
    huge_page_bytes: Size = 0  # 0: ordinary pages


class SysvMessage(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """A message of a System V queue."""

    type: Annotated[int, Meta(ge=1, le=I64_MAX)]
    data: Content


class SysvQueueEntry(Entry):
    """A System V message queue that the tree uses (msgget(2))."""

    id: Natural
    key: Int
    mode: Bits
    uid: Id
    gid: Id
    most_bytes: Size  # of all messages
    sender: Pid = 0  # who sent the last one, if of the tree
    receiver: Pid = 0
    complete: bool = False  # `messages` are all there were
    messages: Annotated[list[SysvMessage], MANY] = []


class SysvSemaphore(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """One semaphore of a System V set: its value, and who operated on it last, if of the tree."""

    value: Annotated[int, Meta(ge=0, le=32767)]
    pid: Pid = 0


class SysvUndo(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """What the OS kernel adds to a semaphore when a process ends (SEM_UNDO of semop(2))."""

    pid: Pid
    semaphore: Natural
    adjustment: Annotated[int, Meta(ge=-32767, le=32767)]


class SysvSetEntry(Entry):
    """A set of System V semaphores that the tree uses (semget(2))."""

    id: Natural
    key: Int
    mode: Bits
    uid: Id
    gid: Id
    semaphores: Annotated[list[SysvSemaphore], Meta(max_length=32000)]
    complete: bool = False  # the values may be put back: nobody else uses the set
    undo: Annotated[list[SysvUndo], MANY] = []


class ImageFile(Entry):
    """One file of the image folder besides the inventory."""

    size: Size
    blake3: Digest
    inode: Word = 0  # with ctime_ns: proof that nobody wrote to it since we did
    ctime_ns: Nanoseconds = 0


class HostEntry(Entry):
    """Where the image was taken."""

    hostname: Name
    os_kernel: Name
    machine: Name
    boot_id: Name
    page_size: Natural
    xstate_bytes: Natural
    vdso_blake3: Digest


class Inventory(Entry):
    """The root record: written last; an image without it does not exist."""

    format: Natural
    created: Name  # ISO 8601, UTC
    host: HostEntry
    root_pid: Pid
    channel_fd: Index  # -1: none
    processes: Annotated[list[ProcessEntry], Meta(min_length=1, max_length=1 << 16)]
    zombies: Annotated[list[ZombieEntry], MANY]
    descriptions: Annotated[list[Description], MANY]
    shared_memory: Annotated[list[SharedMemoryEntry], MANY]
    files: dict[FileName, ImageFile]
    warnings: Annotated[list[Text], MANY]
    pause_ms: Milliseconds = 0.0
    outside_sessions: Annotated[list[Pid], MANY] = []  # that members are in, and whose leaders live outside the tree
    files_policy: Literal["keep", "rewind", "save"] = "keep"  # what a restore does about files being written
    message_queues: Annotated[list[SysvQueueEntry], MANY] = []
    semaphore_sets: Annotated[list[SysvSetEntry], MANY] = []
    uts_namespaces: Annotated[list[UtsEntry], MANY] = []
    user_namespaces: Annotated[list[UserEntry], MANY] = []
    mount_namespaces: Annotated[list[MountEntry], MANY] = []
    time_namespaces: Annotated[list[TimeEntry], MANY] = []
    ipc_namespace: IpcEntry | None = None  # None: that of who made the image
    net_namespace: NetEntry | None = None  # the same


FORMAT_VERSION = 1
