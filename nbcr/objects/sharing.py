"""Which names have to be saved in one piece: those that reach the same object, which one could change for the other.

Everything a name reaches is found level by level, by the garbage collector's own view of objects
(`gc.get_referents`), which costs a fraction of what pickling them costs. Where the collector sees nothing, or
too much, the object's room is asked. Immutable values tie nobody together. Names that share nothing are
pickled apart: one that fails harms no other, one that changed is written alone, and one can be read without
the others.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from nbcr.objects.kinds.table import KindTable, Rule
from nbcr.objects.names import is_a

_HAVE_GC = 1 << 14
_HEAP_TYPE = 1 << 9
_BYTES_PER_OBJECT = 40  # a guess, for the order in which units are saved
_HEAVY = 50_000  # members
_MOST_TIES = 2_000
_MOST_AT_ONCE = 5_000  # members that are looked at while the user waits


_CONTAINERS = (list, tuple, dict, set, frozenset)


class TooMuch(Exception):
    """A survey found more than its bound allows."""


@dataclass
class Bound:
    """How much may be looked at while the user waits, and what may be among it."""

    until: float  # time.thread_time(): what others do to the processor meanwhile would slow down a fork as well
    weight: int
    kinds: KindTable

    def check(self, survey: Survey, ahead: Collection[Any]) -> None:
        """Raise TooMuch. `ahead` is what is looked into next."""
        self.weight -= survey.weigh_anew()
        members = sum(len(obj) for obj in ahead if type(obj) in _CONTAINERS)
        if self.weight < 0 or members > _MOST_AT_ONCE or time.thread_time() > self.until:
            raise TooMuch
        if not all(map(self.kinds.is_simple, survey.types)):
            raise TooMuch


class Survey:
    """Everything that one name reaches."""

    def __init__(self, kinds: KindTable, standing: Set[int] = frozenset(), bound: Bound | None = None) -> None:
        self.types: set[type] = set()
        self.memory: dict[int, set[int]] = {}  # id of what holds memory: ids of what looks at it
        self.addresses: set[int] = set()
        self.owners: dict[int, Any] = {}  # of memory at those
        self.weight = 0
        self._memory_bytes = 0
        self.kinds, self._standing, self._bound = kinds, standing, bound
        self._reached: dict[int, Any] = {}
        self._ties: dict[int, Any] = {}  # what ties names together although no name reaches it

    def run(self, root: Any) -> Survey:
        """Find everything below `root`."""
        fresh = self._new([root])
        while fresh:
            parts: list[Any] = []
            if any(self.kinds.rule_for(type_) is Rule.KIND for type_ in set(map(type, fresh))):
                fresh = self._asked(fresh, parts)
            if self._bound is not None:
                self._bound.check(self, fresh)
            parts += gc.get_referents(*fresh)
            fresh = self._new(parts)
        self.weigh_anew()
        return self

    def _asked(self, fresh: Collection[Any], parts: list[Any]) -> list[Any]:
        """Let rooms add to `parts`; what is left to the garbage collector."""
        left = []
        for obj in fresh:
            kind = self.kinds.kind_of(type(obj)) if self.kinds.rule_for(type(obj)) is Rule.KIND else None
            found = kind.parts(obj, self) if kind is not None else None
            if found is None:
                left.append(obj)
            else:
                parts.extend(found)
        return left

    def _new(self, found: list[Any]) -> Collection[Any]:
        """Those that were not reached before and can hold or tie something."""
        types = set(map(type, found))
        self.types |= types
        leaves = {type_ for type_ in types if self.kinds.rule_for(type_) is Rule.LEAF}
        if leaves == types:
            return ()
        if all(map(self._is_tracked_or_tuple, types - leaves)):
            found = [*filter(gc.is_tracked, found), *self._untracked(found)]
        elif leaves:
            found = [obj for obj in found if type(obj) not in leaves]
        fresh = dict(zip(map(id, found), found, strict=True))
        for known in (fresh.keys() & self._reached.keys()) | (fresh.keys() & self._standing):
            del fresh[known]
        self._reached.update(fresh)
        return fresh.values()

    def _untracked(self, found: list[Any]) -> Iterable[Any]:
        """Tuples that the collector gave up tracking, unless all of them hold plain values only: an array, or an
        ``object()``, has nothing that interests the collector, and is somebody all the same."""
        untracked = [obj for obj in itertools.filterfalse(gc.is_tracked, found) if type(obj) is tuple]
        inner = set(map(type, gc.get_referents(*untracked)))
        return () if all(self.kinds.rule_for(type_) is Rule.LEAF for type_ in inner) else untracked

    def _is_tracked_or_tuple(self, type_: type) -> bool:
        """Whether the collector tracks all objects of this type: some types begin to be tracked when it matters."""
        made_by_class = type_.__flags__ & _HEAP_TYPE and type_.__flags__ & _HAVE_GC
        return type_ in (tuple, list, set) or bool(made_by_class and self.kinds.rule_for(type_) is Rule.PLAIN)

    def weigh_anew(self) -> int:
        """Count what was reached since the last time."""
        before, self.weight = self.weight, self._memory_bytes + _BYTES_PER_OBJECT * len(self._reached)
        return self.weight - before

    def reached(self) -> Iterable[Any]:
        """Everything that was found, but for plain values."""
        return self._reached.values()

    # --- for the rooms

    def note_memory(self, owner: Any, user: Any) -> None:
        """`user` looks at memory that `owner` holds (which may be itself)."""
        self.memory.setdefault(id(owner), set()).add(id(user))
        self._ties[id(owner)] = owner
        self._memory_bytes += getattr(user, "nbytes", 0)

    def note_address(self, address: int, user: Any, owner: Any = None) -> None:
        """`user` looks at memory at this address, for which no object stands, or an `owner` that others do not know."""
        self.addresses.add(-address)  # ids are positive
        self.memory.setdefault(-address, set()).add(id(user))
        if owner is not None:
            self.owners[-address] = owner

    # --- for `grouped`

    def shared_with(self, owners: dict[int, str]) -> Iterable[int]:
        """What ties this name to one of those."""
        for keys in (self._reached.keys(), self._ties.keys(), self.addresses):
            yield from (key for key in keys & owners.keys() if self._ties_names(key))

    def ties(self) -> list[Any]:
        """Everything that could tie this name to another."""
        objects = {**self._reached, **self._ties}
        return [obj for key, obj in objects.items() if self._ties_names(key)]

    def enter(self, owners: dict[int, str], name: str) -> None:
        """Say that `name` reaches all this, unless somebody has said so already."""
        for keys in (self._reached.keys(), self._ties.keys(), self.addresses):
            owners.update(dict.fromkeys(keys - owners.keys(), name))

    def _ties_names(self, key: int) -> bool:
        if key in self._ties or key in self.addresses:
            return True
        obj = self._reached[key]
        rule = self.kinds.rule_for(type(obj))
        if rule is Rule.KIND:
            kind = self.kinds.kind_of(type(obj))
            return kind is None or kind.shares(obj)
        return rule is Rule.PLAIN


@dataclass
class Group:
    """Names to be saved in one piece."""

    names: list[str]
    types: set[type] = field(default_factory=set)
    weight: int = 0


def heaviest(values: dict[str, Any]) -> str | None:
    """The name of the container with most in it, if it is so large that looking into all of it takes its time."""
    sizes = {name: len(value) for name, value in values.items() if is_a(value, list, tuple, dict, set)}
    largest = max(sizes, key=lambda name: sizes[name], default=None)
    return largest if largest is not None and sizes[largest] >= _HEAVY else None


class Grouping:
    """Names in groups, small ones first; and the ids of what holds memory that several objects look at.

    Where that is an address (negative), `owners` may know the array that has it.
    """

    def __init__(self, surveys: dict[str, Survey], parents: dict[str, str]) -> None:
        self.groups = _groups(surveys, parents)
        self.shared_memory = _shared_memory(surveys.values())
        owners = {address: owner for survey in surveys.values() for address, owner in survey.owners.items()}
        self.owners = {address: owner for address, owner in owners.items() if address in self.shared_memory}
        self.shared_memory |= set(map(id, self.owners.values()))
        self._surveys = surveys

    def ties(self) -> list[Any] | None:
        """What could tie these names to another one; None: it is too much, or cannot be told by objects."""
        found: list[Any] = []
        for survey in self._surveys.values():
            found += survey.ties()
            if survey.addresses or len(found) > _MOST_TIES:
                return None
        return found


def grouped(
    values: dict[str, Any], kinds: KindTable, standing: Iterable[Any], bound: Bound | None = None,
    *, without: str | None = None,
) -> Grouping:  # fmt: skip
    """Group the names of `values` by what they share, all but one. Raises TooMuch when that is beyond the `bound`."""
    ids = {id(obj) for obj in standing if obj is not None}
    names = [name for name in values if name != without]
    surveys = {name: _surveyed(values[name], Survey(kinds, ids, bound)) for name in names}
    parents = {name: name for name in names}
    owners: dict[int, str] = {}
    order = sorted(surveys, key=lambda name: surveys[name].weight)
    for position, name in enumerate(order):
        for key in surveys[name].shared_with(owners):
            parents[_root(parents, name)] = _root(parents, owners[key])
        if position + 1 < len(order):  # nobody comes after the largest: its many keys need not be remembered
            surveys[name].enter(owners, name)
    return Grouping(surveys, parents)


def _surveyed(value: Any, survey: Survey) -> Survey:
    """An object that does not let itself be looked at will not let itself be pickled.

    That is where it is told.
    """
    try:
        return survey.run(value)
    except TooMuch:
        raise
    except Exception:
        survey.types.add(object)
        return survey


def _root(parents: dict[str, str], name: str) -> str:
    while parents[name] != name:
        parents[name] = parents[parents[name]]
        name = parents[name]
    return name


def _groups(surveys: dict[str, Survey], parents: dict[str, str]) -> list[Group]:
    groups: dict[str, Group] = {}
    for name in surveys:
        group = groups.setdefault(_root(parents, name), Group([]))
        group.names.append(name)
        group.types |= surveys[name].types
        group.weight += surveys[name].weight
    return sorted(groups.values(), key=lambda group: group.weight)


def _shared_memory(surveys: Iterable[Survey]) -> set[int]:
    users: dict[int, set[int]] = {}
    for survey in surveys:
        for owner, own in survey.memory.items():
            users.setdefault(owner, set()).update(own)
    return {owner for owner, own in users.items() if len(own) > 1}
