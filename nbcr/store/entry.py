"""An entry as its readers see it: standard library only, so that any Jupyter kernel can list entries."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbcr.errors import EntryDamaged

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
TAGS = "tags.json"
GONE = ".gone-"  # before an id: being removed
RECIPE = ".recipe"
IMAGE = "image"
OBJECTS = "objects"
PARTS = (IMAGE, OBJECTS, "job")  # what an entry may be made of
MOST_THUMBNAIL_BYTES = 20 << 10
_UNTOLD = ("key", "curve_secretkey", "thumbnail")
_PNG = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/]*={0,2}")  # as base64


def recipe_of(folder: Path, part: str) -> Path:
    """The recipe of a part of the entry in `folder`; it is there when the part is packed."""
    return folder / (part + RECIPE)


def packed_parts(folder: Path) -> list[str]:
    """The parts that are packed of the entry in `folder`; none where it is gone."""
    try:
        return sorted(path.name.removesuffix(RECIPE) for path in folder.glob("[!.]*" + RECIPE))
    except FileNotFoundError:
        return []


@dataclass(frozen=True)
class Entry:
    """One checkpoint in a store. Field meanings and units: FORMAT.md."""

    id: str
    name: str
    created: str
    parent: str | None
    kinds: tuple[str, ...]
    size_bytes: int
    notebook: str | None
    pid: int
    pause_ms: float
    duration_ms: float
    host: Mapping[str, str] = field(default_factory=dict, repr=False)
    jupyter: Mapping[str, Any] | None = field(default=None, repr=False)  # its key does not belong into a notebook
    cell: int | None = None
    component: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()
    note: str = ""
    automatic: str | None = None  # why it was taken without anybody asking; None: somebody asked for it
    job: Mapping[str, Any] | None = field(default=None, repr=False)  # of `nbcr run`: its name and its command's digest
    channel_fd: int | None = field(default=None, repr=False)
    objects: Mapping[str, Any] | None = field(default=None, repr=False)  # how its snapshot went, in numbers
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict, repr=False)  # of each part: size and digest
    sealed: str | None = field(default=None, repr=False)  # encrypted: `jupyter` and `files`
    path: Path = field(default=Path(), repr=False)  # the entry's folder

    @property
    def image(self) -> Path:
        """Folder of the process image, where it is hot (else nbcr.store.opening makes it so)."""
        return self.path / IMAGE

    @property
    def snapshot(self) -> Path:
        """Folder of the snapshot of the objects."""
        return self.path / OBJECTS

    @property
    def store_root(self) -> Path:
        """The store it is in."""
        return self.path.parent.parent

    @property
    def tags(self) -> dict[str, bool]:
        """The user's tags, each with whether it pins the entry; none where they cannot be read."""
        try:
            document = json.loads((self.path / TAGS).read_text(encoding="utf-8"))
            return {str(tag): bool(facts["pinned"]) for tag, facts in document["tags"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    @property
    def cell_source(self) -> str:
        """The beginning of the text of the cell that was running; empty where none was, or it is not known."""
        return str((self.jupyter or {}).get("cell_source") or "")

    @property
    def thumbnail(self) -> str | None:
        """The last figure that the session had shown, as base64 of a PNG; nothing else, whoever wrote the manifest."""
        found = (self.jupyter or {}).get("thumbnail")
        fits = isinstance(found, str) and len(found) <= 2 * MOST_THUMBNAIL_BYTES and _PNG.fullmatch(found)
        return str(found) if fits else None

    def listed(self) -> dict[str, Any]:
        """The fields of ``nbcr list --json``."""
        return {
            "id": self.id,
            "name": self.name,
            "created": self.created,
            "parent": self.parent,
            "kinds": list(self.kinds),
            "size_bytes": self.size_bytes,
            "notebook": self.notebook,
            "pid": self.pid,
            "tags": self.tags,
        }

    def taken(self) -> dict[str, Any]:
        """The fields of ``nbcr checkpoint --json``."""
        return {**self.listed(), "pause_ms": self.pause_ms, "duration_ms": self.duration_ms}

    def details(self) -> dict[str, Any]:
        """Everything ``nbcr show --json`` tells: the manifest without the Jupyter kernel's keys, and its figure."""
        jupyter = None if self.jupyter is None else {k: v for k, v in self.jupyter.items() if k not in _UNTOLD}
        return {
            **self.taken(),
            "host": dict(self.host),
            "jupyter": jupyter,
            "cell": self.cell,
            "component": dict(self.component),
            "warnings": list(self.warnings),
            "note": self.note,
            "automatic": self.automatic,
            "job": None if self.job is None else dict(self.job),
            "objects": None if self.objects is None else dict(self.objects),
            "path": str(self.path),
        }

    def document(self) -> dict[str, Any]:
        """Everything, as it travels between processes (the inverse of ``from_document``)."""
        return {
            **self.details(),
            "format": FORMAT_VERSION,
            "jupyter": None if self.jupyter is None else dict(self.jupyter),
            "channel_fd": self.channel_fd,
            "files": {path: list(known) for path, known in self.files.items()},
            "sealed": self.sealed,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], path: Path) -> Entry:
        """The entry that a manifest describes. Raises EntryDamaged when it does not describe one."""
        version = document.get("format")
        if not isinstance(version, int) or version < 1:
            raise EntryDamaged(f"manifest of {path.name} has no format version", hint="remove the folder " + str(path))
        if version > FORMAT_VERSION:
            raise EntryDamaged(
                f"entry {path.name} has format {version}, this nbcr reads {FORMAT_VERSION}",
                hint="update nbcr",
            )
        try:
            return cls(
                id=str(document["id"]),
                name=str(document["name"]),
                created=str(document["created"]),
                parent=document["parent"],
                kinds=tuple(document["kinds"]),
                size_bytes=int(document["size_bytes"]),
                notebook=document["notebook"],
                pid=int(document["pid"]),
                pause_ms=float(document["pause_ms"]),
                duration_ms=float(document["duration_ms"]),
                host=dict(document["host"]),
                jupyter=document["jupyter"],
                cell=document["cell"],
                component=dict(document["component"]),
                warnings=tuple(document["warnings"]),
                note=str(document.get("note", "")),
                automatic=document.get("automatic"),
                job=None if document.get("job") is None else dict(document["job"]),
                channel_fd=document.get("channel_fd"),
                objects=None if document.get("objects") is None else dict(document["objects"]),
                files={str(k): (int(size), str(digest)) for k, (size, digest) in document.get("files", {}).items()},
                sealed=document.get("sealed"),
                path=path,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EntryDamaged(
                f"manifest of {path.name} is damaged ({type(error).__name__}: {error})",
                hint="remove the folder " + str(path),
            ) from error

    @classmethod
    def read(cls, path: Path) -> Entry:
        """Read the entry in folder `path`. Raises EntryDamaged."""
        try:
            manifest = (path / MANIFEST).read_bytes()
        except OSError as error:
            raise EntryDamaged(
                f"manifest of {path.name} cannot be read: {error}", hint=f"remove the folder {path}"
            ) from error
        return cls.from_bytes(manifest, path)

    @classmethod
    def from_bytes(cls, manifest: bytes, path: Path) -> Entry:
        """The entry in folder `path` with this manifest. Raises EntryDamaged."""
        try:
            document = json.loads(manifest)
        except ValueError as error:
            raise EntryDamaged(
                f"manifest of {path.name} cannot be read: {error}", hint=f"remove the folder {path}"
            ) from error
        if not isinstance(document, dict) or document.get("id") != path.name:
            raise EntryDamaged(f"manifest of {path.name} is not that entry's own", hint=f"remove the folder {path}")
        return cls.from_document(document, path)
