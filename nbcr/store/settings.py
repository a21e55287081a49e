"""settings.json: how a store keeps its entries (FORMAT.md, "Settings")."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nbcr.errors import StoreRefused
from nbcr.store import files

FILE = "settings.json"
BACKGROUND, NEVER = "background", "never"


@dataclass(frozen=True)
class Settings:
    """What is not set has its default."""

    hot_entries: int = 2  # of how many entries, the last used, hot files are kept
    hot_bytes: int | None = None  # how many bytes of them at most
    pack: str = BACKGROUND  # "never": only when asked for
    keep: Mapping[str, Any] = field(default_factory=dict)  # what packers keep (retention.Policy); empty: everything

    @property
    def packs_in_background(self) -> bool:
        """Whether entries are packed in the background; NBCR_PACK overrides it."""
        return os.environ.get("NBCR_PACK", self.pack) == BACKGROUND


def read(root: Path) -> Settings:
    """The settings of the store at `root`. Raises StoreRefused."""
    try:
        document = json.loads((root / FILE).read_text(encoding="utf-8"))
        found = Settings(**{f.name: document[f.name] for f in fields(Settings) if f.name in dict(document)})
        limits_good = all(isinstance(n, int) and n >= 0 for n in (found.hot_entries, found.hot_bytes or 0))
        if found.pack in (BACKGROUND, NEVER) and isinstance(found.keep, dict) and limits_good:
            return found
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError, TypeError) as error:
        raise StoreRefused(f"{root / FILE} cannot be read: {error}", hint="mend or remove it") from error
    raise StoreRefused(f"{root / FILE} holds impossible values", hint="mend or remove it")


def write(root: Path, settings: Settings) -> None:
    """Set them."""
    files.write_atomically(root / FILE, json.dumps(asdict(settings), indent=1).encode() + b"\n")
