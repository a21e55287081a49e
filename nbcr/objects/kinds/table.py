"""Who is asked about a type: registered savers first, then the rooms, then pickle itself.

Answers are kept per save.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import cloudpickle

from nbcr.objects.kinds import (
    arrays,
    buffers,
    classes,
    containers,
    contexts,
    databases,
    enums,
    exceptions,
    figures,
    files,
    foreign,
    frames,
    functions,
    generated,
    images,
    instances,
    logs,
    models,
    modules,
    named,
    pages,
    quantities,
    references,
    refused,
    singletons,
    structs,
    tables,
    tensors,
    texts,
    threads,
)
from nbcr.objects.kinds.base import Kind, dotted_name, find_saver

_ROOMS = (
    functions,
    classes,
    generated,
    images,
    instances,
    models,
    modules,
    named,
    pages,
    quantities,
    references,
    arrays,
    frames,
    buffers,
    threads,
    figures,
    files,
    databases,
    enums,
    logs,
    contexts,
    exceptions,
    foreign,
    singletons,
    structs,
    tables,
    tensors,
    texts,
    refused,
)
_HOMES: dict[str, Kind] = {name: kind for room in _ROOMS for kind in room.KINDS for name in kind.types}

# Immutable all through: which of two equal ones somebody has makes no difference, so they never tie names
# together.
_LEAVES = (
    "builtins.int builtins.float builtins.complex builtins.bool builtins.str builtins.bytes builtins.NoneType "
    "builtins.range builtins.ellipsis builtins.NotImplementedType builtins.getset_descriptor "
    "builtins.member_descriptor builtins.wrapper_descriptor builtins.method_descriptor "
    "builtins.classmethod_descriptor builtins.method-wrapper datetime.date datetime.time datetime.timedelta "
    "datetime.tzinfo decimal.Decimal fractions.Fraction uuid.UUID re.Pattern pathlib.PurePath numpy.dtype "
    "numpy.generic pandas.core.dtypes.base.ExtensionDtype pyarrow.lib._Weakrefable "
    "pyarrow.lib.DataType polars.datatypes.classes.DataType _abc._abc_data torch.dtype torch.device"
).split()
_LEAF_MODULES = ("typing", "_typing")
# Immutable, but there may be something in them.
_THROUGH = (
    "builtins.tuple builtins.frozenset builtins.method builtins.property builtins.staticmethod "
    "builtins.classmethod builtins.mappingproxy builtins.slice functools.partial"
).split()

# Roots of packages whose objects are known to neither crash nor hang a forked child while they are pickled.
_TAME_ROOTS = frozenset(
    "builtins collections datetime decimal fractions functools itertools io _io re types typing pathlib uuid enum "
    "logging random _random weakref _thread threading queue operator numbers abc _abc array string numpy pandas "
    "_contextvars".split()
)
_NOT_SIMPLE = ("_io", "io", "_thread", "threading")
_HOOKS = ("__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__", "__getnewargs_ex__")


class Rule(Enum):
    """What a survey does with objects of a type."""

    LEAF = 1  # passes over them
    THROUGH = 2  # looks into them, but they tie nobody together
    PLAIN = 3  # looks into them; whoever shares one is saved with it
    KIND = 4  # asks their room


class KindTable:
    """Answers about types, each found once."""

    def __init__(self) -> None:
        self._kinds: dict[type, Kind | None] = {}
        self._reducers: dict[type, Kind | None] = {}
        self._rules: dict[type, Rule] = {}
        self._tame: dict[type, bool] = {}

    def kind_of(self, type_: type) -> Kind | None:
        """Who saves objects of this type; None: pickle alone."""
        try:
            return self._kinds[type_]
        except KeyError:
            kind = self._kinds[type_] = find_saver(type_) or _home_of(type_)
            return kind

    def reducer_of(self, type_: type) -> Kind | None:
        """The same, for the pickler alone: also who looks at what the objects say themselves."""
        try:
            return self._reducers[type_]
        except KeyError:
            kind = self._reducers[type_] = self.kind_of(type_) or _watched(type_)
            return kind

    def rule_for(self, type_: type) -> Rule:
        """What a survey does with objects of this type."""
        try:
            return self._rules[type_]
        except KeyError:
            rule = self._rules[type_] = self._find_rule(type_)
            return rule

    def _find_rule(self, type_: type) -> Rule:
        if type_.__module__ in _LEAF_MODULES:
            return Rule.LEAF
        names = [dotted_name(base) for base in type_.__mro__]
        if self.kind_of(type_) is not None and names[0] not in _LEAVES and names[0] not in _THROUGH:
            return Rule.KIND
        # A subclass made by the user may carry attributes, so only types that cannot are taken at their
        # base's word.
        immutable = names[0] in _LEAVES or (any(name in _LEAVES for name in names[1:]) and not type_.__dictoffset__)
        if immutable:
            return Rule.LEAF
        return Rule.THROUGH if names[0] in _THROUGH else Rule.PLAIN

    def is_simple(self, type_: type) -> bool:
        """Whether pickling objects of this type takes next to no time and touches nothing.

        A fork would take longer.
        """
        kind = self.kind_of(type_)
        return self.is_tame(type_) and str(type_.__module__) not in _NOT_SIMPLE and (kind is None or not kind.refuses)

    def is_tame(self, type_: type) -> bool:
        """Whether pickling objects of this type runs no code that we do not know."""
        try:
            return self._tame[type_]
        except KeyError:
            tame = self._tame[type_] = _is_tame(type_)
            return tame


def _home_of(type_: type) -> Kind | None:
    if type_ is object:
        return singletons.BARE_OBJECTS
    for base in type_.__mro__:
        kind = _HOMES.get(dotted_name(base))
        if kind is not None:
            return kind
    return None


def _watched(type_: type) -> Kind | None:
    """Who looks at how pickle would save objects of a type that has no room."""
    if containers.base_of(type_) is not None:
        return containers.CONTAINERS
    if _says_itself(type_):
        return named.NAMED
    return singletons.stateless(type_) or (instances.AWKWARD if instances.is_awkward(type_) else None)


def _says_itself(type_: type) -> bool:
    """Whether a class of the notebook says itself how it is pickled, or what is in it; nobody registered otherwise."""
    if type_.__module__ != "__main__" or type_ in cloudpickle.Pickler.dispatch_table:
        return False
    hooks = named.HOOKS[:2] + (named.CONTENTS if issubclass(type_, list | dict) else ())
    return any(hook in vars(base) for base in named.own_bases(type_) for hook in hooks)


def _is_tame(type_: type) -> bool:
    if find_saver(type_) is not None:
        return False
    for base in type_.__mro__:
        if str(base.__module__).partition(".")[0] in _TAME_ROOTS:
            continue
        if not base.__flags__ & _HEAP_TYPE or any(hook in base.__dict__ for hook in _HOOKS):
            return False
    return True


_HEAP_TYPE = 1 << 9  # made by a class statement, or by a library that says so


def is_leaf(value: Any) -> bool:
    """Whether `value` is one of the plain immutable built-ins."""
    return type(value) in _PLAIN_VALUES


_PLAIN_VALUES = frozenset({int, float, complex, bool, str, bytes, type(None), type(...), range})
