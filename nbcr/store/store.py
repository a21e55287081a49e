"""The store as an object: list, find, write, replace, remove. FORMAT.md is the law here.

In a user's Jupyter kernel this is used for listing and for names only; entries are written by the helper.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nbcr import runtime
from nbcr.errors import EntryDamaged, NameTaken, NoRoomInStore, StoreRefused, UnknownName
from nbcr.store import files, journal, names, owners
from nbcr.store.entry import GONE, IMAGE, MANIFEST, OBJECTS, Entry

if TYPE_CHECKING:
    from nbcr.store.encryption import Keys
    from nbcr.store.manifest import Manifest

OWNER = "owner.json"
ENCRYPTION = "encryption.json"
WANTED = "wanted"
_ABANDONED_AFTER_S = 7 * 24 * 3600.0


def default_root() -> Path:
    """NBCR_STORE, else the platform's user data folder + nbcr (what platformdirs answers on Linux)."""
    chosen = os.environ.get("NBCR_STORE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data.strip() else home() / ".local" / "share") / "nbcr"


def home() -> Path:
    """Our home folder. Raises StoreRefused where there is none, as for a user of a container without an account."""
    try:
        return Path.home()
    except RuntimeError:
        raise StoreRefused(
            f"nobody knows a home folder of user {os.geteuid()}: HOME is not set, and there is no such account",
            hint="set HOME, or NBCR_STORE and NBCR_CONFIG",
        ) from None


@dataclass
class Draft:
    """An entry being written: fill `image`, then hand it to `Store.publish`, or `Store.discard` it."""

    id: str
    name: str
    created: str
    path: Path
    replace: bool
    before: frozenset[str] = frozenset()  # ids of entries that were there already, whatever their clocks said

    @property
    def image(self) -> Path:
        """Where the CRS component puts its files; does not exist yet."""
        return self.path / IMAGE

    @property
    def snapshot(self) -> Path:
        """Where the process puts the snapshot of its objects; does not exist yet."""
        return self.path / OBJECTS


class Store:
    """A store at `root` (None: the default place). Nothing is created before the first write."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        try:
            self.root = default_root() if root is None else Path(root).expanduser().absolute()
        except FileNotFoundError:  # of a relative path
            asked = root or os.environ.get("NBCR_STORE")
            raise StoreRefused(f"store {asked} is below a folder that was deleted") from None
        self._entries = self.root / "entries"

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    # Reading

    def entries(self) -> list[Entry]:
        """All entries, oldest first. Raises StoreRefused; damaged entries are left out (see `damaged`)."""
        return sorted(self._survey()[0], key=lambda e: (e.created, e.id))

    def damaged(self) -> list[EntryDamaged]:
        """What is wrong with the entries that cannot be listed."""
        return self._survey()[1]

    def find(self, name: str) -> Entry:
        """The entry called `name` (or with that id, or unique beginning of an id). Raises UnknownName."""
        try:
            return names.find(self.entries(), name)
        except UnknownName as error:
            if not error.hint:  # most often the store of somebody else, or of another setting of NBCR_STORE
                error.hint = f"the store {self.root} is empty"
            raise

    def _survey(self) -> tuple[list[Entry], list[EntryDamaged]]:
        good: list[Entry] = []
        bad: list[EntryDamaged] = []
        if not self._check():
            return good, bad
        for path in self._entries.iterdir():
            if not names.is_id(path.name):
                continue
            try:
                if not files.is_ours(path) or not files.is_ours(path / MANIFEST):
                    raise EntryDamaged(f"entry {path.name} was not written by you", hint=f"remove the folder {path}")
                good.append(Entry.read(path))
            except EntryDamaged as problem:
                bad.append(problem)
            except FileNotFoundError:
                if path.exists():  # else somebody removed it meanwhile
                    bad.append(EntryDamaged(f"entry {path.name} has no manifest", hint=f"remove the folder {path}"))
        return good, bad

    def _check(self) -> bool:
        """Whether the store exists. Raises StoreRefused when it cannot be trusted."""
        for folder, what in ((self.root, "store"), (self._entries, "store folder")):
            try:
                files.check_private(folder, what=what)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise _unusable(self.root, error) from error
        return True

    @property
    def is_encrypted(self) -> bool:
        """Whether what is packed from now on is encrypted."""
        return (self.root / ENCRYPTION).exists()

    def keys(self) -> Keys | None:
        """The store's keys; None: it is not encrypted. Raises StoreLocked."""
        if not self.is_encrypted:
            return None
        from nbcr.store import encryption

        return encryption.keys_of(self.root)

    # Writing

    def draft(
        self,
        name: str | None,
        *,
        replace: bool = False,
        now: datetime | None = None,
        entry_id: str | None = None,
        created: str | None = None,
    ) -> Draft:
        """Open a draft called `name` (None: its id), removing what dead writers left.

        `entry_id` and `created` are those of an entry that comes from elsewhere.

        Raises NameTaken, UsageProblem, StoreRefused, NoRoomInStore.
        """
        moment = now or datetime.now(UTC)
        entry_id = entry_id or names.new_id(moment)
        if name is not None:
            names.check_name(name)
        self.keys()  # a locked store is refused before anything happens
        with self.writing():
            self._create()
            with self._locked():
                self._sweep()
                if name is not None and not replace:
                    self._check_free(name)
                draft = Draft(
                    id=entry_id,
                    name=name if name is not None else entry_id,
                    created=created or moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    path=self._entries / f".tmp-{entry_id}.{runtime.own_pid()}",
                    replace=replace,
                    before=frozenset(filter(names.is_id, os.listdir(self._entries))) if replace else frozenset(),
                )
                draft.path.mkdir(mode=0o700)
                # Not durable: whoever asked for the checkpoint waits for this, and a disk may take its time to sync.
                files.write_atomically(draft.path / OWNER, owners.encoded(draft.name), durable=False)
        return draft

    def is_written(self) -> bool:
        """Whether somebody on this host writes a checkpoint."""
        with contextlib.suppress(OSError):
            for path in self._entries.iterdir():
                if path.name.startswith(".tmp-") and owners.lives(owners.read(path / OWNER)):
                    return True
        return False

    def sync(self, draft: Draft) -> None:
        """Force all that was written so far to the disk; must precede `publish`. Raises NoRoomInStore."""
        with self.writing():
            files.fsync_tree(draft.path)

    def size_bytes(self, draft: Draft) -> int:
        """Bytes on disk of what was written so far."""
        return files.tree_size_bytes(draft.path)

    def publish(
        self, draft: Draft, manifest: Manifest, digests: Mapping[str, str] | None = None, *, durable: bool = True
    ) -> Entry:
        """Make a synced draft an entry, atomically, then remove what it replaces. Raises NoRoomInStore.

        `digests` are those of files that are known already, by ``PART/path``. Not `durable`: a draft that need not be
        synced, whose entry `settle` makes one that outlives a power cut.
        """
        from nbcr.store import publishing

        with self.writing():
            publishing.finish(draft.path, manifest, digests or {}, self.keys(), durable=durable)
            final = self.put_in_place(draft, durable=durable)
        return Entry.read(final)

    def settle(self, entry: Entry) -> None:
        """Force an entry that was published without to the disk; one that is gone already needs it no more."""
        files.fsync_tree(self._entries / entry.id, in_use=True)
        files.fsync_path(self._entries)

    def put_in_place(self, draft: Draft, *, durable: bool = True) -> Path:
        """Make a draft that is complete (and on the disk, if `durable`) an entry, then remove what it replaces; its
        folder.
        """
        with self.writing():
            with self._locked():
                final = self._entries / draft.id
                draft.path.rename(final)
                if durable:
                    files.fsync_path(self._entries)
            (final / OWNER).unlink(missing_ok=True)
        if draft.replace:
            for old in self.entries():
                is_older = old.id in draft.before or (old.created, old.id) < (draft.created, draft.id)
                if is_older and old.name == draft.name and old.id != draft.id:
                    self.remove(old)
        return final

    def discard(self, draft: Draft) -> None:
        """Give the draft's space back."""
        files.remove_tree(draft.path)

    def remove(self, entry: Entry, *, unless: Callable[[Path], bool] = lambda folder: False) -> bool:
        """Remove an entry: gone from the list at once, then its files; whether it is gone.

        It stays where `unless` says of its folder that it must, before or after it took its name.
        """
        self._check()
        path, gone = self._entries / entry.id, self._entries / f"{GONE}{entry.id}"
        with self._locked():  # whoever sweeps what is called gone holds it, too
            files.remove_tree(gone)
            with contextlib.suppress(FileNotFoundError):  # somebody else was faster
                if unless(path):
                    return False
                path.rename(gone)
                if unless(gone):
                    gone.rename(path)
                    return False
                files.fsync_path(self._entries)
        files.remove_tree(gone)
        journal.note(self.root, "removed", id=entry.id, name=entry.name)
        self._want_collection()
        return True

    def _want_collection(self) -> None:
        """Leave word for whoever packs next that chunks may have become garbage."""
        with contextlib.suppress(OSError):
            if (self.root / "packs").is_dir():
                self.collections.mkdir(mode=0o700, exist_ok=True)
                (self.collections / WANTED).touch(mode=0o600)

    @property
    def collections(self) -> Path:
        """Folder of what collections of garbage have to remember."""
        return self.root / "gc"

    def log_folder(self) -> Path:
        """Folder for helpers' logs, created when missing."""
        with self.writing():
            self._create()
            folder = self.root / "log"
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def helper_log(self, pid: int) -> Path:
        """Where a helper's stderr goes once it has an order; removed by it when it said nothing."""
        return self.root / "log" / f"helper-{pid}.log"

    def prepare(self) -> None:
        """Make it, where there is none yet. Raises StoreRefused, NoRoomInStore: nothing could be saved here."""
        with self.writing():
            self._create()
            with self._locked():
                pass

    def _create(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check()
        self._entries.mkdir(mode=0o700, exist_ok=True)
        self._check()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what the file system says into errors that name the store."""
        try:
            yield
        except OSError as error:
            if error.errno in files.NO_ROOM:
                raise NoRoomInStore(
                    f"no room left in store {self.root} ({error.strerror})",
                    hint="remove checkpoints (`nbcr remove`) or choose another store with --store",
                ) from error
            raise _unusable(self.root, error) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the store's lock; held for moments only, so waiting without a bound is right."""
        try:
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise _unusable(self.root, error) from error
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _check_free(self, name: str) -> None:
        taken = [e for e in self.entries() if e.name == name]
        if taken:
            raise NameTaken(
                f"a checkpoint named {name!r} exists already (taken {taken[-1].created})",
                hint="--force replaces it, or choose another name",
            )
        for path in self._entries.glob(".tmp-*"):
            owner = owners.read(path / OWNER)
            if owner is not None and owner.get("name") == name:
                raise NameTaken(
                    f"a checkpoint named {name!r} is being written by process {owner.get('pid')}",
                    hint="wait for it, or choose another name",
                )

    def _sweep(self) -> None:
        """Remove what dead writers left (FORMAT.md, "Garbage")."""
        for path in self._entries.iterdir():
            if path.name.startswith(GONE) or (path.name.startswith(".tmp-") and _is_abandoned(path)):
                with contextlib.suppress(OSError):  # another writer sweeps too; what cannot go now goes later
                    files.remove_tree(path)


def _is_abandoned(draft: Path) -> bool:
    """Whether nobody writes `draft` any more; asked under the store's lock."""
    if _is_missing(draft / OWNER):  # its maker held the lock that we hold until the owner was told
        return True
    alive = owners.lives(owners.read(draft / OWNER))
    if alive is not None:
        return not alive
    try:
        return time.time() - draft.stat().st_mtime > _ABANDONED_AFTER_S
    except FileNotFoundError:
        return False


def _is_missing(path: Path) -> bool:
    """Whether it is certainly not there; what the file system does not tell may be there."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def _unusable(root: Path, error: OSError) -> StoreRefused:
    return StoreRefused(
        f"store {root} cannot be used: {error.strerror or error}" + (f" ({error.filename})" if error.filename else ""),
        hint="choose another with --store or NBCR_STORE",
    )
