"""How damage is told: which files of what, and why, on one line."""

from __future__ import annotations

from collections.abc import Mapping

from nbcr.errors import EntryDamaged


def damaged(part: str, entry: str, lost: Mapping[str, str]) -> EntryDamaged:
    """The error for files of a part that cannot be had as they were; `lost` says why of each."""
    return EntryDamaged(
        f"{part} of entry {entry} is damaged: {told(lost)}",
        hint="`nbcr verify` says what is still good; `nbcr pull` may have it whole",
    )


def told(lost: Mapping[str, str]) -> str:
    """Files and what is wrong with each."""
    return "; ".join(f"{path}: {why}" for path, why in sorted(lost.items()))
