"""What a shell offers when Tab is pressed: names of checkpoints, targets. Silent where nothing can be offered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def names(ctx: Any, incomplete: str) -> list[str]:
    """Checkpoints of the store that the command line names so far: by name, and by id once that is begun."""
    with contextlib.suppress(Exception):
        from nbcr.store import Store

        entries = Store(ctx.params.get("store")).entries()
        found = [entry.name for entry in entries if entry.name.startswith(incomplete)]
        if incomplete:
            found += [entry.id for entry in entries if entry.id.startswith(incomplete)]
        return list(dict.fromkeys(found))
    return []


def targets(incomplete: str) -> list[str]:
    """Living Jupyter kernels and their notebooks, and jobs."""
    with contextlib.suppress(Exception):
        return sorted({name for name in _targets() if name.startswith(incomplete)})
    return []


def _targets() -> Iterator[str]:
    from nbcr.jupyter.finding import living_kernels
    from nbcr.launcher import jobs

    for name, _ in jobs.running():
        yield name
    for target in living_kernels():
        yield target.kernel_id or str(target.pid)
        if target.notebook:
            yield Path(target.notebook).name


def jobs_and_names(ctx: Any, incomplete: str) -> list[str]:
    """For what takes either."""
    with contextlib.suppress(Exception):
        from nbcr.launcher import jobs

        running = [name for name, _ in jobs.running() if name.startswith(incomplete)]
        return list(dict.fromkeys([*running, *names(ctx, incomplete)]))
    return names(ctx, incomplete)
