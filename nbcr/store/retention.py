"""Which entries stay: so many of the last, one an hour, a day …, and no more bytes than the disk has to spare.

An entry is kept when one rule keeps it. Pinned ones are kept always, and so are the newest of all and the sessions
that a Jupyter server ended and that wait for their notebooks. The disk budget comes
last, and goes before the rules: the oldest leave until what is left fits.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from nbcr.errors import EntryDamaged, UsageProblem
from nbcr.store import files, opening, recipe, settings, tags, waiting
from nbcr.store.entry import Entry, packed_parts, recipe_of
from nbcr.store.packs import Packs
from nbcr.store.store import Store


@dataclass(frozen=True)
class Policy:
    """How many of which are kept. What is not set keeps nothing; what nothing keeps is removed."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    tagged: tuple[str, ...] = ()
    max_bytes: int | None = None  # the disk budget
    each_notebook: bool = False  # the rules count for each notebook (or process) by itself

    def __post_init__(self) -> None:
        """Raise UsageProblem where a number makes no sense."""
        counts = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.max_bytes or 0)
        if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts):
            raise UsageProblem("how many checkpoints to keep is a number, 0 or more")

    @property
    def has_rules(self) -> bool:
        """Whether anything is said about which to keep, apart from the budget."""
        return any((self.last, self.hourly, self.daily, self.weekly, self.monthly, self.tagged))

    @property
    def says_something(self) -> bool:
        """Whether it would ever remove anything; a policy without rules must not remove everything."""
        return self.has_rules or self.max_bytes is not None

    def document(self) -> dict[str, Any]:
        """As settings.json has it: what is set."""
        default = Policy()
        return {key: value for key, value in asdict(self).items() if value != getattr(default, key)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Policy:
        """The inverse. Raises UsageProblem."""
        known = {f.name for f in fields(cls)}
        if set(document) - known:
            raise UsageProblem(f"pruning has no rule {sorted(set(document) - known)[0]!r}")
        return cls(**{**document, "tagged": tuple(document.get("tagged", ()))})


@dataclass
class Pruned:
    """What pruning did, or would do."""

    removed: list[Entry] = field(default_factory=list)
    kept: list[tuple[Entry, str]] = field(default_factory=list)  # with the rule that keeps it
    needed_bytes: int = 0  # of what is kept, once the garbage is collected
    over_budget_bytes: int = 0  # by which even that is too much


def prune(store: Store, policy: Policy, *, dry_run: bool = False) -> Pruned:
    """Remove what `policy` does not keep; what it needed is given back by the next collection of garbage.

    What somebody reads just now stays. Raises UsageProblem for a policy that says nothing.
    """
    if not policy.says_something:
        raise UsageProblem(
            "nothing is said about what to keep, so nothing is removed",
            hint="--keep-last 5, --keep-hourly 24, --keep-tag TAG, --max-bytes 50G …",
        )
    entries = store.entries()
    reasons, needs = _reasons(entries, policy), _Needs(store, entries)
    done = Pruned()
    for entry in entries:
        if entry.id not in reasons:
            if dry_run or store.remove(entry, unless=opening.in_use):
                needs.without(entry)
                done.removed.append(entry)
            else:
                reasons[entry.id] = "in use"
    if policy.max_bytes is not None:
        kept = [entry for entry in entries if entry.id in reasons]
        done.removed += _fit(store, policy.max_bytes, kept, needs, dry_run=dry_run)
    gone = {entry.id for entry in done.removed}
    done.kept = [(entry, reasons[entry.id]) for entry in entries if entry.id not in gone]
    done.needed_bytes = needs.size_bytes
    done.over_budget_bytes = 0 if policy.max_bytes is None else max(0, needs.size_bytes - policy.max_bytes)
    return done


def _fit(store: Store, most: int, entries: Sequence[Entry], needs: _Needs, *, dry_run: bool) -> list[Entry]:
    """Remove the oldest until what is left needs no more than `most`; hot files of what is packed go before that."""
    removed: list[Entry] = []
    staying = waiting.must_stay(entries)
    for entry in entries:
        if needs.size_bytes > most:
            needs.cool(entry, drop=not dry_run)
    for entry in entries[:-1]:  # a budget that is too small does not take the last one
        if needs.size_bytes <= most:
            break
        if entry.id in staying or tags.is_pinned(entry.path):
            continue
        if dry_run or store.remove(entry, unless=opening.in_use):
            needs.without(entry)
            removed.append(entry)
    return removed


def automatic(store: Store) -> Policy | None:
    """What packers keep without being asked: of each notebook for itself. None: everything. Raises NbcrError.

    NBCR_KEEP, as a session's traits set it, comes before the store's own settings.
    """
    said = os.environ.get("NBCR_KEEP")
    try:
        document = json.loads(said) if said else settings.read(store.root).keep
        policy = replace(Policy.from_document(document), each_notebook=True)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageProblem(f"NBCR_KEEP says nothing that can be understood: {error}") from error
    return policy if policy.says_something else None


# --- rules


def _reasons(entries: Sequence[Entry], policy: Policy) -> dict[str, str]:
    """By id, why an entry is kept; the others are not."""
    found = dict.fromkeys(waiting.must_stay(entries), "waits for its notebook")
    found |= {entry.id: "pinned" for entry in entries if tags.is_pinned(entry.path)}
    if not policy.has_rules:
        return {entry.id: "no rule" for entry in entries} | found
    for entry in entries:
        if policy.tagged and set(policy.tagged) & set(_tags(entry)):
            found.setdefault(entry.id, "tag")
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_group(entry) if policy.each_notebook else "", []).append(entry)
    for group in groups.values():
        newest_first = list(reversed(group))
        for name, count, bucket in _rules(policy):
            for entry in _of_buckets(newest_first, count, bucket):
                found.setdefault(entry.id, name)
        found.setdefault(newest_first[0].id, "the newest")
    return found


def _tags(entry: Entry) -> Iterable[str]:
    try:
        return tags.read(entry.path)
    except EntryDamaged:
        return ()


def _group(entry: Entry) -> str:
    return entry.notebook or f"{entry.host.get('hostname')} {entry.pid}"


def _rules(policy: Policy) -> list[tuple[str, int, Callable[[Entry], str]]]:
    return [
        ("last", policy.last, lambda entry: entry.id),
        ("hourly", policy.hourly, lambda entry: f"{_when(entry):%Y-%m-%d %H}"),
        ("daily", policy.daily, lambda entry: f"{_when(entry):%Y-%m-%d}"),
        ("weekly", policy.weekly, lambda entry: f"{_when(entry):%G-%V}"),
        ("monthly", policy.monthly, lambda entry: f"{_when(entry):%Y-%m}"),
    ]


def _when(entry: Entry) -> datetime:
    """When it was taken, on the user's clock: days begin at the user's midnight."""
    try:
        return datetime.fromisoformat(entry.created).astimezone()
    except ValueError:
        return datetime.strptime(entry.id[:15] + "+0000", "%Y%m%dT%H%M%S%z").astimezone()


def _of_buckets(newest_first: Sequence[Entry], count: int, bucket: Callable[[Entry], str]) -> list[Entry]:
    """The newest entry of each of the last `count` buckets that have one."""
    found: dict[str, Entry] = {}
    for entry in newest_first:
        if len(found) == count:
            break
        found.setdefault(bucket(entry), entry)
    return list(found.values())


# --- bytes


class _Needs:
    """What entries need on the disk together: files of their own, and chunks that they share."""

    def __init__(self, store: Store, entries: Sequence[Entry]) -> None:
        packs = Packs(store.root)
        self._stored = {row.chunk_id: row.frame_bytes for name in packs.active() for row in _rows(packs, name)}
        self._chunks = {entry.id: _chunks(entry) for entry in entries}
        self._own = {entry.id: files.tree_size_bytes(entry.path) for entry in entries}
        self._users = Counter(chunk for chunks in self._chunks.values() for chunk in chunks)
        self.size_bytes = sum(self._own.values()) + sum(self._stored.get(chunk, 0) for chunk in self._users)

    def without(self, entry: Entry) -> None:
        """One fewer."""
        self.size_bytes -= self._own[entry.id]
        for chunk in self._chunks[entry.id]:
            self._users[chunk] -= 1
            if not self._users[chunk]:
                self.size_bytes -= self._stored.get(chunk, 0)

    def cool(self, entry: Entry, *, drop: bool) -> None:
        """Drop the hot files of what is packed of it, or count as if they were dropped."""
        for part in packed_parts(entry.path):
            folder = opening.hot(entry, part)
            if folder is not None:
                size = files.tree_size_bytes(folder)
                if not drop or opening.cool(entry, part):
                    self._own[entry.id] -= size
                    self.size_bytes -= size


def _rows(packs: Packs, name: str) -> Iterable[Any]:
    try:
        return packs.table(name)
    except OSError:
        return ()


def _chunks(entry: Entry) -> set[bytes]:
    found: set[bytes] = set()
    for part in packed_parts(entry.path):
        try:
            found.update(recipe.read_list(recipe_of(entry.path, part)).ids())
        except (EntryDamaged, OSError):
            continue
    return found
