"""x86-64: syscall numbers, register layout, signal frame and the few machine instructions we need.

Sources: arch/x86/entry/syscalls/syscall_64.tbl, arch/x86/include/uapi/asm/{ptrace,sigcontext,ucontext}.h and
arch/x86/include/asm/user_64.h of the OS kernel.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

MACHINE = "x86_64"
ELF_MACHINE = 62
AUDIT_ARCH = 0xC000003E  # linux/audit.h: ELF_MACHINE, 64 bits, little-endian

SYS = {
    "read": 0, "write": 1, "open": 2, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10,
    "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16,
    "pread64": 17, "pwrite64": 18, "select": 23, "mremap": 25, "mincore": 27, "shmget": 29, "shmat": 30, "shmctl": 31,
    "shmdt": 67, "dup2": 33, "pause": 34, "nanosleep": 35,
    "getitimer": 36, "setitimer": 38, "getpid": 39, "socket": 41, "connect": 42, "accept": 43, "recvfrom": 45,
    "listen": 50, "socketpair": 53, "getsockopt": 55,
    "recvmsg": 47, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "exit": 60, "wait4": 61, "kill": 62, "uname": 63,
    "semop": 65, "fcntl": 72, "flock": 73, "ftruncate": 77, "chdir": 80, "fchdir": 81, "umask": 95,
    "getrlimit": 97, "setuid": 105, "setgid": 106, "setpgid": 109, "setsid": 112, "setreuid": 113, "setregid": 114,
    "setgroups": 116, "setresuid": 117, "setresgid": 119, "setfsuid": 122, "setfsgid": 123, "capset": 126,
    "rt_sigtimedwait": 128, "rt_sigqueueinfo": 129, "rt_sigsuspend": 130, "sigaltstack": 131, "personality": 135,
    "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144, "mlock": 149, "prctl": 157,
    "arch_prctl": 158, "mount": 165, "chroot": 161, "gettid": 186, "tkill": 200, "futex": 202, "sched_setaffinity": 203,
    "getdents64": 217, "io_setup": 206, "io_destroy": 207, "io_getevents": 208, "io_submit": 209, "io_pgetevents": 333,
    "set_tid_address": 218, "restart_syscall": 219, "semtimedop": 220, "timer_create": 222,
    "timer_settime": 223, "timer_gettime": 224, "timer_getoverrun": 225, "timer_delete": 226,
    "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232, "epoll_ctl": 233, "tgkill": 234, "madvise": 28,
    "ioprio_set": 251, "ioprio_get": 252, "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "get_robust_list": 274,
    "epoll_pwait": 281, "signalfd4": 289, "timerfd_settime": 286, "dup3": 292, "preadv": 295, "pwritev": 296,
    "rt_tgsigqueueinfo": 297, "prlimit64": 302, "sendmsg": 46, "setns": 308, "kcmp": 312, "sched_setattr": 314,
    "sched_getattr": 315, "unshare": 272, "seccomp": 317, "memfd_create": 319, "mlock2": 325, "statx": 332, "rseq": 334,
    "pidfd_send_signal": 424, "landlock_create_ruleset": 444,
    "pidfd_open": 434, "clone3": 435, "close_range": 436, "pidfd_getfd": 438, "epoll_pwait2": 441,
    "process_vm_readv": 310, "process_vm_writev": 311, "msgrcv": 70, "msgsnd": 69, "inotify_add_watch": 254,
    "mq_open": 240, "mq_unlink": 241, "mq_timedsend": 242, "mq_timedreceive": 243, "mq_notify": 244,
    "mq_getsetattr": 245, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "timerfd_create": 283, "timerfd_gettime": 287,
    "userfaultfd": 323, "waitid": 247, "mlockall": 151, "munlockall": 152, "mseal": 462,
    "pkey_mprotect": 329, "pkey_alloc": 330, "pkey_free": 331, "membarrier": 324, "modify_ldt": 154,
    "get_mempolicy": 239, "set_mempolicy": 238, "mbind": 237, "keyctl": 250,
    "readv": 19, "writev": 20, "sendto": 44, "accept4": 288, "recvmmsg": 299, "sendmmsg": 307,
    "statfs": 137, "semget": 64, "semctl": 66, "msgget": 68, "msgctl": 71, "remap_file_pages": 216,
    "bpf": 321, "capget": 125, "fanotify_init": 300, "fanotify_mark": 301,
    "sethostname": 170, "setdomainname": 171, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
}  # fmt: skip
"""Syscall numbers by name."""

SYS_NAME = {number: name for name, number in SYS.items()}


class UserRegs(ctypes.Structure):
    """struct user_regs_struct: what PTRACE_GETREGS reads and PTRACE_SETREGS writes (27 words)."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in [
            "r15",
            "r14",
            "r13",
            "r12",
            "rbp",
            "rbx",
            "r11",
            "r10",
            "r9",
            "r8",
            "rax",
            "rcx",
            "rdx",
            "rsi",
            "rdi",
            "orig_rax",
            "rip",
            "cs",
            "eflags",
            "rsp",
            "ss",
            "fs_base",
            "gs_base",
            "ds",
            "es",
            "fs",
            "gs",
        ]
    ]

    if TYPE_CHECKING:
        r15: int
        r14: int
        r13: int
        r12: int
        rbp: int
        rbx: int
        r11: int
        r10: int
        r9: int
        r8: int
        rax: int
        rcx: int
        rdx: int
        rsi: int
        rdi: int
        orig_rax: int
        rip: int
        cs: int
        eflags: int
        rsp: int
        ss: int
        fs_base: int
        gs_base: int
        ds: int
        es: int
        fs: int
        gs: int

    # What every architecture has, by the names that the other rooms use

    @property
    def pc(self) -> int:
        """The address of the next instruction."""
        return self.rip

    @pc.setter
    def pc(self, address: int) -> None:
        self.rip = address

    @property
    def sp(self) -> int:
        """The stack pointer."""
        return self.rsp

    @sp.setter
    def sp(self, address: int) -> None:
        self.rsp = address

    @property
    def thread_area(self) -> int:
        """What a thread's own variables (TLS) are found by."""
        return self.fs_base

    @property
    def call(self) -> int:
        """The number of the system call that the thread is in or has just left; NO_CALL: there is none to restart."""
        return self.orig_rax

    @call.setter
    def call(self, number: int) -> None:
        self.orig_rax = number

    @property
    def result(self) -> int:
        """What that call has returned: above 2**64 - 4096 an error number, negated."""
        return self.rax

    @result.setter
    def result(self, value: int) -> None:
        self.rax = value

    @property
    def args(self) -> tuple[int, int, int, int, int, int]:
        """The arguments of a system call."""
        return self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9

    @args.setter
    def args(self, values: Sequence[int]) -> None:
        self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9 = ([*values] + [0] * 6)[:6]

    @property
    def flags(self) -> int:
        """The processor's."""
        return self.eflags

    @flags.setter
    def flags(self, value: int) -> None:
        self.eflags = value

    @property
    def store_at(self) -> int:
        """Where STORE_RESULT writes to."""
        return self.rbx

    @store_at.setter
    def store_at(self, address: int) -> None:
        self.rbx = address

    def leave_narrow_code(self) -> None:
        """Be in code of 64 bits: a thread can be in segments of 32 or 16 bits, and ours would mean something else."""
        self.cs, self.ss = CS_64BIT, SS_64BIT

    def make_call(self, instruction: int, number: int, args: Sequence[int] = ()) -> None:
        """Once it runs, make a system call, by the `syscall` instruction at that address."""
        self.leave_narrow_code()
        self.rip, self.rax, self.orig_rax = instruction, number, NO_CALL
        self.args = args

    def repeat_call(self) -> None:
        """Once it runs, make the call again that it has left."""
        self.rax = self.orig_rax
        self.rip -= len(SYSCALL_INSTRUCTION)

    def run(self, code: int, first: int = 0, second: int = 0, third: int = 0) -> None:
        """Once it runs, run machine code of this file, with its inputs."""
        self.leave_narrow_code()
        self.rip, self.rbx, self.r12, self.r13, self.orig_rax = code, first, second, third, NO_CALL


assert ctypes.sizeof(UserRegs) == 27 * 8
NO_CALL = 2**64 - 1

CS_64BIT, SS_64BIT = 0x33, 0x2B
RED_ZONE_BYTES = 128

SYSCALL_INSTRUCTION = b"\x0f\x05"
SYSCALL_RETURN = b"\x0f\x05\xc3"  # syscall; ret
SIGRETURN_STUBS = (
    b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05",  # glibc's __restore_rt: mov $15,%rax; syscall
    b"\xb8\x0f\x00\x00\x00\x0f\x05",  # mov $15,%eax; syscall (musl and others)
)
STORE_RESULT = b"\x48\x89\x03\x5b\xc3"  # mov %rax,(%rbx); pop %rbx; ret
SHADOW_STACK = "x86_Thread_features", "shstk"  # of /proc/PID/status, where returns are checked (arch/x86/shstk.rst)
USUAL_FLAGS = 0x202  # interrupts on; the other bit is always set
MOV_EAX_IMM32 = 0xB8

# Runs a table of syscalls: rbx = first row, r12 = number of rows; a row is eight words: number, six arguments,
# result. Ends at the int3 after the last row or after the first row that failed.
RUN_TABLE = bytes.fromhex(
    "488b03"        # loop: mov  rax, [rbx]
    "488b7b08"      #       mov  rdi, [rbx+8]
    "488b7310"      #       mov  rsi, [rbx+16]
    "488b5318"      #       mov  rdx, [rbx+24]
    "4c8b5320"      #       mov  r10, [rbx+32]
    "4c8b4328"      #       mov  r8,  [rbx+40]
    "4c8b4b30"      #       mov  r9,  [rbx+48]
    "0f05"          #       syscall
    "48894338"      #       mov  [rbx+56], rax
    "483d01f0ffff"  #       cmp  rax, -4095
    "7309"          #       jae  done
    "4883c340"      #       add  rbx, 64
    "49ffcc"        #       dec  r12
    "75ce"          #       jnz  loop
    "cc"            # done: int3
)  # fmt: skip
assert len(RUN_TABLE) == 0x33
assert RUN_TABLE[0x31] == 256 - 0x32, "the loop jumps back to its first byte"

# Hands requests to an io_uring instance and passes their completions over, again and again: rbx = a table of three
# words (descriptor, requests a round, address of the completions' head), r12 = number of rounds. Ends at the int3 after
# the last round, or after one in which less was taken.
PASS_REQUESTS = bytes.fromhex(
    "b8aa010000"  # loop: mov  eax, 426 (io_uring_enter)
    "488b3b"      #       mov  rdi, [rbx]
    "488b7308"    #       mov  rsi, [rbx+8]
    "31d2"        #       xor  edx, edx
    "4531d2"      #       xor  r10d, r10d
    "4531c0"      #       xor  r8d, r8d
    "4531c9"      #       xor  r9d, r9d
    "0f05"        #       syscall
    "4839f0"      #       cmp  rax, rsi
    "750b"        #       jne  done
    "488b4b10"    #       mov  rcx, [rbx+16]
    "0131"        #       add  [rcx], esi
    "49ffcc"      #       dec  r12
    "75d7"        #       jnz  loop
    "cc"          # done: int3
)  # fmt: skip
assert len(PASS_REQUESTS) == 0x2A
assert PASS_REQUESTS[0x28] == 256 - 0x29, "the loop jumps back to its first byte"

# Uses the tile registers (AMX) once, whereupon the OS kernel makes room for them: rbx = a configuration.
USE_TILES = bytes.fromhex(
    "c4e2784903"  # ldtilecfg [rbx]
    "c4e27b49c0"  # tilezero tmm0
    "c4e27849c0"  # tilerelease
    "cc"          # int3
)  # fmt: skip
TILE_CONFIG = struct.pack("<BB14xH30xB15x", 1, 0, 64, 16)  # palette 1; one register of 16 rows of 64 bytes
XSTATE_HEADER_OFFSET = 512  # of the word that says which parts are in use
XSTATE_TILES = 1 << 18
assert len(TILE_CONFIG) == 64

# The first process of a pid namespace: rbx = pid of the tree's root, r12 = its wait status so far, r13 = a
# writable word.
WAIT_LOOP = bytes.fromhex(
    "b83d000000"      # loop: mov  eax, 61 (wait4)
    "48c7c7ffffffff"  #       mov  rdi, -1
    "4c89ee"          #       mov  rsi, r13
    "ba00000040"      #       mov  edx, __WALL
    "4d31d2"          #       xor  r10, r10
    "0f05"            #       syscall
    "39d8"            #       cmp  eax, ebx
    "7504"            #       jne  next
    "458b6500"        #       mov  r12d, [r13]
    "83f8f6"          # next: cmp  eax, -ECHILD
    "75da"            #       jne  loop
    "4489e7"          #       mov  edi, r12d
    "83e77f"          #       and  edi, 0x7f
    "7408"            #       jz   plain
    "81c780000000"    #       add  edi, 128
    "eb06"            #       jmp  out
    "4489e7"          # plain: mov edi, r12d
    "c1ef08"          #       shr  edi, 8
    "81e7ff000000"    # out:  and  edi, 255
    "b8e7000000"      #       mov  eax, 231 (exit_group)
    "0f05"            #       syscall
)  # fmt: skip
assert WAIT_LOOP[0x24:0x26] == bytes((0x75, 256 - 0x26)), "the loop jumps back to its first byte"
TABLE_ROW = struct.Struct("<8Q")

# struct ucontext up to and with uc_sigmask; see build_sigframe in tracee/inject.py
UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS = 1, 2, 4
SIGCONTEXT_ORDER = [
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "rdi",
    "rsi",
    "rbp",
    "rbx",
    "rdx",
    "rax",
    "rcx",
    "rsp",
    "rip",
    "eflags",
]
FP_XSTATE_MAGIC1 = 0x46505853
FP_XSTATE_MAGIC2 = 0x46505845
FXSAVE_SW_RESERVED_OFFSET = 464
XSTATE_BV_OFFSET = 512  # xstate_bv, first word of the XSAVE header
XSTATE_MAX_BYTES = 16384
XSTATE_TILE_DATA, XSTATE_TILE_DATA_BYTES = 1 << 18, 8192
USER_REGS_BYTES = ctypes.sizeof(UserRegs)

# struct clone_args (include/uapi/linux/sched.h)
CLONE_ARGS = struct.Struct("<11Q")

# --- segment descriptors: arch/x86/include/asm/desc_defs.h; what modify_ldt(2) takes: arch/x86/include/uapi/asm/ldt.h
SEGMENT_BYTES, MOST_SEGMENTS = 8, 8192  # LDT_ENTRY_SIZE, LDT_ENTRIES
_SEGMENT_TO_SET = struct.Struct("<4I")  # struct user_desc
SEGMENT_TO_SET_BYTES = _SEGMENT_TO_SET.size
_ACCESSED = 1 << 40  # set by the processor, or beforehand
_OF_32_BITS = 1 << 54
_NO_SEGMENT = 0b101000  # struct user_desc's read_exec_only and seg_not_present: with all else 0 an entry is emptied


def segment_to_set(number: int, segment: bytes) -> bytes:
    """What to ask modify_ldt(2) for to have a descriptor at a place in the table; of 0 bytes only: to empty it."""
    word = int.from_bytes(segment, "little")
    if not word:
        return _SEGMENT_TO_SET.pack(number, 0, 0, _NO_SEGMENT)
    base = word >> 16 & 0xFFFFFF | word >> 56 << 24
    limit = word & 0xFFFF | (word >> 48 & 0xF) << 16
    flags = (
        (word >> 54 & 1) | (word >> 42 & 3) << 1 | (~word >> 41 & 1) << 3 | (word >> 55 & 1) << 4
        | (~word >> 47 & 1) << 5 | (word >> 52 & 1) << 6
    )  # fmt: skip
    return _SEGMENT_TO_SET.pack(number, base, limit, flags)


def is_segment_of_32_bits(segment: bytes) -> bool:
    """As opposed to 16 bits."""
    return bool(int.from_bytes(segment, "little") & _OF_32_BITS)


def may_be_set(segment: bytes) -> bool:
    """Whether modify_ldt(2) makes exactly this descriptor when it is asked by `segment_to_set`."""
    word = int.from_bytes(segment, "little")
    code_of_others = (word >> 42 & 3) == 3 and word >> 47 & 1  # conforming and present
    emptied = segment_to_set(0, segment) == _SEGMENT_TO_SET.pack(0, 0, 0, _NO_SEGMENT)
    of_users = word >> 44 & 7 == 7 and not word >> 53 & 1  # no gate of the system's, ring 3, not of 64 bits
    return not word or bool(of_users and word & _ACCESSED and not code_of_others and not emptied)
