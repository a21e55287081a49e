"""An entry's last words: its manifest with the digest of every file, sealed in an encrypted store, and signed."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from nbcr.errors import EntryDamaged, StoreRefused
from nbcr.store import files
from nbcr.store.entry import MANIFEST, SIGNATURE, Entry
from nbcr.store.manifest import Manifest

_LARGE_BYTES = 1 << 20

hash_threads = True
"""Whether blake3's threads hash what is large. Whoever forks processes that hash turns it off before: no thread is in
them, and they would wait for ever."""

if TYPE_CHECKING:
    from nbcr.store.encryption import Keys
    from nbcr.store.signing import Signer


def finish(
    draft: Path, manifest: Manifest, digests: Mapping[str, str], keys: Keys | None, *, durable: bool = True
) -> None:
    """Write manifest and signature of a draft whose parts are complete.

    `digests` are those that are known already, by ``PART/path``; the others are computed.
    """
    manifest.files = record(draft, digests)
    signer = _signer(manifest)
    if keys is not None:
        seal(manifest, keys)
    content = manifest.encoded()
    files.write_new(draft / MANIFEST, [content], durable=durable)
    if signer is not None:
        files.write_new(draft / SIGNATURE, [signer.signature_file(content)], durable=durable)
    if durable:
        files.fsync_path(draft)


def record(draft: Path, digests: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """Size and digest of every file of every part."""
    found: dict[str, tuple[int, str]] = {}
    for part in sorted(path for path in draft.iterdir() if path.is_dir()):
        for folder, _, names in os.walk(part):
            for path in (Path(folder, name) for name in names):
                if not path.is_symlink():
                    key = str(path.relative_to(draft))
                    found[key] = (path.stat().st_size, digests.get(key) or digest_of(path))
    return dict(sorted(found.items()))


def digest_of(path: Path) -> str:
    """BLAKE3 of a file, hex; of a large one on all processors (see `hash_threads`)."""
    if path.stat().st_size < _LARGE_BYTES:
        return blake3(path.read_bytes()).hexdigest()
    return blake3(max_threads=blake3.AUTO if hash_threads else 1).update_mmap(path).hexdigest()


def _signer(manifest: Manifest) -> Signer | None:
    """Our key. A checkpoint is worth more than its signature: without a key it is taken all the same."""
    from nbcr.store import signing

    try:
        return signing.our_signer()
    except (OSError, StoreRefused) as error:
        manifest.warnings.append(f"not signed, so that it has to be trusted by name before a restart: {error}")
        return None


def seal(manifest: Manifest, keys: Keys) -> None:
    """Encrypt what of a manifest is secret."""
    secret = msgspec.json.encode({"jupyter": manifest.jupyter, "files": manifest.files})
    manifest.sealed = base64.b64encode(keys.encrypt(secret, _purpose(manifest.id))).decode("ascii")
    manifest.jupyter, manifest.files = None, {}


def unsealed(entry: Entry, keys: Keys | None) -> Entry:
    """The entry with what was encrypted. Raises EntryDamaged."""
    if entry.sealed is None:
        return entry
    if keys is None:
        raise EntryDamaged(f"entry {entry.id} is sealed, and the store has no encryption.json")
    try:
        secret = json.loads(keys.decrypt(base64.b64decode(entry.sealed), _purpose(entry.id)))
        known = {str(path): (int(size), str(digest)) for path, (size, digest) in secret["files"].items()}
        return replace(entry, jupyter=secret["jupyter"], files=known)
    except (ValueError, KeyError, TypeError) as error:
        raise EntryDamaged(f"the sealed part of entry {entry.id} is damaged: {error}") from error


def _purpose(entry_id: str) -> bytes:
    return f"manifest {entry_id}".encode()
