"""The index of a snapshot: FORMAT.md's schema, read and written whole.

Knows bytes and names, and nothing of objects.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import msgspec
from blake3 import blake3

from nbcr.errors import EntryDamaged, UsageProblem

INDEX = "index"
VERSION = 1
_MAGIC = b"nbcr-obj"
_HEADER = struct.Struct("<8sHHQ32s")  # magic, version, flags, length of the payload, its digest
_COMPRESSED = 1
_COMPRESS_FROM = 1024
# An index names thousands of variables at most; whatever is larger was not written by us.
_LARGEST_INDEX = 1 << 30


class Blob(msgspec.Struct, frozen=True, array_like=True):
    """Bytes with a digest: `size` of them at `offset` of the file `file`."""

    digest: bytes
    size: int
    file: str
    offset: int = 0


class Unit(msgspec.Struct, frozen=True, array_like=True):
    """What is pickled in one piece: the names that share objects with each other, and nobody else."""

    names: tuple[str, ...]
    stream: int = -1  # blob of the pickle; -1: it is `inline`
    inline: bytes = b""
    buffers: tuple[int, ...] = ()  # blobs of the out-of-band buffers, in order
    codec: str = "cloudpickle"  # or "dill"
    packages: tuple[str, ...] = ()  # top-level modules it refers to


class Name(msgspec.Struct, frozen=True, array_like=True):
    """One name of the namespace and how it looked."""

    name: str
    fate: str
    unit: int = -1
    imported: str = ""  # "numpy" or "math:sqrt": nothing is pickled, it is imported again
    digest: bytes = b""  # of its contents: equal digests are equal contents
    type: str = ""
    shape: str = ""
    size: int = 0
    repr: str = ""
    culprit: str = ""
    reason: str = ""
    remark: str = ""
    recipe: str = ""
    cell: int = -1
    late: bool = False
    home: str = ""  # "module:name" that is this very object, beside which it is saved


class Index(msgspec.Struct, frozen=True, array_like=True):
    """Everything about a snapshot but the bytes of its blobs."""

    created: str
    nbcr: str
    python: str  # "3.11.7"
    platform: str  # "linux x86_64"
    names: tuple[Name, ...]
    units: tuple[Unit, ...]
    blobs: tuple[Blob, ...]
    surroundings: int = -1  # unit of what belongs to no name: global random states and such
    packages: dict[str, str] = {}  # versions of the packages that units refer to
    remarks: tuple[str, ...] = ()
    size_bytes: int = 0
    added_bytes: int = 0
    blocked_ms: float = 0.0
    duration_ms: float = 0.0
    how: str = "forked"


def digest_of(data: bytes | memoryview) -> bytes:
    """The digest that names contents."""
    return blake3(data).digest()


def encoded(index: Index) -> bytes:
    """The index as it is written."""
    payload = msgspec.msgpack.encode(index)
    flags = 0
    if len(payload) >= _COMPRESS_FROM:
        payload, flags = zlib.compress(payload, 1), _COMPRESSED
    return _HEADER.pack(_MAGIC, VERSION, flags, len(payload), digest_of(payload)) + payload


def publish(index: Index, place: Path) -> None:
    """Make `index` the index of the snapshot at `place`, whole or not at all."""
    part = place / f"{INDEX}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(encoded(index))
    part.replace(place / INDEX)


def exists(place: Path) -> bool:
    """Whether there is a complete snapshot at `place`."""
    return (place / INDEX).is_file()


def read(place: Path) -> Index:
    """The index of the snapshot at `place`. Raises EntryDamaged."""
    return decoded(read_bytes(place), place)


def read_bytes(place: Path) -> bytes:
    """The index as it is on the disk."""
    try:
        path = place / INDEX
        if path.stat().st_size > _LARGEST_INDEX:
            raise EntryDamaged(f"the index of the snapshot {place} is not one: it is too large")
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageProblem(f"there is no snapshot of objects at {place}") from None
    except OSError as error:
        raise EntryDamaged(f"the index of the snapshot {place} cannot be read: {error}") from error


def decoded(data: bytes, place: Path) -> Index:
    """The index that these bytes hold. Raises EntryDamaged."""
    try:
        magic, version, flags, length, digest = _HEADER.unpack_from(data)
        payload = data[_HEADER.size :]
        if magic != _MAGIC:
            raise EntryDamaged(f"the index of the snapshot {place} is not one")
        if version > VERSION:
            raise EntryDamaged(
                f"the snapshot {place} has format {version}, this nbcr reads {VERSION}", hint="update nbcr"
            )
        if len(payload) != length or digest_of(payload) != digest:
            raise EntryDamaged(f"the index of the snapshot {place} is damaged: its digest is another")
        if flags & _COMPRESSED:
            payload = _decompressed(payload)
        return msgspec.msgpack.decode(payload, type=Index)
    except (struct.error, zlib.error, msgspec.MsgspecError) as error:
        raise EntryDamaged(f"the index of the snapshot {place} is damaged: {error}") from error


def _decompressed(payload: bytes) -> bytes:
    inflater = zlib.decompressobj()
    data = inflater.decompress(payload, _LARGEST_INDEX)
    if not inflater.eof:
        raise zlib.error("it is cut off, or longer than any index")
    return data
