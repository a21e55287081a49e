"""Where checkpoints are kept: a folder of entries, each published atomically. Its rules: FORMAT.md."""

from __future__ import annotations

from nbcr.store.entry import Entry
from nbcr.store.store import Draft, Store, default_root

__all__ = ["Draft", "Entry", "Store", "default_root"]
