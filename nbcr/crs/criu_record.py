"""What stands next to CRIU's images, which hold no digests: which files there are, their digests, and who is in them.

Also the little that we read of CRIU's own images. They are sequences of protobuf messages, each behind its length,
after two magic numbers (https://criu.org/Images).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
from blake3 import blake3

from kernel_backend.image.writer import file_digest
from nbcr.errors import EntryDamaged

RECORD = "nbcr.json"
FORMAT = 1
STATISTICS, TREE = "stats-dump", "pstree.img"
_MAGIC_BYTES = 8
_HINT = "restart from another checkpoint; this one cannot be trusted"


class ProcessRecord(msgspec.Struct, forbid_unknown_fields=True):
    """A process as it was seen when it was taken."""

    pid: int
    ppid: int
    exe: str
    argv: list[str]
    tids: list[int]
    resident_bytes: int
    cwd: str


class OutsideRecord(msgspec.Struct, forbid_unknown_fields=True):
    """Something whose other end was outside: by which name CRIU takes another in its place, and where it was."""

    key: str  # "pipe:[INODE]", "socket:[INODE]", "tty[RDEV:DEV]"
    stream: int  # 0 to 2: that standard stream of the root process; -1: the channel


class Record(msgspec.Struct, forbid_unknown_fields=True):
    """Everything of a snapshot that CRIU's images do not say, or not so that it can be checked."""

    criu: str
    created: str
    host: str
    root_pid: int
    processes: list[ProcessRecord]
    outside: list[OutsideRecord]
    files: dict[str, str]  # name of each image file, and its BLAKE3 digest
    format: int = FORMAT

    @property
    def channel(self) -> OutsideRecord | None:
        """The place of the channel, where there was one."""
        return next((outside for outside in self.outside if outside.stream < 0), None)


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    blake3: str
    record: msgspec.Raw


def digests(folder: Path) -> dict[str, str]:
    """The digest of every file of an image."""
    return {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name != RECORD}


def write(folder: Path, record: Record) -> None:
    """Put the record next to its images."""
    raw = msgspec.json.encode(record)
    envelope = _Envelope(blake3(raw).hexdigest(), msgspec.Raw(raw))
    (folder / RECORD).write_bytes(msgspec.json.encode(envelope))


def read(folder: Path) -> Record:
    """The record of a snapshot. Raises EntryDamaged."""
    try:
        envelope = msgspec.json.decode((folder / RECORD).read_bytes(), type=_Envelope)
        if blake3(envelope.record).hexdigest() != envelope.blake3:
            raise EntryDamaged(f"{folder / RECORD} was changed since it was written", hint=_HINT)
        record = msgspec.json.decode(envelope.record, type=Record)
    except OSError as error:
        raise EntryDamaged(f"{folder / RECORD} cannot be read: {error.strerror}", hint=_HINT) from None
    except msgspec.MsgspecError as error:
        raise EntryDamaged(f"{folder / RECORD} is no record of a CRIU snapshot: {error}", hint=_HINT) from None
    if record.format != FORMAT:
        raise EntryDamaged(f"{folder / RECORD} has format {record.format}", hint="use the nbcr that wrote it")
    return record


def read_verified(folder: Path) -> Record:
    """The record, after every byte of the images was compared with it. Raises EntryDamaged."""
    record = read(folder)
    try:
        found = digests(folder)
    except OSError as error:
        raise EntryDamaged(f"{error.filename} cannot be read: {error.strerror}", hint=_HINT) from None
    for name in sorted(record.files.keys() | found.keys()):
        if name not in found:
            raise EntryDamaged(f"{folder / name} is missing", hint=_HINT)
        if found[name] != record.files.get(name):
            raise EntryDamaged(f"{folder / name} is not as it was written", hint=_HINT)
    return record


# --- CRIU's own images ------------------------------------------------------------------------------------------------


def pause_ms(work: Path) -> float:
    """How long the processes stood still: from the first that was frozen until all went on (StatsEntry)."""
    for message in _messages(work / STATISTICS):
        for number, value in _fields(message):
            if number == 1 and isinstance(value, bytes):  # DumpStatsEntry: freezing_time, frozen_time in µs
                return sum(int(v) for n, v in _fields(value) if n in (1, 2)) / 1000
    raise ValueError(f"{STATISTICS} holds no statistics of a dump")


def tids(folder: Path) -> dict[int, list[int]]:
    """Which processes are in the image, the root first, and the threads of each (PstreeEntry)."""
    found = {}
    for message in _messages(folder / TREE):
        numbers: dict[int, list[int]] = {}
        for number, value in _fields(message):
            if isinstance(value, int):
                numbers.setdefault(number, []).append(value)
        found[numbers[1][0]] = numbers.get(5, numbers[1])  # pid, threads
    return found


def _messages(path: Path) -> Iterator[bytes]:
    data, at = path.read_bytes(), _MAGIC_BYTES
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        at += 4 + length
        yield data[at - length : at]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of the fields of a protobuf message; those of fixed width are passed over."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
        elif wire == 2:
            length, at = _varint(message, at)
            yield number, message[at : at + length]
            at += length
        else:
            at += {1: 8, 5: 4}[wire]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
