"""`load` and `get`: names come back one by one, and what does not come back is told by name."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from nbcr.errors import EntryDamaged, SnapshotFailed, StoreRefused, UnknownName
from nbcr.objects import absent, fallback, homes, modules, surroundings
from nbcr.objects import index as indexes
from nbcr.objects.blob_reader import BlobReader, Fetch
from nbcr.objects.index import Index, Name, Unit
from nbcr.objects.names import hidden_names, user_names
from nbcr.objects.results import Drift, Fate, Report, Verdict
from nbcr.objects.standing import standing
from nbcr.objects.unpickling import unpickled
from nbcr.store.files import is_ours

Trust = Callable[[Path, str], None]

_PLAIN = frozenset("int float complex bool str bytes NoneType range".split())
_DEFINITIONS = frozenset("function type".split())


def owned_by_us(place: Path, fingerprint: str) -> None:
    """Raise StoreRefused unless the snapshot is this user's own and nobody else could have written to it."""
    for path in (place, *place.iterdir()):
        if not is_ours(path):
            raise StoreRefused(
                f"the snapshot {place} is not loaded: {path} belongs to another user, or others can write to it",
                hint="loading a snapshot runs what is in it",
            )


def load(
    place: Path | str,
    namespace: dict[str, Any],
    *,
    names: Collection[str] | None = None,
    hidden: Collection[str] | Mapping[str, Any] | None = None,
    remove_new: bool = False,
    with_surroundings: bool = True,
    trust: Trust = owned_by_us,
) -> Report:
    """Put the names of the snapshot at `place` back into `namespace`; with `names` only those.

    What cannot be restored keeps the value it has. With `remove_new`, names that came since the snapshot are
    removed, but for modules. `trust` is called with the place and the fingerprint of the snapshot before
    anything of it is unpickled, and raises when it is not to be loaded.
    """
    begun = time.monotonic()
    index = _trusted(Path(place), trust)
    wanted = [name for name in index.names if names is None or name.name in names]
    _check_all_known(names or (), index)
    loading = _Loading(Path(place), index, namespace)
    states, remarks = loading.surroundings() if with_surroundings and names is None else ({}, [])
    remarks += surroundings.apply(states, before_names=True)
    verdicts = loading.run(wanted)
    removed: tuple[str, ...] = ()
    if names is None:
        loading.reset_modules()
        if remove_new:
            hidden = hidden_names(namespace) if hidden is None else hidden
            removed = _removed(namespace, hidden, {name.name for name in index.names})
    remarks += surroundings.apply(states, before_names=False)
    return Report(
        Path(place),
        {name.name: verdicts[name.name] for name in wanted},
        size_bytes=index.size_bytes,
        blocked_ms=(time.monotonic() - begun) * 1e3,
        duration_ms=(time.monotonic() - begun) * 1e3,
        how="in-process",
        remarks=(*index.remarks, *remarks),
        drift=tuple(drift_of(index)),
        removed=removed,
    )


def get(
    place: Path | str,
    name: str,
    *,
    namespace: dict[str, Any] | None = None,
    trust: Trust = owned_by_us,
    fetch: Fetch | None = None,
) -> Any:
    """One variable of a snapshot, of which no other bytes are read.

    Its functions are bound to `namespace` (None: __main__). `fetch` brings bytes of its files where there are none.
    """
    index = _trusted(Path(place), trust, fetch)
    _check_all_known([name], index)
    if namespace is None:
        namespace = vars(sys.modules["__main__"])
    entry = next(entry for entry in index.names if entry.name == name)
    found: dict[str, Any] = {}
    verdict = _Loading(Path(place), index, namespace, into=found, fetch=fetch).run([entry])[name]
    if verdict.fate is not Fate.RESTORED:
        raise SnapshotFailed(f"{name} cannot be taken out of {place}: {verdict.reason}")
    return found[name]


def fingerprint(place: Path | str) -> str:
    """What a signature of the snapshot has to cover: it changes with any byte of any pickle and buffer."""
    return indexes.digest_of(indexes.read_bytes(Path(place))).hex()


def verify(place: Path | str) -> None:
    """Read every byte of the snapshot and compare digests. Raises EntryDamaged, naming the file."""

    BlobReader(Path(place), indexes.read(Path(place))).verify()


def _trusted(place: Path, trust: Trust, fetch: Fetch | None = None) -> Index:
    data = indexes.read_bytes(place) if fetch is None else bytes(fetch(indexes.INDEX, 0, None))
    trust(place, indexes.digest_of(data).hex())
    return indexes.decoded(data, place)


def _check_all_known(names: Collection[str], index: Index) -> None:
    from difflib import get_close_matches

    known = [name.name for name in index.names]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UnknownName(f"there is no variable {name!r} in the snapshot", hint=hint, near=near)


class _Loading:
    """Names of one snapshot on their way into a namespace."""

    def __init__(
        self,
        place: Path,
        index: Index,
        namespace: dict[str, Any],
        into: dict[str, Any] | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self.place, self.index, self.namespace = place, index, namespace
        self._into = namespace if into is None else into
        self._reader = BlobReader(place, index, fetch)
        self._standing = standing(namespace)
        self._verdicts: dict[str, Verdict] = {}

    def run(self, wanted: list[Name]) -> dict[str, Verdict]:
        """Bring them back. What others may need to be made comes first.

        Imports, constants, functions and classes.
        """
        for name in wanted:
            if name.imported:
                self._import(name)
            elif name.unit < 0:
                self._verdicts[name.name] = _verdict(name, Fate(name.fate), name.reason, name.culprit)
        units: dict[int, list[Name]] = {}
        for name in sorted(wanted, key=_rank):
            if name.unit >= 0:
                units.setdefault(name.unit, []).append(name)
        self._load_units(units)
        return self._verdicts

    def _load_units(self, units: dict[int, list[Name]]) -> None:
        """A unit may need what a later one brings, a function that its class calls.

        So those that fail are tried again.
        """
        while units:
            failed: dict[int, tuple[list[Name], BaseException]] = {}
            for number, names in units.items():
                try:
                    self._place(names, self._value_of(self.index.units[number]), self.index.units[number].names)
                except Exception as error:
                    failed[number] = (names, error)
            if len(failed) == len(units):
                for names, reason in failed.values():
                    for name in names:
                        self._give_up(name, _why(reason))
                return
            units = {number: names for number, (names, _) in failed.items()}

    def _value_of(self, unit: Unit) -> dict[str, Any]:
        data = unit.inline if unit.stream < 0 else self._reader.stream(unit.stream)
        if unit.codec == "dill":
            value = fallback.loaded(bytes(data))
        else:
            value = unpickled(data, [self._reader.buffer(number) for number in unit.buffers], self._standing)
        return {unit.names[0]: value} if len(unit.names) == 1 else dict(zip(unit.names, value, strict=True))

    def _place(self, names: list[Name], values: dict[str, Any], unit: tuple[str, ...]) -> None:
        lost = _stand_ins({name.name: values[name.name] for name in names})
        remarks: dict[str, str] = {}
        if not lost and (known := {name.name: name.home for name in names if name.home}):
            size = max(name.size for name in names)
            own, remarks = homes.brought_home(known, values, unit, self.namespace, size)
            values = {**values, **own}
        for name in names:
            if name.name in lost:
                self._verdicts[name.name] = _verdict(name, Fate.LOST, lost[name.name])
                continue
            self._put(name.name, values[name.name])
            self._verdicts[name.name] = _verdict(name, Fate.RESTORED, remark=remarks.get(name.name, ""))

    def _give_up(self, name: Name, reason: str) -> None:
        """What cannot be made again is lost, but for what a module keeps itself."""
        own = homes.in_its_place(name.home)
        if own is None:
            self._verdicts[name.name] = _verdict(name, Fate.LOST, reason)
            return
        self._put(name.name, own[0])
        remark = f"it is {name.home.replace(':', '.')} as that is here ({reason})"
        self._verdicts[name.name] = _verdict(name, Fate.RESTORED, remark=remark)

    def _import(self, name: Name) -> None:
        module, _, attribute = name.imported.partition(":")
        try:
            value: Any = importlib.import_module(module)
            for part in attribute.split(".") if attribute else ():
                value = getattr(value, part)
        except Exception as error:
            self._verdicts[name.name] = _verdict(name, Fate.LOST, f"{name.repr} fails: {_why(error)}")
        else:
            self._put(name.name, value)
            self._verdicts[name.name] = _verdict(name, Fate.RESTORED)

    def _put(self, name: str, value: Any) -> None:
        """Bind a name. What IPython holds on to itself is changed in place."""
        if "." in name:
            modules.set_global(name, value)
        elif name == "Out" and isinstance(self._into.get(name), dict) and isinstance(value, dict):
            self._into[name].clear()
            self._into[name].update(value)
        elif name == "In" and isinstance(self._into.get(name), list) and isinstance(value, list):
            self._into[name][: len(value)] = value
        else:
            self._into[name] = value

    def reset_modules(self) -> None:
        """Constants of modules that were changed after the snapshot are what they were."""
        kept = [name.name for name in self.index.names if "." in name.name]
        modules.reset_globals(modules.in_use_by(list(self.namespace.values())), kept)

    def surroundings(self) -> tuple[dict[str, Any], list[str]]:
        """What belongs to no name; why it cannot be read, in words."""
        if self.index.surroundings < 0:
            return {}, []
        try:
            return self._value_of(self.index.units[self.index.surroundings])["surroundings"], []
        except Exception as error:
            return {}, [f"the random states and settings of libraries cannot be read: {_why(error)}"]


def _rank(name: Name) -> int:
    return 0 if name.type in _PLAIN else 1 if name.type in _DEFINITIONS else 2


def _verdict(name: Name, fate: Fate, reason: str = "", culprit: str = "", remark: str = "") -> Verdict:
    cell = name.cell if name.cell >= 0 else None
    remark = "; ".join(filter(None, (name.remark, remark))) if fate is Fate.RESTORED else ""
    return Verdict(name.name, fate, name.size, culprit, reason, remark, name.recipe, cell)


def _why(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (
        text if isinstance(error, EntryDamaged) else f"{type(error).__name__}: {text}" if text else type(error).__name__
    )


def _stand_ins(values: dict[str, Any]) -> dict[str, str]:
    """The names that reach something which could not be made again, with the reason."""
    if not absent.taken():
        return {}
    from nbcr.objects.kinds.table import KindTable
    from nbcr.objects.sharing import Survey

    found = {}
    for name, value in values.items():
        reasons = (absent.reason_of(obj) for obj in Survey(KindTable()).run(value).reached())
        reason = next((reason for reason in reasons if reason is not None), None)
        if reason is not None:
            found[name] = reason
    return found


def _removed(namespace: dict[str, Any], hidden: Collection[str] | Mapping[str, Any], kept: set[str]) -> tuple[str, ...]:
    """Remove the names that came since; modules do no harm and stay."""
    new = [name for name, value in user_names(namespace, hidden).items() if name not in kept]
    gone = tuple(name for name in new if not isinstance(namespace[name], ModuleType))
    for name in gone:
        del namespace[name]
    return gone


def drift_of(index: Index) -> list[Drift]:
    """The packages, and the Python, that are others than they were."""
    found = []
    here = ".".join(map(str, sys.version_info[:3]))
    if index.python.split(".")[:2] != here.split(".")[:2]:
        found.append(Drift("Python", index.python, here))
    for package, then in index.packages.items():
        now = modules.version_of(package)
        if now != then:
            found.append(Drift(package, then, now))
    return found
