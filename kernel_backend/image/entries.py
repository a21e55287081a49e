"""What an image says, as types (see FORMAT.md). Persisted types only: nothing here is a live object.

Every structure is closed (unknown fields are an error) and bounded, because an image may come from anywhere.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from kernel_backend.image.descriptions import Description
from kernel_backend.image.descriptions import PageRun as PageRun

Address = Annotated[int, Meta(ge=0)]
Pid = Annotated[int, Meta(ge=0, le=2**22)]
FdNumber = Annotated[int, Meta(ge=0, le=2**30)]
Word = Annotated[int, Meta(ge=0)]


class Entry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of every persisted structure."""


class FileIdentity(Entry):
    """Enough to tell whether a file that memory depends on is still the same one."""

    path: str
    size: int
    mtime_ns: int
    device: int
    inode: int
    build_id: str = ""  # hex; of ELF files that have one


class VmaEntry(Entry):
    """One mapping. `kind` says where its bytes come from; `file` and `shared` are indices into tables."""

    start: Address
    end: Address
    prot: int  # PROT_ bits
    kind: str  # anon | file | shared | vdso | vvar | sysv
    private: bool = True
    offset: int = 0  # bytes into the file or shared object
    file: int = -1  # index into ProcessEntry.files
    shared: str = ""  # key of a SharedMemoryEntry
    growsdown: bool = False
    noreserve: bool = False
    hugetlb: bool = False
    huge_page_bytes: int = 0  # with hugetlb
    locked: bool = False
    lock_on_fault: bool = False  # locked, page by page as each is touched
    sealed: bool = False
    droppable: bool = False
    advice: list[int] = []  # MADV_ values in force
    name: str = ""  # PR_SET_VMA_ANON_NAME


class Span(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """`length` bytes at `address`; both page-aligned."""

    address: Address
    length: int


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
    auxv: bytes


class RseqEntry(Entry):
    """A registered restartable-sequences area."""

    address: Address
    size: int
    signature: int
    flags: int = 0


class SchedulingEntry(Entry):
    """sched_getattr(2) and affinity of one thread."""

    policy: int = 0
    priority: int = 0
    nice: int = 0
    reset_on_fork: bool = False
    affinity: list[int] = []
    ioprio: int = 0
    timerslack_ns: int = 0


class ThreadEntry(Entry):
    """The core of one thread."""

    tid: Pid
    name: str
    regs: bytes
    xstate: bytes
    sigmask: Word
    pending: list[bytes] = []  # siginfo records queued for this thread
    altstack: bytes = b""  # struct sigaltstack
    robust_head: Address = 0
    robust_length: int = 0
    tid_address: Address = 0
    rseq: RseqEntry | None = None
    scheduling: SchedulingEntry = msgspec.field(default_factory=SchedulingEntry)
    pdeathsig: int = 0
    exited: bool = False  # a leader that ended while other threads go on


class TimerEntry(Entry):
    """One POSIX timer (timer_create(2))."""

    timer_id: int
    clock: int
    notify: int
    signo: int
    value: Word
    target_tid: int
    setting: bytes  # struct itimerspec: interval, remaining


class CredentialsEntry(Entry):
    """Who the process is."""

    uids: list[int]  # real, effective, saved, file system
    gids: list[int]
    groups: list[int]
    inheritable: Word
    permitted: Word
    effective: Word
    bounding: Word
    ambient: Word
    no_new_privs: bool
    securebits: int = 0
    keepcaps: bool = False


class DescriptorEntry(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """One row of a descriptor table: number, close-on-exec, index into Inventory.descriptions."""

    fd: FdNumber
    cloexec: bool
    description: int


class ProcessEntry(Entry):
    """Everything that belongs to one process and not to a shared open file description."""

    pid: Pid
    ppid: Pid
    pgid: Pid
    sid: Pid
    exe: FileIdentity
    argv: list[str]
    mm: MmEntry
    files: list[FileIdentity]
    vmas: list[VmaEntry]
    pagemap: list[PageRun]
    threads: list[ThreadEntry]
    sigactions: dict[int, bytes]  # struct kernel_sigaction by signal number; those not default
    pending: list[bytes]  # siginfo records queued for the process
    itimers: list[bytes]  # struct itimerval of ITIMER_REAL, _VIRTUAL, _PROF
    timers: list[TimerEntry]
    descriptors: list[DescriptorEntry]
    cwd: str
    root: str
    umask: int
    rlimits: list[tuple[Word, Word]]
    credentials: CredentialsEntry
    dumpable: int = 1
    personality: int = 0
    subreaper: bool = False
    thp_disable: bool = False
    oom_score_adj: int = 0
    stopped_by: int = 0  # job-control signal, 0 when running
    exit_signal: int = 17
    cwd_deleted: bool = False  # the folder had been removed; `cwd` is where it stood
    guards: list[Span] = []  # where touching is a fault (MADV_GUARD_INSTALL)
    lock_future: int = 0  # MCL_ flags in force for mappings to come


class ZombieEntry(Entry):
    """A child that ended and was not waited for."""

    pid: Pid
    ppid: Pid
    pgid: Pid
    sid: Pid
    exit_code: int  # wait status
    name: str
    exit_signal: int = 17


class SharedMemoryEntry(Entry):
    """An object mapped MAP_SHARED whose bytes are in the image (anonymous, memfd, deleted file, SysV)."""

    key: str
    kind: str  # anon | memfd | file | sysv
    size: int
    name: str
    runs: list[PageRun]  # address: offset inside the object
    pages: str  # file name in the image folder
    seals: int = 0
    sysv_key: int = 0
    sysv_mode: int = 0
    sysv_id: int = 0
    sysv_uid: int = 0
    sysv_gid: int = 0
    huge_page_bytes: int = 0  # 0: ordinary pages


class ImageFile(Entry):
    """One file of the image folder besides the inventory."""

    size: int
    blake3: str
    inode: int = 0  # with ctime_ns: proof that nobody wrote to it since we did
    ctime_ns: int = 0


class HostEntry(Entry):
    """Where the image was taken."""

    hostname: str
    os_kernel: str
    machine: str
    boot_id: str
    page_size: int
    xstate_bytes: int
    vdso_blake3: str


class Inventory(Entry):
    """The root record: written last; an image without it does not exist."""

    format: int
    created: str  # ISO 8601, UTC
    host: HostEntry
    root_pid: Pid
    channel_fd: int  # -1: none
    processes: list[ProcessEntry]
    zombies: list[ZombieEntry]
    descriptions: list[Description]
    shared_memory: list[SharedMemoryEntry]
    files: dict[str, ImageFile]
    warnings: list[str]
    pause_ms: float = 0.0


FORMAT_VERSION = 1
