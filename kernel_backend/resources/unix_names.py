"""Names of Unix sockets: paths and abstract ones, read, checked and bound again."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported
from kernel_backend.host import sockdiag
from kernel_backend.image.descriptions import UnixSocket, pack_path, unpack_path
from kernel_backend.resources import live_sockets, roots
from kernel_backend.resources.descriptors import CaptureTables, Look, RebuildTables

_UNIX = socket.AF_UNIX
_COLLECTED_WITHIN_S, _LOOK_AGAIN_S = 0.3, 0.01


def name_of(facts: sockdiag.UnixFacts | None) -> bytes:
    """The bound name; sock_diag shows paths with their final NUL."""
    if facts is None:
        return b""
    return facts.name if facts.name.startswith(b"\0") else facts.name.rstrip(b"\0")


def note(look: Look, facts: sockdiag.UnixFacts, entry: UnixSocket, tables: CaptureTables) -> None:
    """Record the name, where a relative one was bound, and whether its file is still there."""
    entry.name = name_of(facts)
    if not entry.name or entry.name.startswith(b"\0"):
        return
    path = os.fsdecode(entry.name)
    roots.check_name(look.process.pid, look.process.view, path)
    if not path.startswith("/") and not look.in_flight:
        entry.folder = pack_path(_folder_of(path, look, facts, tables))
    place = Path(unpack_path(entry.folder)) / path
    found = _if_it_is(place, facts)
    if found is None:
        place = _renamed(place, facts)
        found = _if_it_is(place, facts)
        entry.unlinked = found is None
        entry.moved = pack_path(str(place)) if found else ""
    if found is not None:
        entry.mode = stat.S_IMODE(found.st_mode)
        entry.uid, entry.gid = found.st_uid, found.st_gid
        entry.folder_mode = stat.S_IMODE(place.parent.stat().st_mode)


def _folder_of(name: str, look: Look, facts: sockdiag.UnixFacts, tables: CaptureTables) -> str:
    """What a relative name is relative to: the folder that its process was in when it was bound, which may be another.

    Looked for where the tree's processes are, and around what this one has open.
    """
    here = os.readlink(f"/proc/{look.process.view}/cwd")
    for folder in dict.fromkeys([here, *_folders_about(look.process.pid, tables)]):
        if _if_it_is(Path(folder) / name, facts) is not None:
            return folder
    if _if_it_is(_renamed(Path(here) / name, facts), facts) is None:
        tables.warnings.append(
            f"{look.holder} is bound to {name!r}, whose file is gone or in a folder where its process is no more; "
            "nobody will reach a restored one by that name"
        )
    return here


def _folders_about(pid: int, tables: CaptureTables) -> Iterator[str]:
    links = [f"/proc/{member}/cwd" for member in tables.processes]
    with suppress(OSError):
        links += [item.path for item in os.scandir(f"/proc/{pid}/fd")]
    for link in links:
        with suppress(OSError):
            path = Path(link).readlink()
            if path.is_absolute():
                yield from (str(path), str(path.parent))


def _if_it_is(path: Path, facts: sockdiag.UnixFacts) -> os.stat_result | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    same = found.st_ino & 0xFFFFFFFF == facts.file_inode and stat.S_ISSOCK(found.st_mode)
    return found if same else None


def _renamed(path: Path, facts: sockdiag.UnixFacts) -> Path:
    """Where in its folder a socket's file is now, or the path itself."""
    try:
        with os.scandir(path.parent) as items:
            same = (item.path for item in items if item.inode() & 0xFFFFFFFF == facts.file_inode)
            return Path(next(same, path))
    except OSError:
        return path


def check(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    """Raise when somebody else has the name."""
    if live_sockets.find_unix(entry, tables) >= 0:
        return
    shown = repr(entry.name)[2:-1]
    try:
        with inside_folder(entry):
            if not _stays_in_use(entry, tables) and not (entry.moved and os.path.lexists(entry.name)):
                _check_folder(entry)
                return
            if entry.name.startswith(b"\0") or Path(os.fsdecode(entry.name)).is_socket():
                raise _name_taken(shown, index, tables)
    except OSError as error:
        raise HostUnsupported(
            f"{shown}, the name of the socket at {tables.who(index)}, cannot be had: {error.strerror}",
            hint="make its folder again, where this user may write to it", name=shown,
        ) from error  # fmt: skip
    raise HostUnsupported(
        f"{shown}, the name of the socket at {tables.who(index)}, is something else now",
        hint="move it out of the way", name=shown,
    )  # fmt: skip


def _check_folder(entry: UnixSocket) -> None:
    """A name needs a folder that it can be made in, or one that can be made itself. Raises OSError."""
    if entry.name.startswith(b"\0"):
        return
    folder = Path(os.fsdecode(entry.name)).parent
    if not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        folder.stat()  # says that it is gone, if it is
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _make_folder(folder: Path, entry: UnixSocket, tables: RebuildTables) -> bool:
    """The folder of a name, where it is gone: programs clean up behind themselves when their parents are killed, as
    multiprocessing's workers do. Whether it was made.
    """
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        return False
    tables.guardian.tell("empty folder", str(folder.absolute()))
    folder.chmod(entry.folder_mode)
    return True


def _in_use(entry: UnixSocket, tables: RebuildTables) -> bool:
    """Whether a socket of somebody's has the name, or it is no socket at all.

    In place it may still be the present's, whose processes go on until all that is new stands: they do not count.

    The OS kernel's list is asked, and not whoever listens: a connection, even one that is closed at once, may be the
    end of a server that expects others to speak (a forkserver's).
    """
    sockets = [facts for facts in sockdiag.unix_sockets().values() if facts.inode not in tables.leaving_sockets]
    if entry.name.startswith(b"\0"):
        return any(name_of(facts) == entry.name for facts in sockets)
    try:
        found = _place(entry).lstat()
    except FileNotFoundError:
        return False
    inode = found.st_ino & 0xFFFFFFFF
    return not stat.S_ISSOCK(found.st_mode) or any(facts.name and facts.file_inode == inode for facts in sockets)


def _stays_in_use(entry: UnixSocket, tables: RebuildTables) -> bool:
    """The same, but for a socket that was on its way through another when its owner was killed.

    The OS kernel looks for such sockets when one is closed (net/unix/garbage.c), which takes a moment, and nothing
    announces the end of that.
    """
    deadline = time.monotonic() + _COLLECTED_WITHIN_S
    while in_use := _in_use(entry, tables):
        if time.monotonic() > deadline:
            break
        socket.socket(_UNIX, socket.SOCK_STREAM).close()
        time.sleep(_LOOK_AGAIN_S)
    return in_use


def _place(entry: UnixSocket) -> Path:
    """Where its file is; relative to its folder, as the name is."""
    return Path(unpack_path(entry.moved) or os.fsdecode(entry.name))


def _name_taken(shown: str, index: int, tables: RebuildTables) -> HostUnsupported:
    return HostUnsupported(
        f"{shown}, the name of the socket at {tables.who(index)}, is in use by another process",
        hint="end that process (it may be the one the checkpoint was taken of)", name=shown,
    )  # fmt: skip


@contextmanager
def inside_folder(entry: UnixSocket) -> Iterator[None]:
    """A relative name is bound as it stands: we go where it was relative to."""
    if not entry.folder:
        yield
        return
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(unpack_path(entry.folder))
        yield
    finally:
        os.fchdir(before)
        os.close(before)


@contextmanager
def _some_folder() -> Iterator[None]:
    """For a relative name whose file is to be gone again at once, any will do."""
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    folder = tempfile.mkdtemp(prefix="nbcr-")
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(before)
        os.close(before)
        os.rmdir(folder)  # noqa: PTH106


def address_of(entry: UnixSocket, tables: RebuildTables) -> bytes:
    """By which we reach a rebuilt socket, also one whose file is unlinked."""
    door = _doors(tables).get(entry.inode, -1)
    return entry.name if door < 0 else f"/proc/self/fd/{door}".encode()


def _doors(tables: RebuildTables) -> dict[int, int]:
    """Our O_PATH descriptors of socket files that have no name."""
    doors: dict[int, int] = tables.cache.setdefault("files of unlinked unix sockets", {})
    return doors


def bind(s: socket.socket, entry: UnixSocket, tables: RebuildTables) -> None:
    """Bind to the image's name; a socket file that nobody listens on any more makes room."""
    nowhere = entry.unlinked and bool(entry.folder)
    with _some_folder() if nowhere else inside_folder(entry):
        if entry.name.startswith(b"\0"):
            s.bind(entry.name)
            return
        path = Path(os.fsdecode(entry.name))
        place = _place(entry)
        made = _make_folder(path.parent, entry, tables)
        if not entry.unlinked and place.is_socket() and not _in_use(entry, tables):
            place.unlink()
        if entry.unlinked or entry.moved:
            with _aside(path, tables):
                s.bind(entry.name)
                door = _doors(tables)[entry.inode] = os.open(path, linux.O_PATH | os.O_CLOEXEC)
                tables.to_close.append(door)
                if not entry.unlinked:
                    _take_place(path, place, entry, tables)
                    return
                path.unlink()
            if made:
                path.parent.rmdir()
            return
        s.bind(entry.name)
        if made:
            tables.warn(f"{path.parent}, the folder of a socket's name, was gone: it was made again")
        _take_place(path, place, entry, tables)


def _take_place(path: Path, place: Path, entry: UnixSocket, tables: RebuildTables) -> None:
    path.rename(place)
    tables.guardian.file(place)
    found = place.lstat()
    if entry.uid >= 0 and (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
        try:
            os.chown(place, entry.uid, entry.gid, follow_symlinks=False)
        except OSError as error:
            tables.warn(f"the socket file {place} is not that of user {entry.uid} again: {error.strerror}")
    place.chmod(entry.mode)


@contextmanager
def _aside(path: Path, tables: RebuildTables) -> Iterator[None]:
    """Whatever has a name now that a socket had before it makes room for the moment."""
    if not os.path.lexists(path):
        yield
        return
    aside = path.with_name(f"{path.name[:200]}.nbcr-{os.getpid()}")
    tables.guardian.tell("moved aside", str(aside.absolute()), str(path.absolute()))
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def stranger(name: bytes) -> Iterator[socket.socket]:
    """A datagram socket to send from that bears the name of one that was closed, where nobody else has that now."""
    with socket.socket(_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        if name.startswith(b"\0"):
            with suppress(OSError):
                s.bind(name)
        elif name:
            _bind_to_path(s, name)
        yield s


def _bind_to_path(s: socket.socket, name: bytes) -> None:
    """Its file may lie there still, and is left as it is."""
    path = Path(os.fsdecode(name))
    aside = path.with_name(f"{path.name[:200]}.nbcr-{os.getpid()}")
    try:
        path.rename(aside)
    except OSError:
        aside = path
    try:
        s.bind(name)
        path.unlink()
    except OSError:
        return  # the message comes without a sender's name
    finally:
        if aside != path:
            aside.rename(path)
