"""The pickler.

Cloudpickle's, with functions bound to the living namespace and every kind of object sent to its room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
from blake3 import blake3

from nbcr.objects.blobs import OUT_OF_BAND_BYTES, TooLarge
from nbcr.objects.board import Late, Orphaned
from nbcr.objects.kinds.base import CannotSave
from nbcr.objects.kinds.table import KindTable
from nbcr.objects.results import Remarks
from nbcr.objects.standing import COUNT, pickler_memo, standing

PROTOCOL = 5


class NotSurveyed(Exception):
    """Something can only be pickled when it is known what shares it."""


@dataclass
class Context:
    """What all units of one snapshot have in common while they are pickled."""

    namespace: dict[str, Any]
    forked: bool = False  # what we do to objects, descriptors included, is seen by nobody else
    offsets: dict[int, int] = field(default_factory=dict)  # of open files, at the moment of the fork
    locked: frozenset[int] = frozenset()  # descriptors of those that this process has locked
    in_main: bool = True  # what is local to a thread is the session's
    files: dict[int, Any] = field(default_factory=dict)  # reductions of open files, by id
    kinds: KindTable = field(default_factory=KindTable)
    # Ids of what holds the memory of more than one array; None: nobody has looked yet.
    shared_memory: set[int] | None = field(default_factory=set)
    owners: dict[int, Any] = field(default_factory=dict)  # of shared memory at addresses (negative): arrays
    standing: list[Any] = field(default_factory=list)  # see `standing`; left out: those of this very moment
    memo: dict[int, tuple[int, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.standing = self.standing or standing(self.namespace)
        self.memo = pickler_memo(self.standing)

    def is_shared(self, owner: Any) -> bool:
        """Whether several objects look at the memory that `owner` holds. Raises NotSurveyed."""
        if self.shared_memory is None:
            raise NotSurveyed
        return id(owner) in self.shared_memory

    def is_shared_at(self, address: int) -> bool:
        """The same for memory at an address."""
        if self.shared_memory is None:
            raise NotSurveyed
        return -address in self.shared_memory


class UnitPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles one unit.

    `packages` and `remarks` tell afterwards what it refers to and what will not be quite as it was.
    """

    def __init__(self, file: Any, context: Context, keep_buffer: Callable[[memoryview], None] | None = None) -> None:
        super().__init__(file, protocol=PROTOCOL, buffer_callback=_buffers(keep_buffer))
        self.memo = context.memo
        self.context = context
        self.packages: set[str] = set()
        self.remarks = Remarks()
        self.passing: set[int] = set()  # locks that are held in passing: no remark is due
        self.stand_ins: dict[Any, Any] = {}  # what is pickled in place of something else
        self.probing = False  # whether it only matters which objects were pickled before
        self._kind_of = context.kinds.reducer_of

    def dump(self, obj: Any) -> None:
        """Pickle `obj`. Whatever its code raises is an Exception: an exit that it asks for is not ours to take."""
        try:
            super().dump(obj)
        except (Exception, Late, Orphaned):
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not self.context.forked:  # the user's own, it may be
                raise
            raise CannotSave(f"it raises {type(error).__name__} when it is pickled") from error

    def reducer_override(self, obj: Any) -> Any:
        """Asked by pickle for everything but the plain built-in containers and values."""
        if self.probing:
            return NotImplemented if obj is _nothing else (_nothing, ())
        kind = self._kind_of(type(obj))
        return NotImplemented if kind is None else kind.reduce(obj, self)

    def note_package(self, module: str) -> None:
        """Remember that loading will import `module`."""
        self.packages.add(module.partition(".")[0])


def _buffers(keep: Callable[[memoryview], None] | None) -> Callable[[Any], bool]:
    """What tells a pickler whether a buffer stays in the pickle.

    It does not know the pickler: in a cycle, that would keep the user's objects when they are deleted.
    """

    def stays(buffer: Any) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND_BYTES:
            return True
        if keep is not None:
            keep(raw)
        return False

    return stays


def _nothing() -> None:
    """What a pickler that is only probed writes in place of an object."""


class Measure:
    """Takes a pickle that nobody wants to read: to find out how large it is and whether it is another one's equal."""

    def __init__(self, limit: int | None = None) -> None:
        self.size = 0
        self._hash = blake3()
        self._limit = limit

    def write(self, data: bytes) -> int:
        """Count and digest `data`."""
        self.grow(len(data))
        self._hash.update(data)
        return len(data)

    def grow(self, size: int) -> None:
        """Count `size` more bytes. Raises TooLarge."""
        self.size += size
        if self._limit is not None and self.size > self._limit:
            raise TooLarge

    def digest(self) -> bytes:
        """Equal digests are equal pickles."""
        return self._hash.digest()


class NullFile:
    """Takes a pickle that nobody wants to read: to find out whether it can be made."""

    def write(self, data: bytes) -> int:
        """Forget `data`."""
        return len(data)


def failure_of(obj: Any, context: Context, known: Sequence[Any] = ()) -> BaseException | None:
    """Why `obj` cannot be pickled beside what is `known`; None: it can."""
    pickler = UnitPickler(NullFile(), context)
    if known:
        pickler.memo = context.memo | {id(other): (COUNT + number, other) for number, other in enumerate(known)}
    try:
        pickler.dump(obj)
    except Exception as error:
        return without_frames(error)
    return None


def without_frames(error: BaseException) -> BaseException:
    """The exception alone. Kept with its frames, one that a frame holds would keep the user's objects in a cycle."""
    link: BaseException | None = error
    while link is not None and link.__traceback__ is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
