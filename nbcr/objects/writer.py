"""One snapshot being written: from the names of a namespace to the index that makes it complete.

Runs in the forked child, or in the process itself where forking is not possible. What fails is a name, never
the whole; only the disk, and the deadline, can end it altogether.
"""

from __future__ import annotations

import pickle
import platform
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import msgspec

from nbcr import __version__
from nbcr.objects import addresses, culprits, fallback, modules, surroundings
from nbcr.objects import index as indexes
from nbcr.objects.blobs import INLINE_BYTES, BlobWriter, Previous, Stream, TooLarge, WriteFailed, hash_threads_work
from nbcr.objects.board import Board, Late, Stage
from nbcr.objects.describing import Describer, shape_of, type_name
from nbcr.objects.forking import Guard
from nbcr.objects.index import Blob, Index, Name, Unit
from nbcr.objects.kinds.functions import forget_answers, importable, importable_method
from nbcr.objects.kinds.modules import is_importable
from nbcr.objects.kinds.table import is_leaf
from nbcr.objects.names import Cells, Namespace
from nbcr.objects.pickling import PROTOCOL, Context, UnitPickler, failure_of
from nbcr.objects.results import Fate
from nbcr.objects.sharing import Bound, Group, TooMuch, grouped

_MOST_BYTES_FOR_DIGESTS = 8 << 20
# What is saved while the user waits: no more than this, and decided within this time.
_AT_ONCE_BYTES = 256 << 10
_AT_ONCE_S = 0.005


@dataclass
class Order:
    """What is to be saved, and how. Complete before the fork."""

    place: Path
    namespace: Namespace
    values: dict[str, Any]
    begun: float  # time.monotonic() of the request
    deadline: float
    previous: Path | None = None
    max_size: int | None = None
    max_total: int | None = None
    states: dict[str, Any] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)
    standing: list[Any] = field(default_factory=list)
    remarks: tuple[str, ...] = ()


@dataclass
class _Pickled:
    """A unit before its blobs are finished."""

    names: tuple[str, ...]
    stream: int = -1
    inline: bytes = b""
    buffers: tuple[int, ...] = ()
    codec: str = "cloudpickle"
    packages: tuple[str, ...] = ()
    size: int = 0
    own: dict[str, tuple[bytes, tuple[int, ...], int]] = field(
        default_factory=dict
    )  # name: stream digest, buffers, size
    remark: str = ""


class Writer:
    """Writes the snapshot that `order` asks for. In a forked child a `guard` minds what may go wrong.

    With `at_once`, `run` raises TooMuch where that would take longer than a fork does, or where anything is
    out of the ordinary.
    """

    def __init__(self, order: Order, board: Board, guard: Guard | None = None, *, at_once: bool = False) -> None:
        self.order, self.board, self.guard, self.at_once = order, board, guard, at_once
        self.forked = guard is not None
        forget_answers()
        self._context = Context(order.namespace, self.forked, order.offsets, standing=order.standing)
        self._cells = Cells(order.namespace.get("In"))
        self._lost: dict[str, Name] = {}
        self._imported: dict[str, str] = {}
        self._units: list[_Pickled] = []
        self._unit_of: dict[str, int] = {}
        self._total = 0
        order.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._blobs = BlobWriter(order.place, Previous.of(order.previous), self._pulse)

    def run(self) -> Index:
        """Write everything; the index, published last."""
        try:
            values = self._sorted_out()
            self._save_groups(values)
            number = self._save_surroundings()
            self._blobs.hash_threads = self.forked and self._blobs.has_large and hash_threads_work()
            index = self._index(values, self._blobs.finish(), number)
            indexes.publish(index, self.order.place)  # last: without it there is no snapshot
        except BaseException:
            self._blobs.discard()
            raise
        return index

    def _pulse(self, written: int) -> None:
        self.board.wrote(written)
        if self.guard is not None:
            self.guard.pulse()
        elif time.monotonic() > self.order.deadline:
            raise Late

    # --- which names

    def _sorted_out(self) -> dict[str, Any]:
        """What is to be pickled: everything but imports and what is known to be no use."""
        values = dict(self.order.values)
        values |= modules.changed_globals(modules.in_use_by(values.values()))
        for name, value in values.items():
            where = _import_of(value)
            if where is not None:
                self._imported[name] = where
        for name, reason in addresses.suspicious(values).items():
            self._lose(name, name, reason)
        return values

    # --- groups

    def _save_groups(self, values: dict[str, Any]) -> None:
        left = {name: value for name, value in values.items() if name not in self._imported and name not in self._lost}
        plain = [name for name, value in left.items() if is_leaf(value)]
        other = {name: value for name, value in left.items() if not is_leaf(value)}
        kinds = self._context.kinds
        bound = Bound(self.order.begun + _AT_ONCE_S, _AT_ONCE_BYTES, kinds) if self.at_once else None
        groups, self._context.shared_memory = grouped(other, kinds, self._context.standing, bound)
        self.board.names_total = len(values)
        for name in plain:
            self._save_plain(name, values)
        for group in groups:
            self._save_group(group, values)

    def _save_group(self, group: Group, values: dict[str, Any]) -> None:
        if self.guard is None or all(map(self._context.kinds.is_tame, group.types)):
            return self._begin_and_save(group.names, values)
        if self.guard.stand_by():
            self._blobs.rewind()
        for name in self.guard.given_up.keys() & set(group.names):
            reason, only_hung = self.guard.given_up[name]
            self._lose(name, name, reason, late=only_hung)
        names = [name for name in group.names if name not in self.guard.given_up]
        if self.guard.suspects.intersection(names):  # one of them ended the last worker: now it is found out which
            for name in names:
                self._begin_and_save([name], values)
        elif names:
            self._begin_and_save(names, values)
        return None

    def _save_plain(self, name: str, values: dict[str, Any]) -> None:
        """A number or a short text: no pickler of ours is needed."""
        value = values[name]
        if isinstance(value, str | bytes) and len(value) > INLINE_BYTES // 4:
            return self._begin_and_save([name], values)
        data = pickle.dumps(value, PROTOCOL)
        self._keep(_Pickled((name,), inline=data, size=len(data), own={name: (indexes.digest_of(data), (), len(data))}))
        return None

    def _begin_and_save(self, names: list[str], values: dict[str, Any]) -> None:
        self.board.begin(Stage.SAVING, names)
        self._save(names, values)
        self.board.end(names)

    def _save(self, names: list[str], values: dict[str, Any]) -> None:
        """Save these names in one piece, or as many of them as can be saved."""
        try:
            self._keep(self._pickled(names, values))
        except WriteFailed:
            raise
        except Exception as failure:
            if self.at_once:
                raise TooMuch from failure
            if isinstance(failure, TooLarge):
                self._save_without_large(names, values)
            else:
                self._save_without_culprits(names, values, failure)

    def _save_without_culprits(self, names: list[str], values: dict[str, Any], failure: Exception) -> None:
        failures = {name: failure_of(values[name], self._context) for name in names} if len(names) > 1 else {}
        failing = {name: why for name, why in failures.items() if why is not None} or dict.fromkeys(names, failure)
        for name, why in failing.items():
            if not self._saved_by_dill(name, values[name], why):
                self._lose(name, *culprits.find(name, values[name], self._context, why))
        rest = [name for name in names if name not in failing]
        if rest:
            self._save(rest, values)

    def _save_without_large(self, names: list[str], values: dict[str, Any]) -> None:
        """Names beyond the limit are left out; if all fit alone but not together, they are saved alone."""
        if len(names) == 1:
            limit = self._limit()
            allowed = (
                f"the limit of {limit:,} bytes" if limit == self.order.max_size else "what is left of the limit for all"
            )
            return self._lose(names[0], "", f"it is larger than {allowed}")
        for name in names:
            self._save([name], values)
        return None

    def _limit(self) -> int | None:
        left = None if self.order.max_total is None else max(0, self.order.max_total - self._total)
        at_once = _AT_ONCE_BYTES if self.at_once else None
        limits = [limit for limit in (self.order.max_size, left, at_once) if limit is not None]
        return min(limits) if limits else None

    def _pickled(self, names: list[str], values: dict[str, Any]) -> _Pickled:
        stream = self._blobs.stream(self._limit())
        buffers: list[memoryview] = []

        def keep(buffer: memoryview) -> None:
            stream.grow(buffer.nbytes)
            buffers.append(buffer)

        pickler = UnitPickler(stream, self._context, keep)
        try:
            pickler.dump(values[names[0]] if len(names) == 1 else tuple(values[name] for name in names))
        except BaseException:
            stream.discard()
            raise
        unit = _Pickled(tuple(names), packages=tuple(sorted(pickler.packages)), remark=pickler.remarks.taken())
        return self._with_bytes(unit, stream, buffers)

    def _with_bytes(self, unit: _Pickled, stream: Stream, buffers: list[memoryview]) -> _Pickled:
        unit.size = stream.counted
        unit.buffers = tuple(self._blobs.keep_buffer(buffer) for buffer in buffers)
        digest = stream.digest()
        if stream.size <= INLINE_BYTES:
            unit.inline = stream.data()
        else:
            unit.stream = self._blobs.keep(stream)
        unit.own = dict.fromkeys(unit.names, (digest, unit.buffers, unit.size))
        return unit

    def _keep(self, unit: _Pickled) -> None:
        self._total += unit.size
        self._units.append(unit)
        self._unit_of.update(dict.fromkeys(unit.names, len(self._units) - 1))

    def _saved_by_dill(self, name: str, value: Any, why: BaseException) -> bool:
        data = fallback.dumped(value, self._context, why)
        limit = self._limit()
        if data is None or (limit is not None and len(data) > limit):
            return False
        stream = self._blobs.stream()
        stream.write(data)
        self._keep(self._with_bytes(_Pickled((name,), codec="dill"), stream, []))
        return True

    def _lose(self, name: str, culprit: str, reason: str, *, late: bool = False) -> None:
        made = self._cells.maker_of(name)
        cell, recipe = made if made is not None else (-1, "")
        fate = Fate.RECOMPUTABLE if made is not None else Fate.LOST
        self._lost[name] = Name(name, fate.value, culprit=culprit, reason=reason, recipe=recipe, cell=cell, late=late)

    # --- what belongs to no name

    def _save_surroundings(self) -> int:
        states = {**self.order.states, **surroundings.read(before_fork=False)}
        fit = {name: state for name, state in states.items() if failure_of(state, self._context) is None}
        self._units.append(self._pickled(["surroundings"], {"surroundings": fit}))
        return len(self._units) - 1

    # --- the index

    def _index(self, values: dict[str, Any], blobs: tuple[Blob, ...], number: int) -> Index:
        units = tuple(
            Unit(unit.names, unit.stream, unit.inline, unit.buffers, unit.codec, unit.packages) for unit in self._units
        )
        describer = Describer(forked=self.forked)
        names = tuple(self._name(name, value, blobs, describer) for name, value in values.items())
        packages = {package for unit in units for package in unit.packages}
        packages |= {where.partition(":")[0].partition(".")[0] for where in self._imported.values()}
        versions = {package: modules.version_of(package) for package in sorted(packages)}
        return Index(
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            nbcr=__version__,
            python=platform.python_version(),
            platform=f"{sys.platform} {platform.machine()}",
            names=names,
            units=units,
            blobs=blobs,
            surroundings=number,
            packages={package: version for package, version in versions.items() if version},
            remarks=self.order.remarks,
            size_bytes=sum(blob.size for blob in {blob.digest: blob for blob in blobs}.values())
            + sum(len(unit.inline) for unit in units),
            added_bytes=self._blobs.added_bytes,
            duration_ms=(time.monotonic() - self.order.begun) * 1e3,
            how="forked" if self.forked else "at once" if self.at_once else "in-process",
        )

    def _name(self, name: str, value: Any, blobs: tuple[Blob, ...], describer: Describer) -> Name:
        where = self._imported.get(name)
        if where is not None:
            shown = f"from {where.replace(':', ' import ')}" if ":" in where else f"import {where}"
            digest = indexes.digest_of(where.encode())
            return Name(name, Fate.SAVED.value, imported=where, digest=digest, type=type_name(value), repr=shown)
        if name in self._lost:
            lost = self._lost[name]
            return msgspec.structs.replace(lost, type=type_name(value), shape=shape_of(value))
        unit = self._units[self._unit_of[name]]
        digest, buffers, size = unit.own[name]
        if buffers:
            digest = indexes.digest_of(b"".join([digest, *(blobs[number].digest for number in buffers)]))
        return Name(
            name, Fate.SAVED.value, self._unit_of[name], digest=digest, type=type_name(value), shape=shape_of(value),
            size=size, repr=self._repr_of(name, value, describer), remark=unit.remark,
        )  # fmt: skip

    def _repr_of(self, name: str, value: Any, describer: Describer) -> str:
        if self.guard is None or not describer.asks_anybody(value):
            return describer.repr_of(value)
        self.guard.stand_by()  # should this process have taken over: everything else is written already
        if name in self.guard.undescribed:
            return f"<{type_name(value)}>"
        self.board.begin(Stage.DESCRIBING, [name])
        shown = describer.repr_of(value)
        self.board.end([])
        return shown


def _import_of(value: Any) -> str | None:
    """ "numpy" or "math:sqrt": how the value is imported again; None: it is no import."""
    if isinstance(value, ModuleType):
        return value.__name__ if is_importable(value) and value.__name__ != "__main__" else None
    if isinstance(value, type | FunctionType):
        found = importable(value)
    elif isinstance(value, BuiltinFunctionType | MethodType):
        found = importable_method(value)
    else:
        return None
    return None if found is None or found[0] == "builtins" else ":".join(found)
