"""Files and folders by path, deleted files with their contents, files below /proc.

Opening again never creates, truncates or insists on a new file. What the program wrote since the checkpoint stays in
the file, unless a policy says otherwise (file_policy.py).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import FileChanged, ResourceUnsupported
from kernel_backend.host import libc, proc
from kernel_backend.host.identity import as_ourselves, without_capabilities
from kernel_backend.image.descriptions import Description, ProcFile, RegularFile, pack_path, unpack_path
from kernel_backend.resources import contents, file_policy, live_files, removed_folders, terminals, unsaved
from kernel_backend.resources.descriptors import (
    O_ASYNC,
    CaptureTables,
    Kind,
    Look,
    RebuildTables,
    is_file_or_folder,
    open_flags,
    open_path,
    restore_owner,
)
from kernel_backend.resources.pidfd import passed_on, replace_everywhere
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.process import Process

_DELETED = " (deleted)"
_ENTRY_BYTES = 512  # room for an entry of a folder: a name has up to 255 bytes
_PROC_PID = re.compile(r"^/proc/(\d+)(/.*)?$")
_OF_TMPFILE = re.compile(r"#\d+$")  # how the OS kernel calls a file that never had a name
_NAMESPACE = re.compile(r"^(cgroup|ipc|mnt|net|pid|time|user|uts):\[\d+\]$")
_OUR_NAMESPACE = "/proc/self/ns/"


class FileKind(Kind):
    """Regular files, folders, and whatever is open with O_PATH."""

    entry = RegularFile

    def matches(self, look: Look) -> bool:
        by_path = stat.S_ISREG(look.stat.st_mode) or stat.S_ISDIR(look.stat.st_mode) or look.flags & linux.O_PATH
        return bool(by_path) and look.link.startswith("/")

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        unsaved.check_trigger(look)
        path = _present_path(look)
        entry = RegularFile(
            path=pack_path(path or look.link.removesuffix(_DELETED)),
            unlinked=pack_path(look.link.removesuffix(_DELETED)) if path not in ("", look.link) else "",
            pos=look.info.pos,
            size=look.stat.st_size,
            mtime_ns=look.stat.st_mtime_ns,
            device=look.stat.st_dev,
            inode=look.stat.st_ino,
            mode=look.stat.st_mode,
            deleted=not path,
            shared=contents.memory_key(look, tables, nameless=not path and stat.S_ISREG(look.stat.st_mode)),
        )
        if not path:
            _save_deleted(look, entry, tables)
        entry.flags = look.flags
        file_policy.save(look, entry, tables)
        _refuse_dnotify(look)
        return entry

    def validate(self, index: int, entry: RegularFile, tables: RebuildTables) -> None:
        if entry.deleted or entry.shared:
            return
        if terminals.leads_inside(entry, tables):
            return
        path = unpack_path(entry.path)
        try:
            found = os.lstat(path)
        except OSError as error:
            made = isinstance(error, FileNotFoundError) and entry.saved
            if made or live_files.same_file(entry, tables) >= 0:
                return
            raise FileChanged(
                f"{path}, which {tables.who(index)} had open, cannot be opened: {error.strerror}", path=path
            ) from error
        if stat.S_IFMT(found.st_mode) == stat.S_IFMT(entry.mode):
            if live_files.common(entry, tables) < 0:
                file_policy.judge(index, entry, found, tables)
        elif live_files.same_file(entry, tables) < 0:
            raise FileChanged(f"{path}, which {tables.who(index)} had open, is a thing of another kind now", path=path)

    def rebuild(self, index: int, entry: RegularFile, tables: RebuildTables) -> None:
        common = -1 if entry.deleted or entry.shared else live_files.common(entry, tables)
        if common >= 0:
            tables.own[index] = live_files.take(index, common, tables, rewind=False)
            return
        if entry.deleted and not stat.S_ISDIR(entry.mode):
            fd = _open_nameless(entry, tables)
        elif entry.deleted:
            fd = _nameless_folder(entry, tables)
        elif terminals.leads_inside(entry, tables):
            fd = terminals.open_by_path(entry, tables)
        else:
            file_policy.make_missing(entry, tables)
            fd = _open_again(index, entry, tables)
        tables.own[index] = fd
        if entry.pos and not live_files.to_rewind(index, tables):
            _go_to(fd, entry.mode, entry.pos)

    def settle(self, index: int, entry: RegularFile, tables: RebuildTables) -> None:
        if entry.deleted and stat.S_ISREG(entry.mode):
            contents.dress(tables.own[index], entry, tables)

    def finish(
        self, index: int, entry: RegularFile, tables: RebuildTables, workshop: Workshop, pid: int, fd: int
    ) -> None:
        if live_files.to_rewind(index, tables):  # shared with the present until now
            workshop.call("lseek", fd, entry.pos, os.SEEK_SET)
            workshop.call("fcntl", fd, 4, entry.flags & ~os.O_ACCMODE)  # F_SETFL
        restore_owner(entry, tables, workshop, fd)


def _go_to(fd: int, mode: int, pos: int) -> None:
    """Set the offset. In a folder an entry is read first.

    ext4 takes one that was opened and led right to its end for empty when it is rewound: it notes its place by reading.
    """
    if stat.S_ISDIR(mode):
        room = ctypes.create_string_buffer(_ENTRY_BYTES)
        with suppress(OSError):  # it was removed
            libc.syscall("getdents64", fd, room, len(room))
    os.lseek(fd, pos, os.SEEK_SET)


# --- capture ----------------------------------------------------------------------------------------------------------


def _present_path(look: Look) -> str:
    """A path that leads to this very file now; empty when there is none."""
    if _leads_to(look.link, look):
        return look.link
    if look.stat.st_nlink and look.link.endswith(_DELETED) and not stat.S_ISDIR(look.stat.st_mode):
        return _other_link(look)
    return ""


def _refuse_dnotify(look: Look) -> None:
    """A watch of a folder by fcntl(2), F_NOTIFY, shows only by the owner that it gives the folder's descriptor."""
    if not stat.S_ISDIR(look.stat.st_mode) or look.flags & linux.O_PATH:
        return
    if fcntl.fcntl(look.own, fcntl.F_GETOWN):
        raise ResourceUnsupported(
            f"{look.holder} watches {look.link} by dnotify (F_NOTIFY), which cannot be captured",
            hint="let the program use inotify, or end the watch", pid=look.process.pid, fd=look.fd, link=look.link,
        )  # fmt: skip


def _leads_to(path: str, look: Look) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == look.inode


def _other_link(look: Look) -> str:
    """Another name of an unlinked file, looked for in the folder where it was."""
    folder = str(Path(look.link.removesuffix(_DELETED)).parent)
    try:
        with os.scandir(folder) as found:
            same = (item.path for item in found if item.inode() == look.stat.st_ino)
            return next((path for path in same if _leads_to(path, look)), "")
    except OSError:
        return ""


def _save_deleted(look: Look, entry: RegularFile, tables: CaptureTables) -> None:
    mode = look.stat.st_mode
    if stat.S_ISLNK(mode):
        entry.target = pack_path(os.readlink("", dir_fd=look.own))
        return
    if not stat.S_ISDIR(mode) and (look.flags & linux.O_PATH or not stat.S_ISREG(mode)):
        raise ResourceUnsupported(
            f"{look.holder} is an O_PATH descriptor of {look.link}, which has no path any more",
            pid=look.process.pid, fd=look.fd, link=look.link,
        )  # fmt: skip
    if stat.S_ISDIR(mode):
        if look.stat.st_nlink and not look.link.endswith(_DELETED):  # it never was here, or something covers it
            raise ResourceUnsupported(
                f"{look.holder} is a folder that has no path here ({look.link} is another), as of a mount of its own",
                hint="close it and checkpoint again", pid=look.process.pid, fd=look.fd, link=look.link,
            )  # fmt: skip
        return
    if look.link.startswith("/secretmem"):
        raise ResourceUnsupported(
            f"{look.holder} is secret memory (memfd_secret), which its program keeps from everybody: no image may "
            f"hold it", hint="close it, wiped, and checkpoint again", pid=look.process.pid, fd=look.fd, link=look.link,
        )  # fmt: skip
    if look.stat.st_nlink:
        tables.warnings.append(
            f"{look.holder}: {look.link} has another name which was not found; a restored process gets a copy of it"
        )
    contents.note_inode(look, entry)
    if not entry.shared:
        contents.save(look, entry, tables)


# --- rebuild ----------------------------------------------------------------------------------------------------------


def _open_again(index: int, entry: RegularFile, tables: RebuildTables) -> int:
    path = unpack_path(entry.path)
    unfit = 0 if stat.S_ISDIR(entry.mode) else os.O_DIRECTORY  # left from O_TMPFILE
    try:
        with _name_again(path, unpack_path(entry.unlinked)) as present:
            opening = partial(open_path, present, entry.flags & ~unfit, is_file_or_folder, keep=O_ASYNC)
            fd = opened_as_it_was(opening, (entry.device, entry.inode))
    except OSError as error:
        live = live_files.same_file(entry, tables)
        if live < 0:
            raise _not_opened(path, index, tables, error) from error
        return live_files.take(index, live, tables, rewind=True)
    found = os.fstat(fd)
    if stat.S_IFMT(found.st_mode) != stat.S_IFMT(entry.mode):
        os.close(fd)
        raise FileChanged(f"{path}, which {tables.who(index)} had open, is a thing of another kind now", path=path)
    return fd


def opened_as_it_was(opening: Callable[[], int], identity: tuple[int, int]) -> int:
    """What `opening` gives the image's user; else what it gives us, if it is the very file that the process had open.

    A process may have opened it before it gave its rights up, as servers do with their logs. Raises OSError.
    """
    try:
        return opening()
    except PermissionError:
        with as_ourselves():
            fd = opening()
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) == identity:
            return fd
        os.close(fd)
        raise


@contextmanager
def _name_again(path: str, unlinked: str) -> Iterator[str]:
    """For a file that was opened by a name which it lost, while it kept another: that name, for the moment."""
    try:
        if unlinked:
            os.link(path, unlinked, follow_symlinks=False)
    except OSError:
        unlinked = ""  # somebody else has the name, or no permission: the other one does
    try:
        yield unlinked or path
    finally:
        if unlinked:
            Path(unlinked).unlink()


def _not_opened(path: str, index: int, tables: RebuildTables, error: OSError) -> FileChanged:
    hint = "give this user access to it" if error.errno == errno.EACCES else ""
    return FileChanged(
        f"{path}, which {tables.who(index)} had open, cannot be opened: {error.strerror}", hint=hint, path=path
    )


def _open_nameless(entry: RegularFile, tables: RebuildTables) -> int:
    """A description of a file without a name; the first of a new file made with O_TMPFILE is that very one."""
    if stat.S_ISLNK(entry.mode):
        return _open_nameless_link(entry, tables)
    fresh: list[int] = []

    def make() -> int:
        fresh.append(_make_nameless(entry, tables))
        return fresh[0]

    made = contents.made_object(entry, tables, make)
    if tables.own_mounts and entry.flags & linux.O_TMPFILE == linux.O_TMPFILE:
        tables.warn(f"{unpack_path(entry.path)} cannot be given a name (linkat) from inside the tree's own namespaces")
    if fresh and entry.flags & linux.O_TMPFILE == linux.O_TMPFILE and entry.flags & os.O_ACCMODE == os.O_RDWR:
        return os.dup(made)
    return contents.reopen(made, entry.flags)


def _open_nameless_link(entry: RegularFile, tables: RebuildTables) -> int:
    """A symbolic link, for the moment where it was, or where there is room."""
    target, path = unpack_path(entry.target), Path(unpack_path(entry.path))
    try:
        path.symlink_to(target)
    except OSError:
        path = Path(tempfile.gettempdir()) / f".nbcr-link-{os.urandom(8).hex()}"
        path.symlink_to(target)
    tables.guardian.file(path)
    try:
        return os.open(path, linux.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    finally:
        path.unlink()


def _make_nameless(entry: RegularFile, tables: RebuildTables) -> int:
    """A file without a name, on the file system where it was if possible."""
    path, mode = Path(unpack_path(entry.path)), stat.S_IMODE(entry.mode) & 0o777 | 0o600
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    if entry.flags & linux.O_TMPFILE == linux.O_TMPFILE:
        flags |= open_flags(entry.flags) & ~os.O_ACCMODE
    elif not _OF_TMPFILE.match(path.name):
        with suppress(OSError):  # somebody has the name, or it cannot be given here
            return _make_unlinked(path, mode, tables)
    for folder in (str(path.parent), tempfile.gettempdir()):
        try:
            return os.open(folder, flags, mode)
        except OSError:
            continue
    return os.memfd_create(path.name[:200], os.MFD_CLOEXEC)


def _make_unlinked(path: Path, mode: int, tables: RebuildTables) -> int:
    """A file that has had a name for the moment: that is the name which /proc/PID/fd goes on to tell."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        tables.guardian.file(path)
    finally:
        path.unlink()
    return fd


def _nameless_folder(entry: RegularFile, tables: RebuildTables) -> int:
    path = unpack_path(entry.path)
    made = removed_folders.path_of((entry.device, entry.inode), path, tables, stat.S_IMODE(entry.mode))
    return os.open(made, open_flags(entry.flags) | os.O_CLOEXEC)


# --- /proc ------------------------------------------------------------------------------------------------------------


class ProcFileKind(Kind):
    """A file or folder below /proc; one of the image's own processes is opened under its new pid, from inside.

    So is /proc itself, where the new processes have a pid namespace of their own: ours shows them others' numbers.
    """

    entry = ProcFile
    every_process = True

    def matches(self, look: Look) -> bool:
        by_path = stat.S_ISREG(look.stat.st_mode) or stat.S_ISDIR(look.stat.st_mode) or look.flags & linux.O_PATH
        return bool(by_path) and (
            look.link == "/proc" or look.link.startswith("/proc/") or bool(_NAMESPACE.match(look.link))
        )

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        unsaved.check_trigger(look)
        if namespace := _namespace(look, tables.processes):
            return ProcFile(path=namespace)
        path = look.link.removesuffix(_DELETED)
        found, here = _PROC_PID.match(path), ""
        if found and look.stat.st_dev != os.stat("/proc").st_dev:  # of a pid namespace, with its own numbers
            inside = {proc.inner_id(pid): pid for pid in tables.processes}
            number = int(found.group(1))
            path = f"/proc/{inside.get(number, number)}{found.group(2) or ''}"
            here = f"/proc/{look.process.view}/root"  # where its /proc is; ours shows others under these numbers
        gone = bool(found) and (not _leads_to(here + look.link, look) or _is_zombie(here + look.link))
        if found and not gone and look.in_flight and int(found.group(1)) in tables.processes:
            raise ResourceUnsupported(
                f"{look.holder} is {path}, which can be opened again only when that process runs",
                hint="let the program receive it and checkpoint again", path=path,
            )  # fmt: skip
        return ProcFile(path=pack_path(path), pos=look.info.pos, gone=gone)

    def validate(self, index: int, entry: ProcFile, tables: RebuildTables) -> None:
        path = unpack_path(entry.path)
        if self._is_gone(entry, tables):
            return
        if self._pid(entry, tables) < 0 and not Path(path).exists():
            raise FileChanged(f"{path}, which {tables.who(index)} had open, does not exist here", path=path)

    def rebuild(self, index: int, entry: ProcFile, tables: RebuildTables) -> None:
        if self._is_gone(entry, tables):
            tables.own[index] = _open_of_the_dead(entry)
            return
        if self._pid(entry, tables) >= 0:
            tables.own[index] = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)  # until `finish`
            return
        path = unpack_path(entry.path)
        if path.startswith(_OUR_NAMESPACE):
            tables.own[index] = os.open(path, open_flags(entry.flags) | os.O_CLOEXEC)
            return
        try:
            with without_capabilities():
                fd = tables.own[index] = open_path(path, entry.flags, is_file_or_folder)
        except OSError as error:
            raise _not_opened(path, index, tables, error) from error
        if entry.pos:
            os.lseek(fd, entry.pos, os.SEEK_SET)

    def finish(self, index: int, entry: ProcFile, tables: RebuildTables, workshop: Workshop, pid: int, fd: int) -> None:
        ours = -1 if entry.gone else self._pid(entry, tables)
        shows_others = entry.path == "/proc" and _numbers_differ(workshop)
        if (ours < 0 and not shows_others) or passed_on(index, tables, workshop, pid):
            return
        path = unpack_path(entry.path)
        if ours >= 0:
            new = "self" if ours == pid else str(tables.pids[ours])  # other numbers may be those of a pid namespace
            path = re.sub(r"^/proc/\d+", f"/proc/{new}", path)
        address = workshop.put(os.fsencode(path) + b"\0")
        try:
            with _as_its_user(workshop, tables.users.get(pid, 0)):
                made = workshop.call("open", address, open_flags(entry.flags))
        except OSError as error:
            tables.warn(f"{path} cannot be opened again for process {pid}: {error.strerror}")
            return
        if entry.pos:
            _seek_later(workshop, made, entry.pos)
        replace_everywhere(index, made, tables, workshop, pid)

    def _is_gone(self, entry: ProcFile, tables: RebuildTables) -> bool:
        """Whether it is about a process that has ended: before the checkpoint, or, a stranger, since."""
        found = _PROC_PID.match(entry.path)
        if not found or entry.gone or self._pid(entry, tables) >= 0:
            return entry.gone
        return not Path(f"/proc/{found.group(1)}").exists()

    def _pid(self, entry: ProcFile, tables: RebuildTables) -> int:
        """The image pid in the path, or -1 when it is not about a process of the image."""
        found = _PROC_PID.match(entry.path)
        holders = {pid for rows in tables.holders.values() for pid, _ in rows}
        return int(found.group(1)) if found and int(found.group(1)) in holders else -1


def _numbers_differ(workshop: Workshop) -> bool:
    """Whether a process lives in another pid namespace than we do."""
    return os.stat(f"/proc/{workshop.thread.tid}/ns/pid").st_ino != os.stat("/proc/self/ns/pid").st_ino


def _seek_later(workshop: Workshop, fd: int, pos: int) -> None:
    """Give a file in /proc its offset, and have the next read look anew where that is.

    The OS kernel writes such files (seq_file) record by record and notes which one an offset lies in. Found now, that
    would be told by what the process is now: half-made, with a page of ours among its mappings. A read elsewhere
    makes it forget.
    """
    workshop.call("lseek", fd, pos, os.SEEK_SET)
    with suppress(OSError):  # a folder, or open for writing only
        workshop.call("pread64", fd, workshop.put(bytes(2)), 2 if pos == 1 else 1, 0)


@contextmanager
def _as_its_user(workshop: Workshop, uid: int) -> Iterator[None]:
    """What root's stub opens would stay open with root's rights: with the physical addresses in its pagemap, say."""
    if not uid:
        yield
        return
    keep, ours = 0xFFFFFFFF, os.geteuid()
    workshop.call("setresuid", keep, uid, keep)
    try:
        workshop.call("prctl", linux.PR_SET_DUMPABLE, 1, 0, 0, 0)  # else its files in /proc are root's
        yield
    finally:
        workshop.call("setresuid", keep, ours, keep)


_OF_WHO_RESTORES = ("cgroup", "ipc", "net", "time", "uts")  # which a tree is in that has not made its own


def _namespace(look: Look, tree: dict[int, Process]) -> str:
    """The path of a namespace that its holder is in, or another process of the tree, or we; empty: no namespace.

    Raises ResourceUnsupported where it is nobody's of these.
    """
    found = _NAMESPACE.match(look.link)
    if not found:
        return ""
    kind = found.group(1)
    members = [look.process, *tree.values()] if not look.in_flight else []
    for process in members:
        if _leads_to_namespace(f"/proc/{process.view}/ns/{kind}", look.link):
            return f"/proc/{process.pid}/ns/{kind}"
    path = f"{_OUR_NAMESPACE}{kind}"
    if kind in _OF_WHO_RESTORES and _leads_to_namespace(path, look.link):
        return path
    nobodys = (
        "that nobody of the tree is in" if not look.in_flight else "in flight, which can be captured when it arrives"
    )
    raise ResourceUnsupported(
        f"{look.holder} is {look.link}, a namespace {nobodys}",
        hint="close it, or receive it, and checkpoint again", pid=look.process.pid, fd=look.fd, link=look.link,
    )  # fmt: skip


def _leads_to_namespace(path: str, link: str) -> bool:
    try:
        return os.readlink(path) == link
    except OSError:
        return False


def _is_zombie(path: str) -> bool:
    """Whether the process of a path below /proc has ended. Its name is still there, but most of it cannot be opened.

    One whose main thread alone has ended says so, too, but lists others.
    """
    found = re.match(r".*/proc/(\d+)", path)
    if found is None:
        return False
    try:
        state = Path(f"{found.group()}/stat").read_text().rpartition(")")[2].split()[0]
        return state in "ZX" and not {*os.listdir(f"{found.group()}/task")} - {found.group(1)}
    except OSError:  # by now it has been reaped
        return True


def _open_of_the_dead(entry: ProcFile) -> int:
    """The like of a file below /proc/PID whose process has ended: of a child of ours that does so."""
    below = re.sub(r"^/proc/\d+(/task/\d+)?/?", "", unpack_path(entry.path))
    with removed_folders.of_one_who_dies() as folder:
        try:
            fd = os.open(below or ".", open_flags(entry.flags) | os.O_CLOEXEC, dir_fd=folder)
        except OSError:  # such a file is there no more: what it shows nobody can ask for
            fd = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        if entry.pos:
            os.lseek(fd, entry.pos, os.SEEK_SET)
        return fd


KINDS: list[Kind] = [ProcFileKind(), FileKind()]
