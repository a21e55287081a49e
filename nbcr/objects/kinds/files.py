"""Open files: path, mode and position. The contents stay where they are, on the disk.

Asking a file that is written to where it stands flushes it. In the forked child that would write the
parent's pending bytes a first time and move the offset that both share: so there the descriptor is first
replaced by a scratch file which stands at the offset of the moment of the fork.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcr.objects.absent import absent
from nbcr.objects.kinds.base import CannotSave, Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey

_LARGEST_REREAD = 64 << 20  # of a text file that is being iterated over, whose position has to be found by reading


def _regular_files() -> Iterator[int]:
    with contextlib.suppress(OSError):
        for word in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.fstat(int(word)).st_mode):
                    yield int(word)


def offsets_of_open_files() -> dict[int, int]:
    """Where the regular files of this process stand, by descriptor: asked for at the moment of the fork."""
    found = {}
    for descriptor in _regular_files():
        with contextlib.suppress(OSError):
            found[descriptor] = os.lseek(descriptor, 0, os.SEEK_CUR)
    return found


def locked_files() -> frozenset[int]:
    """The descriptors whose files this process has locked, asked for before a fork: not all locks are a child's too."""
    found = set()
    for descriptor in _regular_files():
        with contextlib.suppress(OSError):
            if b"\nlock:" in Path(f"/proc/self/fdinfo/{descriptor}").read_bytes():
                found.add(descriptor)
    return frozenset(found)


def detach_readers(offsets: dict[int, int]) -> None:
    """In the forked child: descriptions of its own of the files that are only read.

    An object may read its file when it is pickled, as images do that Pillow has opened and not loaded yet. The parent
    shares the offset, and would go on reading at another place.
    """
    for descriptor, offset in offsets.items():
        with contextlib.suppress(OSError):
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                _put_at(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC), offset, descriptor)


def _put_at(own: int, offset: int, descriptor: int) -> None:
    os.lseek(own, offset, os.SEEK_SET)
    os.dup2(own, descriptor, inheritable=False)
    os.close(own)


class Files(Kind):
    """What `open` returns."""

    types = ("_io.TextIOWrapper", "_io.BufferedReader", "_io.BufferedWriter", "_io.BufferedRandom", "_io.FileIO")

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return ()

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        known = pickler.context.files  # finding out where a file stands may change it: once is enough
        if id(obj) not in known:
            known[id(obj)] = self._reduced(obj, pickler)
        return known[id(obj)]

    def _reduced(self, obj: Any, pickler: UnitPickler) -> Reduction:
        layers = _layers(obj)
        raw = layers[-1]
        if not isinstance(raw, io.FileIO) or not isinstance(raw.name, str | bytes):
            raise CannotSave("it is not a file with a path")
        text = _text_settings(layers[0])
        path = str(Path(os.fsdecode(raw.name)).absolute())
        mode = raw.mode.replace("b", "") + ("" if text else "b")
        if obj.closed:
            return make_closed_file, (path, mode, text, len(layers))
        if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            raise CannotSave("it is open, but not a regular file")
        if not _is_still(path, raw):
            raise CannotSave(f"the file it has open is no longer {path}")
        if raw.fileno() in pickler.context.locked:
            pickler.remarks.add("the lock on its file is not taken again")
        return open_file, (path, mode, text, len(layers), _position(layers, pickler))


def _layers(file: Any) -> list[Any]:
    """The file and what it is made of: text, buffered, raw."""
    found = [file]
    with contextlib.suppress(ValueError, AttributeError):  # closed; there are no more
        if isinstance(found[-1], io.TextIOWrapper):
            found.append(found[-1].buffer)
        if not isinstance(found[-1], io.FileIO):
            found.append(found[-1].raw)
    return found


def _text_settings(file: Any) -> dict[str, Any] | None:
    if not isinstance(file, io.TextIOWrapper):
        return None
    return {"encoding": file.encoding, "errors": file.errors, "line_buffering": file.line_buffering}


def _is_still(path: str, raw: io.FileIO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(raw.fileno()))
    except OSError:
        return False


# --- where it stands ----------------------------------------------------------------------------------------


def _position(layers: list[Any], pickler: UnitPickler) -> int:
    file, raw = layers[0], layers[-1]
    if pickler.context.forked:
        _detach(raw, pickler.context.offsets)
    elif raw.writable():
        file.flush()
    try:
        return int(file.tell())
    except OSError:  # "telling position disabled by next() call"
        return _position_by_reading(file)


def _detach(raw: io.FileIO, offsets: dict[int, int]) -> None:
    """Give this process a description of its own, so that nothing it does reaches the parent's file."""
    descriptor = raw.fileno()
    if raw.writable() and not raw.readable():
        own = os.memfd_create("nbcr")
    else:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        if raw.writable():
            own = _copied(own)
    _put_at(own, offsets.get(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR)), descriptor)


def _copied(descriptor: int) -> int:
    """A scratch copy of a file, up to what may be written over."""
    copy = os.memfd_create("nbcr")
    os.ftruncate(copy, os.fstat(descriptor).st_size)
    os.close(descriptor)
    return copy


def _position_by_reading(file: io.TextIOWrapper) -> int:
    """Where a text file stands in the midst of an iteration: as far before its end as there is text left."""
    if os.fstat(file.fileno()).st_size > _LARGEST_REREAD:
        raise CannotSave("it is being iterated over, and too large to find out where it stands")
    rest = file.read()
    with Path(os.fsdecode(file.name)).open(encoding=file.encoding, errors=file.errors) as again:
        whole = again.read()
        if not whole.endswith(rest):
            raise CannotSave("it was changed while it was being read")
        again.seek(0)
        again.read(len(whole) - len(rest))
        position = again.tell()
    file.seek(position)
    return position


# --- and back -----------------------------------------------------------------------------------------------


def open_file(path: str, mode: str, text: dict[str, Any] | None, layers: int, position: int) -> Any:
    """The file opened again where it stood; never truncated."""
    if not Path(path).is_file():
        return absent(f"the file {path} is not there")
    try:
        file = _opened(path, mode, text, layers)
    except OSError as error:
        return absent(f"the file {path} cannot be opened: {error.strerror}")
    file.seek(position)
    return file


def make_closed_file(path: str, mode: str, text: dict[str, Any] | None, layers: int) -> Any:
    """A file that was closed already."""
    file = _opened(os.devnull, mode, text, layers)
    _layers(file)[-1].name = path
    file.close()
    return file


def _opened(path: str, mode: str, text: dict[str, Any] | None, layers: int) -> Any:
    mode = mode.replace("w", "r+").replace("x", "r+").replace("++", "+")
    settings: dict[str, Any] = dict(text or {})
    line_buffering = settings.pop("line_buffering", False)
    unbuffered = layers == 1 and text is None
    buffering = 0 if unbuffered else 1 if line_buffering else -1
    return Path(path).open(mode, buffering, **settings)


KINDS: tuple[Kind, ...] = (Files(),)
