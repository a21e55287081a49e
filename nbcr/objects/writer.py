"""One snapshot being written: from the names of a namespace to the index that makes it complete.

Runs in the forked child, or in the process itself where forking is not possible. What fails is a name, never the whole;
only the disk, and the deadline, can end it altogether.
"""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from msgspec.structs import replace

from nbcr import __version__
from nbcr.objects import addresses, homes, modules, patches, surroundings
from nbcr.objects import index as indexes
from nbcr.objects.blobs import BlobWriter, Previous, Pulse, hash_threads_work
from nbcr.objects.board import Board, Late, Stage
from nbcr.objects.describing import Describer, shape_of, type_name
from nbcr.objects.forking import Guard
from nbcr.objects.index import Blob, Index, Name, Unit
from nbcr.objects.kinds.functions import forget_answers, importable, importable_method
from nbcr.objects.kinds.made_classes import is_made_for_a_cell
from nbcr.objects.kinds.modules import is_importable
from nbcr.objects.kinds.singletons import forget_bare_objects
from nbcr.objects.names import Cells, Namespace, is_a
from nbcr.objects.pickling import Context, failure_of
from nbcr.objects.results import Fate
from nbcr.objects.sharing import Bound
from nbcr.objects.units import Limits, Units

# What is saved while the user waits: no more than this, and decided within this time.
_AT_ONCE_BYTES = 256 << 10
_AT_ONCE_S = 0.005
_SURROUNDINGS = "surroundings"


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
    locked: frozenset[int] = frozenset()
    standing: list[Any] = field(default_factory=list)
    in_main: bool = True  # whether the main thread asks for it, as cells do
    remarks: tuple[str, ...] = ()


class Writer:
    """Writes the snapshot that `order` asks for. In a forked child a `guard` minds what may go wrong.

    With `at_once`, `run` raises TooMuch where that would take longer than a fork does, or where anything is out of the
    ordinary.
    """

    def __init__(self, order: Order, board: Board, guard: Guard | None = None, *, at_once: bool = False) -> None:
        self._order, self._board, self._guard = order, board, guard
        self._how = "at once" if at_once else "in-process" if guard is None else "forked"
        self._until = 0.0  # of processor time, where it is saved at once
        forget_answers()
        forget_bare_objects()
        order.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._blobs = BlobWriter(order.place, Previous.of(order.previous), _pulse(board, guard, order.deadline))
        self._context = Context(
            order.namespace, guard is not None, order.offsets, order.locked, order.in_main, standing=order.standing
        )
        limits = Limits(_AT_ONCE_BYTES, _AT_ONCE_BYTES) if at_once else Limits(order.max_size, order.max_total)
        cells = Cells(_history(order.namespace))
        self._units = Units(self._context, self._blobs, board, guard, limits, cells)
        self._imported: dict[str, str] = {}
        self._homes: dict[str, str] = {}
        self._unsaved: list[str] = []  # remarks

    def run(self) -> None:
        """Write everything; the index, published last."""
        try:
            states = {**self._order.states, **surroundings.read(before_fork=False)}  # before anybody's code runs
            self._until = time.thread_time() + _AT_ONCE_S
            values = self._sorted_out()
            self._units.save(
                {name: value for name, value in values.items() if name not in self._imported}, self._bound()
            )
            self._save_surroundings(states)
            self._units.note_overlaps()
            self._blobs.hash_threads = self._guard is not None and self._blobs.has_large and hash_threads_work()
            index = self._index(values, self._blobs.finish())
            indexes.publish(index, self._order.place)  # last: without it there is no snapshot
        except BaseException:
            self._blobs.discard()
            raise

    def _bound(self) -> Bound | None:
        if self._how != "at once":
            return None
        return Bound(self._until, _AT_ONCE_BYTES, self._context.kinds)

    def _sorted_out(self) -> dict[str, Any]:
        """All names there are to save; imports, and what is known to be no use, are noted."""
        values = dict(self._order.values)
        values |= modules.changed_globals(modules.in_use_by(values.values()))
        values |= patches.made_by(_history(self._order.namespace), self._order.namespace)
        for name, value in values.items():
            where = _import_of(value)
            if where is not None:
                self._imported[name] = where
        self._homes = homes.homes_of(values, self._context.kinds, self._context.standing)
        for name, reason in addresses.suspicious(values).items():
            self._units.lose(name, name, reason)
        return values

    def _save_surroundings(self, states: dict[str, Any]) -> None:
        """What belongs to no name, as the last unit."""
        failures = {name: failure_of(state, self._context) for name, state in states.items()}
        self._units.save_apart(_SURROUNDINGS, {name: states[name] for name, why in failures.items() if why is None})
        reasons = {name: " ".join(str(why).split()) for name, why in failures.items() if why is not None}
        self._unsaved = [f"the session's {name}: not saved ({reason})" for name, reason in reasons.items()]

    # --- the index

    def _index(self, values: dict[str, Any], blobs: tuple[Blob, ...]) -> Index:
        units = tuple(
            Unit(unit.names, unit.stream, unit.inline, unit.buffers, unit.codec, unit.packages)
            for unit in self._units.done
        )
        describer = Describer(forked=self._guard is not None)
        contents = {blob.digest: blob.size for blob in blobs}
        return Index(
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            nbcr=__version__,
            python=platform.python_version(),
            platform=f"{sys.platform} {platform.machine()}",
            names=tuple(self._name(name, value, blobs, describer) for name, value in values.items()),
            units=units,
            blobs=blobs,
            surroundings=len(units) - 1,
            packages=self._versions(units),
            remarks=(*self._order.remarks, *self._unsaved),
            size_bytes=sum(contents.values()) + sum(len(unit.inline) for unit in units),
            added_bytes=self._blobs.added_bytes,
            duration_ms=(time.monotonic() - self._order.begun) * 1e3,
            how=self._how,
        )

    def _versions(self, units: tuple[Unit, ...]) -> dict[str, str]:
        packages = {package for unit in units for package in unit.packages}
        packages |= {where.partition(":")[0].partition(".")[0] for where in self._imported.values()}
        versions = {package: modules.version_of(package) for package in sorted(packages)}
        return {package: version for package, version in versions.items() if version}

    def _name(self, name: str, value: Any, blobs: tuple[Blob, ...], describer: Describer) -> Name:
        type_, shape = type_name(value), shape_of(value)
        if name in self._units.lost:
            return replace(self._units.lost[name], type=type_, shape=shape)
        where = self._imported.get(name)
        if where is not None:
            shown = f"from {where.replace(':', ' import ')}" if ":" in where else f"import {where}"
            digest = indexes.digest_of(where.encode())
            return Name(name, Fate.SAVED.value, imported=where, digest=digest, type=type_, repr=shown)
        number = self._units.unit_of[name]
        unit = self._units.done[number]
        share = unit.shares[name]
        digest = share.digest
        if share.buffers:
            digest = indexes.digest_of(b"".join([digest, *(blobs[buffer].digest for buffer in share.buffers)]))
        return Name(
            name, Fate.SAVED.value, number, digest=digest, type=type_, shape=shape, size=share.size,
            repr=self._repr_of(name, value, describer), remark=unit.remark, home=self._homes.get(name, ""),
        )  # fmt: skip

    def _repr_of(self, name: str, value: Any, describer: Describer) -> str:
        if self._guard is None or not describer.asks_anybody(value):
            return describer.repr_of(value)
        self._guard.stand_by()  # should this process have taken over: everything else is written already
        if name in self._guard.undescribed:
            return f"<{type_name(value)}>"
        self._board.begin(Stage.DESCRIBING, [name])
        shown = describer.repr_of(value)
        self._board.end([])
        return shown


def _pulse(board: Board, guard: Guard | None, deadline: float) -> Pulse:
    """Called with each piece that was written. Not a method: a cycle would keep the user's objects beyond their end."""

    def pulse(written: int) -> None:
        board.wrote(written)
        if guard is not None:
            guard.pulse()
        elif time.monotonic() > deadline:
            raise Late

    return pulse


def _history(namespace: Namespace) -> list[Any]:
    """The cells that were run, also where a name of the user's hides them: `from ast import *` has a class In."""
    kept = [namespace.get(name) for name in ("In", "_ih")]
    return next((cells for cells in kept if type(cells) is list), [])


def _import_of(value: Any) -> str | None:
    """ "numpy" or "math:sqrt": how the value is imported again; None: it is no import."""
    try:
        if is_a(value, ModuleType):
            return value.__name__ if is_importable(value) and value.__name__ != "__main__" else None
        if is_a(value, type, FunctionType):
            found = None if is_a(value, type) and is_made_for_a_cell(value) else importable(value)
        elif is_a(value, BuiltinFunctionType, MethodType):
            found = importable_method(value)
        else:
            return None
    except Exception:  # its pickler will say so
        return None
    return None if found is None or found[0] == "builtins" else ":".join(found)
