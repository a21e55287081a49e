"""The memory of a present that is replaced: given back beside the restore, by a process that nobody waits for.

execve(2) frees the old memory before it returns. That takes 0.1 s for each GiB in pages of 4 KiB, and 0.4 s for one
that was mapped from an image which the store has removed meanwhile: its last user is the one who frees the file's
blocks and its pages in the cache. The user would wait for it.

So there is an heir: a process with the same memory (clone(2), CLONE_VM), made before the execve and killed right after
it. It runs nothing, has no descriptors, and is no child of the present's but an orphan, made by one that ended at once:
the restored program never learns of it, and who adopts orphans there takes its remains, as a helper's.

What is inherited is only what no program can miss: what is shared, comes from files or lies in the pool of huge pages
is unmapped before, because somebody could see that it still has a user. The heir is dying while the new memory is
filled, so both are there for a moment: where there is no room for both, or where the OS kernel counts what is promised
and not what is used, nobody inherits.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kernel_backend import family, kinship
from kernel_backend.abi import linux
from kernel_backend.host import proc, room
from kernel_backend.resources import memory, pages
from kernel_backend.tracee import stub
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.thread import Thread

if TYPE_CHECKING:
    from kernel_backend.rebuild import Rebuild

LEAST_BYTES = 64 << 20  # mapped; less is freed in a few milliseconds
_LEAST_MAPPING_BYTES = 1 << 20
_FROM_IMAGE = re.compile(r".*/pages-\d+\.img( \(deleted\))?", re.DOTALL)  # pages.pages_name
_STRICT = "2"  # proc_sys_vm(5), overcommit_memory


@contextlib.contextmanager
def inherited(rebuild: Rebuild, shop: Workshop) -> Iterator[None]:
    """While the block runs, the memory of a present has a second owner, as far as is wise; `shop` is in it."""
    heir = _heir(rebuild, shop)
    try:
        yield
    finally:
        if heir is not None:
            _end(heir)


def _heir(rebuild: Rebuild, shop: Workshop) -> Thread | None:
    if shop.thread.tgid in rebuild.born:
        return None  # a stub of our making, not the present
    large = [mapping for mapping in proc.maps(shop.thread.tgid) if _is_large(mapping)]
    if sum(mapping.size for mapping in large) < LEAST_BYTES or not _room_for_both(rebuild):
        return None
    stub.unregister_rseq(shop)
    _unmap_all_but(shop, large)
    shop.call("prctl", linux.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)  # or its orphans would be its own children
    try:
        middle = _share(shop)
    except OSError:
        return None  # no more processes are allowed
    try:
        heir = _share(middle)
        if rebuild.set_tids and proc.inner_id(heir.thread.tgid) in kinship.all_tids(rebuild.inventory):
            family.end_helper(heir, middle)  # its number is needed at once, and who adopts orphans may be slow
            return None
        return heir.thread
    except OSError:
        return None
    finally:
        family.end_helper(middle, shop)


def _is_large(mapping: proc.Mapping) -> bool:
    ordinary = mapping.path in ("", "[heap]") or _FROM_IMAGE.fullmatch(mapping.path) is not None
    return ordinary and not mapping.shared and mapping.size >= _LEAST_MAPPING_BYTES


def _room_for_both(rebuild: Rebuild) -> bool:
    needed = sum(pages.total_bytes(entry.pagemap) for entry in rebuild.inventory.processes)
    strict = Path("/proc/sys/vm/overcommit_memory").read_text().strip() == _STRICT
    return needed <= room.available_bytes() and not strict


def _unmap_all_but(shop: Workshop, kept: list[proc.Mapping]) -> None:
    shop.run(memory.clear_calls(shop, [(mapping.start, mapping.end) for mapping in kept]))


def _share(shop: Workshop) -> Workshop:
    """A child with the same memory, the workshop in it included: only one of both may work at a time."""
    shop.call("clone", linux.CLONE_VM, 0, 0, 0, 0)
    born = shop.new_tids.pop()
    thread = Thread(born, born)
    thread.wait()
    return Workshop(thread, shop.address, shop.size)


def _end(heir: Thread) -> None:
    """Kill it; a thread of ours takes its remains, as its tracer."""
    with contextlib.suppress(OSError):
        os.kill(heir.tgid, signal.SIGKILL)
        threading.Thread(target=stub.collect, args=(heir.tgid,), name="heir", daemon=True).start()
