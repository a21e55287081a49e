"""MPI itself: set up by sessions, which can end and begin again, and torn down without a trace in the process.

`MPI` here is mpi4py's module as it was before `entering` put our classes into it for the program: what we call must
not have to pass the gate that we closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
from types import SimpleNamespace
from typing import Any

import mpi4py

from nbcr.mpi.finalizers import finalizers

mpi4py.rc.initialize = False
mpi4py.rc.finalize = False

from mpi4py import MPI as _MODULE  # noqa: E402

MPI: Any = SimpleNamespace(**vars(_MODULE))
Intracomm, Comm, Request, Message, Status, Group = (
    MPI.Intracomm, MPI.Comm, MPI.Request, MPI.Message, MPI.Status, MPI.Group,
)  # fmt: skip
ANY_SOURCE, ANY_TAG, BYTE, PROC_NULL = MPI.ANY_SOURCE, MPI.ANY_TAG, MPI.BYTE, MPI.PROC_NULL
REQUEST_NULL, COMM_NULL = MPI.REQUEST_NULL, MPI.COMM_NULL
_SELF_TAGS = 32_000
_LEFT_OPEN = ("/dev/shm/mpich_shm", "/dev/shm/ucx_shm")  # by MPICH 5.0.2 after its end


class World:
    """What belongs to one initialisation of MPI."""

    def __init__(self) -> None:
        self.session: Any = None
        self.group: Any = None  # of all ranks
        self.comm: Any = None  # of all ranks: the root of all others, never the program's
        self.own: Any = None  # of this rank alone: how drained messages are delivered
        self.rank = 0
        self.size = 0
        self.marker_tag = 0  # the highest there is: programs hear of one less (TAG_UB)
        self._before: set[str] = set()
        self._tags = itertools.count()

    def set_up(self) -> None:
        """Initialise MPI. All ranks must come; none may before all have torn down."""
        self._before = set(os.listdir("/proc/self/fd"))
        info = MPI.Info.Create()
        info.Set("thread_level", "MPI_THREAD_MULTIPLE")
        self.session = MPI.Session.Init(info, MPI.ERRORS_RETURN)
        info.Free()
        self.group = self.session.Create_group("mpi://WORLD")
        self.comm = Intracomm.Create_from_group(self.group, "nbcr", MPI.INFO_NULL, MPI.ERRORS_RETURN)
        own = self.session.Create_group("mpi://SELF")
        self.own = Intracomm.Create_from_group(own, "nbcr-own", MPI.INFO_NULL, MPI.ERRORS_RETURN)
        own.Free()
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        self.marker_tag = int(self.comm.Get_attr(MPI.TAG_UB))

    def tear_down(self) -> None:
        """Finalise MPI, and close what it leaves open."""
        finalize = _session_finalize()
        if finalize is not None:
            finalizers.ending(ctypes.cast(finalize, ctypes.c_void_p).value or 0)
        self.own.Free()
        self.comm.Free()
        self.group.Free()
        self.session.Finalize()
        finalizers.ended()
        for name in set(os.listdir("/proc/self/fd")) - self._before:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith(_LEFT_OPEN):
                    os.close(int(name))

    def finish(self) -> None:
        """The program's end. All ranks come to it; its communicators may be there still.

        Other threads run meanwhile: mpi4py's own call keeps them from it, and a rank that waits here for one that a
        checkpoint holds would not hear the launcher.
        """
        finalize = _session_finalize()
        if finalize is None:
            self.session.Finalize()
        else:
            finalize(ctypes.c_void_p(MPI._addressof(self.session)))

    def next_tag(self) -> int:
        """A tag for one message to ourselves."""
        return next(self._tags) % _SELF_TAGS


world = World()


def _session_finalize() -> Any:
    """MPI's own function; None when it is not found from mpi4py's module."""
    try:
        return ctypes.CDLL(_MODULE.__file__).MPI_Session_finalize
    except (AttributeError, OSError):
        return None


def reseat(old: Any, new: Any, null: Any) -> None:
    """Let the program's object `old` stand for what `new` does; `new` is left empty (`null`)."""
    size = MPI._sizeof(old)
    ctypes.memmove(MPI._addressof(old), MPI._addressof(new), size)
    ctypes.memmove(MPI._addressof(new), MPI._addressof(null), size)


def copy_status(source: Any, target: Any) -> None:
    """Fill the program's status."""
    if target is not None:
        target.tomemory()[:] = source.tomemory()


def status_of(source: int, tag: int, size_bytes: int, target: Any) -> None:
    """Fill the program's status for a message that MPI does not know."""
    if target is not None:
        Status.Set_elements(target, BYTE, size_bytes)
        Status.Set_source(target, source)
        Status.Set_tag(target, tag)
        Status.Set_error(target, MPI.SUCCESS)
