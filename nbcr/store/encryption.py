"""The keys of an encrypted store (FORMAT.md, "Encryption"): one master key, wrapped by passphrases and key files.

Where the master key comes from when it is needed: a key file (`NBCR_KEY_FILE`), a passphrase (`NBCR_PASSPHRASE`,
`NBCR_PASSPHRASE_FILE`), or what `nbcr unlock` put into a folder in memory, where background packing and helpers find it
until the host is shut down.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from nbcr import runtime
from nbcr.errors import EntryDamaged, StoreLocked, StoreRefused, UsageProblem
from nbcr.store import files
from nbcr.store.chunks import BadChunk, Bytes
from nbcr.store.store import ENCRYPTION

_FORMAT = 1
_KEY_BYTES = 32
_NONCE_BYTES = 12
_SCRYPT = {"n": 1 << 17, "r": 8, "p": 1}  # 128 MiB and a third of a second
_LARGEST_N = 1 << 20
_MEMORY = ("tmpfs", "ramfs")


class Keys:
    """What the master key is good for."""

    def __init__(self, master: bytes) -> None:
        self.master = master
        self.store_id = self._derive("store id")[:16].hex()
        self._chunk_ids = self._derive("chunk id")
        self._chunks = self._derive("chunk")
        self._documents = AESGCM(self._derive("document"))

    def _derive(self, purpose: str) -> bytes:
        return blake3(self.master, derive_key_context=f"nbcr 2 {purpose}").digest()

    def chunk_id(self, data: Bytes) -> bytes:
        """The name of a chunk: who has only the store cannot find out whether it holds known bytes."""
        return blake3(data, key=self._chunk_ids).digest()

    def encrypt_chunk(self, chunk_id: bytes, stored: bytes, length: int) -> bytes:
        """The stored bytes of a chunk of `length` bytes."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._chunk_cipher(chunk_id).encrypt(nonce, stored, _bound(chunk_id, length))

    def decrypt_chunk(self, chunk_id: bytes, stored: bytes, length: int) -> bytes:
        """The inverse. Raises BadChunk."""
        try:
            nonce, body = stored[:_NONCE_BYTES], stored[_NONCE_BYTES:]
            return self._chunk_cipher(chunk_id).decrypt(nonce, body, _bound(chunk_id, length))
        except (InvalidTag, ValueError) as error:
            raise BadChunk("it cannot be decrypted: it is damaged, or of another key") from error

    def encrypt(self, data: bytes, purpose: bytes) -> bytes:
        """A document that only `decrypt` for the same purpose reads."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._documents.encrypt(nonce, data, purpose)

    def decrypt(self, data: bytes, purpose: bytes) -> bytes:
        """The inverse. Raises EntryDamaged."""
        try:
            return self._documents.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], purpose)
        except (InvalidTag, ValueError) as error:
            raise EntryDamaged(
                f"{purpose.decode(errors='replace')} cannot be decrypted: it is damaged, or of another key"
            ) from error

    def _chunk_cipher(self, chunk_id: bytes) -> AESGCM:
        return AESGCM(blake3(chunk_id, key=self._chunks).digest())


def _bound(chunk_id: bytes, length: int) -> bytes:
    return chunk_id + length.to_bytes(4, "little")


# --- encryption.json


def is_encrypted(root: Path) -> bool:
    """Whether what is packed in the store at `root` is encrypted."""
    return (root / ENCRYPTION).exists()


def encrypt_from_now_on(root: Path, *, passphrase: str | None = None, key_file: Path | None = None) -> Keys:
    """Give the store at `root` a master key, or the one it has a further wrap. What is there stays as it is."""
    if (passphrase is None) == (key_file is None):
        raise UsageProblem("a passphrase or a key file is needed, and not both")
    document: dict[str, Any] = {"format": _FORMAT, "wraps": []}
    keys = keys_of(root)
    if keys is None:
        keys = Keys(os.urandom(_KEY_BYTES))
    else:
        document = _document(root)
    wrap = _scrypt_wrap(passphrase, keys.master) if passphrase is not None else _file_wrap(key_file, keys.master)
    document = {**document, "id": keys.store_id, "wraps": [*document["wraps"], wrap]}
    files.write_atomically(root / ENCRYPTION, json.dumps(document, indent=1).encode() + b"\n")
    return keys


def keys_of(root: Path, passphrase: str | None = None) -> Keys | None:
    """The keys of the store at `root`; None: it is not encrypted. Raises StoreLocked."""
    if not is_encrypted(root):
        return None
    document = _document(root)
    for master in _candidates(document, passphrase):
        keys = Keys(master)
        if keys.store_id == document["id"]:
            return keys
    if passphrase is not None:
        raise StoreLocked(f"the passphrase does not open store {root}", hint="try another")
    raise StoreLocked(
        f"store {root} is encrypted and locked",
        hint="`nbcr unlock`, or NBCR_PASSPHRASE, NBCR_PASSPHRASE_FILE or NBCR_KEY_FILE",
    )


def unlock(root: Path, passphrase: str | None) -> Path | None:
    """Keep the master key in memory until the host is shut down; where. None: the store is not encrypted."""
    keys = keys_of(root, passphrase)
    if keys is None:
        return None
    for folder in _memory_folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            if runtime.is_private(folder):
                files.write_atomically(folder / keys.store_id, keys.master)
                return folder / keys.store_id
    raise StoreRefused(
        "there is no private folder in memory for the key", hint="use NBCR_PASSPHRASE_FILE or NBCR_KEY_FILE"
    )


def lock(root: Path) -> bool:
    """Forget what `unlock` kept; whether there was anything."""
    store_id = str(_document(root)["id"]) if is_encrypted(root) else ""
    kept = [folder / store_id for folder in _memory_folders() if store_id and (folder / store_id).exists()]
    for path in kept:
        path.unlink(missing_ok=True)
    return bool(kept)


def _document(root: Path) -> dict[str, Any]:
    try:
        document = json.loads((root / ENCRYPTION).read_text(encoding="utf-8"))
        if document["format"] > _FORMAT:
            raise StoreRefused(f"{root / ENCRYPTION} has format {document['format']}", hint="update nbcr")
        if isinstance(document["id"], str) and isinstance(document["wraps"], list):
            return dict(document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreRefused(
            f"{root / ENCRYPTION} cannot be read: {error}", hint="put the right one in its place"
        ) from error
    raise StoreRefused(f"{root / ENCRYPTION} is damaged", hint="put the right one in its place")


# --- where the master key comes from


def _candidates(document: dict[str, Any], passphrase: str | None) -> Iterator[bytes]:
    """Master keys, the cheap ways first; those of other stores are among them."""
    if passphrase is None:
        for folder in _memory_folders():
            path = folder / document["id"]
            if runtime.is_private(folder):
                with contextlib.suppress(OSError):
                    yield path.read_bytes()
        key_file = os.environ.get("NBCR_KEY_FILE")
        if key_file:
            secret = _file_secret(Path(key_file))
            yield from _opened(document, "file", lambda wrap: secret, b"file")
        passphrase = _passphrase()
    if passphrase is not None:
        text = passphrase
        yield from _opened(document, "scrypt", lambda wrap: _scrypt(text, wrap), b"scrypt")


def _opened(document: dict[str, Any], kind: str, secret_of: Any, purpose: bytes) -> Iterator[bytes]:
    for wrap in document["wraps"]:
        if wrap.get("kind") == kind:
            box = base64.b64decode(wrap["box"])
            with contextlib.suppress(InvalidTag, ValueError):
                yield AESGCM(secret_of(wrap)).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], purpose)


def _passphrase() -> str | None:
    text = os.environ.get("NBCR_PASSPHRASE")
    path = os.environ.get("NBCR_PASSPHRASE_FILE")
    if text is None and path:
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\n")
        except OSError as error:
            raise StoreLocked(f"NBCR_PASSPHRASE_FILE cannot be read: {error}") from error
    return text


def _scrypt(passphrase: str, wrap: dict[str, Any]) -> bytes:
    n, r, p = int(wrap["n"]), int(wrap["r"]), int(wrap["p"])
    if n > _LARGEST_N or r > 16 or p > 4:  # whoever wrote it may want our memory
        raise ValueError("scrypt would take too much")
    salt = base64.b64decode(wrap["salt"])
    return Scrypt(salt=salt, length=_KEY_BYTES, n=n, r=r, p=p).derive(passphrase.encode())


def _scrypt_wrap(passphrase: str, master: bytes) -> dict[str, Any]:
    if not passphrase:
        raise UsageProblem("an empty passphrase protects nothing")
    wrap: dict[str, Any] = {"kind": "scrypt", "salt": _text(os.urandom(16)), **_SCRYPT}
    return {**wrap, "box": _box(_scrypt(passphrase, wrap), master, b"scrypt")}


def _file_wrap(path: Path | None, master: bytes) -> dict[str, Any]:
    assert path is not None
    if not path.exists():
        files.write_new(path, [base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n"])
    return {"kind": "file", "box": _box(_file_secret(path), master, b"file")}


def _file_secret(path: Path) -> bytes:
    try:
        if not files.is_ours(path) or path.stat().st_mode & 0o077:
            raise StoreLocked(f"key file {path} can be read or written by others", hint=f"chmod 600 {path}")
        secret = base64.b64decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreLocked(f"key file {path} cannot be read: {error}") from error
    return blake3(secret, derive_key_context="nbcr 2 key file").digest()


def _box(secret: bytes, master: bytes, purpose: bytes) -> str:
    nonce = os.urandom(_NONCE_BYTES)
    return _text(nonce + AESGCM(secret).encrypt(nonce, master, purpose))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _memory_folders() -> list[Path]:
    """Folders for keys on file systems that live in memory."""
    bases = [*runtime.candidate_folders(), Path(f"/dev/shm/nbcr-{os.geteuid()}")]
    return [base.with_name(f"{base.name}-keys") for base in bases if files.kind_of(base.parent) in _MEMORY]
