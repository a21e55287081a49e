"""Names become units: grouped by what they share, pickled, and told about one by one where that fails."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from nbcr.objects import culprits, fallback
from nbcr.objects import index as indexes
from nbcr.objects.blobs import INLINE_BYTES, BlobWriter, Stream, TooLarge, WriteFailed
from nbcr.objects.board import Board, Stage
from nbcr.objects.deep import is_too_deep, with_larger_stack
from nbcr.objects.forking import Guard
from nbcr.objects.index import Name
from nbcr.objects.kinds.buffers import address_of
from nbcr.objects.kinds.table import is_leaf
from nbcr.objects.names import Cells
from nbcr.objects.pickling import PROTOCOL, Context, Measure, UnitPickler, failure_of, without_frames
from nbcr.objects.results import Fate
from nbcr.objects.sharing import Bound, Group, TooMuch, grouped, heaviest

_MOST_BYTES_FOR_DIGESTS = 8 << 20
_PROBING_S = 0.02

Result = TypeVar("Result")


@dataclass
class Limits:
    """The most bytes for one name, and for all."""

    each: int | None = None
    total: int | None = None
    used: int = 0

    def now(self) -> int | None:
        """The most that may be saved next."""
        left = None if self.total is None else max(0, self.total - self.used)
        known = [limit for limit in (self.each, left) if limit is not None]
        return min(known) if known else None


@dataclass(frozen=True)
class Share:
    """One name's part of its unit: what it would be alone."""

    digest: bytes
    buffers: tuple[int, ...]
    size: int


@dataclass
class Pickled:
    """A unit whose blobs are not finished yet."""

    names: tuple[str, ...]
    stream: int = -1
    inline: bytes = b""
    buffers: tuple[int, ...] = ()
    codec: str = "cloudpickle"
    packages: tuple[str, ...] = ()
    pickle_size: int = 0
    addresses: dict[int, int] = field(default_factory=dict)  # of the buffers: their numbers
    shares: dict[str, Share] = field(default_factory=dict)
    remark: str = ""

    def add_remark(self, text: str) -> None:
        """Say one more thing that will not be quite as it was."""
        self.remark = "; ".join(filter(None, (self.remark, text)))


class Units:
    """Pickles the names of one snapshot. `done`, `unit_of` and `lost` tell afterwards what became of them."""

    def __init__(
        self, context: Context, blobs: BlobWriter, board: Board, guard: Guard | None, limits: Limits, cells: Cells
    ) -> None:
        self.done: list[Pickled] = []
        self.unit_of: dict[str, int] = {}
        self.lost: dict[str, Name] = {}
        self._context, self._blobs, self._board, self._guard = context, blobs, board, guard
        self._limits, self._cells = limits, cells
        self._spans: list[tuple[int, int, Pickled]] = []  # memory that was saved out of band: address, size, by whom

    def save(self, values: dict[str, Any], bound: Bound | None = None) -> None:
        """Save all of these. With a `bound`, raise TooMuch where that takes longer, or is not plain sailing."""
        left = {name: value for name, value in values.items() if name not in self.lost}
        self._board.names_total = len(left)
        for name in [name for name, value in left.items() if is_leaf(value)]:
            self._save_plain(name, left.pop(name), strict=bound is not None)
        kinds, standing = self._context.kinds, self._context.standing
        # Where there is a limit for all, the small ones come first.
        heavy = heaviest(left) if bound is None and self._limits.total is None else None
        grouping = grouped(left, kinds, standing, bound, without=heavy)
        if heavy is not None and not self._save_heaviest(heavy, left[heavy], grouping.ties()):
            grouping = grouped(left, kinds, standing)
        self._context.shared_memory, self._context.owners = grouping.shared_memory, grouping.owners
        for group in grouping.groups:
            self._save_group(group, left, strict=bound is not None)

    def save_apart(self, name: str, value: Any) -> None:
        """Save what belongs to no name as a unit of its own."""
        self._keep(self._pickled([name], {name: value}, None))

    def lose(self, name: str, culprit: str, reason: str, *, late: bool = False) -> None:
        """Say that a name is not saved, and which cell makes it again."""
        made = self._cells.maker_of(name)
        cell, recipe = made if made is not None else (-1, "")
        fate = Fate.RECOMPUTABLE if made is not None else Fate.LOST
        self.lost[name] = Name(name, fate.value, culprit=culprit, reason=reason, recipe=recipe, cell=cell, late=late)

    def note_overlaps(self) -> None:
        """Memory that two units both hold: whoever shared it does so no more."""
        spans = sorted(self._spans, key=lambda span: span[0])
        for (start, size, unit), (next_start, _, other) in pairwise(spans):
            if next_start < start + size and unit is not other:
                unit.add_remark(f"it no longer shares memory with {', '.join(other.names)}")
                other.add_remark(f"it no longer shares memory with {', '.join(unit.names)}")

    # --- one group

    def _save_group(self, group: Group, values: dict[str, Any], *, strict: bool) -> None:
        names = group.names
        if self._guard is not None and not all(map(self._context.kinds.is_tame, group.types)):
            names = self._stand_by(names)
            if self._guard.suspects.intersection(names):  # one of them ended the last worker: which, is found out now
                for name in names:
                    self._begin_and_save([name], values, strict=strict)
                return
        if names:
            self._begin_and_save(names, values, strict=strict)

    def _stand_by(self, names: list[str]) -> list[str]:
        """Have a spare, in case that saving these ends the worker; those that have not done so yet."""
        assert self._guard is not None
        if self._guard.stand_by():
            self._blobs.rewind()
        for name in self._guard.given_up.keys() & set(names):
            reason, only_hung = self._guard.given_up[name]
            self.lose(name, name, reason, late=only_hung)
        return [name for name in names if name not in self._guard.given_up]

    def _begin_and_save(self, names: list[str], values: dict[str, Any], *, strict: bool = False) -> None:
        self._board.begin(Stage.SAVING, names)
        try:
            self._keep(self._pickled(names, values, self._limits.now()))
        except WriteFailed:
            raise
        except Exception as failure:
            if strict:
                raise TooMuch from failure
            without_frames(failure)
            if isinstance(failure, TooLarge):
                self._save_without_large(names, values)
            else:
                self._save_without_culprits(names, values, failure)
        self._board.end(names)

    def _save_plain(self, name: str, value: Any, *, strict: bool) -> None:
        """A number or a short text: no pickler of ours is needed."""
        if isinstance(value, str | bytes) and len(value) > INLINE_BYTES // 4:
            return self._begin_and_save([name], {name: value}, strict=strict)
        data = pickle.dumps(value, PROTOCOL)
        share = Share(indexes.digest_of(data), (), len(data))
        return self._keep(Pickled((name,), inline=data, shares={name: share}))

    # --- what does not go well

    def _save_without_culprits(self, names: list[str], values: dict[str, Any], failure: Exception) -> None:
        failures = {name: self._failure_of(values[name]) for name in names} if len(names) > 1 else {}
        failing = {name: why for name, why in failures.items() if why is not None} or dict.fromkeys(names, failure)
        for name, why in failing.items():
            if not self._saved_by_dill(name, values[name], why):
                self.lose(name, *culprits.find(name, values[name], self._context, why))
        rest = [name for name in names if name not in failing]
        if rest:
            self._begin_and_save(rest, values)

    def _failure_of(self, value: Any) -> BaseException | None:
        failure = failure_of(value, self._context)
        return with_larger_stack(lambda: failure_of(value, self._context)) if is_too_deep(failure) else failure

    def _saved_by_dill(self, name: str, value: Any, why: BaseException) -> bool:
        data = fallback.dumped(value, self._context, why)
        limit = self._limits.now()
        if data is None or (limit is not None and len(data) > limit):
            return False
        stream = self._blobs.stream()
        stream.write(data)
        self._keep(self._with_bytes(Pickled((name,), codec="dill"), stream, []))
        return True

    def _save_without_large(self, names: list[str], values: dict[str, Any]) -> None:
        """Leave out the names that are too large; those that are not stay together."""
        limit = self._limits.now()
        fitting = [name for name in names if len(names) > 1 and self._fits(values[name], limit)]
        total_is_over = limit != self._limits.each
        if len(fitting) == len(names) and total_is_over:
            fitting = []
        said = "what is left of the limit for all" if total_is_over else f"the limit of {limit:,} bytes"
        for name in names:
            if name not in fitting:
                self.lose(name, name, f"it is larger than {said}")
        if fitting:
            try:
                self._keep(self._pickled(fitting, values, None))
            except WriteFailed:
                raise
            except Exception as failure:
                without_frames(failure)
                self._save_without_culprits(fitting, values, failure)

    def _fits(self, value: Any, limit: int | None) -> bool:
        """Whether a name is not too large; what else is wrong with it shows when it is saved."""
        try:
            self._however_deep(lambda: self._share_of(value, {}, limit))
        except TooLarge:
            return False
        except Exception as failure:
            without_frames(failure)
        return True

    # --- pickles

    def _pickled(self, names: list[str], values: dict[str, Any], limit: int | None) -> Pickled:
        value = values[names[0]] if len(names) == 1 else tuple(values[name] for name in names)
        unit = self._dumped(tuple(names), value, limit)
        assert unit is not None
        if len(names) > 1:
            self._however_deep(lambda: self._tell_apart(unit, values))
        return unit

    def _dumped(
        self, names: tuple[str, ...], value: Any, limit: int | None,
        accept: Callable[[UnitPickler, Stream], bool] | None = None,
    ) -> Pickled | None:  # fmt: skip
        """The unit of these names; None when it is not accepted after it was pickled."""
        return self._however_deep(lambda: self._dumped_here(names, value, limit, accept))

    def _however_deep(self, pickle_it: Callable[[], Result]) -> Result:
        try:
            return pickle_it()
        except Exception as error:
            if not is_too_deep(error):
                raise
        in_main, self._context.in_main = self._context.in_main, False
        try:
            return with_larger_stack(pickle_it)
        finally:
            self._context.in_main = in_main

    def _dumped_here(
        self, names: tuple[str, ...], value: Any, limit: int | None,
        accept: Callable[[UnitPickler, Stream], bool] | None,
    ) -> Pickled | None:  # fmt: skip
        stream = self._blobs.stream(limit)
        buffers: list[memoryview] = []

        def keep(buffer: memoryview) -> None:
            if not stream.probing:
                stream.grow(buffer.nbytes)
                buffers.append(buffer)

        pickler = UnitPickler(stream, self._context, keep)
        try:
            pickler.dump(value)
            unit = Pickled(names, packages=tuple(sorted(pickler.packages)), remark=pickler.remarks.taken())
            if accept is None or accept(pickler, stream):
                return self._with_bytes(unit, stream, buffers)
        except BaseException:
            stream.discard()
            raise
        stream.discard()
        return None

    def _with_bytes(self, unit: Pickled, stream: Stream, buffers: list[memoryview]) -> Pickled:
        unit.buffers = tuple(self._blobs.keep_buffer(buffer) for buffer in buffers)
        unit.addresses = {address_of(buffer): number for buffer, number in zip(buffers, unit.buffers, strict=True)}
        self._spans += [(address_of(buffer), buffer.nbytes, unit) for buffer in buffers if not buffer.readonly]
        unit.pickle_size = stream.size
        share = Share(stream.digest(), unit.buffers, stream.counted)
        unit.shares = dict.fromkeys(unit.names, share)
        if stream.size <= INLINE_BYTES:
            unit.inline = stream.data()
        else:
            unit.stream = self._blobs.keep(stream)
        self._limits.used += stream.counted
        return unit

    def _tell_apart(self, unit: Pickled, values: dict[str, Any]) -> None:
        """Find out each name's share, so that `diff` can tell which of them changed."""
        if len(unit.names) * unit.pickle_size <= _MOST_BYTES_FOR_DIGESTS:
            unit.shares = {name: self._share_of(values[name], unit.addresses) for name in unit.names}

    def _share_of(self, value: Any, numbers: dict[int, int], limit: int | None = None) -> Share:
        """What `value` would be alone. `numbers`: the buffers of its unit by address."""
        measure, own = Measure(limit), []

        def keep(buffer: memoryview) -> None:
            measure.grow(buffer.nbytes)
            own.append(numbers.get(address_of(buffer), -1))

        UnitPickler(measure, self._context, keep).dump(value)
        return Share(measure.digest(), tuple(number for number in own if number >= 0), measure.size)

    def _keep(self, unit: Pickled) -> None:
        self.done.append(unit)
        self.unit_of.update(dict.fromkeys(unit.names, len(self.done) - 1))

    # --- the heaviest

    def _save_heaviest(self, name: str, value: Any, ties: list[Any] | None) -> bool:
        """Save one very large container before anybody has looked into it; False when it has to be looked into.

        Looking into it would take a good part of the time of pickling it. Afterwards its pickler knows every object
        in it, and can be asked about those that could tie it to another name.
        """
        if ties is None or (self._guard is not None and name not in self._stand_by([name])):
            return False

        def is_alone(pickler: UnitPickler, stream: Stream) -> bool:
            return not _knows_any(pickler, stream, ties)

        self._board.begin(Stage.SAVING, [name])
        self._context.shared_memory = None
        try:
            unit = self._dumped((name,), value, self._limits.now(), is_alone)
        except WriteFailed:
            raise
        except Exception:
            unit = None
        self._context.shared_memory = set()
        if unit is not None:
            self._keep(unit)
        return unit is not None


def _knows_any(pickler: UnitPickler, stream: Stream, objects: list[Any]) -> bool:
    """Whether the pickler has pickled one of the objects, or that cannot be found out in time.

    Without memoizing anything (`fast`), it is told to pickle each: for one that it knows, it writes a reference.
    """
    pickler.fast = pickler.probing = True
    stream.probing = True
    until = time.thread_time() + _PROBING_S
    for obj in objects:
        try:
            pickler.dump(obj)
        except (ValueError, RecursionError):  # it leads back to itself: not to be had without memoizing
            return True
        except Exception:  # what cannot be pickled is not in what was
            continue
        if stream.last_is_reference() or time.thread_time() > until:
            return True
    return False
