"""Garbage of a remote: packs that no entry there needs (FORMAT.md, "Remotes and archives").

Nobody can lock a remote, and nobody there tells who is sending. So a pack is condemned first, which senders see: they
do not count on it any more. It is deleted by a later collection, when who began to send before has had a day to end.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbcr.errors import EntryDamaged, RemoteFailed
from nbcr.store import recipe
from nbcr.store.entry import RECIPE
from nbcr.store.remotes import mark_path, pack_path

if TYPE_CHECKING:
    from nbcr.store.remotes import Remote

GRACE_S = 24 * 3600.0


@dataclass
class Collected:
    """What became of the packs of a remote."""

    removed: int = 0
    freed_bytes: int = 0
    condemned: int = 0  # to be deleted by a later collection
    kept_bytes: int = 0


def collect(remote: Remote, *, grace_s: float = GRACE_S) -> Collected:
    """Condemn what nobody needs, delete what was condemned `grace_s` ago and is still not needed.

    Raises RemoteFailed when nothing of nbcr is there at all, or when it cannot be told what is needed: then nothing was
    condemned or deleted.
    """
    done = Collected()
    remote.require()
    needed, packs, marks = _needed(remote), remote.packs(), _marks(remote)
    unused = {name for name, size in packs.items() if not _has_any(remote, name, size, needed)}
    for name in unused - marks.keys():
        remote.write(mark_path(name), json.dumps({"condemned": time.time()}).encode())
    for name in marks.keys() - unused:  # somebody needs it after all, or it is gone
        remote.remove(mark_path(name))
    ripe = [name for name in unused & marks.keys() if time.time() - marks[name] >= grace_s]
    if ripe:
        needed = _needed(remote)  # once more: what was sent meanwhile counts
        for name in ripe:
            if remote.read(mark_path(name)) is not None and not _has_any(remote, name, packs[name], needed):
                remote.remove(pack_path(name))
                remote.remove(mark_path(name))
                done.removed += 1
                done.freed_bytes += packs[name]
                unused.discard(name)
    done.condemned = len(unused)
    done.kept_bytes = sum(size for name, size in remote.packs().items() if name not in unused)
    return done


def _marks(remote: Remote) -> dict[str, float]:
    """When each condemned pack was condemned; a mark that makes no sense is as good as new."""
    found = {}
    for pack in remote.condemned():
        try:
            found[pack] = float(json.loads(remote.read(mark_path(pack)) or b"")["condemned"])
        except (ValueError, KeyError, TypeError):
            found[pack] = time.time()
    return found


def _needed(remote: Remote) -> set[bytes]:
    """The chunks of every recipe there, also of entries that are being sent."""
    found: set[bytes] = set()
    for entry_id in remote.entries():
        folder = f"entries/{entry_id}"
        for name in remote.sizes(folder):
            if name.endswith(RECIPE):
                data = remote.read(f"{folder}/{name}")
                if data is not None:
                    found.update(_ids(data, f"{folder}/{name}"))
    return found


def _ids(data: bytes, path: str) -> list[bytes]:
    try:
        return recipe.list_in(data, path).ids()
    except EntryDamaged as error:
        raise RemoteFailed(
            f"{path} cannot be read, so that nobody knows what it needs: {error}",
            hint="nothing was deleted; remove that entry there, or send it again",
        ) from error


def _has_any(remote: Remote, name: str, size: int, needed: set[bytes]) -> bool:
    return any(row.chunk_id in needed for row in remote.table(name, size))
