"""On which nodes of a machine memory is to lie: set_mempolicy(2) of each thread, mbind(2) of each mapping.

A fork copies the policies of mappings, so they are asked for in the twin; only those of mappings that a fork leaves out
need the original. Whoever never set one is asked one question and answers with the default. Which node a range prefers
among those of its policy (set_mempolicy_home_node(2)) the OS kernel does not tell.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from kernel_backend.abi import linux
from kernel_backend.host import libc
from kernel_backend.image.entries import MemoryPolicy, ProcessEntry, ThreadEntry, VmaEntry
from kernel_backend.tracee.chorus import Asking
from kernel_backend.tracee.inject import Borrowed, Call, Workshop
from kernel_backend.tracee.thread import Thread

_DEFAULT = 0
_OF_ADDRESS = 2  # MPOL_F_ADDR
_NODE_BYTES = 128
_NODE_BITS = _NODE_BYTES * 8 + 1  # the OS kernel counts one less
MODE_BYTES = 8
_OWN_KINDS = ("vdso", "vvar")

_Ask = Callable[..., int]  # makes a call: its name, its arguments


@cache
def _is_known() -> bool:
    """Whether this OS kernel knows of nodes."""
    try:
        libc.syscall("get_mempolicy", 0, 0, 0, 0, 0)
    except OSError:
        return False
    return True


def first_question(at: int) -> list[Call]:
    """The call that tells, at `at`, whether a thread has a policy, for `ask`; none where nobody has one."""
    return [Call("get_mempolicy", at, 0, 0, 0, 0)] if _is_known() else []


def ask(borrowed: Borrowed, first_answer: bytes) -> Asking[MemoryPolicy | None]:
    """The policy of a thread; None: the default."""
    if not _is_known() or not _mode(first_answer):
        return None
    yield Call("get_mempolicy", borrowed.data, borrowed.data + MODE_BYTES, _NODE_BITS, 0, 0)
    return _policy(borrowed.get(MODE_BYTES + _NODE_BYTES))


def _mode(raw: bytes) -> int:
    return int(struct.unpack_from("<I", raw)[0])


def _policy(raw: bytes) -> MemoryPolicy:
    return MemoryPolicy(mode=_mode(raw), nodes=raw[MODE_BYTES : MODE_BYTES + _NODE_BYTES].rstrip(b"\0"))


def _may_have(vma: VmaEntry) -> bool:
    return vma.kind not in _OWN_KINDS


def left_out(vma: VmaEntry) -> bool:
    """Whether a fork has nothing of it."""
    return linux.MADV_DONTFORK in vma.advice


def read_in_twin(vmas: Sequence[VmaEntry], shop: Workshop) -> None:
    """Complete the entries of the mappings that a twin has."""
    if not _is_known():
        return
    asked = [vma for vma in vmas if _may_have(vma) and not left_out(vma)]
    for first in range(0, len(asked), Workshop.TABLE_ROWS):
        part = asked[first : first + Workshop.TABLE_ROWS]
        shop.run(
            Call("get_mempolicy", shop.data + MODE_BYTES * i, 0, 0, vma.start, _OF_ADDRESS)
            for i, vma in enumerate(part)
        )
        modes = shop.get(MODE_BYTES * len(part))
        bound = [vma for i, vma in enumerate(part) if _mode(modes[MODE_BYTES * i :])]
        for vma in bound:
            vma.numa = _of_mapping(vma, shop.call, shop.data, shop.get)


def read_in_place(vmas: Iterable[VmaEntry], borrowed: Borrowed) -> None:
    """The same, one by one, of mappings of a stopped process."""
    for vma in vmas:
        if _is_known() and _may_have(vma):
            vma.numa = _of_mapping(vma, borrowed.call, borrowed.data, borrowed.get)


def _of_mapping(vma: VmaEntry, call: _Ask, data: int, get: Callable[[int], bytes]) -> MemoryPolicy | None:
    call("get_mempolicy", data, data + MODE_BYTES, _NODE_BITS, vma.start, _OF_ADDRESS)
    found = _policy(get(MODE_BYTES + _NODE_BYTES))
    return found if found.mode != _DEFAULT else None


# --- coming back ------------------------------------------------------------------------------------------------------


def bind(shop: Workshop, entry: ProcessEntry) -> list[str]:
    """Policies of the leader, which other threads inherit, and of mappings that have no contents yet; warnings."""
    warnings = _set_of_thread(shop, shop.thread, entry.threads[0])
    refused = ""
    for vma in entry.vmas:
        if vma.numa is not None:
            try:
                nodes = shop.put(_padded(vma.numa))
                shop.call("mbind", vma.start, vma.end - vma.start, vma.numa.mode, nodes, _NODE_BITS, 0)
            except OSError as error:
                refused = error.strerror or "refused"
    if refused:
        warnings.append(f"memory of process {entry.pid} is not on the nodes that it was bound to (mbind): {refused}")
    return warnings


def bind_threads(shop: Workshop, entry: ProcessEntry, threads: dict[int, Thread]) -> list[str]:
    """Policies of threads that have another than their leader; warnings."""
    leader, warnings = entry.threads[0], list[str]()
    for thread in entry.threads[1:]:
        if thread.numa != leader.numa and not thread.exited:
            warnings += _set_of_thread(shop, threads[thread.tid], thread)
    return warnings


def _set_of_thread(shop: Workshop, thread: Thread, entry: ThreadEntry) -> list[str]:
    if not _is_known():
        return [] if entry.numa is None else [f"thread {entry.tid} has lost its NUMA policy: this host has no nodes"]
    wanted = entry.numa or MemoryPolicy(mode=_DEFAULT)
    nodes = shop.put(_padded(wanted)) if entry.numa else 0
    try:
        shop.run([Call("set_mempolicy", wanted.mode, nodes, _NODE_BITS if nodes else 0)], thread=thread)
    except OSError as error:
        return [f"the NUMA policy of thread {entry.tid} was not restored (set_mempolicy): {error.strerror}"]
    return []


def _padded(policy: MemoryPolicy) -> bytes:
    return policy.nodes.ljust(_NODE_BYTES, b"\0")
