"""Names that came to a standstill in the forked child, because of a lock that some thread held when it was forked.

They are saved in the process itself, where that thread still runs, and added to the snapshot; the report says so.
Names that crashed the child are not tried again.
"""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from nbcr.objects import index as indexes
from nbcr.objects.index import Index, Name, Unit
from nbcr.objects.results import Fate


def add(place: Path, addition: Path, *, seconds: float) -> None:
    """Make the names of the snapshot `addition` part of the one at `place`."""
    index, more = indexes.read(place), indexes.read(addition)
    for file in {blob.file for blob in more.blobs}:
        (addition / file).replace(place / file)
    remark = f"saved in the process itself, {seconds:.1f} s after the rest"
    found = {name.name: _moved(name, index, remark) for name in more.names if name.fate == Fate.SAVED}
    merged = replace(
        index,
        names=tuple(found.get(name.name, name) for name in index.names),
        units=(*index.units, *(_with_blobs_from(unit, len(index.blobs)) for unit in more.units)),
        blobs=(*index.blobs, *more.blobs),
        packages={**index.packages, **more.packages},
        size_bytes=index.size_bytes + more.size_bytes,
        added_bytes=index.added_bytes + more.added_bytes,
    )
    indexes.publish(merged, place)


def _moved(name: Name, index: Index, remark: str) -> Name:
    unit = name.unit + len(index.units) if name.unit >= 0 else -1
    return replace(name, unit=unit, remark="; ".join(filter(None, (name.remark, remark))))


def _with_blobs_from(unit: Unit, first: int) -> Unit:
    stream = unit.stream + first if unit.stream >= 0 else -1
    return replace(unit, stream=stream, buffers=tuple(number + first for number in unit.buffers))
