"""The files of a snapshot: content-addressed, written once, never changed in place. FORMAT.md is the law here.

A blob is a pickle stream or an out-of-band buffer. Large ones have a file of their own, so that they can be
mapped and shared with later snapshots; small ones lie side by side in one pack. What the previous snapshot
has already is linked, not written.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from nbcr.errors import NbcrError
from nbcr.objects import index as indexes
from nbcr.objects.index import Blob

INLINE_BYTES = 1 << 10  # streams up to this size are part of the index
OUT_OF_BAND_BYTES = 64 << 10  # buffers from this size on are kept out of the pickle
OWN_FILE_BYTES = 1 << 20  # and blobs from this size on have a file of their own
_PAGE = 4096
_CHUNK = 8 << 20
_MOST_PACKS = 8  # that one snapshot shares with earlier ones
FILE_NAME = re.compile(r"[0-9a-f]{64}\.(blob|pack)")

Pulse = Callable[[int], None]


class TooLarge(Exception):
    """More bytes than were allowed."""


class WriteFailed(Exception):
    """The disk did not take what we gave it; the cause is the OSError."""


def hash_threads_work() -> bool:
    """Whether blake3's own threads run here: in a forked child they do not when the parent had started them."""
    done = threading.Event()

    def probe() -> None:
        blake3(bytes(1 << 20), max_threads=blake3.AUTO)
        done.set()

    threading.Thread(target=probe, daemon=True).start()
    return done.wait(0.5)


def _write_all(descriptor: int, data: bytes | memoryview, pulse: Pulse) -> None:
    view = memoryview(data)
    while view.nbytes:
        try:
            written = os.write(descriptor, view[:_CHUNK])
        except OSError as error:
            raise WriteFailed from error
        pulse(written)
        view = view[written:]


def _create(path: Path | str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise WriteFailed from error


class Stream:
    """A file for a pickler: stays in memory while it is small, goes to the disk when it grows."""

    def __init__(self, part: str, pulse: Pulse, limit: int | None = None) -> None:
        self.size = 0  # of the stream itself
        self.counted = 0  # with what is kept elsewhere
        self.probing = False  # nothing is kept any more but what was written last
        self._last: bytes | memoryview = b""
        self._part, self._pulse, self._limit = part, pulse, limit
        self._chunks: list[bytes] = []
        self._hash = blake3()
        self._descriptor = -1

    def write(self, data: bytes | memoryview) -> int:
        """Take more of the pickle."""
        if self.probing:
            self._last = data
            return len(data)
        self.grow(len(data))
        self.size += len(data)
        self._hash.update(data)
        if self._descriptor >= 0:
            _write_all(self._descriptor, data, self._pulse)
            return len(data)
        self._chunks.append(bytes(data))
        if self.size >= OWN_FILE_BYTES:
            self._descriptor = _create(self._part)
            _write_all(self._descriptor, b"".join(self._chunks), self._pulse)
            self._chunks.clear()
        return len(data)

    def grow(self, size: int) -> None:
        """Count `size` more bytes. Raises TooLarge."""
        self.counted += size
        if self._limit is not None and self.counted > self._limit:
            raise TooLarge

    def last_is_reference(self) -> bool:
        """Whether what was written last is the pickle of an object that was pickled before."""
        first = 11 if self._last[2:3] == b"\x95" else 2  # behind the protocol, and the length of a frame
        return bytes(self._last[first : first + 1]) in (b"h", b"j")

    @property
    def on_disk(self) -> bool:
        """Whether it has become too large for memory."""
        return self._descriptor >= 0

    def data(self) -> bytes:
        """All of it, while it is in memory."""
        return b"".join(self._chunks)

    def digest(self) -> bytes:
        """The digest of all of it."""
        return self._hash.digest()

    def close(self) -> Path:
        """No more is coming: where it is on the disk."""
        os.close(self._descriptor)
        self._descriptor = -1
        return Path(self._part)

    def discard(self) -> None:
        """Forget it."""
        if self._descriptor >= 0:
            self.close().unlink()


@dataclass
class Previous:
    """An earlier snapshot, of which whatever is the same need not be written again."""

    place: Path
    by_digest: dict[bytes, Blob] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, place: Path | None) -> Previous | None:
        """The snapshot at `place`, unless it cannot be read: then everything is written."""
        if place is None:
            return None
        try:
            index = indexes.read(place)
        except NbcrError:
            return None
        whole = [blob for blob in index.blobs if cls._is_whole(place, blob)]
        return cls(place, {blob.digest: blob for blob in whole}, {blob.size for blob in whole})

    @staticmethod
    def _is_whole(place: Path, blob: Blob) -> bool:
        try:
            return (
                bool(FILE_NAME.fullmatch(blob.file)) and (place / blob.file).stat().st_size >= blob.offset + blob.size
            )
        except OSError:
            return False


class BlobWriter:
    """Writes the blobs of one snapshot.

    Numbers of blobs are known at once, the blobs themselves after `finish`.
    """

    def __init__(self, place: Path, previous: Previous | None, pulse: Pulse) -> None:
        self.place = place
        self.added_bytes = 0
        self.table: list[Blob] = []
        self.hash_threads = False  # may be set before `finish`
        self._previous, self._pulse = previous, pulse
        self._by_digest: dict[bytes, int] = {}
        self._waiting: list[tuple[int, memoryview]] = []  # large buffers, written together at the end
        self._parts = 0
        self._pack = -1
        self._pack_part = place / "pack.part"
        self._pack_size = 0
        self._pack_hash = blake3()

    # --- what the pickler gives

    def stream(self, limit: int | None = None) -> Stream:
        """A file for one unit's pickle; hand it to `keep` or `discard` it."""
        self._parts += 1
        return Stream(f"{self.place}/{self._parts}.part", self._pulse, limit)

    def keep(self, stream: Stream) -> int:
        """The number of the blob that holds what was written to `stream`."""
        digest = stream.digest()
        known = self._known(digest)
        if known is not None:
            stream.discard()
            return known
        if not stream.on_disk:
            return self._to_pack(digest, stream.data(), aligned=1)
        return self._own_file(digest, stream.size, stream.close())

    def keep_buffer(self, buffer: memoryview) -> int:
        """The number of the blob that will hold `buffer`, which must not change until `finish`."""
        if buffer.nbytes >= OWN_FILE_BYTES:
            self.table.append(Blob(b"", buffer.nbytes, ""))
            self._waiting.append((len(self.table) - 1, buffer))
            return len(self.table) - 1
        digest = indexes.digest_of(buffer)
        known = self._known(digest)
        return self._to_pack(digest, buffer, aligned=_PAGE) if known is None else known

    def _known(self, digest: bytes) -> int | None:
        if digest not in self._by_digest:
            if self._previous is None or digest not in self._previous.by_digest:
                return None
            self.table.append(self._previous.by_digest[digest])
            self._by_digest[digest] = len(self.table) - 1
        return self._by_digest[digest]

    # --- files

    def _to_pack(self, digest: bytes, data: bytes | memoryview, aligned: int) -> int:
        if self._pack < 0:
            self._pack = _create(self._pack_part)
        self._pack_bytes(bytes(-self._pack_size % aligned))
        blob = Blob(digest, len(data), "", self._pack_size)  # the pack is named when it is complete
        self._pack_bytes(data)
        return self._enter(blob)

    def _pack_bytes(self, data: bytes | memoryview) -> None:
        _write_all(self._pack, data, self._pulse)
        self._pack_hash.update(data)
        self._pack_size += len(data)

    def _own_file(self, digest: bytes, size: int, part: Path) -> int:
        name = f"{digest.hex()}.blob"
        part.rename(self.place / name)
        self.added_bytes += size
        return self._enter(Blob(digest, size, name))

    def _enter(self, blob: Blob) -> int:
        self.table.append(blob)
        self._by_digest[blob.digest] = len(self.table) - 1
        return len(self.table) - 1

    @property
    def has_large(self) -> bool:
        """Whether large buffers wait for `finish`."""
        return bool(self._waiting)

    def rewind(self) -> None:
        """Another process went on from here and ended: undo what it wrote."""
        for part in self.place.glob("*.part"):
            if part != self._pack_part or self._pack < 0:
                part.unlink()
        if self._pack >= 0:
            os.ftruncate(self._pack, self._pack_size)
            os.lseek(self._pack, self._pack_size, os.SEEK_SET)

    # --- the end

    def finish(self) -> tuple[Blob, ...]:
        """Write what is still waiting; the blobs by number."""
        self._write_waiting()
        self._adopt_packs()
        self._close_pack()
        for name in {blob.file for blob in self.table}:
            if not (self.place / name).exists():
                self._link(name)
        self._remove_all_but({blob.file for blob in self.table})
        return tuple(self.table)

    def discard(self) -> None:
        """Remove everything written so far."""
        if self._pack >= 0:
            os.close(self._pack)
            self._pack = -1
        self._remove_all_but(set())

    def _remove_all_but(self, kept: set[str]) -> None:
        """Remove what this writer, or one that it took over from, has left in the folder."""
        for path in list(self.place.iterdir()):
            if path.suffix in (".part", ".pack", ".blob") and path.name not in kept:
                path.unlink()

    def _write_waiting(self) -> None:
        """Hash and write at the same time; what the previous snapshot may have is hashed first."""
        with ThreadPoolExecutor(2) as pool:
            jobs = [(number, buffer, *self._begin(pool, number, buffer)) for number, buffer in self._waiting]
            for number, buffer, hashed, part in jobs:
                digest = hashed.result()
                known = self._known(digest)
                if known is not None:
                    self._drop(part)
                else:
                    path = (part or pool.submit(self._write_part, number, buffer)).result()
                    known = self._own_file(digest, buffer.nbytes, path)
                self.table[number] = self.table[known]
        self._waiting.clear()

    def _begin(
        self, pool: ThreadPoolExecutor, number: int, buffer: memoryview
    ) -> tuple[Future[bytes], Future[Path] | None]:
        likely = self._previous is not None and buffer.nbytes in self._previous.sizes
        part = None if likely else pool.submit(self._write_part, number, buffer)
        return pool.submit(self._digest, buffer), part

    def _digest(self, buffer: memoryview) -> bytes:
        hasher = blake3(max_threads=blake3.AUTO if self.hash_threads else 1)
        for start in range(0, buffer.nbytes, 16 * _CHUNK):
            hasher.update(buffer[start : start + 16 * _CHUNK])
            self._pulse(0)
        return hasher.digest()

    def _write_part(self, number: int, buffer: memoryview) -> Path:
        part = self.place / f"buffer-{number}.part"
        descriptor = _create(part)
        try:
            _write_all(descriptor, buffer, self._pulse)
        finally:
            os.close(descriptor)
        return part

    @staticmethod
    def _drop(part: Future[Path] | None) -> None:
        if part is not None:
            part.result().unlink()

    def _adopt_packs(self) -> None:
        """Share the packs of earlier snapshots that are worth it; take the bytes still used out of the others."""
        if self._previous is None:
            return
        used: dict[str, int] = {}
        for blob in set(self.table):
            if blob.file.endswith(".pack"):
                used[blob.file] = used.get(blob.file, 0) + blob.size
        size_of = {name: (self._previous.place / name).stat().st_size for name in used}
        largest = sorted(used, key=lambda name: size_of[name], reverse=True)[:_MOST_PACKS]
        shared = {name for name in largest if 2 * used[name] >= size_of[name] or size_of[name] <= OUT_OF_BAND_BYTES}
        for number, blob in enumerate(self.table):
            if blob.file.endswith(".pack") and blob.file not in shared:
                with (self._previous.place / blob.file).open("rb") as file:
                    file.seek(blob.offset)
                    data = file.read(blob.size)
                aligned = _PAGE if blob.size >= OUT_OF_BAND_BYTES else 1
                self.table[number] = self.table[self._to_pack(blob.digest, data, aligned)]

    def _close_pack(self) -> None:
        if self._pack < 0:
            return
        os.close(self._pack)
        self._pack = -1
        name = f"{self._pack_hash.hexdigest()}.pack"
        self._pack_part.rename(self.place / name)
        self.added_bytes += self._pack_size
        self.table = [blob if blob.file else Blob(blob.digest, blob.size, name, blob.offset) for blob in self.table]

    def _link(self, name: str) -> None:
        """Make a file of the previous snapshot ours as well: a hard link, or a copy where there are none."""
        assert self._previous is not None
        source, target = self._previous.place / name, self.place / name
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
            target.chmod(0o600)
            self.added_bytes += target.stat().st_size
