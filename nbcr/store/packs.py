"""Packs: files of chunks, written once (FORMAT.md, "Chunks and packs").

Writing: `PackWriter`. Reading: `Packs` is the folder, `Index` where each chunk is, `ChunkReader` gets chunks by id.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from nbcr.store import files
from nbcr.store.chunks import HEAD, BadChunk, Codec, unpack_head
from nbcr.store.openfiles import OpenFiles

PACK_BYTES = 16 << 20
_HEADER = struct.Struct("<8sH6x")
_ROW = struct.Struct("<32sQII")
_FOOTER = struct.Struct("<Q8s")
_MAGIC, _TABLE_MAGIC, _VERSION = b"nbcrpack", b"nbcrtabl", 1
_NAME = re.compile(r"[0-9a-f]{64}")
_CONDEMNED = re.compile(r"([0-9a-f]{64})\.condemned-(\d{8}T\d{6}-[a-z2-7]{6})")
_SUFFIX = ".pack"


class Row(NamedTuple):
    """A chunk in a pack."""

    chunk_id: bytes
    offset: int  # of its frame's head
    stored: int  # bytes behind the head
    length: int  # of the chunk

    @property
    def frame_bytes(self) -> int:
        """Bytes of the frame with its head."""
        return HEAD.size + self.stored


class BadPack(Exception):
    """A file that is not a pack, or not the one that its name says."""


class ChunkMissing(Exception):
    """No pack has the chunk, or the one that has it is damaged. `text` says where and why."""

    def __init__(self, chunk_id: bytes, text: str) -> None:
        super().__init__(text)
        self.chunk_id = chunk_id


# --- one pack


def encode(frames: Iterable[tuple[bytes, bytes]]) -> tuple[str, list[bytes], list[Row]]:
    """A pack of (chunk id, frame): its name, the blocks of its file, its table."""
    blocks, rows = [_HEADER.pack(_MAGIC, _VERSION)], []
    offset = _HEADER.size
    for chunk_id, frame in frames:
        rows.append(Row(chunk_id, offset, len(frame) - HEAD.size, unpack_head(frame)[1]))
        blocks.append(frame)
        offset += len(frame)
    table = b"".join(_ROW.pack(*row) for row in rows)
    return blake3(table).hexdigest(), [*blocks, table, _FOOTER.pack(len(rows), _TABLE_MAGIC)], rows


def tail_bytes(footer: bytes) -> int:
    """How long table and footer are together, by the last bytes of a pack. Raises BadPack."""
    if len(footer) < _FOOTER.size:
        raise BadPack("it is cut off")
    count, magic = _FOOTER.unpack(footer[-_FOOTER.size :])
    if magic != _TABLE_MAGIC:
        raise BadPack("it has no table at its end")
    return int(count) * _ROW.size + _FOOTER.size


def decode_table(tail: bytes, name: str) -> list[Row]:
    """The table of pack `name`, of its table and footer. Raises BadPack."""
    table = tail[: -_FOOTER.size]
    if blake3(table).hexdigest() != name:
        raise BadPack("its table has another digest")
    return [Row(*row) for row in _ROW.iter_unpack(table)]


def read_table(path: Path, name: str) -> list[Row]:
    """The table of the pack in file `path`. Raises BadPack, OSError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _FOOTER.size))
        tail = tail_bytes(file.read())
        if not _HEADER.size + tail <= size:
            raise BadPack("it is cut off")
        file.seek(size - tail)
        return decode_table(file.read(), name)


def scan(path: Path) -> list[Row]:
    """The chunks of a pack whose table is damaged, found frame by frame."""
    rows: list[Row] = []
    with path.open("rb") as file:
        offset = _HEADER.size
        while True:
            file.seek(offset)
            try:
                chunk_id, length, stored, *_ = unpack_head(file.read(HEAD.size))
            except BadChunk:
                return rows
            rows.append(Row(chunk_id, offset, stored, length))
            offset += rows[-1].frame_bytes


# --- the folder


class Packs:
    """The folder of packs of a store."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "packs"

    def create(self) -> None:
        """Make the folder."""
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def active(self) -> list[str]:
        """Names of the packs that are not condemned, the newest first."""
        found = []
        for name in files.look(self.folder):
            stem = name.removesuffix(_SUFFIX)
            if stem != name and _NAME.fullmatch(stem):
                with contextlib.suppress(FileNotFoundError):
                    found.append(((self.folder / name).stat().st_mtime_ns, stem))
        return [stem for _, stem in sorted(found, reverse=True)]

    def condemned(self) -> dict[str, list[str]]:
        """Names of condemned packs, by generation."""
        found: dict[str, list[str]] = {}
        for match in map(_CONDEMNED.fullmatch, files.look(self.folder)):
            if match:
                found.setdefault(match[2], []).append(match[1])
        return found

    def path(self, name: str) -> Path:
        """File of a pack."""
        return self.folder / (name + _SUFFIX)

    def condemned_path(self, name: str, generation: str) -> Path:
        """File of a pack that `generation` condemned."""
        return self.folder / f"{name}.condemned-{generation}"

    def size_bytes(self, name: str) -> int:
        """Of the file of a pack that is not condemned; 0 where it is gone."""
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return 0

    def find(self, name: str) -> Path:
        """File of a pack, condemned or not. Raises FileNotFoundError."""
        for _ in range(3):  # it may be renamed while we look
            if self.path(name).exists():
                return self.path(name)
            for path in self.folder.glob(f"{name}.condemned-*"):
                return path
        raise FileNotFoundError(2, "the pack is gone", str(self.path(name)))

    def table(self, name: str) -> list[Row]:
        """The chunks of a pack, also of one whose table is damaged. Raises OSError."""
        path = self.find(name)
        try:
            return read_table(path, name)
        except BadPack:
            return scan(path)


@dataclass
class Index:
    """Which chunk is in which pack."""

    names: list[str] = field(default_factory=list)  # of the packs
    _where: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)  # number of the pack, offset, stored

    def __contains__(self, chunk_id: bytes) -> bool:
        return chunk_id in self._where

    def __len__(self) -> int:
        return len(self._where)

    def ids(self) -> Iterator[bytes]:
        """All chunks."""
        return iter(self._where)

    def add(self, name: str, rows: Iterable[Row]) -> None:
        """Note what pack `name` has."""
        number = len(self.names)
        self.names.append(name)
        for row in rows:
            self._where.setdefault(row.chunk_id, (number, row.offset, row.stored))

    def load(self, packs: Packs, names: Iterable[str]) -> None:
        """Note what the packs `names` have; those that cannot be read have nothing."""
        known = set(self.names)
        for name in names:
            if name not in known:
                with contextlib.suppress(OSError):
                    self.add(name, packs.table(name))

    def place(self, chunk_id: bytes) -> tuple[str, int, int]:
        """(pack, offset of the frame, bytes behind its head). Raises KeyError."""
        number, offset, stored = self._where[chunk_id]
        return self.names[number], offset, stored


class PackWriter:
    """Collects frames and writes them as packs; each exists when it is complete, and then `index` has it."""

    def __init__(self, packs: Packs, index: Index, writer_id: str, *, pack_bytes: int = PACK_BYTES) -> None:
        self.added_bytes = 0
        self.written: list[str] = []
        self._packs, self._index, self._writer_id = packs, index, writer_id
        self._pack_bytes = pack_bytes
        self._frames: dict[bytes, bytes] = {}
        self._size = 0

    def __contains__(self, chunk_id: bytes) -> bool:
        return chunk_id in self._frames or chunk_id in self._index

    def add(self, chunk_id: bytes, frame: bytes) -> None:
        """Keep a chunk, unless some pack has it."""
        if chunk_id in self:
            return
        self._frames[chunk_id] = frame
        self._size += len(frame)
        self.added_bytes += len(frame)
        if self._size >= self._pack_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if not self._frames:
            return
        name, blocks, rows = encode(self._frames.items())
        draft = self._packs.folder / f".tmp-{self._writer_id}-{files.random_suffix()}"
        files.write_new(draft, blocks)
        draft.rename(self._packs.path(name))
        files.fsync_path(self._packs.folder)
        self._index.add(name, rows)
        self.written.append(name)
        self._frames, self._size = {}, 0


class ChunkReader:
    """Chunks by id, for many threads at once. `hints` are packs to look into first."""

    def __init__(self, packs: Packs, codec: Codec, hints: Iterable[str] = (), *, cached: int = 0) -> None:
        self._packs, self._codec = packs, codec
        self._index = Index()
        self._index.load(packs, hints)
        self._lock = threading.Lock()
        self._files = OpenFiles(self._open)
        self._cached: OrderedDict[bytes, bytes] = OrderedDict()
        self._cache_size = cached
        self._complete = False  # the index has every pack there is

    def __enter__(self) -> ChunkReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.__exit__()

    def chunk(self, chunk_id: bytes) -> bytes:
        """The chunk, proved. Raises ChunkMissing, StoreLocked."""
        with self._lock:
            if chunk_id in self._cached:
                self._cached.move_to_end(chunk_id)
                return self._cached[chunk_id]
        try:
            data = self._codec.chunk(self.frame(chunk_id), chunk_id)
        except BadChunk as error:
            raise ChunkMissing(chunk_id, f"chunk {chunk_id.hex()[:16]} in {self._told(chunk_id)}: {error}") from error
        if self._cache_size:
            with self._lock:
                self._cached[chunk_id] = data
                while len(self._cached) > self._cache_size:
                    self._cached.popitem(last=False)
        return data

    def frame(self, chunk_id: bytes) -> bytes:
        """The chunk's frame, as it is in its pack. Raises ChunkMissing."""
        for attempt in range(2):
            try:
                name, offset, stored = self.place(chunk_id)
                with self._files.of(name) as descriptor:
                    return os.pread(descriptor, HEAD.size + stored, offset)
            except FileNotFoundError as error:  # its pack was written anew while we read: look where it is now
                if attempt:
                    raise ChunkMissing(chunk_id, f"chunk {chunk_id.hex()[:16]}: {error.strerror}") from error
                self._forget()
            except OSError as error:
                raise ChunkMissing(chunk_id, f"chunk {chunk_id.hex()[:16]} cannot be read: {error}") from error
        raise AssertionError

    def place(self, chunk_id: bytes) -> tuple[str, int, int]:
        """(pack, offset of the frame, bytes behind its head). Raises ChunkMissing."""
        if chunk_id not in self._index:
            self._load_all()
        try:
            return self._index.place(chunk_id)
        except KeyError:
            raise ChunkMissing(chunk_id, f"chunk {chunk_id.hex()[:16]} is in no pack") from None

    def _load_all(self) -> None:
        with self._lock:
            if not self._complete:
                self._index.load(self._packs, self._packs.active())
                for names in self._packs.condemned().values():
                    self._index.load(self._packs, names)
                self._complete = True

    def _open(self, name: str) -> int:
        return os.open(self._packs.find(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def _forget(self) -> None:
        with self._lock:
            self._index, self._complete = Index(), False

    def _told(self, chunk_id: bytes) -> str:
        name, offset, _ = self._index.place(chunk_id)
        return f"pack {name[:16]} at byte {offset}"
