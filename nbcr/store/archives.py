"""Archives: one file with entries and all they need, an uncompressed tar of what a remote holds, packs first."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbcr.errors import RemoteFailed, UsageProblem
from nbcr.store import files
from nbcr.store.packs import BadPack, Row, decode_table, tail_bytes
from nbcr.store.remotes import pack_path

_FOOTER_BYTES = 16


class ArchiveTarget:
    """An archive being written: nothing can be asked of it but what went in."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes | None:
        """An archive begins empty."""
        return None

    def write(self, path: str, data: bytes) -> None:
        """Add a file."""
        member = tarfile.TarInfo(path)
        member.size, member.mode = len(data), 0o600
        self._tar.addfile(member, io.BytesIO(data))

    def entries(self) -> list[str]:
        """None before it is written."""
        return []

    def packs(self) -> dict[str, int]:
        """None before it is written."""
        return {}

    def condemned(self) -> set[str]:
        """None: an archive is never collected."""
        return set()

    def remove(self, path: str) -> None:
        """Nothing is ever removed."""

    def table(self, name: str, size: int) -> list[Row]:
        """None before it is written."""
        return []


@contextmanager
def written(path: Path, *, replace: bool = False) -> Iterator[ArchiveTarget]:
    """A new archive at `path`, 0600: whole, or not there. Raises UsageProblem, RemoteFailed."""
    if path.exists() and not replace:
        raise UsageProblem(f"{path} is there already", hint="--force replaces it")
    draft = path.with_name(f".{path.name}.{files.random_suffix()}")
    try:
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    yield ArchiveTarget(tar)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        files.fsync_path(path.parent)
    except OSError as error:
        raise RemoteFailed(f"{path} cannot be written: {error.strerror or error}") from error


class ArchiveSource:
    """An archive to read from. Nothing is extracted: members are found by name, and read in parts."""

    def __init__(self, tar: tarfile.TarFile, path: Path) -> None:
        self._path = path
        self._file = tar.fileobj
        try:
            found = [member for member in tar.getmembers() if member.isreg()]
        except (tarfile.TarError, OSError) as error:
            raise RemoteFailed(f"{path} is no archive of checkpoints: {error}") from error
        self._members = {member.name: (member.offset_data, member.size) for member in found if not member.issparse()}

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes | None:
        """Bytes of a member; None where there is none."""
        if path not in self._members or self._file is None:
            return None
        offset, size = self._members[path]
        low, high = start or 0, size if end is None else min(end, size)
        try:
            self._file.seek(offset + low)
            return bytes(self._file.read(max(0, high - low)))
        except OSError as error:
            raise RemoteFailed(f"{self._path} cannot be read: {error}") from error

    def write(self, path: str, data: bytes) -> None:
        """Nothing is added to one."""
        raise RemoteFailed(f"{self._path} is complete; nothing is added to it")

    def entries(self) -> list[str]:
        """Ids."""
        from nbcr.store import names

        found = {name.split("/")[1] for name in self._members if name.startswith("entries/") and name.count("/") == 2}
        return sorted(filter(names.is_id, found))

    def packs(self) -> dict[str, int]:
        """Names and sizes of the packs."""
        found = {name: size for name, (_, size) in self._members.items() if name.startswith("packs/")}
        return {name[6:-5]: size for name, size in found.items() if name.endswith(".pack")}

    def table(self, name: str, size: int) -> list[Row]:
        """The chunks of a pack; none where it is damaged."""
        try:
            wanted = tail_bytes(self.read(pack_path(name), max(0, size - _FOOTER_BYTES), size) or b"")
            return decode_table(self.read(pack_path(name), max(0, size - wanted), size) or b"", name)
        except BadPack:
            return []


@contextmanager
def opened(path: Path) -> Iterator[ArchiveSource]:
    """The archive at `path`. Raises RemoteFailed."""
    try:
        tar = tarfile.open(path, mode="r:")  # noqa: SIM115  (closed below)
    except (tarfile.TarError, OSError) as error:
        raise RemoteFailed(f"{path} is no archive of checkpoints: {error}") from error
    with tar:
        yield ArchiveSource(tar, path)
