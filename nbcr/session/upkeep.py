"""The use cases that keep a store: pack, collect, prune, tag, verify, trust, send, fetch. None touches a process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcr.errors import EntryDamaged, NbcrError, UsageProblem
from nbcr.store import Entry, Store

if TYPE_CHECKING:
    from nbcr.store.collecting import Collected
    from nbcr.store.fetching import Fetched
    from nbcr.store.remote_collecting import Collected as RemoteCollected
    from nbcr.store.retention import Policy, Pruned
    from nbcr.store.sending import Sent
    from nbcr.store.settings import Settings
    from nbcr.store.signing import Origin
    from nbcr.store.verifying import PackProof, Proof

StoreLike = Store | str | os.PathLike[str] | None


def pack(store: StoreLike = None) -> list[NbcrError]:
    """Pack all entries that are not packed, now and at full speed; what could not be packed, and why."""
    from nbcr import packer
    from nbcr.store import housekeeping

    return housekeeping.keep(_store(store), layout=packer.layout, threads=len(os.sched_getaffinity(0)), wait=True)


def collect_garbage(store: StoreLike = None, *, now: bool = False) -> Collected:
    """Give back what no entry needs any more. With `now`, without the time that a network file system is given."""
    from nbcr.store import collecting

    return collecting.collect(_store(store), grace_s=0.0 if now else None)


def collect_remote(url: str, *, grace_s: float | None = None) -> RemoteCollected:
    """Give back what no entry at `url` needs any more: condemned now, deleted by a collection a day later."""
    from nbcr.store import remote_collecting
    from nbcr.store.remotes import Remote

    return remote_collecting.collect(Remote(url), grace_s=remote_collecting.GRACE_S if grace_s is None else grace_s)


def push(
    url: str, names: Sequence[str] = (), *, store: StoreLike = None, pulse: Callable[[int], None] = lambda _: None
) -> Sent:
    """Send checkpoints (none named: all) to `url`, where whatever is missing there travels, and nothing else."""
    from nbcr.store import sending
    from nbcr.store.remotes import Remote

    place = _store(store)
    entries = [place.find(name) for name in names] if names else place.entries()
    remote = Remote(url)
    _pack_entries(place, entries)
    return sending.send(place, entries, remote, pulse)


def pull(
    url: str,
    names: Sequence[str] = (),
    *,
    store: StoreLike = None,
    force: bool = False,
    pulse: Callable[[int], None] = lambda _: None,
) -> Fetched:
    """Fetch checkpoints (none named: all) from `url`; whatever is here already does not travel.

    Raises RemoteFailed where nothing of nbcr's is, or when it cannot be read, and what `fetch` raises.
    """
    from nbcr.store import fetching
    from nbcr.store.remotes import Remote

    place, remote = _store(store), Remote(url)
    remote.require()
    offers = fetching.chosen(fetching.offered(remote, place.root), names)
    return fetching.fetch(place, remote, offers, replace=force, pulse=pulse)


def export(names: Sequence[str], file: Path, *, store: StoreLike = None, force: bool = False) -> Sent:
    """Write checkpoints, and all they need, into one file."""
    from nbcr.store import archives, sending

    place = _store(store)
    entries = [place.find(name) for name in names]
    _pack_entries(place, entries)
    with archives.written(file, replace=force) as target:
        return sending.send(place, entries, target)


def import_file(file: Path, *, store: StoreLike = None, force: bool = False) -> Fetched:
    """Take the checkpoints in a file into the store."""
    from nbcr.store import archives, fetching

    place = _store(store)
    with archives.opened(file) as source:
        return fetching.fetch(place, source, fetching.offered(source, place.root), replace=force)


def _pack_entries(store: Store, entries: Sequence[Entry]) -> None:
    """Only what is packed travels."""
    from nbcr import packer
    from nbcr.store import housekeeping

    for entry in entries:
        housekeeping.pack_entry(store, entry, layout=packer.layout, threads=len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Verification:
    """What `verify` found."""

    proofs: list[Proof]
    packs: PackProof | None = None
    damaged: list[str] = field(default_factory=list)  # entries that cannot even be listed

    @property
    def whole(self) -> bool:
        """Whether all is as it should be."""
        packs_whole = self.packs is None or not self.packs.problems
        return packs_whole and not self.damaged and all(proof.whole for proof in self.proofs)


def verify(names: Sequence[str] = (), *, store: StoreLike = None, mend: bool = False) -> Verification:
    """Read and prove every byte of the checkpoints `names`; with none of all of them, and of all packs."""
    from nbcr.store import verifying

    place = _store(store)
    entries = [place.find(name) for name in names] if names else place.entries()
    proofs = [verifying.verify(place, entry, whole=_whole, mend=mend) for entry in entries]
    proofs = [proof for proof in proofs if proof.whole or proof.entry.path.exists()]  # not what was removed meanwhile
    if names:
        return Verification(proofs)
    return Verification(proofs, verifying.verify_packs(place), [problem.line() for problem in place.damaged()])


def _whole(entry: Entry, part: str, folder: Path) -> None:
    """Prove a part whose manifest has no digests, of an earlier format, by what its maker can prove."""
    from nbcr import crs

    maker = crs.maker_of(entry.name, "objects" if part == "objects" else entry.component.get("name"))
    maker.verify(crs.SnapshotReference(maker.name, entry.id, folder))


def trust(name: str, *, store: StoreLike = None, signer: bool = False) -> Origin:
    """Let checkpoint `name` be restarted and loaded here; with `signer` whatever its signer signed."""
    from nbcr.store import trust

    return trust.trust(_store(store).find(name), signer=signer)


def distrust(name: str, *, store: StoreLike = None) -> bool:
    """Take that back; whether there was anything to take back."""
    from nbcr.store import trust

    return trust.forget(_store(store).find(name))


def trust_signer(public: str, note: str = "") -> None:
    """Trust whatever the key `public` (64 hexadecimal digits) signed."""
    from nbcr.store import trust

    trust.trust_signer(public, note)


def origin_of(entry: Entry) -> str:
    """Whose an entry is: own, trusted, stranger, unsigned, forged."""
    from nbcr.store import signing

    return signing.origin_of(entry).state


def own_key() -> str:
    """The public key with which this user's checkpoints are signed: what others trust."""
    from nbcr.store import signing

    signer = signing.our_signer()
    if signer is None:  # it is made when it is not there
        raise EntryDamaged("there is no signing key, and none could be made")
    return signer.public.hex()


def policy(*rules: Any) -> Policy:
    """What to keep: see nbcr.store.retention.Policy."""
    from nbcr.store.retention import Policy

    return Policy(*rules)


def own_policy(store: StoreLike = None) -> Policy | None:
    """What is kept without being asked, of each notebook: the session's rules, else the store's; None: everything."""
    from nbcr.store import retention

    return retention.automatic(_store(store))


def prune(policy: Policy, *, store: StoreLike = None, dry_run: bool = False) -> tuple[Pruned, Collected | None]:
    """Remove the checkpoints that `policy` does not keep, and collect the garbage. Pinned ones are always kept."""
    from nbcr.store import collecting, retention

    place = _store(store)
    done = retention.prune(place, policy, dry_run=dry_run)
    return done, None if dry_run else collecting.collect(place)


def tag(
    name: str, add: Sequence[str] = (), *, remove: Sequence[str] = (), pin: bool = False, store: StoreLike = None
) -> dict[str, bool]:
    """Give checkpoint `name` tags, which with `pin` keep it from being pruned, and take tags; those it has then."""
    from nbcr.store import tags

    entry = _store(store).find(name)
    if not add and not remove:
        return tags.read(entry.path)
    return tags.change(entry, dict.fromkeys(add, pin), remove)


def not_packed(store: StoreLike = None) -> int:
    """How many entries are still as they were written: a packer is at them, or comes to them."""
    from nbcr.store import housekeeping

    return len(housekeeping.hot_only(_store(store)))


@dataclass(frozen=True)
class PackedSize:
    """What an entry's packed parts take."""

    stored_bytes: int
    added_bytes: int  # of these: what no earlier one had


def packed_size(entry: Entry) -> PackedSize | None:
    """What `entry` takes since it was packed; None where it is not, or that cannot be read."""
    from nbcr.store import recipe
    from nbcr.store.entry import packed_parts, recipe_of

    try:
        lists = [recipe.read_list(recipe_of(entry.path, part)) for part in packed_parts(entry.path)]
    except (NbcrError, OSError):
        return None
    if not lists:
        return None
    return PackedSize(sum(each.stored_bytes for each in lists), sum(each.added_bytes for each in lists))


def change_settings(*, store: StoreLike = None, keep: Policy | None = None, **changes: int | str | None) -> Settings:
    """The store's settings, after `changes` and the rules of automatic pruning, where any are given."""
    from dataclasses import replace

    from nbcr.store import settings

    place = _store(store)
    now = settings.read(place.root)
    if keep is None and not changes:
        return now
    now = replace(now, **changes)  # type: ignore[arg-type]
    if now.pack not in (settings.BACKGROUND, settings.NEVER):
        raise UsageProblem(f"--pack {now.pack!r} is not known", hint="use background or never")
    if keep is not None:
        now = replace(now, keep=keep.document())
    place.log_folder()
    settings.write(place.root, now)
    return now


def encrypt(*, store: StoreLike = None, passphrase: str | None = None, key_file: Path | None = None) -> list[str]:
    """Encrypt what is packed from now on; names of the entries that are there, and not encrypted."""
    from nbcr.store import encryption

    place = _store(store)
    place.log_folder()
    encryption.encrypt_from_now_on(place.root, passphrase=passphrase, key_file=key_file)
    return [entry.name for entry in place.entries() if entry.sealed is None]


def unlock(*, store: StoreLike = None, passphrase: str | None = None) -> Path | None:
    """Keep the key of an encrypted store in memory; where. None: the store is not encrypted."""
    from nbcr.store import encryption

    return encryption.unlock(_store(store).root, passphrase)


def lock(*, store: StoreLike = None) -> bool:
    """Forget what `unlock` keeps; whether there was anything."""
    from nbcr.store import encryption

    return encryption.lock(_store(store).root)


def _store(store: StoreLike) -> Store:
    return store if isinstance(store, Store) else Store(store)


def check_names_or_all(names: Sequence[str], every: bool) -> None:
    """Raise UsageProblem unless exactly one of them was said."""
    if bool(names) == every:
        raise UsageProblem("name checkpoints, or say --all", hint="`nbcr list` shows what there is")
