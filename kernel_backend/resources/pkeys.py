"""Protection keys of memory (pkeys(7)): which ones a process has, and which mapping has which.

What a key allows is in a register of each thread and comes back with the processor state. The numbers must be the same
again, so a new process is given all keys up to the highest one, and those that the image's did not have are freed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import cache

from kernel_backend.abi import linux
from kernel_backend.host import libc
from kernel_backend.image.entries import ProcessEntry
from kernel_backend.tracee.chorus import Asking
from kernel_backend.tracee.inject import Call

LAST = 15
_NOWHERE = linux.TASK_SIZE - linux.PAGE_SIZE  # the last page, which the OS kernel never lets anybody map


@cache
def exist() -> bool:
    """Whether this processor and OS kernel have them."""
    try:
        libc.syscall("pkey_free", libc.syscall("pkey_alloc", 0, 0))
    except OSError:
        return False
    return True


def _question(key: int) -> Call:
    """Asks whether a key is allocated, and changes nothing: it is looked at before the address, where nothing is."""
    return Call("pkey_mprotect", _NOWHERE, linux.PAGE_SIZE, 0, key)


def ask() -> Asking[list[int]]:
    """The keys that a process has allocated."""
    found = []
    for key in range(1, LAST + 1) if exist() else ():
        try:
            yield _question(key)
        except OSError as error:
            found += [key] if _is_allocated(error) else []
    return found


def look(call: Callable[..., int]) -> list[int]:
    """The same where one call can be made after the other."""
    found = []
    for key in range(1, LAST + 1) if exist() else ():
        name, arguments = _question(key)
        try:
            call(name, *arguments)
        except OSError as error:
            found += [key] if _is_allocated(error) else []
    return found


def _is_allocated(error: OSError) -> bool:
    return error.errno == errno.ENOMEM  # nothing is mapped there; EINVAL is said of a key that is not there


def calls(entry: ProcessEntry) -> list[Call]:
    """Allocate the keys under their numbers, and give the mappings that have one their keys and final protections.

    Memory that may only be executed has a key of the OS kernel's own, which it takes when the first such is made.
    """
    keyed = [vma for vma in entry.vmas if vma.pkey]
    own = {vma.pkey for vma in keyed if vma.pkey not in entry.pkeys and vma.prot == linux.PROT_EXEC}
    made: list[Call] = []
    spare: list[Call] = []  # a mapping keeps its key when that is freed
    for key in range(1, max([*entry.pkeys, *(vma.pkey for vma in keyed)], default=0) + 1):
        if key not in own:
            made.append(Call("pkey_alloc", 0, 0))
            spare += [Call("pkey_free", key)] if key not in entry.pkeys else []
        for vma in keyed:
            if vma.pkey == key:
                what = (vma.start, vma.end - vma.start, vma.prot)
                made.append(Call("mprotect", *what) if key in own else Call("pkey_mprotect", *what, key))
    return made + spare
