"""The schema's limits, in one place: what a number, a text or a list of an image may be at most.

An image may come from anywhere, so nothing in it is used before it is known to be bounded. Limits lie where the OS
kernel has its own, or well above what any real session has; FORMAT.md lists them. What concerns several fields at once
is in validation.py.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from kernel_backend.abi import linux

I32_MAX = 2**31 - 1
I64_MAX = 2**63 - 1
WORD_MAX = 2**64 - 1

MAX_INVENTORY_BYTES = 256 << 20  # a tree with 2,000 threads and full queues has 60
FD_MAX = 2**22 - 1  # above fs.nr_open as it usually is; the OS kernel keeps 8 bytes for every number below
MAX_DEPTH = 128  # generations of a process tree

# --- numbers ----------------------------------------------------------------------------------------------------------
Word = Annotated[int, Meta(ge=0)]  # 64 bits; msgspec knows no upper bound beyond 2**63, so validation.py has it
Address = Annotated[int, Meta(ge=0, le=2**56)]  # of user memory, with five levels of page tables
Size = Annotated[int, Meta(ge=0, le=I64_MAX)]  # bytes, as off_t
Nanoseconds = Annotated[int, Meta(ge=-I64_MAX, le=I64_MAX)]
Int = Annotated[int, Meta(ge=-(2**31), le=I32_MAX)]
Natural = Annotated[int, Meta(ge=0, le=I32_MAX)]
Bits = Annotated[int, Meta(ge=0, le=2**32 - 1)]  # flags and masks of 32 bits
Id = Annotated[int, Meta(ge=0, le=2**32 - 1)]  # of a user or group
OptionalId = Annotated[int, Meta(ge=-1, le=2**32 - 1)]  # -1: not known
Index = Annotated[int, Meta(ge=-1, le=I32_MAX)]  # into a table; -1: none
Pid = Annotated[int, Meta(ge=0, le=2**22)]
FdNumber = Annotated[int, Meta(ge=0, le=FD_MAX)]
Signal = Annotated[int, Meta(ge=0, le=64)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Flow = Annotated[int, Meta(ge=0, le=0xFFFFF)]  # of IPv6; 0: none
SegmentSize = Annotated[int, Meta(ge=1, le=65535)]
Scale = Annotated[int, Meta(ge=-1, le=14)]  # of TCP's windows; -1: none
Milliseconds = Annotated[float, Meta(ge=0)]

# --- texts and bytes --------------------------------------------------------------------------------------------------
PathText = Annotated[str, Meta(max_length=2 * 4096 + 1)]  # PATH_MAX, as pack_path writes it
Name = Annotated[str, Meta(max_length=255)]
Text = Annotated[str, Meta(max_length=1 << 17)]  # an argument (MAX_ARG_STRLEN), a warning
FileName = Annotated[str, Meta(pattern=r"^(pages|shared|content)-[0-9]{1,10}\.img$")]  # of the image's own folder
OptionalFileName = Annotated[str, Meta(pattern=r"^((shared|content)-[0-9]{1,10}\.img)?$")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Meta(max_length=64)]  # of a shared object: device and inode
SigInfo = Annotated[bytes, Meta(min_length=128, max_length=128)]
OptionValue = Annotated[bytes, Meta(max_length=32768)]  # of a socket; the largest is a packet filter
Small = Annotated[bytes, Meta(max_length=4096)]  # a structure of the OS kernel
# Settings of an IPC namespace, below /proc/sys
IPC_LIMITS = (
    "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shmmni",
    "kernel/shm_rmid_forced", "fs/mqueue/msg_default", "fs/mqueue/msg_max", "fs/mqueue/msgsize_default",
    "fs/mqueue/msgsize_max", "fs/mqueue/queues_max",
)  # fmt: skip
SettingText = Annotated[str, Meta(pattern=r"^[0-9]{1,20}(\s[0-9]{1,20}){0,3}$")]
# Of a network namespace
NetFamily = Annotated[int, Meta(ge=2, le=10)]  # AF_INET, AF_INET6
PrefixBits = Annotated[int, Meta(ge=0, le=128)]
NetAddressBytes = Annotated[bytes, Meta(min_length=4, max_length=16)]
LinkLabel = Annotated[str, Meta(pattern=r"^[!-~]{0,15}$")]
NetSettingName = Annotated[str, Meta(pattern=r"^net(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}){1,6}$")]
NetSettingText = Annotated[str, Meta(pattern=r"^[ -~\t]{0,4096}$")]
UtsName = Annotated[bytes, Meta(max_length=64)]  # of the host (uname(2))
SegmentTable = Annotated[bytes, Meta(max_length=1 << 16)]
SocketName = Annotated[bytes, Meta(max_length=108)]  # sun_path
MappingKind = Annotated[str, Meta(pattern="^(anon|file|shared|vdso|vvar|sysv|aio|io_uring)$")]
SharedKind = Annotated[str, Meta(pattern="^(anon|memfd|file|sysv)$")]
Other = Annotated[str, Meta(pattern="^(inside|outside|closed)$")]
MarkedObject = Annotated[str, Meta(pattern="^(inode|mount|filesystem|namespace)$")]  # by fanotify(7)
MapName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.]{0,15}$")]  # of a BPF map
Content = Annotated[bytes, Meta(max_length=64 << 20)]  # of a pipe or a queue

Action = Annotated[bytes, Meta(min_length=32, max_length=32)]  # struct kernel_sigaction
Timing = Annotated[bytes, Meta(min_length=32, max_length=32)]  # struct itimerval, struct itimerspec

# --- lists ------------------------------------------------------------------------------------------------------------
FEW = Meta(max_length=64)
MANY = Meta(max_length=1 << 20)
RUNS = Meta(max_length=1 << 24)
MAX_THREADS = 1 << 17  # of the whole tree

# What an image may say about memory (madvise(2)). Other values would do something, to the host as well.
ADVICE = frozenset(
    {
        linux.MADV_RANDOM, linux.MADV_SEQUENTIAL, linux.MADV_DONTFORK, linux.MADV_MERGEABLE, linux.MADV_HUGEPAGE,
        linux.MADV_NOHUGEPAGE, linux.MADV_DONTDUMP, linux.MADV_WIPEONFORK,
    }
)  # fmt: skip
