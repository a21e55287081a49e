"""Entries for tests of the store: real files, without a process behind them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from nbcr.store import Draft, Entry, Store
from nbcr.store.manifest import ComponentMark, Host, Manifest
from nbcr.store.pieces import PAGE, Run

DEFAULT = {"image/pages": b"0123456789"}


def manifest_for(draft: Draft, *, parent: str | None = None, notebook: str | None = None, pid: int = 1234) -> Manifest:
    return Manifest(
        id=draft.id,
        name=draft.name,
        created=draft.created,
        parent=parent,
        kinds=["image"],
        size_bytes=12,
        notebook=notebook,
        pid=pid,
        pause_ms=1.5,
        duration_ms=20.25,
        host=Host("here", "6.1", "x86_64", "3.11.7"),
        jupyter={"key": "hunter2", "ports": {"shell": 1}},
        cell=3,
        component=ComponentMark("trees", "1"),
        warnings=["something"],
        note="words",
        channel_fd=7,
    )


def put(
    store: Store,
    name: str | None,
    files: Mapping[str, bytes] = DEFAULT,
    *,
    replace: bool = False,
    now: datetime | None = None,
    parent: str | None = None,
    notebook: str | None = None,
    pid: int = 1234,
) -> Entry:
    """An entry with these files, by ``PART/path``."""
    draft = store.draft(name, replace=replace, now=now)
    for path, data in files.items():
        target = draft.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    store.sync(draft)
    manifest = manifest_for(draft, parent=parent, notebook=notebook, pid=pid)
    manifest.kinds = sorted({path.partition("/")[0] for path in files})
    return store.publish(draft, manifest)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stored_bytes(store: Store) -> int:
    """What all packs and recipes take."""
    found = [*(store.root / "packs").glob("*"), *(store.root / "entries").glob("*/*.recipe")]
    return sum(path.stat().st_size for path in found)


class Memory:
    """Pages at addresses, saved as an engine does it: run behind run, and an inventory that says where they were."""

    def __init__(self, rng: random.Random, pages: int, *, start: int = 0x7F00_0000_3000) -> None:
        self._rng = rng
        self.pages = {start + number * PAGE: rng.randbytes(PAGE) for number in range(pages)}

    def touch(self, share: float) -> None:
        """Change that share of the pages, scattered, a byte each."""
        for address in self._rng.sample(sorted(self.pages), max(1, round(len(self.pages) * share))):
            page = bytearray(self.pages[address])
            page[self._rng.randrange(PAGE)] ^= 1 + self._rng.randrange(255)
            self.pages[address] = bytes(page)

    def map(self, address: int, pages: int) -> None:
        """More memory, somewhere else."""
        self.pages |= {address + number * PAGE: self._rng.randbytes(PAGE) for number in range(pages)}

    def unmap(self, share: float) -> None:
        """Less of it."""
        for address in self._rng.sample(sorted(self.pages), round(len(self.pages) * share)):
            del self.pages[address]

    def runs(self) -> list[Run]:
        found: list[Run] = []
        for offset, address in enumerate(sorted(self.pages)):
            if found and sum(found[-1][:2]) == address:
                found[-1] = (found[-1][0], found[-1][1] + PAGE, found[-1][2])
            else:
                found.append((address, PAGE, offset * PAGE))
        return found

    def files(self) -> dict[str, bytes]:
        data = b"".join(self.pages[address] for address in sorted(self.pages))
        return {"image/pages-1.img": data, "image/inventory.json": json.dumps(self.runs()).encode()}


def layout(entry: Entry, folder: Path) -> dict[str, Sequence[Run]]:
    """Where the bytes of `Memory` belong, if it is one."""
    if not (folder / "inventory.json").exists():
        return {}
    runs: list[Run] = [(a, b, c) for a, b, c in json.loads((folder / "inventory.json").read_bytes())]
    return {"pages-1.img": runs}
