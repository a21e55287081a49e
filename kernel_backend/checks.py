"""What can be known to be wrong with a restore before anything is touched."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel_backend import capture, kinship
from kernel_backend.abi import linux
from kernel_backend.errors import (
    EngineError,
    FileChanged,
    HostUnsupported,
    ImageCorrupt,
    ImageDenied,
    ImageMissing,
    NoRoom,
    TargetDenied,
)
from kernel_backend.host import room
from kernel_backend.host.identity import Identity, acting_as
from kernel_backend.image import reader
from kernel_backend.image.entries import FoldersEntry, Inventory, ProcessEntry
from kernel_backend.resources import aio, mapped_files, memory, pages, processes, segments


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """The image's folder by a descriptor of ours, as a path for our process alone. Raises ImageMissing.

    What has been checked is what is opened later: by its own path another folder could be put there in between, by
    whoever may write to one above. Errors name the folder as it was given.
    """
    try:
        fd = os.open(folder, linux.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageMissing(f"{folder} holds no image", path=str(folder)) from error
    except OSError as error:
        raise ImageMissing(f"{folder} cannot be read: {error.strerror}", path=str(folder)) from error
    ours = f"/proc/self/fd/{fd}"
    try:
        yield Path(ours)
    except EngineError as error:
        _say_instead(error, re.compile(re.escape(ours) + r"(?!\d)"), str(folder))
        raise
    finally:
        os.close(fd)


def _say_instead(error: EngineError, ours: re.Pattern[str], theirs: str) -> None:
    error.args = tuple(ours.sub(lambda _: theirs, str(word)) for word in error.args)
    if isinstance(path := error.facts.get("path"), str):
        error.facts["path"] = ours.sub(lambda _: theirs, path)
        setattr(error, "path", error.facts["path"])  # noqa: B010 - as EngineError sets its facts


def check_owner(folder: Path, names: Iterable[str]) -> None:
    """An image is a program. One that somebody else wrote, or may still change, is not run. Raises ImageDenied."""
    for path in (folder, *(folder / name for name in names)):
        try:
            found = path.stat()
        except OSError:
            continue  # the reader says what is missing
        if found.st_uid not in (os.geteuid(), 0):
            raise ImageDenied(f"{path} belongs to user {found.st_uid}, you are user {os.geteuid()}", path=str(path))
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ImageDenied(f"others may write to {path}", path=str(path))


def image_user(inventory: Inventory) -> Identity | None:
    """As whom files are to be opened, made and removed for an image; None: as ourselves.

    Root restores a user's processes with that user's rights over files. Where one of them is root's, all may be.
    """
    users = {rights.uids[3] for process in inventory.processes for rights in processes.rights_of(process)}
    if os.geteuid() != 0 or 0 in users:
        return None
    root = inventory.processes[0].credentials
    return Identity(root.uids[3], root.gids[3], tuple(root.groups))


def check_host(inventory: Inventory) -> None:
    """The image can run on this OS kernel and processor. Raises HostUnsupported."""
    theirs, ours = inventory.host, capture.host_entry(0)
    if (theirs.machine, theirs.page_size) != (ours.machine, ours.page_size):
        raise HostUnsupported(f"the image is of a {theirs.machine} host, this is a {ours.machine} host")
    if theirs.vdso_blake3 != ours.vdso_blake3:
        raise HostUnsupported(
            f"the image was taken under another OS kernel ({theirs.os_kernel}, here {ours.os_kernel})",
            hint="restart it on a host with the same OS kernel, or restore the objects tier",
        )
    for entry in inventory.processes:
        memory.check_vdso(entry)


def check_xstate(inventory: Inventory, here: int) -> None:
    """The processor state has the layout that this host uses."""
    if inventory.host.xstate_bytes != here:
        raise HostUnsupported(
            f"the image holds {inventory.host.xstate_bytes} bytes of processor state, this processor has {here}",
            hint="restart it on a host with the same processor features",
        )


def check_user(inventory: Inventory) -> None:
    """Without privileges only one's own processes can come back."""
    if os.geteuid() == 0:
        return
    for entry in inventory.processes:
        if any(set(rights.uids) != {os.geteuid()} for rights in processes.rights_of(entry)):
            raise TargetDenied(
                f"process {entry.pid} of the image ran as user {entry.credentials.uids[1]}, you are {os.geteuid()}",
                hint="restart it as that user, or as root",
            )


def check_memory(inventory: Inventory, *, freed: int = 0) -> None:
    """The image's pages fit into memory, and what will be locked there. Raises NoRoom."""
    needed = sum(pages.total_bytes(entry.pagemap) + _locked_bytes(entry) for entry in inventory.processes)
    available = room.available_bytes() + freed
    if needed > available:
        raise NoRoom(
            f"the image needs {needed / 2**20:.0f} MiB of memory, {available / 2**20:.0f} MiB are left",
            needed=needed, free=available,
        )  # fmt: skip


def _locked_bytes(entry: ProcessEntry) -> int:
    """Of what mlock(2) will bring in, the bytes that no page of the image fills."""
    locked = [vma for vma in entry.vmas if vma.locked and not vma.lock_on_fault and vma.prot]
    runs = iter(sorted((run.address, run.address + run.length) for run in entry.pagemap) if locked else ())
    run, covered = next(runs, None), 0
    for vma in locked:
        while run is not None and run[0] < vma.end:
            covered += max(min(run[1], vma.end) - max(run[0], vma.start), 0)
            if run[1] > vma.end:
                break
            run = next(runs, None)
    return sum(vma.end - vma.start for vma in locked) - covered


def check_folder(entry: ProcessEntry) -> None:
    """The working folder can be entered. Raises FileChanged."""
    if not processes.is_own_proc_folder(entry) and not processes.is_proc_folder_of_dead(entry.cwd):
        _check_can_be_entered(entry, f"process {entry.pid}")


def _check_can_be_entered(entry: ProcessEntry | FoldersEntry, who: str) -> None:
    if not entry.cwd_deleted and not os.access(f"{entry.cwd}/.", os.X_OK, effective_ids=True):
        raise FileChanged(
            f"{entry.cwd}, the working folder of {who}, is gone or cannot be entered by this user",
            hint="make it again, then restart", path=entry.cwd,
        )  # fmt: skip


def _check_sharing(inventory: Inventory) -> None:
    """Every process can be forked by one that it shares tables with. Raises ImageCorrupt."""
    for entry in inventory.processes:
        if (entry.table_of or entry.folders_of) and kinship.forker(inventory, entry) is None:
            raise ImageCorrupt(f"process {entry.pid} of the image shares tables of a process that could not fork it")


def check_all(folder: Path, inventory: Inventory, *, lazy: bool, trust: bool) -> None:
    """Everything that can be known to be wrong before the present is touched."""
    if not trust:
        check_owner(folder, inventory.files)
    check_host(inventory)
    check_user(inventory)
    written_here = inventory.host.boot_id == capture.boot_id()
    _check_sharing(inventory)
    aio.check(inventory)
    segments.check(inventory)
    reader.verify_files(folder, inventory, trust_untouched=lazy or written_here)
    with acting_as(None if trust else image_user(inventory)):
        for entry in inventory.processes:
            mapped_files.check_files(entry)
            check_folder(entry)
            for thread in entry.threads:
                if thread.folders is not None:
                    _check_can_be_entered(thread.folders, f"thread {thread.tid} of process {entry.pid}")
