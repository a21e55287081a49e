"""What no mapping shows of an object in memory that nobody has open any more: a memfd or a deleted file.

Another mapping may show it later: mremap(2) lets one grow over it. Who may not open it (that takes a capability, by
/proc/PID/map_files) sees it nevertheless through the process that maps it: mremap with an old size of 0 makes a second
mapping of the same object, which remap_file_pages(2) moves to its begin. Where it ends tells which pages can be read;
a hole that is read for this becomes a page of zeros.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel_backend.abi.linux import PAGE_SIZE
from kernel_backend.host import libc
from kernel_backend.tracee.inject import Borrowed
from kernel_backend.tracee.process import Process

_Span = tuple[int, int, int, Process]  # offset in the object, address, size, process
_MREMAP_MAYMOVE = 1
_MOST_PAGES = 1 << 34  # 64 TiB


def read_page(process: Process, address: int) -> bytes:
    """A page of a process, whatever its protection. Raises OSError when there is none."""
    try:
        return libc.vm_read(process.view, address, PAGE_SIZE)
    except OSError:
        with Path(f"/proc/{process.view}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(PAGE_SIZE)


@contextmanager
def whole(spans: list[_Span]) -> Iterator[list[_Span] | None]:
    """A span that shows all of the object, for the moment; None where the process cannot have one (mseal, limits)."""
    process, made = spans[0][3], None
    try:
        with contextlib.suppress(OSError), process.borrow() as borrowed:
            made = _all_of(borrowed, spans[0], max(offset + size for offset, _, size, _ in spans))
        yield None if made is None else [made]
    finally:
        if made is not None and made[2]:
            with process.borrow() as borrowed:
                borrowed.call("munmap", made[1], made[2])


def _all_of(borrowed: Borrowed, span: _Span, shown_bytes: int) -> _Span:
    process, at = span[3], _second(borrowed, span[1], PAGE_SIZE)

    def there(page: int) -> bool:
        borrowed.call("remap_file_pages", at, PAGE_SIZE, 0, page, 0)
        return _readable(process, at)

    try:
        size = _pages(there, shown_bytes // PAGE_SIZE) * PAGE_SIZE
    finally:
        borrowed.call("munmap", at, PAGE_SIZE)
    if not size:
        return 0, 0, 0, process
    at = _second(borrowed, span[1], size)
    try:
        borrowed.call("remap_file_pages", at, size, 0, 0, 0)
    except OSError:
        borrowed.call("munmap", at, size)
        raise
    return 0, at, size, process


def _second(borrowed: Borrowed, address: int, size: int) -> int:
    return borrowed.call("mremap", address, 0, size, _MREMAP_MAYMOVE, 0)


def _readable(process: Process, address: int) -> bool:
    try:
        return len(read_page(process, address)) == PAGE_SIZE
    except OSError:
        return False


def _pages(there: Callable[[int], bool], shown: int) -> int:
    """How many pages the object has. `shown`: up to where mappings reach, which may be beyond its end."""
    low, high = 0, shown  # there are at least `low`, and fewer than `high` + 1
    step = 1
    while high < _MOST_PAGES and there(high):
        low, high, step = high + 1, high + step, step * 2
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if there(middle) else (low, middle)
    return low
