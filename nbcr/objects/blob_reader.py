"""Reading the files of a snapshot: pickles are checked, buffers are mapped. FORMAT.md is the law here."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbcr.errors import EntryDamaged
from nbcr.objects import index as indexes
from nbcr.objects.blobs import FILE_NAME, OWN_FILE_BYTES
from nbcr.objects.index import Blob, Index

# Bytes of a file of the snapshot, from an offset on, so many (None: to the end), in memory of their own.
Fetch = Callable[[str, int, int | None], bytearray]


class BlobReader:
    """Reads the blobs of a snapshot. Buffers are private mappings: what is never touched is never read.

    With `fetch` there are no files: it brings the bytes that are asked for, and they are memory like any other.
    """

    def __init__(self, place: Path, index: Index, fetch: Fetch | None = None) -> None:
        self.place, self.index, self._fetch = place, index, fetch
        self._maps: dict[str, memoryview] = {}
        self._handed_out: set[tuple[str, int]] = set()

    def stream(self, number: int) -> memoryview:
        """A pickle, after its digest was checked. Raises EntryDamaged."""
        blob = self.index.blobs[number]
        if self._fetch is not None or blob.size >= OWN_FILE_BYTES:
            data = self.buffer(number)
        else:
            data = memoryview(self._read(blob))
        self._check(blob, data)
        return data

    def _read(self, blob: Blob) -> bytes:
        """Just these bytes: a pack may be much larger."""
        try:
            with self._path(blob).open("rb", buffering=0) as file:
                file.seek(blob.offset)
                return file.read(blob.size)
        except OSError as error:
            raise EntryDamaged(f"{self._path(blob)} cannot be read: {error}") from error

    def buffer(self, number: int) -> memoryview:
        """A buffer, writable: changes stay in memory. Asked for twice, it is two: equal contents are kept once."""
        blob = self.index.blobs[number]
        if self._fetch is not None:
            return memoryview(self._fetch(self._path(blob).name, blob.offset, blob.size))
        place = (blob.file, blob.offset)
        if blob.file not in self._maps or (place in self._handed_out and blob.size >= OWN_FILE_BYTES):
            self._maps[blob.file] = self._map(self._path(blob))
        found = self._maps[blob.file][blob.offset : blob.offset + blob.size]
        if found.nbytes != blob.size:
            raise EntryDamaged(f"{self._path(blob)} is cut off")
        if place in self._handed_out and blob.size < OWN_FILE_BYTES:
            found = memoryview(bytearray(found))
        self._handed_out.add(place)
        return found

    def verify(self) -> None:
        """Read every byte. Raises EntryDamaged, naming the file."""
        for number, blob in enumerate(self.index.blobs):
            self._check(blob, self.buffer(number))

    def _check(self, blob: Blob, data: bytes | memoryview) -> None:
        if indexes.digest_of(data) != blob.digest:
            raise EntryDamaged(f"{self._path(blob)} is damaged: its contents have another digest")

    def _path(self, blob: Blob) -> Path:
        if not FILE_NAME.fullmatch(blob.file):
            raise EntryDamaged(f"the index of the snapshot {self.place} names a file {blob.file!r}")
        return self.place / blob.file

    @staticmethod
    def _map(path: Path) -> memoryview:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise EntryDamaged(f"{path} cannot be read: {error}") from error
        with contextlib.closing(os.fdopen(descriptor, "rb", buffering=0)) as file:
            size = os.fstat(file.fileno()).st_size
            return _private_mapping(file.fileno(), size, path) if size else memoryview(b"")


def _private_mapping(descriptor: int, size: int, path: Path) -> memoryview:
    """The file as memory of our own.

    Not by `mmap.mmap`, which keeps a descriptor of the file open for as long as the memory is used: that would be in
    every image of this process, which then could not be brought back once the snapshot is removed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype, libc.munmap.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_size_t)
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, descriptor, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise EntryDamaged(f"{path} cannot be mapped: {os.strerror(ctypes.get_errno())}")
    array: Any = ctypes.c_char * size
    # What asks a view for its owner takes it for what it is in effect: a mapping, and no address of the user's.
    memory = type(array)("mmap", (array,), {"__module__": "mmap"}).from_address(address)
    # Whoever uses the memory holds `memory`. Not at exit: others may still be using it then.
    weakref.finalize(memory, libc.munmap, address, size).atexit = False
    return memoryview(memory).cast("B")
