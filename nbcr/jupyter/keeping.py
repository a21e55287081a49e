"""Which checkpoints stay, as traits of a session's configuration.

They are applied after each checkpoint of the session, in the background, to each notebook in the store by itself.
"""

from __future__ import annotations

import json
import os
from typing import Any

from traitlets import Int, Unicode
from traitlets.config import Configurable

from nbcr.rendering import size_from

_VARIABLE = "NBCR_KEEP"  # nbcr.store.retention


class NbcrKeep(Configurable):
    """`c.NbcrKeep.last = 5`: what is kept of each notebook's checkpoints. Unset: the store's own settings."""

    last = Int(0, min=0, help="Keep the last N.").tag(config=True)
    hourly = Int(0, min=0, help="Keep one an hour, of the last N hours that have one.").tag(config=True)
    daily = Int(0, min=0, help="Keep one a day, of the last N days that have one.").tag(config=True)
    weekly = Int(0, min=0, help="Keep one a week, of the last N weeks that have one.").tag(config=True)
    monthly = Int(0, min=0, help="Keep one a month, of the last N months that have one.").tag(config=True)
    max_bytes = Unicode("", help="Disk budget of the store, as 50G; the oldest go first.").tag(config=True)

    def document(self) -> dict[str, Any]:
        """What is set, as nbcr.store.retention.Policy reads it. Raises UsageProblem."""
        counts = {name: getattr(self, name) for name in ("last", "hourly", "daily", "weekly", "monthly")}
        found: dict[str, Any] = {name: count for name, count in counts.items() if count}
        return {**found, "max_bytes": size_from(self.max_bytes)} if self.max_bytes else found


def apply(ip: Any) -> None:
    """Tell the helpers of this session; they inherit its environment."""
    wanted = NbcrKeep(parent=ip).document()
    if wanted:
        os.environ[_VARIABLE] = json.dumps(wanted)
