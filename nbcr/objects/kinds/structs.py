"""Classes that a library reads its own way when they are made: msgspec's are made again from their fields.

What SQLAlchemy has mapped is known to its registry, its mappers and its tables under that very class: it is refused, so
that nothing else is lost with it, and nothing of it is changed where it is alive.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle

from nbcr.objects.kinds.base import CannotSave, Kind, Reduction
from nbcr.objects.kinds.classes import CLASSES, set_class_state
from nbcr.objects.kinds.functions import importable

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey

_WHEN_IT_IS_MADE = ("__module__", "__qualname__", "__doc__", "__annotations__", "__orig_bases__", "__post_init__")
_OPTIONS = (
    "tag tag_field frozen eq order array_like forbid_unknown_fields omit_defaults repr_omit_defaults gc weakref dict "
    "cache_hash"
).split()


class Structs(Kind):
    """Classes made of msgspec.Struct."""

    types = ("msgspec._core.StructMeta",)

    def parts(self, obj: type, survey: Survey) -> Iterable[Any]:
        return CLASSES.parts(obj, survey)

    def shares(self, obj: type) -> bool:
        return CLASSES.shares(obj)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if importable(obj) is not None:
            return CLASSES.reduce(obj, pickler)
        own = vars(obj)
        body = {name: own[name] for name in _WHEN_IT_IS_MADE if name in own} | {"__qualname__": obj.__qualname__}
        fields = _own_fields(obj)
        options = {name: getattr(obj.__struct_config__, name) for name in _OPTIONS}
        options["kw_only"] = bool(fields) and not set(fields) & set(obj.__match_args__)
        skipped = {*body, *fields, "__slots__", "__dict__", "__weakref__"}
        attributes = {name: value for name, value in own.items() if name not in skipped}
        number = cloudpickle._get_or_create_tracker_id(obj)
        made = number, type(obj), obj.__name__, obj.__bases__, body, fields, options
        return make_struct, made, (attributes, {}), None, None, set_class_state


def _own_fields(cls: Any) -> dict[str, dict[str, Any]]:
    """How each field that this class adds was declared, as arguments of `msgspec.field`."""
    import msgspec

    names = cls.__struct_fields__
    required = [msgspec.NODEFAULT] * (len(names) - len(cls.__struct_defaults__))
    found: dict[str, dict[str, Any]] = {}
    for name, encoded, default in zip(
        names, cls.__struct_encode_fields__, [*required, *cls.__struct_defaults__], strict=True
    ):
        if name in vars(cls).get("__annotations__", ()):
            found[name] = {"name": encoded}
            if type(default) is _FACTORY:
                found[name]["default_factory"] = default.factory  # type: ignore[attr-defined]
            elif default is not msgspec.NODEFAULT:
                found[name]["default"] = default
    return found


def _factory_type() -> type:
    import msgspec

    class WithFactory(msgspec.Struct):
        members: list[int] = msgspec.field(default_factory=list)

    return type(WithFactory.__struct_defaults__[0])


_FACTORY = _factory_type()


def make_struct(
    number: str, metaclass: Any, name: str, bases: Any, body: Any, fields: dict[str, Any], options: dict[str, Any]
) -> Any:
    """The class with this number when it is alive, else a new one."""
    import msgspec

    alive = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(number)
    if alive is not None:
        return alive
    declared = {field: msgspec.field(**arguments) for field, arguments in fields.items()}
    made = metaclass(name, bases, {**body, **declared}, **options)
    return cloudpickle._lookup_class_or_track(number, made)


class Instances(Kind):
    """Instances of classes with a ``__post_init__``, which pickle calls a second time: what it changes is put right. Of
    classes with a dictionary (``dict=True``), what is in that comes along, which msgspec forgets.
    """

    types = ("msgspec.Struct",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        reduction = obj.__reduce__()
        beside = dict(getattr(obj, "__dict__", {}))
        if not (beside or hasattr(obj, "__post_init__")) or len(reduction) != 2:
            return reduction
        values = {name: getattr(obj, name) for name in obj.__struct_fields__ if hasattr(obj, name)}
        return (*reduction, {**values, **beside}, None, None, set_fields)


def set_fields(obj: Any, values: dict[str, Any]) -> None:
    """Set the fields, also of a frozen one."""
    import msgspec

    for name, value in values.items():
        if name in obj.__struct_fields__:
            msgspec.structs.force_setattr(obj, name, value)
        else:
            obj.__dict__[name] = value


class Coders(Kind):
    """Encoders and decoders: made again with the same options."""

    types = ("msgspec.json.Decoder", "msgspec.json.Encoder", "msgspec.msgpack.Decoder", "msgspec.msgpack.Encoder")

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        options = {name: getattr(obj, name) for name in _CODING if hasattr(obj, name)}
        cls: Any = type(obj)
        return functools.partial(cls, **options), ()


_CODING = "type strict dec_hook float_hook ext_hook enc_hook decimal_format uuid_format order".split()


class Mapped(Kind):
    """Declarative classes of SQLAlchemy, and the bases that they are made of."""

    types = (
        "sqlalchemy.orm.decl_api.DeclarativeAttributeIntercept",
        "sqlalchemy.orm.decl_api.DeclarativeMeta",
        "sqlalchemy.orm.decl_api.DCTransformDeclarative",
    )
    refuses = True

    def parts(self, obj: type, survey: Survey) -> Iterable[Any]:
        return ()

    def reduce(self, obj: type, pickler: UnitPickler) -> Reduction:
        if importable(obj) is not None:
            return CLASSES.reduce(obj, pickler)
        raise CannotSave("SQLAlchemy has mapped it: its class statement has to run again")


KINDS: tuple[Kind, ...] = (Structs(), Instances(), Coders(), Mapped())
