"""Linux constants shared by all architectures (include/uapi/linux/*.h)."""

from __future__ import annotations

PAGE_SIZE = 4096

# --- ptrace(2), include/uapi/linux/ptrace.h -----------------------------------------------------------------------
PTRACE_CONT = 7
PTRACE_SINGLESTEP = 9
PTRACE_GETREGS = 12  # of some architectures only, x86 among them
PTRACE_SETREGS = 13
PTRACE_SETOPTIONS = 0x4200
PTRACE_GETEVENTMSG = 0x4201
PTRACE_GETSIGINFO = 0x4202
PTRACE_GETREGSET = 0x4204
PTRACE_SETREGSET = 0x4205
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_PEEKSIGINFO = 0x4209
PTRACE_GETSIGMASK = 0x420A
PTRACE_SETSIGMASK = 0x420B
PTRACE_GET_RSEQ_CONFIGURATION = 0x420F
PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG = 0x4210
PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211
PTRACE_SECCOMP_GET_FILTER = 0x420C
PTRACE_SECCOMP_GET_METADATA = 0x420D
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24

PTRACE_O_TRACESYSGOOD = 0x1
PTRACE_O_TRACEFORK = 0x2
PTRACE_O_TRACEVFORK = 0x4
PTRACE_O_TRACECLONE = 0x8
PTRACE_O_TRACEEXEC = 0x10
PTRACE_O_EXITKILL = 0x100000
PTRACE_O_SUSPEND_SECCOMP = 0x200000

SYSCALL_STOP = 0x80  # added to SIGTRAP by PTRACE_O_TRACESYSGOOD

PTRACE_EVENT_FORK = 1
PTRACE_EVENT_VFORK = 2
PTRACE_EVENT_CLONE = 3
PTRACE_EVENT_EXEC = 4
PTRACE_EVENT_STOP = 128
PTRACE_PEEKSIGINFO_SHARED = 1

NT_X86_XSTATE = 0x202

WALL = 0x40000000  # __WALL of waitpid(2): also children that are not announced by SIGCHLD
WCLONE = 0x80000000  # __WCLONE: only those

# --- clone(2), include/uapi/linux/sched.h -------------------------------------------------------------------------
CLONE_VM = 0x100
CLONE_FS = 0x200
CLONE_FILES = 0x400
CLONE_SIGHAND = 0x800
CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_THREAD = 0x10000
CLONE_SYSVSEM = 0x40000
CLONE_NEWNS = 0x20000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
FIRST_IPC_NAMESPACE = 0xEFFFFFFF  # PROC_IPC_INIT_INO: the one that the host began with
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# --- uname(2): a struct utsname has six fields ------------------------------------------------------------------
UTS_FIELD_BYTES = 65
UTSNAME_BYTES = 6 * UTS_FIELD_BYTES
FIRST_UTS_NAMESPACE = 0xEFFFFFFE  # PROC_UTS_INIT_INO: the one that the host began with

# --- mman.h -------------------------------------------------------------------------------------------------------
PROT_READ = 1
PROT_WRITE = 2
PROT_EXEC = 4
MAP_SHARED = 0x01
MAP_PRIVATE = 0x02
MAP_DROPPABLE = 0x08  # instead of the two (OS kernel 6.11)
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_GROWSDOWN = 0x100
MAP_NORESERVE = 0x4000
MAP_STACK = 0x20000
MAP_HUGETLB = 0x40000
MAP_FIXED_NOREPLACE = 0x100000


def huge_page_flag(size: int) -> int:
    """The bits that say which size of huge pages, of mmap(2) and memfd_create(2)."""
    return (size.bit_length() - 1) << 26 if size else 0


MADV_NORMAL = 0
MADV_RANDOM = 1
MADV_SEQUENTIAL = 2
MADV_DONTNEED = 4
MADV_DONTFORK = 10
MADV_MERGEABLE = 12
MADV_HUGEPAGE = 14
MADV_NOHUGEPAGE = 15
MADV_DONTDUMP = 16
MADV_WIPEONFORK = 18
MADV_GUARD_INSTALL = 102  # OS kernel 6.13
MLOCK_ONFAULT = 1
MCL_FUTURE, MCL_ONFAULT = 2, 4

# --- prctl(2) -----------------------------------------------------------------------------------------------------
PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_GET_KEEPCAPS = 7
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_GET_NAME = 16
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_SET_TIMERSLACK = 29
PR_GET_TIMERSLACK = 30
PR_SET_MM = 35
PR_SET_MM_MAP = 14
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_SET_NO_NEW_PRIVS = 38
PR_GET_TID_ADDRESS = 40
PR_SET_THP_DISABLE = 41
PR_GET_THP_DISABLE = 42
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_TIMER_CREATE_RESTORE_IDS = 77
PR_TIMER_CREATE_RESTORE_IDS_OFF, PR_TIMER_CREATE_RESTORE_IDS_ON, PR_TIMER_CREATE_RESTORE_IDS_GET = 0, 1, 2
PR_SET_VMA = 0x53564D41
PR_SET_VMA_ANON_NAME = 0
ARCH_MAP_VDSO_64 = 0x2003

# --- pagemap, include/uapi/linux/fs.h -----------------------------------------------------------------------------
PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg), 96 bytes
PAGE_IS_WPALLOWED = 1 << 0
PAGE_IS_WRITTEN = 1 << 1
PAGE_IS_FILE = 1 << 2
PAGE_IS_PRESENT = 1 << 3
PAGE_IS_SWAPPED = 1 << 4
PAGE_IS_PFNZERO = 1 << 5
PAGE_IS_HUGE = 1 << 6
PAGE_IS_GUARD = 1 << 8  # OS kernel 6.15

# Bits of a /proc/PID/pagemap word (Documentation/admin-guide/mm/pagemap.rst)
PM_PRESENT = 1 << 63
PM_SWAPPED = 1 << 62
PM_FILE_OR_SHARED = 1 << 61

# --- kcmp(2) ------------------------------------------------------------------------------------------------------
KCMP_FILE = 0
KCMP_VM = 1
KCMP_FILES = 2
KCMP_FS = 3
KCMP_SIGHAND = 4
KCMP_EPOLL_TFD = 7

CLOSE_RANGE_UNSHARE = 2  # close_range(2): in a table of one's own

# --- fcntl.h ------------------------------------------------------------------------------------------------------
F_SETSIG = 10
F_GETSIG = 11
F_SETOWN_EX = 15
F_GETOWN_EX = 16
F_SETPIPE_SZ = 1031
F_GETPIPE_SZ = 1032
F_ADD_SEALS = 1033
F_GET_SEALS = 1034
F_GET_RW_HINT = 1035
F_SET_RW_HINT = 1036
O_PATH = 0o10000000
O_TMPFILE = 0o20200000
O_LARGEFILE = 0o100000
AT_FDCWD = -100

# Flags of open(2) that are acted on when opening and are not part of a descriptor's lasting state
OPEN_ONLY_FLAGS = 0o100 | 0o200 | 0o400 | 0o1000  # O_CREAT O_EXCL O_NOCTTY O_TRUNC

# --- sockets: getsockopt(2) and ioctl(2) numbers the socket module does not name ----------------------------------
SIOCINQ = 0x541B
SIOCOUTQ = 0x5411
SIOCOUTQNSD = 0x894B
TCP_REPAIR = 19
FIONREAD = 0x541B
EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3

# --- bpf(2), include/uapi/linux/bpf.h -----------------------------------------------------------------------------
BPF_MAP_CREATE = 0
BPF_OBJ_GET = 7
BPF_PROG_GET_NEXT_ID = 11
BPF_PROG_GET_FD_BY_ID = 13
BPF_MAP_GET_FD_BY_ID = 14
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_MAP_FREEZE = 22
BPF_MAP_LOOKUP_BATCH = 24
BPF_MAP_UPDATE_BATCH = 26
BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY = 1, 2, 5, 6
BPF_MAP_TYPE_LRU_HASH = 9
BPF_F_NO_PREALLOC, BPF_F_NUMA_NODE, BPF_F_RDONLY, BPF_F_WRONLY, BPF_F_ZERO_SEED = 1, 4, 8, 16, 64
BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG, BPF_F_MMAPABLE = 128, 256, 1024

# --- errno values that never leave the OS kernel except to a tracer (include/linux/errno.h) -----------------------
ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514
ERESTART_RESTARTBLOCK = 516

TASK_SIZE = 0x7FFFFFFFF000

# --- io_uring(7), include/uapi/linux/io_uring.h -------------------------------------------------------------------
IORING_SETUP_CQSIZE = 1 << 3
IORING_SETUP_R_DISABLED = 1 << 6
IORING_SETUP_TASKRUN_FLAG = 1 << 9
IORING_SETUP_SINGLE_ISSUER = 1 << 12
IORING_SETUP_DEFER_TASKRUN = 1 << 13
IORING_FEAT_SINGLE_MMAP = 1
IORING_ENTER_GETEVENTS = 1
IORING_ENTER_EXT_ARG = 1 << 3
IORING_ENTER_REGISTERED_RING = 1 << 4
IORING_REGISTER_BUFFERS = 0
IORING_REGISTER_FILES = 2
IORING_REGISTER_EVENTFD = 4
IORING_REGISTER_PROBE = 8
IORING_REGISTER_ENABLE_RINGS = 12
IORING_REGISTER_RING_FDS = 20
IORING_REGISTER_PBUF_STATUS = 26
IORING_CQE_F_MORE = 1 << 1
IORING_CQE_F_NOTIF = 1 << 3
IORING_OFF_SQ_RING = 0
IORING_OFF_CQ_RING = 0x8000000
IORING_OFF_SQES = 0x10000000
IO_URING_SQE_BYTES = 64
IO_URING_CQE_BYTES = 16
IO_RINGFD_REG_MAX = 16  # numbers of its own that a thread may give to instances
IORING_MAX_ENTRIES = 1 << 15  # of requests; of completions twice as many (io_uring/io_uring.h)
