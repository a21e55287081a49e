"""Compiles the C subjects, each when its source is newer than what was built."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.subjects.catalogue import FOLDER, Subject

# -O1: enough to keep values in registers over a wait, little enough to see them in a debugger
FLAGS = "-std=gnu11 -D_GNU_SOURCE -O1 -g -pthread -Wall -Wextra -Werror".split()
LIBRARIES = ["-lm", "-lrt"]


@cache
def _build_folder() -> Path:
    folder = FOLDER / "build"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        pass
    if not os.access(folder, os.W_OK):  # the checkout belongs to somebody else
        folder = Path(tempfile.gettempdir()) / f"nbcr-subjects-{os.geteuid()}"
        folder.mkdir(mode=0o755, exist_ok=True)
    return folder


@cache
def build(source: Path) -> Path:
    """The program made from `source`."""
    headers = [*source.parent.glob("*.h"), *source.parent.parent.glob("*.h")]
    newest = max(path.stat().st_mtime for path in [source, *headers])
    program = _build_folder() / "_".join(source.relative_to(FOLDER / "c").with_suffix("").parts)
    if _is_older(program, newest):
        with (_build_folder() / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker would replace the program that ours has started
            if _is_older(program, newest):
                _compile(source, program)
    return program


def _is_older(program: Path, newest: float) -> bool:
    return not program.exists() or program.stat().st_mtime < newest


def _compile(source: Path, program: Path) -> None:
    part = program.with_suffix(f".{os.getpid()}")
    wishes = re.findall(r"^/\* cc: (.*) \*/$", source.read_text(), re.M)  # a source may ask for options
    command = ["cc", *FLAGS, *" ".join(wishes).split(), "-o", str(part), str(source), *LIBRARIES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{source.name} does not compile:\n{done.stderr}"
    part.chmod(0o755)
    part.replace(program)


def command(subject: Subject, base: Path) -> list[str]:
    """The argv that runs the subject."""
    program = [sys.executable, str(subject.source)] if subject.is_python else [str(build(subject.source))]
    return [*program, str(base), *subject.arguments]
