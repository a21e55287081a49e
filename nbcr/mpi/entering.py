"""How the gate comes into a rank: when the program imports mpi4py's module, before any code of the program's can use
it.

`begin` is called by site/sitecustomize, which `nbcr run` puts on the path of the ranks' interpreters.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib.abc
import importlib.machinery
import os
import stat
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from nbcr.mpi import modes

SOCKET_VARIABLE = "NBCR_JOB_SOCKET"
PATH_VARIABLE = "NBCR_JOB_PYTHONPATH"  # what PYTHONPATH was before
_MODULE = "mpi4py.MPI"


def begin() -> None:
    """In every interpreter that a job starts: wait for it to import mpi4py. Anything else is left as it is."""
    if os.environ.get(SOCKET_VARIABLE) and modes.is_rank():
        sys.meta_path.insert(0, _Finder())


class _Life:
    """What the program knows of MPI's beginning: it may have said that it begins it itself."""

    has_begun = True

    def begin(self) -> None:
        """Raises the module's Exception when it has begun before, as MPI_Init does (MPI 4.1, 11.2.1)."""
        if self.has_begun:
            module = sys.modules[_MODULE]
            raise module.Exception(module.ERR_OTHER)
        self.has_begun = True


_life = _Life()


class _Finder(importlib.abc.MetaPathFinder):
    """Loads the gate with the module."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        if os.environ.get(modes.VARIABLE) != modes.COOPERATIVE:
            close_inherited()
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """mpi4py's own loader, and then the gate."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        import mpi4py

        if os.environ.get(modes.VARIABLE) != modes.COOPERATIVE:
            _life.has_begun = mpi4py.rc.initialize
            mpi4py.rc.initialize = False
            mpi4py.rc.finalize = False
        created: ModuleType | None = self._theirs.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._theirs.exec_module(module)
        sys.modules[_MODULE] = module
        sys.modules["mpi4py"].MPI = module  # type: ignore[attr-defined]
        if os.environ.pop(modes.VARIABLE, "") == modes.COOPERATIVE:
            cooperate(module)
        else:
            enter(module)


def cooperate(module: Any) -> None:
    """Leave MPI to the program, and listen to the launcher."""
    from nbcr import sealed
    from nbcr.mpi.cooperative import cooperation

    cooperation.begin(module, os.environ.pop(SOCKET_VARIABLE), os.environ.pop(sealed.VARIABLE, ""))
    _restore_path()


def close_inherited() -> None:
    """Close what mpiexec leaks into its ranks: pipes and sockets of its own, which would be in every image."""
    kept = {0, 1, 2, int(os.environ.get("PMI_FD", "-1"))}
    for number in {int(name) for name in os.listdir("/proc/self/fd")} - kept:
        with contextlib.suppress(OSError):
            if _leads_elsewhere(number):
                os.close(number)


def _leads_elsewhere(number: int) -> bool:
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def enter(module: Any) -> None:
    """Set MPI up, and give the module's names to the program as ours."""
    from nbcr import sealed
    from nbcr.mpi import buffered, communicators, constants, files, guarding, handles, intercomms, unowned_errors
    from nbcr.mpi.rank import rank
    from nbcr.mpi.world import Intracomm, world

    unowned_errors.become_exceptions(ctypes.CDLL(module.__file__))
    world.set_up()
    every = communicators.adopt(Intracomm.Dup(world.comm), "w")
    own = communicators.adopt(Intracomm.Dup(world.own), "s")
    intercomms.begin(communicators.adopt(Intracomm.Dup(world.comm), "c"))
    last = communicators.adopt(Intracomm.Dup(world.comm), "e")
    every.Set_name("MPI_COMM_WORLD")
    own.Set_name("MPI_COMM_SELF")
    if sys.modules["mpi4py"].rc.errors == "default":
        for comm in (every, own):  # MPI's own default; mpi4py leaves it as it is
            comm.Set_errhandler(module.ERRORS_ARE_FATAL)
    _forbid(module)
    _put_classes(module)
    communicators.become_null(module.COMM_NULL)
    constants.given(module, "COMM_WORLD", every)
    constants.given(module, "COMM_SELF", own)
    module._commctx_intra, module._commctx_inter = intercomms.context, intercomms.context_between
    module._comm_lock, module._comm_lock_table = intercomms.lock, intercomms.lock_table
    main = threading.main_thread()
    module.Is_initialized = lambda: _life.has_begun
    module.Is_finalized = lambda: rank.ended
    module.Init, module.Init_thread = _life.begin, functools.partial(_begin_threaded, module.THREAD_MULTIPLE)
    module.Query_thread = lambda: module.THREAD_MULTIPLE
    module.Is_thread_main = lambda: threading.current_thread() is main
    module.Finalize, module._set_abort_status = rank.end, rank.set_abort_status
    for name in ("Get_processor_name", "Compute_dims", "Get_error_string", "Get_error_class"):
        setattr(module, name, functools.partial(guarding.guarded_call, getattr(module, name)))
    if hasattr(module, "Get_hw_resource_info"):
        about_host = module.Get_hw_resource_info
        module.Get_hw_resource_info = lambda: handles.GuardedInfo(guarding.guarded_call(about_host))
    for name in ("_typecode", "_typealign"):
        setattr(module, name, functools.partial(_of_like, getattr(module, name)))
    for name, call in buffered.MODULE.items():
        setattr(module, name, call)
    module.Alloc_mem = lambda size, info=None: module.buffer.allocate(size)
    module.Free_mem = lambda mem: mem.release()
    module.Register_datarep = files.register_datarep
    atexit.register(rank.end)
    rank.begin(os.environ.pop(SOCKET_VARIABLE), os.environ.pop(sealed.VARIABLE, ""), last)
    _restore_path()


def _begin_threaded(provided: int, required: int = 0) -> int:
    _life.begin()
    return provided


def _of_like(function: Any, datatype: Any) -> Any:
    return function(datatype.like())


def _restore_path() -> None:
    before = os.environ.pop(PATH_VARIABLE, "")
    if before:
        os.environ["PYTHONPATH"] = before
    else:
        os.environ.pop("PYTHONPATH", None)


def _put_classes(module: Any) -> None:
    from nbcr.mpi import communicators, constants, errhandlers, files, handles, messages, persistent, requests, windows

    constants.put(
        module,
        {
            **communicators.OURS,
            module.Request: requests.GatedRequest,
            module.Prequest: persistent.GatedPrequest,
            module.Message: messages.GatedMessage,
            module.Win: windows.GatedWin,
            module.Status: handles.GuardedStatus,
            module.Group: handles.GuardedGroup,
            module.Op: handles.GuardedOperation,
            module.Datatype: handles.GuardedDatatype,
            module.Info: handles.GuardedInfo,
            module.Errhandler: errhandlers.GuardedErrhandler,
            module.File: files.GatedFile,
        },
    )


def _forbid(module: Any) -> None:
    """What no checkpoint can hold is noted when it is used."""
    from nbcr.mpi.support import note, refused, unsupported

    for name in ("Add_error_class", "Add_error_code", "Add_error_string"):
        setattr(module, name, unsupported(name, getattr(module, name)))
    for name in ("Open_port", "Close_port", "Publish_name", "Unpublish_name", "Lookup_name"):
        setattr(module, name, refused(f"MPI.{name}", getattr(module, name)))
    requests = module.Grequest

    def start(cls: Any, *args: Any, **named: Any) -> Any:
        note("generalized requests (MPI.Grequest)")
        return requests.Start(*args, **named)

    module.Grequest = type("Grequest", (requests,), {"Start": classmethod(start), "__module__": _MODULE})
