"""A pid namespace of one's own: how processes get their old pids back where they could not otherwise.

Without privileges clone3(2) lets nobody choose a pid, except inside a pid namespace that belongs to a user namespace of
one's own (user_namespaces(7), pid_namespaces(7)); and with privileges a pid may simply be in use. Inside such a
namespace the restored tree sees exactly the pids of its image; from outside it has others.

The namespace needs a first process, which adopts orphans and ends with the tree. Ours is a few dozen bytes of machine
code in one page: it waits for children, remembers how the root of the tree ended, and when no child is left exits the
same way (128 + signal where it was a signal).
"""

from __future__ import annotations

import os
from pathlib import Path

from kernel_backend.abi import arch, linux
from kernel_backend.abi.x86_64 import UserRegs
from kernel_backend.host import libc, proc
from kernel_backend.host.features import effective_capabilities
from kernel_backend.tracee import stub
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.thread import Thread

_INIT_BYTES = 1 << 16
_NAME = b"nbcr-init\0"


def spawn_init() -> Thread:
    """The first process of a fresh pid namespace, stopped. Raises OSError where the OS kernel does not permit it."""
    flags = linux.CLONE_NEWPID | linux.CLONE_NEWNS
    if "CAP_SYS_ADMIN" not in effective_capabilities():  # root may be without it
        flags |= linux.CLONE_NEWUSER
    pid = stub.fork(flags)
    try:
        if flags & linux.CLONE_NEWUSER:
            _map_ids(pid)
        return stub.hold(pid)
    except BaseException:
        stub.end_child(pid)
        raise


def _map_ids(pid: int) -> None:
    """Inside, we are who we are outside."""
    Path(f"/proc/{pid}/setgroups").write_text("deny")
    Path(f"/proc/{pid}/uid_map").write_text(f"{os.geteuid()} {os.geteuid()} 1")
    Path(f"/proc/{pid}/gid_map").write_text(f"{os.getegid()} {os.getegid()} 1")


def first_of_ours(pid: int) -> int:
    """The first process of the namespace that a restore has made and that a process lives in; 0: it lives in none."""
    if os.stat(f"/proc/{pid}/ns/pid").st_ino == os.stat("/proc/self/ns/pid").st_ino:
        return 0
    while True:  # up to the namespace's first process
        status = proc.status(pid)
        numbers = status["NSpid"].split()
        if numbers[-1] == "1" or len(numbers) < 2:
            return pid if status["Name"] == _NAME.rstrip(b"\0").decode() else 0
        pid = int(status["PPid"])


def furnish(init: Thread) -> Workshop:
    """Close what it inherited, give the namespace a /proc of its own (where permitted), open a workshop in it."""
    gadget = stub.find_syscall(init.tgid)
    stub.step_call(init, gadget, "close_range", 0, 0xFFFFFFFF, 0)
    shop = stub.open_workshop(init, 0, _INIT_BYTES, fixed=False)
    at = shop.put(b"proc\0\0\0\0/proc\0")
    try:
        shop.call("mount", at, at + 8, at, 0, 0)
    except OSError:
        pass  # /proc is covered in parts (a container): the tree sees the outer one, which knows other pids
    shop.call("prctl", linux.PR_SET_NAME, shop.put(_NAME))
    if os.geteuid() != 0:
        _keep_capability_over_exec(shop)
    return shop


def _keep_capability_over_exec(shop: Workshop) -> None:
    """For stubs that run the image's program: to choose tids, roots, bounding sets. The rebuild drops it."""
    kept = (8, 18, 40)  # CAP_SETPCAP, CAP_SYS_CHROOT, CAP_CHECKPOINT_RESTORE
    bits = sum(1 << number for number in kept)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    full = 0xFFFFFFFF
    header = (0x20080522).to_bytes(4, "little") + bytes(4)
    data = b"".join(word.to_bytes(4, "little") for word in (full, full, low, 0x1FF, 0x1FF, high))
    at = shop.put(header + data)
    shop.run(
        [
            Call("capset", at, at + 8),
            *(Call("prctl", linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_RAISE, number, 0, 0) for number in kept),
        ]
    )


def make_wait(shop: Workshop, root_pid: int) -> None:
    """Turn the first process into the waiting loop for `root_pid` (its number inside); it is still to be let go."""
    init = shop.thread
    page = shop.address
    rest = linux.TASK_SIZE - page - _INIT_BYTES
    stub.unregister_rseq(shop)
    shop.call("prctl", linux.PR_SET_PDEATHSIG, 0)
    # From the page itself: unmapping the rest does not take the code away.
    shop.run([Call("munmap", 0, page), Call("munmap", page + _INIT_BYTES, rest)])
    libc.vm_write(init.tgid, page, arch.WAIT_LOOP)
    regs = UserRegs.from_buffer_copy(init.get_regs())
    regs.run(page, root_pid, 0, page + 4096)
    init.set_regs(regs)
