"""How much memory there is to use: the host's, and what the control groups leave."""

from __future__ import annotations

from pathlib import Path

_UNLIMITED = 1 << 60


def available_bytes() -> int:
    """Memory that could still be used without pushing anybody out, under the host's and the cgroup's limits."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    host = int(fields["MemAvailable"].split()[0]) * 1024
    return min(host, _cgroup_headroom())


def _cgroup_headroom() -> int:
    """The smallest (limit - use + reclaimable cache) over our control group and its parents."""
    smallest = _UNLIMITED
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            smallest = min(smallest, _walk(Path("/sys/fs/cgroup"), path, "memory.max", "memory.current"))
        elif "memory" in controllers.split(","):
            base = Path("/sys/fs/cgroup/memory")
            smallest = min(smallest, _walk(base, path, "memory.limit_in_bytes", "memory.usage_in_bytes"))
    return smallest


def _walk(base: Path, path: str, limit_name: str, use_name: str) -> int:
    smallest, folder = _UNLIMITED, base / path.lstrip("/")
    while True:
        smallest = min(smallest, _headroom(folder, limit_name, use_name))
        if folder == base or base not in folder.parents:
            return smallest
        folder = folder.parent


def _headroom(folder: Path, limit_name: str, use_name: str) -> int:
    try:
        limit = (folder / limit_name).read_text().strip()
        if limit == "max" or int(limit) >= _UNLIMITED:
            return _UNLIMITED
        use = int((folder / use_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return _UNLIMITED
    cache = int(stat.get("inactive_file", "0")) + int(stat.get("active_file", "0"))
    return max(0, int(limit) - use + cache)
