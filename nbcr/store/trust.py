"""Whether an entry may be restarted or loaded, which runs its maker's code (FORMAT.md, "Signatures")."""

from __future__ import annotations

from nbcr.errors import StoreRefused, Untrusted
from nbcr.store import publishing, signing
from nbcr.store.entry import Entry
from nbcr.store.signing import Origin, Trusted
from nbcr.store.store import Store


def proved(entry: Entry) -> Entry:
    """The entry as its maker signed it, unsealed. Raises Untrusted unless that is us, or somebody trusted."""
    origin = signing.origin_of(entry)
    if not origin.good:
        raise _refused(entry.name, origin)
    return publishing.unsealed(origin.entry, Store(entry.store_root).keys())


def _refused(name: str, origin: Origin) -> Untrusted:
    if origin.state == "forged":
        return Untrusted(
            f"checkpoint {name!r} is refused: its manifest is not the one that was signed",
            hint="somebody changed it: remove it, or pull it again",
        )
    why = f"it is signed by {origin.signer[:16]}…, whom you do not trust" if origin.signer else "it is not signed"
    return Untrusted(
        f"checkpoint {name!r} is refused: {why}",
        hint=f"it would run its maker's code as you: `nbcr trust {name}` if you know where it comes from",
    )


def trust(entry: Entry, *, signer: bool = False) -> Origin:
    """Trust an entry, or with `signer` whoever signed it. Raises Untrusted when it was changed, or is not signed."""
    origin = signing.origin_of(entry)
    trusted = Trusted.read()
    if origin.state == "forged":
        raise _refused(entry.name, origin)
    if signer and not origin.signer:
        raise Untrusted(f"checkpoint {entry.name!r} is not signed", hint="trust it by name alone, without --signer")
    if signer:
        Trusted({**trusted.signers, origin.signer: entry.name}, trusted.manifests).write()
    elif origin.state != "own":
        Trusted(trusted.signers, {**trusted.manifests, origin.manifest: entry.name}).write()
    return signing.origin_of(entry)


def trust_signer(public: str, note: str = "") -> None:
    """Trust whatever the key `public` (hex) signed."""
    trusted = Trusted.read()
    if len(public) != 64 or set(public) - set("0123456789abcdef"):
        raise StoreRefused(f"{public!r} is not a public key", hint="`nbcr trust --own` prints one: 64 hex digits")
    Trusted({**trusted.signers, public: note}, trusted.manifests).write()


def forget(entry: Entry) -> bool:
    """Trust an entry and its signer no longer; whether that changed anything."""
    origin, trusted = signing.origin_of(entry), Trusted.read()
    signers = {key: note for key, note in trusted.signers.items() if key != origin.signer}
    manifests = {digest: note for digest, note in trusted.manifests.items() if digest != origin.manifest}
    if (len(signers), len(manifests)) == (len(trusted.signers), len(trusted.manifests)):
        return False
    Trusted(signers, manifests).write()
    return True
