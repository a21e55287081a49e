"""System calls that Python does not offer, as plain functions that raise OSError.

Everything here acts for the calling process; nothing knows what a tracee is for.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import struct
from collections.abc import Sequence

from kernel_backend.abi import arch, linux

_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class Iovec(ctypes.Structure):
    """struct iovec of readv(2)."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


_vm_readv = _libc.process_vm_readv
_vm_writev = _libc.process_vm_writev
for _call in (_vm_readv, _vm_writev):
    _call.restype = ctypes.c_ssize_t
    _call.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong,
    ]  # fmt: skip


def _fail(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def syscall(name: str, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """The raw system call `name`; integers are passed as longs, bytes by address."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = int(_syscall(ctypes.c_long(arch.SYS[name]), *words))
    if result == -1:
        raise _fail(name)
    return result


def ptrace(request: int, tid: int, addr: int = 0, data: object = 0) -> int:
    """ptrace(2); `data` is an integer or something ctypes can pass by address."""
    result = int(_ptrace(request, tid, addr, data))
    if result == -1:
        raise _fail("ptrace")
    return result


def vm_read(pid: int, address: int, size: int) -> bytes:
    """`size` bytes of the process's memory at `address` (process_vm_readv(2)).

    Raises OSError (EFAULT, ESRCH, EPERM); a short read is an EFAULT too.
    """
    if not size:
        return b""
    buffer = ctypes.create_string_buffer(size)
    vm_read_into(pid, address, ctypes.addressof(buffer), size)
    return buffer.raw


def vm_read_into(pid: int, address: int, destination: int, size: int) -> None:
    """Copy `size` bytes of the process's memory to our own address `destination`."""
    done = 0
    while done < size:
        local = Iovec(destination + done, size - done)
        remote = Iovec(address + done, size - done)
        count = _vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        if count <= 0:
            raise _fail(f"reading {size} bytes at {address:#x} of process {pid}")
        done += count


def vm_write(pid: int, address: int, data: bytes) -> None:
    """Write `data` into the process's memory (process_vm_writev(2)); honours page protection."""
    done = 0
    buffer = ctypes.create_string_buffer(data, len(data))
    while done < len(data):
        local = Iovec(ctypes.addressof(buffer) + done, len(data) - done)
        remote = Iovec(address + done, len(data) - done)
        count = _vm_writev(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        if count <= 0:
            raise _fail(f"writing {len(data)} bytes at {address:#x} of process {pid}")
        done += count


def grow_stack(pid: int, address: int) -> None:
    """Make a stack reach down to `address`, as a touch of its own would: of others, only reading by /proc does that."""
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # it may not grow so far: who reads it next is told
            os.pread(fd, 1, address)
    finally:
        os.close(fd)


def poke(pid: int, address: int, data: bytes) -> None:
    """Write `data` into a tracee's memory also where it may not be written to; a private page becomes its own."""
    fd = os.open(f"/proc/{pid}/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, data, address)
    finally:
        os.close(fd)


_PIDFD_THREAD = os.O_EXCL  # since OS kernel 6.9


def pidfd_open(pid: int, *, thread: bool = False) -> int:
    """A pidfd, close-on-exec (pidfd_open(2)); of a single thread where asked for."""
    return syscall("pidfd_open", pid, _PIDFD_THREAD if thread else 0)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Our own duplicate of another process's descriptor (pidfd_getfd(2)), close-on-exec."""
    return syscall("pidfd_getfd", pidfd, fd, 0)


def kcmp(pid1: int, pid2: int, kind: int, index1: int, index2: int) -> int:
    """kcmp(2): 0 equal, 1 less, 2 greater, 3 different and unordered."""
    return syscall("kcmp", pid1, pid2, kind, index1, index2)


def get_robust_list(tid: int) -> tuple[int, int]:
    """(head address, length) of a thread's robust futex list (get_robust_list(2))."""
    head = (ctypes.c_char * 8)()
    length = (ctypes.c_char * 8)()
    syscall("get_robust_list", tid, head, length)
    return struct.unpack("<Q", head.raw)[0], struct.unpack("<Q", length.raw)[0]


class _PmScanArg(ctypes.Structure):
    """struct pm_scan_arg of the PAGEMAP_SCAN ioctl (OS kernel 6.7)."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in [
            "size",
            "flags",
            "start",
            "end",
            "walk_end",
            "vec",
            "vec_len",
            "max_pages",
            "category_inverted",
            "category_mask",
            "category_anyof_mask",
            "return_mask",
        ]
    ]


_PAGE_REGION = struct.Struct("<3Q")


def pagemap_scan(
    pagemap_fd: int, start: int, end: int, *, mask: int, inverted: int = 0, any_of: int = 0, told: int = 0
) -> list[tuple[int, int, int]]:
    """Runs [start, end, categories) of pages that match (PAGEMAP_SCAN, pagemap.rst); of categories, those in `told`."""
    rows = 4096
    vector = (ctypes.c_char * (rows * _PAGE_REGION.size))()
    runs: list[tuple[int, int, int]] = []
    while start < end:
        arg = _PmScanArg()
        arg.size = ctypes.sizeof(arg)
        arg.start, arg.end = start, end
        arg.vec, arg.vec_len = ctypes.addressof(vector), rows
        arg.category_mask, arg.category_inverted, arg.category_anyof_mask = mask, inverted, any_of
        arg.return_mask = told or linux.PAGE_IS_PRESENT
        count = fcntl.ioctl(pagemap_fd, linux.PAGEMAP_SCAN, arg)
        told_until = start
        for low, high, categories in _PAGE_REGION.iter_unpack(vector.raw[: count * _PAGE_REGION.size]):
            categories &= told
            told_until = high
            if runs and runs[-1][1:] == (low, categories):
                runs[-1] = (runs[-1][0], high, categories)
            else:
                runs.append((low, high, categories))
        # Where the OS kernel's own buffer of 512 rows was full, walk_end may still say where that was, although the
        # walk went on from there (fs/proc/task_mmu.c): what was told since would be told again.
        start = max(arg.walk_end, told_until)
    return runs


def pagemap_words(pagemap_fd: int, start: int, end: int) -> array.array[int]:
    """The /proc/PID/pagemap words of the pages in [start, end): the way where PAGEMAP_SCAN is missing."""
    words = array.array("Q")
    first, count = start // linux.PAGE_SIZE, (end - start) // linux.PAGE_SIZE
    words.frombytes(os.pread(pagemap_fd, count * 8, first * 8))
    return words


def clone3(flags: int, *, exit_signal: int = 0, set_tid: Sequence[int] = ()) -> int:
    """fork by clone3(2) with chosen pids (innermost pid namespace first); 0 in the child."""
    tids = array.array("i", set_tid)
    address = tids.buffer_info()[0] if set_tid else 0
    args = arch.CLONE_ARGS.pack(flags, 0, 0, 0, exit_signal, 0, 0, 0, address, len(set_tid), 0)
    return syscall("clone3", args, len(args))


def gettid() -> int:
    """The calling thread's tid."""
    return syscall("gettid")


def prctl(option: int, *args: int) -> int:
    """prctl(2) on ourselves."""
    padded = [*args, 0, 0, 0, 0][:4]
    return syscall("prctl", option, *padded)
