"""System V message queues and semaphores (svipc(7)).

Like a file, a queue or a set is no process's own: it stays when its users end. Nor has a process a descriptor of it.
But the OS kernel notes who sent and received last, and who operated on each semaphore last: what a process of the tree
has used so is the tree's, unless a living process outside has used it too; then it stays as it is, with a warning.

A program knows its queue by the identifier, so a restore looks for that, and makes what is gone again under the same
one (/proc/sys/kernel/msg_next_id, sem_next_id: CAP_CHECKPOINT_RESTORE); where it may not, it refuses before anything is
touched. What is there gets the image's messages and values, last of all, by calls of the new processes themselves: so
it needs no more rights than they have, and their numbers stand as those of the last users.

What SEM_UNDO promises is told by nobody. But a thread may leave its promises early (unshare(2), CLONE_SYSVSEM), which
fulfils them, and the difference shows. That is done only to processes that are killed next; of others a warning says
that their promises are not in the image.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported
from kernel_backend.host import sysvipc
from kernel_backend.host.guardian import Guardian
from kernel_backend.image.entries import SysvMessage, SysvQueueEntry, SysvSemaphore, SysvSetEntry, SysvUndo
from kernel_backend.resources import threads, visits
from kernel_backend.tracee.chorus import Asking, Chorus
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.process import Process

# --- capture ----------------------------------------------------------------------------------------------------------


def capture_queues(pids: Iterable[int], warnings: list[str], *, every: bool = False) -> list[SysvQueueEntry]:
    """The message queues that these processes use, with their messages; or all that there are."""
    ours = set(pids)
    used = [queue for queue in sysvipc.queues().values() if every or ours & {queue.sender, queue.receiver}]
    return [_queue(queue, ours, warnings) for queue in used]


def _queue(queue: sysvipc.Queue, ours: set[int], warnings: list[str]) -> SysvQueueEntry:
    entry = SysvQueueEntry(
        id=queue.id, key=queue.key, mode=queue.mode, uid=queue.uid, gid=queue.gid, most_bytes=0,
        sender=queue.sender if queue.sender in ours else 0, receiver=queue.receiver if queue.receiver in ours else 0,
    )  # fmt: skip
    others = [pid for pid in (queue.sender, queue.receiver) if pid not in ours and _is_user(pid)]
    if others:
        warnings.append(_left_out(f"message queue {queue.id}", f"process {others[0]} uses it too"))
        return entry
    try:
        entry.most_bytes = sysvipc.most_bytes(queue.id)
        entry.messages = _messages(queue)
    except OSError as error:
        warnings.append(_left_out(f"message queue {queue.id}", f"it cannot be read: {error.strerror}"))
        return entry
    entry.complete = True
    return entry


def _left_out(what: str, why: str) -> str:
    return f"System V {what} stays as it is, an image does not hold it: {why}"


def _messages(queue: sysvipc.Queue) -> list[SysvMessage]:
    return [SysvMessage(*sysvipc.peek(queue.id, position, queue.bytes)) for position in range(queue.messages)]


def capture_sets(pids: Iterable[int], warnings: list[str], *, ending: bool, every: bool = False) -> list[SysvSetEntry]:
    """The semaphore sets that these processes use, or all, with their values; without what SEM_UNDO promises."""
    ours = set(pids)
    found = []
    for present in sysvipc.sets().values():
        try:
            users = sysvipc.last_users(present)
        except OSError:
            continue  # of another user, and not for us to read: then our processes cannot use it either
        if ours.isdisjoint(users) and not every:
            continue
        found.append(_set(present, users, ours, warnings))
        if not ending:
            warnings.append(
                f"what processes promised to undo at System V semaphores {present.id} (SEM_UNDO) can be told only of "
                "processes that are killed: a restored one undoes nothing of it"
            )
    return found


def _set(present: sysvipc.Set, users: list[int], ours: set[int], warnings: list[str]) -> SysvSetEntry:
    entry = SysvSetEntry(
        id=present.id, key=present.key, mode=present.mode, uid=present.uid, gid=present.gid,
        semaphores=[
            SysvSemaphore(value, pid if pid in ours else 0)
            for value, pid in zip(sysvipc.values(present), users, strict=True)
        ],
    )  # fmt: skip
    others = [pid for pid in users if pid not in ours and _is_user(pid)]
    if others:
        warnings.append(_left_out(f"semaphores {present.id}", f"process {others[0]} uses them too"))
    entry.complete = not others
    return entry


def _is_user(pid: int) -> bool:
    """Whether a process that was noted as a user lives, and is not one elsewhere that has got its number since."""
    try:
        return sysvipc.is_alive(pid) and visits.identity("ipc", pid) == visits.here("ipc")
    except OSError:
        return True  # another user's, which we may not look at


def take_undo(entries: Sequence[SysvSetEntry], processes: Mapping[int, Process]) -> None:
    """Complete the entries by what processes promised to undo, which happens: they must be killed next."""
    if not entries:
        return
    before = {entry.id: _values(entry) for entry in entries}
    for pid, process in processes.items():
        members = threads.borrow_all(process)
        with Chorus(members) as chorus:
            chorus.run({member: _ask_to_undo() for member in members})
        for entry in entries:
            now = _values(entry)
            changes = [(index, new - old) for index, (new, old) in enumerate(zip(now, before[entry.id], strict=True))]
            entry.undo = [*entry.undo, *(SysvUndo(pid, index, change) for index, change in changes if change)]
            before[entry.id] = now


def _ask_to_undo() -> Asking[bool]:
    yield Call("unshare", linux.CLONE_SYSVSEM)
    return True


def _values(entry: SysvSetEntry) -> list[int]:
    present = sysvipc.sets().get(entry.id)
    return sysvipc.values(present) if present else [semaphore.value for semaphore in entry.semaphores]


# --- coming back ------------------------------------------------------------------------------------------------------


class _Entry(Protocol):
    id: int
    key: int
    mode: int
    uid: int
    gid: int


class Objects(msgspec.Struct):
    """The queues and sets of a restore under way."""

    warnings: list[str]
    guardian: Guardian
    may_give_to: Callable[[int], bool]  # whether what we make may be made that user's
    _made: list[tuple[str, int]] = []

    def bring_back(self, queues: Sequence[SysvQueueEntry], sets: Sequence[SysvSetEntry]) -> None:
        """Find every one, or make it anew. Raises HostUnsupported."""
        living_queues, living_sets = sysvipc.queues(), sysvipc.sets()
        for queue in queues:
            if not _is_there("message queue", queue, living_queues.get(queue.id)):
                self._make("msg", queue, f"message queue {queue.id}", most=queue.most_bytes)
        for entry in sets:
            living = living_sets.get(entry.id)
            if living and living.semaphores != len(entry.semaphores):
                raise _is_another("semaphores", entry.id)
            if not _is_there("semaphores", entry, living):
                self._make("sem", entry, f"semaphores {entry.id}", count=len(entry.semaphores))

    def _make(self, sort: str, entry: _Entry, what: str, *, count: int = 0, most: int = 0) -> None:
        try:
            number = sysvipc.create(sort, entry.id, entry.key, entry.mode, count)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            raise _is_another(what.split()[0], entry.id) from error
        if number != entry.id:
            sysvipc.remove(sort, number)
            raise HostUnsupported(
                f"System V {what}: it is gone, and this user may not make it again under the same identifier",
                hint="restore as root (CAP_CHECKPOINT_RESTORE)",
            )
        self._made.append((sort, number))
        self.guardian.tell("ipc", sort, number)
        uid, gid = (entry.uid, entry.gid) if self.may_give_to(entry.uid) else (-1, -1)
        if uid >= 0:
            sysvipc.set_owner(sort, number, uid, gid, entry.mode, most)

    def refill(
        self, queues: Sequence[SysvQueueEntry], sets: Sequence[SysvSetEntry], shops: Mapping[int, Workshop], root: int
    ) -> None:
        """Give them the image's messages and values; `shops` by image pid."""
        ours = {shop.thread.tgid for shop in shops.values()}
        for queue in queues:
            living = sysvipc.queues().get(queue.id)
            what = f"message queue {queue.id}"
            if living and queue.complete and not self._in_use(what, [living.sender, living.receiver], ours):
                with self._told(what):
                    _refill_queue(queue, living, shops, root)
        for entry in sets:
            present = sysvipc.sets().get(entry.id)
            what = f"semaphores {entry.id}"
            if present and entry.complete and not self._in_use(what, sysvipc.last_users(present), ours):
                with self._told(what):
                    _refill_set(entry, shops, root)

    def _in_use(self, what: str, users: list[int], ours: set[int]) -> bool:
        others = [pid for pid in users if pid not in ours and sysvipc.is_alive(pid)]
        if others:
            self.warnings.append(f"System V {what}: not as in the image, because process {others[0]} uses it now")
        return bool(others)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.warnings.append(f"System V {what} may not be as it was: {error.strerror}")

    def keep(self) -> None:
        """The processes run: what was made stays."""
        self._made.clear()

    def discard(self) -> None:
        """Nothing of ours stays when a restore failed."""
        while self._made:
            sysvipc.remove(*self._made.pop())


def _is_there(what: str, entry: _Entry, living: sysvipc.Queue | sysvipc.Set | None) -> bool:
    if living and living.key != entry.key:
        raise _is_another(what, entry.id)
    return living is not None


def _is_another(what: str, number: int) -> HostUnsupported:
    return HostUnsupported(
        f"the key or the identifier {number} of System V {what} is in use for another one now",
        hint="remove that one (ipcrm), then restart",
    )


def _refill_queue(entry: SysvQueueEntry, living: sysvipc.Queue, shops: Mapping[int, Workshop], root: int) -> None:
    """Take out what is in the queue and send the image's messages, each by who did it last."""
    shop = shops.get(entry.receiver, shops[root])
    room = shop.data_bytes // 2
    take = Call("msgrcv", entry.id, shop.data, room, 0, sysvipc.IPC_NOWAIT | sysvipc.MSG_NOERROR)
    shop.run([take] * living.messages)
    if entry.receiver in shops and not living.messages:  # for its number to stand there
        shop.put(struct.pack("<q", 1))
        shop.run([Call("msgsnd", entry.id, shop.data, 0, sysvipc.IPC_NOWAIT), take])
    shop = shops.get(entry.sender, shops[root])
    for message in entry.messages:
        if 8 + len(message.data) > shop.data_bytes:
            raise OSError(errno.E2BIG, "a message is too large")
        shop.put(struct.pack("<q", message.type) + message.data)
        shop.call("msgsnd", entry.id, shop.data, len(message.data), sysvipc.IPC_NOWAIT)


def _refill_set(entry: SysvSetEntry, shops: Mapping[int, Workshop], root: int) -> None:
    """Values first: setting one takes all promises about it away. Then promises, which leave the values as they are."""
    for index, semaphore in enumerate(entry.semaphores):
        shops.get(semaphore.pid, shops[root]).call("semctl", entry.id, index, sysvipc.SETVAL, semaphore.value)
    for undo in entry.undo:
        if undo.pid not in shops or undo.semaphore >= len(entry.semaphores):
            continue
        amount, first, second = abs(undo.adjustment), 0, sysvipc.SEM_UNDO
        if undo.adjustment < 0:
            first, second = second, first
        _operate(shops[undo.pid], entry.id, undo.semaphore, (amount, first), (-amount, second))
        last = entry.semaphores[undo.semaphore].pid
        if last != undo.pid and last in shops:  # for its number to stand there
            _operate(shops[last], entry.id, undo.semaphore, (1, 0), (-1, 0))


def _operate(shop: Workshop, number: int, index: int, *steps: tuple[int, int]) -> None:
    """One semop(2): (amount, flags) of each step at one semaphore."""
    packed = b"".join(sysvipc.SEMBUF.pack(index, by, flags | sysvipc.IPC_NOWAIT) for by, flags in steps)
    shop.call("semop", number, shop.put(packed), len(steps))
