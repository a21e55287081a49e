"""Hot files: holding them while they are read, writing them again where they are not there, dropping them (FORMAT.md,
"Hot files").
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from nbcr import runtime
from nbcr.errors import EntryDamaged
from nbcr.store import files, owners, publishing, settings, signing
from nbcr.store.damage import damaged
from nbcr.store.entry import GONE, Entry, packed_parts, recipe_of
from nbcr.store.store import Store

_USE, _COOLING, _THAWING = ".use-", ".cooling-", ".thawing-"
_UNTOLD_AFTER_S = 24 * 3600.0
_DECIDED_S = 1.0


@contextlib.contextmanager
def opened(entry: Entry, part: str = "image", *, only: Collection[str] | None = None) -> Iterator[Path]:
    """The folder of a part of an entry, hot as long as the block lasts. Raises EntryDamaged, NoRoomInStore.

    With `only`, no more than those files need be there. What is in the folder must not be changed.
    """
    store = Store(entry.store_root)
    with kept(entry.path):
        found = hot(entry, part)
        if found is None and only is not None:
            with _some(store, entry, part, only) as folder:
                yield folder
            return
        if found is None:
            with store.writing():
                found = _thawed(store, entry, part)
        with contextlib.suppress(OSError):
            owners.touch(found)
        yield found
    if found.name != part and store.is_encrypted:
        cool(entry, part)


@contextlib.contextmanager
def proved_files(entry: Entry, roots: Collection[str], part: str = "image") -> Iterator[Path]:
    """The folder of a part of a proved entry, with at least the files `roots` as the manifest says (empty: all)."""
    with opened(entry, part) as folder:
        check_digests(entry, part, folder, roots or None)
        yield folder


def hot(entry: Entry, part: str) -> Path | None:
    """Where the hot files of a part are; None: nowhere."""
    for folder in (entry.path / part, entry.path / _thawed_name(part)):
        if folder.is_dir():
            return folder
    return None


def hot_parts(entry: Entry) -> list[str]:
    """The parts of which there are hot files as they were written."""
    return sorted(path.name for path in entry.path.iterdir() if path.is_dir() and _is_part(path.name))


def _is_part(name: str) -> bool:
    return not name.startswith((".", "thawed-"))


def _thawed_name(part: str) -> str:
    """A name that other boots do not use: after a power cut the files may be there, and empty."""
    return f"thawed-{runtime.boot_id()[:8]}-{part}"


@contextlib.contextmanager
def kept(entry: Path) -> Iterator[None]:
    """Keep the hot files of the entry in folder `entry` from being dropped. Raises EntryDamaged when it is gone."""
    try:
        mark = _mark(entry)
    except OSError as error:
        # A store that can only be read has nobody who drops anything; a full disk must not keep anybody from a restart.
        if not isinstance(error, PermissionError) and error.errno not in (*files.NO_ROOM, errno.EROFS):
            raise
        yield
        return
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _mark(entry: Path) -> Path:
    """Leave a mark of ours in the entry. Whoever removes entries takes the name away, and gives it back when he then
    sees the mark of another reader: we wait until that is decided.
    """
    mark, deadline = entry / f"{_USE}{files.random_suffix()}", time.monotonic() + _DECIDED_S
    while True:
        try:
            with files.locked_folder(entry, shared=True):  # else who drops them might take the name away for a moment
                files.write_new(mark, [owners.encoded()], durable=False)
            return mark
        except FileNotFoundError:
            undecided = entry.with_name(f"{GONE}{entry.name}").exists() or entry.exists()
            if not undecided or time.monotonic() > deadline:
                raise EntryDamaged(f"entry {entry.name} is gone", hint="somebody removed it") from None
            time.sleep(0.005)


def in_use(entry: Path) -> bool:
    """Whether somebody reads hot files of the entry in folder `entry`; marks of the dead are removed."""
    found, seen = False, files.look(entry)
    for name in seen:
        if name.startswith(_USE):
            if owners.is_dead(entry / name, untold_after_s=_UNTOLD_AFTER_S, now_s=seen.now_s):
                (entry / name).unlink(missing_ok=True)
            else:
                found = True
    return found


# --- writing them again


def _thawed(store: Store, entry: Entry, part: str) -> Path:
    """Write all of a part's files again; the folder."""
    final = entry.path / _thawed_name(part)
    draft = entry.path / f"{_THAWING}{files.random_suffix()}"
    draft.mkdir(mode=0o700)
    try:
        _thaw(store, entry, part, draft, None)
        try:
            draft.rename(final)
        except OSError:  # somebody else was faster
            if not final.is_dir():
                raise
    finally:
        files.remove_tree(draft)
    return final


@contextlib.contextmanager
def _some(store: Store, entry: Entry, part: str, only: Collection[str]) -> Iterator[Path]:
    """Some files of a part, for a moment."""
    draft = entry.path / f"{_THAWING}{files.random_suffix()}"
    try:
        with store.writing():
            draft.mkdir(mode=0o700)
            _thaw(store, entry, part, draft, only)
        yield draft
    finally:
        files.remove_tree(draft)


def _thaw(store: Store, entry: Entry, part: str, target: Path, only: Collection[str] | None) -> None:
    from nbcr.store import recipe, thawing  # here, because what is hot is opened without them
    from nbcr.store.chunks import Codec
    from nbcr.store.packs import ChunkReader, Packs

    keys = store.keys()
    path = recipe_of(entry.path, part)
    if not path.exists():
        raise EntryDamaged(f"the {part} of {entry.name!r} is missing", hint=f"`nbcr remove {entry.name}`")
    read = recipe.read(path, keys)
    with ChunkReader(Packs(store.root), Codec(keys), read.needs.packs) as reader:
        thawing.thaw(read, reader, target, only=only)
    origin = signing.origin_of(entry)
    if not signing.recipe_is_proved(read, origin):
        check_digests(publishing.unsealed(origin.entry, keys), part, target, only)


def check_digests(entry: Entry, part: str, folder: Path, only: Collection[str] | None = None) -> None:
    """Compare files of a part with the manifest. Raises EntryDamaged, naming all that differ."""
    lost: dict[str, str] = {}
    for key, (size, digest) in entry.files.items():
        name, _, path = key.partition("/")
        if name == part and (only is None or path in only):
            problem = _difference(folder / path, size, digest)
            if problem:
                lost[path] = problem
    if lost:
        raise damaged(part, repr(entry.name), lost)


def _difference(path: Path, size: int, digest: str) -> str:
    try:
        found = path.stat(follow_symlinks=False).st_size
        if found != size:
            return f"{found} bytes instead of {size}"
        return "" if publishing.digest_of(path) == digest else "its contents have another digest"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


# --- dropping them


@dataclass(frozen=True)
class _Hot:
    """Hot files of a packed part."""

    entry: Entry
    part: str
    used_s: float
    size_bytes: int


def cool_all(store: Store) -> int:
    """Drop hot files that the settings do not keep, and what thawing left behind; bytes given back."""
    wanted = settings.read(store.root)
    most = 0 if store.is_encrypted else wanted.hot_entries
    found = sorted(_packed_and_hot(store), key=lambda h: h.used_s, reverse=True)
    kept: dict[str, None] = {}
    size = given = 0
    for candidate in found:
        full = len(kept | {candidate.entry.id: None}) > most
        full = full or (wanted.hot_bytes is not None and size + candidate.size_bytes > wanted.hot_bytes)
        if full and cool(candidate.entry, candidate.part):
            given += candidate.size_bytes
        elif not full:
            kept[candidate.entry.id] = None
            size += candidate.size_bytes
    return given


def _packed_and_hot(store: Store) -> Iterator[_Hot]:
    for entry in store.entries():
        _clean(entry.path)
        for part in packed_parts(entry.path):
            folder = hot(entry, part)
            if folder is not None:
                with contextlib.suppress(FileNotFoundError):
                    yield _Hot(entry, part, folder.stat().st_mtime, files.tree_size_bytes(folder))


def cool(entry: Entry, part: str) -> bool:
    """Drop the hot files of a packed part, unless somebody reads them; whether they are gone."""
    done = False
    for folder in (entry.path / part, entry.path / _thawed_name(part)):
        if not folder.is_dir() or not recipe_of(entry.path, part).exists():
            continue
        aside = entry.path / f"{_COOLING}{files.random_suffix()}"
        with contextlib.suppress(FileNotFoundError):  # somebody else does the same
            with files.locked_folder(entry.path):
                if in_use(entry.path):
                    return False
                folder.rename(aside)
            if in_use(entry.path):
                with contextlib.suppress(OSError):  # a reader has written them again meanwhile
                    aside.rename(folder)
                    return False
            files.remove_tree(aside)
            done = True
    return done


def _clean(entry: Path) -> None:
    """Remove what was being thawed or dropped when its process died, and what another boot thawed."""
    ours, now_s = f"thawed-{runtime.boot_id()[:8]}-", time.time()
    for name in files.look(entry):
        path = entry / name
        with contextlib.suppress(FileNotFoundError):
            stale = name.startswith("thawed-") and not name.startswith(ours)
            dead = name.startswith((_COOLING, _THAWING)) or (name.startswith(".") and path.is_file())
            if (stale or dead) and not in_use(entry) and now_s - path.lstat().st_mtime > 3600:
                files.remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)
