"""A remote: a store's packed half in any file system that fsspec knows (FORMAT.md, "Remotes and archives")."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from nbcr.errors import RemoteFailed, UsageProblem
from nbcr.store import files, names
from nbcr.store.packs import BadPack, Row, decode_table, tail_bytes

ENCRYPTION = "encryption.json"
_PACK = ".pack"
_MARK = ".json"
_FOOTER_BYTES = 16
_LIKELY_TAIL = 16 << 10  # of most packs, table and footer are no longer
_ATTEMPTS = 4
_PAUSE_S = 0.5
_T = TypeVar("_T")


class Remote:
    """Reads and writes objects by path. What fails is tried again for a few seconds. Raises RemoteFailed."""

    def __init__(self, url: str, **options: Any) -> None:
        import fsspec

        self.url = url
        if not url.strip():  # for fsspec that is the working directory
            raise UsageProblem("the URL is empty", hint="name a folder, or a URL as s3://bucket/checkpoints")
        try:
            self._fs, root = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise RemoteFailed(
                f"{url} cannot be used: {error}", hint="install what fsspec needs for it, as `pip install nbcr[s3]`"
            ) from error
        except Exception as error:  # some connect at once, and every file system has errors of its own
            raise RemoteFailed(f"{url} cannot be reached: {_words(error)}", hint="check the URL") from error
        self._root = root.rstrip("/")
        self._fs.use_listings_cache = False
        protocols = (self._fs.protocol,) if isinstance(self._fs.protocol, str) else self._fs.protocol
        self._renames = bool({"file", "sftp", "ssh", "smb"} & set(protocols))  # an upload can be seen half-done there

    def __repr__(self) -> str:
        return f"Remote({self.url!r})"

    # --- objects

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes | None:
        """Bytes of an object; None where there is none."""

        def reading() -> bytes | None:
            try:
                return bytes(self._fs.cat_file(self._at(path), start=start, end=end))
            except (FileNotFoundError, IsADirectoryError, KeyError):
                return None

        return self._tried(reading, f"{path} cannot be read")

    def write(self, path: str, data: bytes) -> None:
        """Write an object, whole."""

        def writing() -> None:
            target = self._at(path)
            if not self._renames:
                self._fs.pipe_file(target, data)
                return
            folder, _, name = target.rpartition("/")
            self._fs.makedirs(folder, exist_ok=True)
            draft = f"{folder}/.tmp-{files.random_suffix()}-{name}"
            self._fs.pipe_file(draft, data)
            self._fs.mv(draft, target)

        self._tried(writing, f"{path} cannot be written")

    def sizes(self, folder: str) -> dict[str, int]:
        """Names and sizes of the objects in a folder; that of a folder in it is 0."""

        def listing() -> dict[str, int]:
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._at(folder), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            return {item["name"].rstrip("/").rpartition("/")[2]: int(item.get("size") or 0) for item in found}

        return self._tried(listing, f"{folder} cannot be listed")

    def remove(self, path: str) -> None:
        """Remove an object, if it is there."""

        def removing() -> None:
            with contextlib.suppress(FileNotFoundError, KeyError):
                self._fs.rm_file(self._at(path))

        self._tried(removing, f"{path} cannot be removed")

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if self._root else path

    def _tried(self, action: Callable[[], _T], what: str) -> _T:
        for attempt in range(_ATTEMPTS):
            try:
                return action()
            except Exception as error:  # every file system has errors of its own
                if attempt + 1 == _ATTEMPTS or isinstance(error, (PermissionError, NotImplementedError)):
                    raise RemoteFailed(
                        f"{self.url}: {what}: {_words(error)}",
                        hint="check address and credentials, and try again: what has arrived is not sent twice",
                    ) from error
                time.sleep(_PAUSE_S * 2**attempt)
        raise AssertionError

    # --- what they are

    def require(self) -> None:
        """Raise RemoteFailed when nothing of nbcr's is there: a mistyped URL is not an empty remote."""
        if not self.entries() and not self.packs():
            raise RemoteFailed(f"there are no checkpoints at {self.url}", hint="check the URL")

    def entries(self) -> list[str]:
        """Ids of the entries that are complete: those that have a manifest."""
        return [name for name in sorted(self.sizes("entries")) if names.is_id(name)]

    def packs(self) -> dict[str, int]:
        """Names and sizes of the packs."""
        found = self.sizes("packs")
        return {name.removesuffix(_PACK): size for name, size in found.items() if _is_pack(name)}

    def condemned(self) -> set[str]:
        """Packs that nobody needed when they were last looked for: who sends does not count on them."""
        return {name.removesuffix(_MARK) for name in self.sizes("condemned") if name.endswith(_MARK)}

    def table(self, name: str, size: int) -> list[Row]:
        """The chunks of a pack; none where it is cut off or damaged."""
        tail = self.read(pack_path(name), max(0, size - _LIKELY_TAIL), size) or b""
        try:
            wanted = tail_bytes(tail[-_FOOTER_BYTES:])
            if wanted > len(tail):
                tail = self.read(pack_path(name), max(0, size - wanted), size) or b""
            return decode_table(tail[-wanted:], name) if wanted <= len(tail) else []
        except BadPack:
            return []

    def chunks(self, names_: dict[str, int]) -> Iterator[tuple[str, Row]]:
        """All chunks of these packs."""
        for name, size in names_.items():
            for row in self.table(name, size):
                yield name, row


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _is_pack(name: str) -> bool:
    stem = name.removesuffix(_PACK)
    return stem != name and len(stem) == 64 and not set(stem) - set("0123456789abcdef")


def mark_path(name: str) -> str:
    """What says that a pack is condemned."""
    return f"condemned/{name}{_MARK}"


def pack_path(name: str) -> str:
    """Where a pack is."""
    return f"packs/{name}{_PACK}"
