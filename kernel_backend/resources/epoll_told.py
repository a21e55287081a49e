"""What an epoll has told already: readiness that an edge-triggered item (EPOLLET) does not tell twice.

An item that is added anew tells of whatever is ready. Where nothing waited to be told at the dump, that is taken out
again when all stands: what was ready then is known, and what became ready since (a timer) is put back.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence

from kernel_backend.host import fds
from kernel_backend.image.descriptions import Epoll, EpollItem, SignalFd
from kernel_backend.resources.descriptors import CaptureTables, Look, RebuildTables
from kernel_backend.resources.placing_fds import dup_beside, in_own_table

_ALWAYS = select.EPOLLERR | select.EPOLLHUP


def capture(look: Look, entry: Epoll, tables: CaptureTables) -> None:
    """Note what the items have told."""
    if not any(item.events & select.EPOLLET for item in entry.items) or _ready(look.own, select.POLLIN):
        return
    entry.quiet = True
    for item in entry.items:
        watched = tables.looks[item.description]
        if item.events & select.EPOLLET and not isinstance(tables.descriptions[item.description], SignalFd):
            item.told = _ready(watched.own, item.events & 0xFFFF | _ALWAYS)


def _ready(fd: int, events: int) -> int:
    asked = select.poll()
    asked.register(fd, events)
    return next((found for _, found in asked.poll(0)), 0)


def quieten(tables: RebuildTables) -> None:
    """When everything stands and nothing runs yet: no epoll tells again what it had told."""
    for index, entry in enumerate(tables.descriptions):
        if isinstance(entry, Epoll) and entry.quiet and index in tables.own:
            _quieten(tables, index, entry.items)


def _quieten(tables: RebuildTables, index: int, items: Sequence[EpollItem]) -> None:
    new: list[EpollItem] = []
    for events, data in fds.epoll_ready(tables.own[index], len(items)):
        meant = [item for item in items if item.data == data]
        if any(events & ~item.told for item in meant):
            new += meant
    again = [item for item in new if item.events & (select.EPOLLET | select.EPOLLONESHOT)]
    if again:
        in_own_table(lambda: _tell_again(tables, index, again))


def _tell_again(tables: RebuildTables, index: int, items: Sequence[EpollItem]) -> None:
    numbers = {item.fd for item in items}
    ours = {i: dup_beside(tables.own[i], numbers) for i in {item.description for item in items}}
    epoll = dup_beside(tables.own[index], numbers)
    for item in items:
        os.dup2(ours[item.description], item.fd, inheritable=False)
        if not item.events & select.EPOLLEXCLUSIVE:  # which may not be changed
            fds.epoll_modify(epoll, item.fd, item.events, item.data)
            continue
        fds.epoll_remove(epoll, item.fd)
        fds.epoll_add(epoll, item.fd, item.events, item.data)
