"""Recipes: how a part's files are made of chunks (FORMAT.md, "Recipes"). Read and written whole."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from nbcr.errors import EntryDamaged
from nbcr.store import files
from nbcr.store.chunks import ID_BYTES, BadChunk, compressor, decompressed
from nbcr.store.entry import recipe_of
from nbcr.store.signing import RECIPE_DOMAIN

if TYPE_CHECKING:
    from nbcr.store.encryption import Keys
    from nbcr.store.signing import Signer

HOLE = -1  # in the place of a chunk's index: zeros
_HEADER = struct.Struct("<8sHHIQ")
_MAGIC, _VERSION, _ENCRYPTED = b"nbcrrcpe", 1, 1
_SIGNATURE_BYTES = 32 + 64
_LARGEST = 2 << 30
_LARGEST_EXTENT = 4 << 20


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Up to 128 KiB of a file."""

    address: int
    mask: int
    digest: bytes  # empty: all zero
    extents: list[int]  # chunk, offset in it, length; chunk, offset, length; …

    def parts(self) -> Iterator[tuple[int, int, int]]:
        """Its extents one by one."""
        return zip(self.extents[::3], self.extents[1::3], self.extents[2::3], strict=True)


class FileRecipe(msgspec.Struct, frozen=True, array_like=True):
    """One file of the part."""

    path: str
    size: int
    pieces: list[Piece]


class ChunkList(msgspec.Struct, frozen=True):
    """What a recipe tells anybody: which chunks it needs."""

    entry: str
    part: str
    chunks: bytes  # ids, one behind the other
    packs: list[str]  # where they were found
    stored_bytes: int
    added_bytes: int

    def ids(self) -> list[bytes]:
        """Ids of the chunks, as extents count them."""
        return [self.chunks[at : at + ID_BYTES] for at in range(0, len(self.chunks), ID_BYTES)]


class Recipe(msgspec.Struct, frozen=True):
    """All of it."""

    needs: ChunkList
    files: list[FileRecipe]
    signer: bytes  # public key; zeros: not signed
    signature: bytes
    digest: bytes  # of all that is signed


def encode(chunks: ChunkList, recipes: list[FileRecipe], keys: Keys | None, signer: Signer | None) -> bytes:
    """A recipe's file."""
    head = compressor().compress(msgspec.msgpack.encode(chunks))
    body, flags = compressor().compress(msgspec.msgpack.encode(recipes)), 0
    if keys is not None:
        body, flags = keys.encrypt(body, _purpose(chunks.entry, chunks.part)), _ENCRYPTED
    signed = _HEADER.pack(_MAGIC, _VERSION, flags, len(head), len(body)) + head + body
    if signer is None:
        return signed + bytes(_SIGNATURE_BYTES)
    return signed + signer.public + signer.sign(RECIPE_DOMAIN + blake3(signed).digest())


def read_list(path: Path, size_limit: int = _LARGEST) -> ChunkList:
    """Which chunks the recipe in file `path` needs, whoever may read the rest. Raises EntryDamaged, OSError."""
    with path.open("rb") as file:
        head = _unpack_header(file.read(_HEADER.size), path)
        if head[1] > size_limit:
            raise _damaged(path, "it is too large")
        return _decode_list(file.read(head[1]), path)


def list_in(data: bytes, path: str) -> ChunkList:
    """The same of a recipe that is in memory; `path` is for messages. Raises EntryDamaged."""
    _, list_bytes, _ = _unpack_header(data, Path(path))
    return _decode_list(data[_HEADER.size : _HEADER.size + list_bytes], Path(path))


def read(path: Path, keys: Keys | None) -> Recipe:
    """The recipe in file `path`; its signature is there to be checked. Raises EntryDamaged, StoreLocked."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EntryDamaged(f"recipe {path} cannot be read: {error}") from error
    return decode(data, keys, path)


def decode(data: bytes, keys: Keys | None, path: Path) -> Recipe:
    """The recipe that these bytes are; `path` is for messages."""
    flags, list_bytes, body_bytes = _unpack_header(data, path)
    body_at = _HEADER.size + list_bytes
    end = body_at + body_bytes
    if len(data) != end + _SIGNATURE_BYTES:
        raise _damaged(path, "it is cut off")
    chunks = _decode_list(data[_HEADER.size : body_at], path)
    body = data[body_at:end]
    if flags & _ENCRYPTED:
        if keys is None:
            raise _damaged(path, "it is encrypted, and the store has no encryption.json")
        body = keys.decrypt(body, _purpose(chunks.entry, chunks.part))
    try:
        recipes = msgspec.msgpack.decode(decompressed(body, _LARGEST), type=list[FileRecipe])
    except (BadChunk, msgspec.MsgspecError) as error:
        raise _damaged(path, str(error)) from error
    recipe = Recipe(chunks, recipes, data[end : end + 32], data[end + 32 :], blake3(data[:end]).digest())
    _check_numbers(recipe, path)
    return recipe


def _purpose(entry: str, part: str) -> bytes:
    return f"recipe {entry} {part}".encode()


def _unpack_header(data: bytes, path: Path) -> tuple[int, int, int]:
    try:
        magic, version, flags, list_bytes, body_bytes = _HEADER.unpack_from(data)
    except struct.error as error:
        raise _damaged(path, "it is cut off") from error
    if magic != _MAGIC:
        raise _damaged(path, "it is not one")
    if version > _VERSION:
        raise EntryDamaged(f"recipe {path} has version {version}, this nbcr reads {_VERSION}", hint="update nbcr")
    return flags, list_bytes, body_bytes


def _decode_list(data: bytes, path: Path) -> ChunkList:
    try:
        chunks = msgspec.msgpack.decode(decompressed(data, _LARGEST), type=ChunkList)
    except (BadChunk, msgspec.MsgspecError) as error:
        raise _damaged(path, str(error)) from error
    if len(chunks.chunks) % ID_BYTES:
        raise _damaged(path, "its list of chunks is cut off")
    return chunks


def _check_numbers(recipe: Recipe, path: Path) -> None:
    """Whoever wrote it: files stay inside the part, extents inside the list, pieces make up the size."""
    count = len(recipe.needs.chunks) // ID_BYTES
    for file in recipe.files:
        pure = PurePosixPath(file.path)
        if pure.is_absolute() or ".." in pure.parts or str(pure) != file.path or file.path in ("", "."):
            raise _damaged(path, f"it names a file {file.path!r}")
        total = 0
        for piece in file.pieces:
            if len(piece.extents) % 3:
                raise _damaged(path, f"a piece of {file.path} is inconsistent")
            for chunk, offset, length in piece.parts():
                if not HOLE <= chunk < count or offset < 0 or not 0 < length <= _LARGEST_EXTENT:
                    raise _damaged(path, f"a piece of {file.path} is inconsistent")
                total += length
        if total != file.size:
            raise _damaged(path, f"the pieces of {file.path} do not make up its size")


def _damaged(path: Path, what: str) -> EntryDamaged:
    return EntryDamaged(
        f"recipe {path} is damaged: {what}", hint=f"`nbcr pull` it again, or `nbcr remove {path.parent.name}`"
    )


def write(entry: Path, part: str, data: bytes) -> None:
    """Make a part packed, atomically."""
    files.write_atomically(recipe_of(entry, part), data)
