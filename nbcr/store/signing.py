"""Who made an entry, and whether that is somebody whose code may run here (FORMAT.md, "Signatures").

The user's own key and whom the user trusts are kept in the configuration folder, apart from the store: who can put an
entry into a store cannot sign it thereby.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from nbcr.errors import EntryDamaged, StoreRefused
from nbcr.store import files
from nbcr.store.entry import MANIFEST, SIGNATURE, Entry
from nbcr.store.store import default_root, home

if TYPE_CHECKING:
    from nbcr.store.recipe import Recipe

_FORMAT = 1
_DOMAIN = b"nbcr manifest\0"
RECIPE_DOMAIN = b"nbcr recipe\0"
_KEY, _TRUSTED = "signing.key", "trusted.json"
_KEY_BYTES = 32
_lock = threading.Lock()


def config_folder() -> Path:
    """NBCR_CONFIG, else the platform's user configuration folder + nbcr."""
    chosen = os.environ.get("NBCR_CONFIG")
    if chosen:
        return Path(chosen).expanduser().absolute()
    config = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(config) if config.strip() else home() / ".config") / "nbcr"


def _places() -> list[Path]:
    """Where keys and trust may be: the configuration folder; where there can be none, a folder of the default store."""
    return [config_folder()] if os.environ.get("NBCR_CONFIG") else [config_folder(), default_root() / "config"]


def _in_use(name: str) -> Path:
    """The file `name` in the first place that has it, else in the first."""
    return next((place / name for place in _places() if _is_there(place / name)), _places()[0] / name)


def _is_there(path: Path) -> bool:
    """Whether it can be found; what lies in a folder that we may not enter is not there for us."""
    with contextlib.suppress(OSError):
        return path.exists()
    return False


def _made(name: str, make: Callable[[Path], None]) -> None:
    """Make the file `name` where it is, or in the first place that lets us. Raises OSError."""
    here = _in_use(name).parent
    for place in dict.fromkeys([here, *_places()]):
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            make(place / name)
            return
        except OSError as error:
            last = error
    raise last


# --- our own key


class Signer:
    """A private key."""

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`."""
        return self._key.sign(message)

    def signature_file(self, manifest: bytes) -> bytes:
        """signature.json for these bytes of a manifest."""
        document = {"format": _FORMAT, "signer": self.public.hex(), "signature": self.sign(_DOMAIN + manifest).hex()}
        return json.dumps(document).encode() + b"\n"


def our_signer(*, create: bool = True) -> Signer | None:
    """The user's key, made when it is first needed; None where there is none. Raises StoreRefused, OSError."""
    with _lock:
        for _ in range(2):
            path = _in_use(_KEY)
            try:
                if not files.is_ours(path) or path.stat().st_mode & 0o077:
                    raise StoreRefused(f"signing key {path} can be read or written by others", hint=f"chmod 600 {path}")
                secret = path.read_bytes()
            except OSError:
                if _is_there(path):
                    raise
                if not create:
                    return None
                _made(_KEY, _make_key)
            else:
                if len(secret) != _KEY_BYTES:
                    raise StoreRefused(f"signing key {path} is damaged", hint="remove it: a new one will be made")
                return Signer(secret)
    return None


def _make_key(path: Path) -> None:
    """Of processes that make it at once, one wins."""
    draft = path.with_name(f".{_KEY}.{files.random_suffix()}")
    files.write_new(draft, [os.urandom(_KEY_BYTES)])
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    files.fsync_path(path.parent)


# --- whom the user trusts


@dataclass(frozen=True)
class Trusted:
    """Signers and single manifests, with the words under which they were trusted."""

    signers: Mapping[str, str]  # public key, hex
    manifests: Mapping[str, str]  # BLAKE3 of the manifest's bytes, hex

    @classmethod
    def read(cls) -> Trusted:
        """What trusted.json says."""
        path = _in_use(_TRUSTED)
        try:
            if not files.is_ours(path):
                raise StoreRefused(f"{path} can be written by others", hint=f"chmod 600 {path}")
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(dict(document["signers"]), dict(document["manifests"]))
        except OSError as error:
            if _is_there(path):
                raise StoreRefused(f"{path} cannot be read: {error}", hint="trust needs it") from error
            return cls({}, {})
        except (ValueError, KeyError, TypeError) as error:
            raise StoreRefused(f"{path} cannot be read: {error}", hint="remove it and trust again") from error

    def write(self) -> None:
        """Remember it."""
        document = {"format": _FORMAT, "signers": dict(self.signers), "manifests": dict(self.manifests)}
        data = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
        _made(_TRUSTED, lambda path: files.write_atomically(path, data))


# --- entries


@dataclass(frozen=True)
class Origin:
    """Where an entry comes from. `state`: own, trusted, stranger (signed by one not trusted), unsigned, forged."""

    state: str
    signer: str  # public key, hex; empty: none
    manifest: str  # digest of the manifest's bytes, hex
    entry: Entry  # as those bytes have it

    @property
    def good(self) -> bool:
        """Whether its code may run here."""
        return self.state in ("own", "trusted")


def origin_of(entry: Entry) -> Origin:
    """Find out where an entry comes from. Raises EntryDamaged."""
    try:
        manifest = (entry.path / MANIFEST).read_bytes()
    except OSError as error:
        raise EntryDamaged(f"manifest of {entry.id} cannot be read: {error}") from error
    read = Entry.from_bytes(manifest, entry.path)
    digest = blake3(manifest).hexdigest()
    trusted = Trusted.read()
    signer, valid = _signature(entry.path / SIGNATURE, manifest)
    if signer and not valid:
        state = "forged"
    elif signer and _is_ours(signer):
        state = "own"
    elif signer in trusted.signers or digest in trusted.manifests:
        state = "trusted"
    else:
        state = "stranger" if signer else "unsigned"
    return Origin(state, signer, digest, read)


def recipe_is_proved(recipe: Recipe, origin: Origin) -> bool:
    """Whether the recipe was signed by us, by somebody trusted, or by who signed the manifest."""
    signer = recipe.signer.hex()
    if not (_is_ours(signer) or signer in Trusted.read().signers or signer == origin.signer):
        return False
    return _verifies(signer, recipe.signature, RECIPE_DOMAIN + recipe.digest)


def recipe_is_intact(recipe: Recipe) -> bool:
    """Whether it is what somebody signed, whoever that is, or was never signed."""
    return not any(recipe.signer) or _verifies(recipe.signer.hex(), recipe.signature, RECIPE_DOMAIN + recipe.digest)


def _is_ours(signer: str) -> bool:
    ours = our_signer(create=False)
    return ours is not None and ours.public.hex() == signer


def _signature(path: Path, manifest: bytes) -> tuple[str, bool]:
    """(public key, whether it signed these bytes); an empty key: not signed."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        signer = bytes.fromhex(document["signer"]).hex()
        return signer, _verifies(signer, bytes.fromhex(document["signature"]), _DOMAIN + manifest)
    except FileNotFoundError:
        return "", False
    except (OSError, ValueError, KeyError, TypeError):
        return "unreadable", False


def _verifies(signer: str, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer)).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
