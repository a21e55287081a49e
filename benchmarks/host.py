"""The host the numbers belong to, and what it has room for."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path


def facts(folder: Path) -> dict[str, str]:
    """What a reader needs to know to judge the numbers."""
    return {
        "processors": f"{len(os.sched_getaffinity(0))}, load {os.getloadavg()[0]:.2f} at the start",
        "memory": f"{available_memory() / 2**30:.1f} GiB available",
        "file system": f"{_file_system(folder)}, {shutil.disk_usage(folder).free / 2**30:.0f} GiB free, at {folder}",
        "OS kernel": platform.release(),
        "Python": platform.python_version(),
        "user": "root" if os.geteuid() == 0 else f"uid {os.geteuid()}",
        "huge pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
    }


def environ() -> dict[str, str]:
    """Our environment, but for what would make every start compile the sources again."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def available_memory() -> int:
    """MemAvailable of the host in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def free_disk(folder: Path) -> int:
    """Bytes that may still be written at `folder`."""
    return shutil.disk_usage(folder).free


def _file_system(folder: Path) -> str:
    found = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _chosen(setting: str) -> str:
    try:
        words = Path(setting).read_text().split()
    except OSError:
        return "none"
    return next((word.strip("[]") for word in words if word.startswith("[")), "unknown")
