"""Chunks: their ids, and the frames in which packs hold them (FORMAT.md, "Chunks and packs")."""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING

import zstandard
from blake3 import blake3

if TYPE_CHECKING:
    from nbcr.store.encryption import Keys

CHUNK_BYTES = 128 << 10
ID_BYTES = 32
HEAD = struct.Struct("<4s32sIIBBH")
_MAGIC = b"frm1"
_LARGEST = 4 << 20
_LEVEL = 3
_AS_IT_IS, _ZSTD = 0, 1
_PLAIN, _AES_GCM = 0, 1
_OVERHEAD = 64  # what a cipher may add

Bytes = bytes | bytearray | memoryview
_local = threading.local()


class BadChunk(Exception):
    """A frame that is not one, or whose chunk is not what its id says."""


def compressor() -> zstandard.ZstdCompressor:
    """This thread's own."""
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)
    return _local.compressor  # type: ignore[no-any-return]


def decompressor() -> zstandard.ZstdDecompressor:
    """This thread's own."""
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    return _local.decompressor  # type: ignore[no-any-return]


def decompressed(data: Bytes, limit: int) -> bytes:
    """What zstd made `data` of, which must not be longer than `limit`. Raises BadChunk."""
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= limit:
            raise BadChunk("it says that it is larger than it can be")
        return decompressor().decompress(data, max_output_size=limit)
    except zstandard.ZstdError as error:
        raise BadChunk(f"it cannot be decompressed ({error})") from error


class Codec:
    """Chunks to frames and back, with the store's keys (None: it is not encrypted)."""

    def __init__(self, keys: Keys | None = None) -> None:
        self._keys = keys

    def id_of(self, data: Bytes) -> bytes:
        """The chunk's name."""
        return blake3(data).digest() if self._keys is None else self._keys.chunk_id(data)

    def frame(self, chunk_id: bytes, data: Bytes) -> bytes:
        """The frame of the chunk `data`, which is called `chunk_id`."""
        stored: Bytes = compressor().compress(data)
        coding = _ZSTD
        if len(stored) >= len(data):
            stored, coding = data, _AS_IT_IS
        cipher = _PLAIN
        if self._keys is not None:
            stored, cipher = self._keys.encrypt_chunk(chunk_id, bytes(stored), len(data)), _AES_GCM
        return HEAD.pack(_MAGIC, chunk_id, len(data), len(stored), coding, cipher, 0) + bytes(stored)

    def chunk(self, frame: Bytes, wanted: bytes) -> bytes:
        """The chunk `wanted`, of its frame. Raises BadChunk, StoreLocked."""
        chunk_id, length, stored, coding, cipher = unpack_head(frame)
        body: Bytes = memoryview(frame)[HEAD.size :]
        if chunk_id != wanted or len(body) != stored:
            raise BadChunk("another one, or only a part of it, is in its place")
        if cipher == _AES_GCM:
            if self._keys is None:
                raise BadChunk("it is encrypted, and the store has no encryption.json")
            body = self._keys.decrypt_chunk(chunk_id, bytes(body), length)
        data = decompressed(body, length) if coding == _ZSTD else bytes(body)
        if len(data) != length or (self._plain_id(data) if cipher == _PLAIN else self.id_of(data)) != chunk_id:
            raise BadChunk("its contents have another digest")
        return data

    @staticmethod
    def _plain_id(data: bytes) -> bytes:
        """Chunks that were written before the store was encrypted keep their names."""
        return blake3(data).digest()


def unpack_head(frame: Bytes) -> tuple[bytes, int, int, int, int]:
    """Id, length of the chunk, stored length, coding and cipher of a frame. Raises BadChunk."""
    try:
        magic, chunk_id, length, stored, coding, cipher, zeros = HEAD.unpack_from(frame)
    except struct.error as error:
        raise BadChunk("it is cut off") from error
    if magic != _MAGIC or not 0 < length <= _LARGEST or stored > length + _OVERHEAD:
        raise BadChunk("there is no frame where it should be")
    if coding not in (_AS_IT_IS, _ZSTD) or cipher not in (_PLAIN, _AES_GCM) or zeros:
        raise BadChunk("it is coded in a way that this nbcr does not know")
    return chunk_id, length, stored, coding, cipher
