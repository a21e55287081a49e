"""What a job may use but no checkpoint can hold: allowed, noted, and then the checkpoint is refused by name."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

from nbcr.errors import NotPossible
from nbcr.mpi.gate import gate

used: dict[str, None] = {}  # in order
_WINDOWS = "an RMA window by Allocate_shared or Create_dynamic (MPI.Win)"
_windows: list[Any] = []  # until the program frees them
_being_made: list[None] = []


def in_the_way() -> list[str]:
    """What the program uses, by name."""
    return [*used, *([_WINDOWS] if _being_made or any(_windows) else [])]


def way_out(found: list[str]) -> str:
    """What the program can do about it, as a hint of an error."""
    if _WINDOWS in found:
        return "free it first, or take a window by MPI.Win.Allocate or Create; docs/mpi.md tells what is supported"
    return "see docs/mpi.md for what is supported"


def note_window(window: Any) -> Any:
    """Note a window that cannot be made again, until it is freed."""
    if not any(each is window for each in _windows):
        _windows[:] = [*filter(None, _windows), window]
    return window


@gate.passes
def make_window(make: Any, *args: Any, **named: Any) -> Any:
    """Have one made, when no checkpoint is under way; one that begins then is refused."""
    if gate.closed:
        gate.stay_out()
    _being_made.append(None)
    try:
        return make(*args, **named)
    finally:
        _being_made.pop()


def note(what: str) -> None:
    """The program uses it, from when no checkpoint is under way; one that begins then is refused."""
    noted_call(what, bool)


def unsupported(what: str, base: Any) -> Any:
    """`base`, as it stands in a class or module, noted when it is called. Properties and classmethods too."""
    if isinstance(base, classmethod):

        @functools.wraps(base.__func__, assigned=("__name__", "__doc__"), updated=())
        def call_of_class(cls: Any, *args: Any, **named: Any) -> Any:
            return noted_call(what, base.__get__(None, cls), *args, **named)

        return classmethod(call_of_class)
    if isinstance(base, property) or not callable(base):
        return property(lambda self: noted_call(what, base.__get__, self))

    @functools.wraps(base, assigned=("__name__", "__doc__"), updated=())
    def call(*args: Any, **named: Any) -> Any:
        return noted_call(what, base, *args, **named)

    return call


@gate.passes
def noted_call(what: str, base: Any, *args: Any, **named: Any) -> Any:
    """Call `base`, and note it."""
    if gate.closed:
        gate.stay_out()
    used.setdefault(what)
    return base(*args, **named)


_POOLS = "start all ranks by mpiexec (for pools: `python -m mpi4py.futures`), or the job without `nbcr run`"


def refused(what: str, base: Any, hint: str = _POOLS) -> Any:
    """A call that MPICH crashes in where MPI can be set up again."""

    def call(*args: Any, **named: Any) -> Any:
        error = NotPossible(
            f"{what} is not possible in a job that nbcr runs: MPICH lacks it where MPI can be set up again", hint=hint
        )
        error.add_note(hint)  # a traceback of a rank's is all that is seen of it
        _break_pool(error)
        raise error

    return classmethod(lambda cls, *args, **named: call(*args, **named)) if isinstance(base, classmethod) else call


def _break_pool(error: NotPossible) -> None:
    """mpi4py.futures asks for workers in a thread of its own: who waits for what they give would wait for ever."""
    frame = sys._getframe()
    while (caller := frame.f_back) is not None:
        frame = caller
        if frame.f_globals.get("__name__") == "mpi4py.futures._core" and "pool" in frame.f_locals:
            frame.f_locals["pool"].broken(error.line())
            return


def wrapper() -> str:
    """A warning of what this rank was started by, should that be a rank's process itself and no mpiexec: a script or a
    shell, which is in no image."""
    parent = Path(f"/proc/{os.getppid()}")
    try:
        if not any(line.startswith(b"PMI_RANK=") for line in (parent / "environ").read_bytes().split(b"\0")):
            return ""
        words = (parent / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # another user's, or it has ended
        return ""
    return (
        f"its parent ({' '.join(words[:2]).strip()}) is not in the image: a restart does not do what it does after the "
        "rank, begin it by `exec`"
    )
