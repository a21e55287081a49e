"""manifest.json as it is written: the persisted type, apart from the live `Entry`. For writers only."""

from __future__ import annotations

from typing import Any

import msgspec

from nbcr.store.entry import FORMAT_VERSION


class Host(msgspec.Struct, frozen=True):
    """Where an image was taken."""

    hostname: str
    os_kernel: str
    arch: str
    python: str


class ComponentMark(msgspec.Struct, frozen=True):
    """The CRS component that made the image."""

    name: str
    version: str


class Manifest(msgspec.Struct, kw_only=True):
    """All keys of FORMAT.md's table."""

    format: int = FORMAT_VERSION
    id: str
    name: str
    created: str
    parent: str | None
    kinds: list[str]
    size_bytes: int
    notebook: str | None
    pid: int
    pause_ms: float
    duration_ms: float
    host: Host
    jupyter: dict[str, Any] | None
    cell: int | None
    component: ComponentMark
    warnings: list[str]
    note: str = ""
    automatic: str | None = None
    job: dict[str, Any] | None = None
    channel_fd: int | None = None
    objects: dict[str, Any] | None = None
    files: dict[str, tuple[int, str]] = {}
    sealed: str | None = None

    def encoded(self) -> bytes:
        """The file's bytes, ending in a newline."""
        # A round trip, because a Struct checks types when decoding only: nothing unreadable is ever written.
        checked = msgspec.convert(msgspec.to_builtins(self), Manifest)
        return msgspec.json.format(msgspec.json.encode(checked), indent=1) + b"\n"
