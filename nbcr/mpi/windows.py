"""RMA windows: memory that other ranks read and write. Torn down with MPI for an image, and made again.

A window is made again over the same memory: that of the program's buffer, or ours where the program had asked MPI for
it (Allocate). No operation is in flight then: what a fence or a lock of all covers is completed and covered again
before anybody goes on. A lock of one target says that nobody else comes between, others may stand still in MPI until it
is given back, and so it is waited for (`epochs`): no rank closes its gate while it has one. A shared one that is held
for longer, as some programs hold it to their end, is treated as one of all.

Rejected: to have such locks in an image, for which they would have to be ours, and every Lock some messages more.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from nbcr.mpi import collectives, communicators
from nbcr.mpi.active_targets import ActiveTarget
from nbcr.mpi.attributes import Attributes, create_keyval, free_keyval
from nbcr.mpi.errhandlers import GuardedErrhandler
from nbcr.mpi.gate import gate
from nbcr.mpi.guarding import guarded, guarded_call
from nbcr.mpi.handles import GuardedGroup, GuardedInfo
from nbcr.mpi.requests import GatedRequest, outstanding
from nbcr.mpi.support import make_window, note_window, unsupported
from nbcr.mpi.world import ANY_SOURCE, ANY_TAG, MPI, Comm, reseat, world

_Win: Any = MPI.Win
_PREDEFINED = (MPI.WIN_BASE, MPI.WIN_SIZE, MPI.WIN_DISP_UNIT, MPI.WIN_CREATE_FLAVOR, MPI.WIN_MODEL)
_PROGRESS_S = 0.001
_Epoch = tuple[int, int]  # window and target
_SHARED_S = 1.0  # a shared lock that is not given back within that is one for longer


class Epochs:
    """Locks of one target that threads of this rank have, or wait for in MPI: what a checkpoint waits for."""

    def __init__(self) -> None:
        self._of_threads: dict[_Epoch, tuple[int, bool]] = {}  # by what they are: thread, whether it is shared
        self._is_closing = False

    def begin(self, window: Window, target: int, *, shared: bool) -> None:
        """Wait for a checkpoint that is about to close the gate, unless it waits for this thread already.

        Noted first, looked at then: as all calls are (see `gate`). Not held from HOLD on: others may wait for what
        comes behind the lock.
        """
        key, thread = (id(window), target), threading.get_ident()
        while True:
            has_some = any(thread == other for other, _ in self._of_threads.values())
            self._of_threads[key] = (thread, shared)
            if has_some or not self._is_closing:
                return
            del self._of_threads[key]
            gate.wait_until_calm()

    def end(self, window: Window, target: int) -> None:
        """It has been given back."""
        self._of_threads.pop((id(window), target), None)

    def close(self, until: Callable[[Callable[[], bool], float], bool], deadline_s: float) -> bool:
        """Let no further ones begin, and wait for those there are, by `until(condition, deadline_s)`; whether all that
        must be given back are."""
        self._is_closing = True
        until(lambda: not self._of_threads, min(deadline_s, _SHARED_S))
        return until(lambda: all(shared for _, shared in list(self._of_threads.values())), deadline_s)

    def open(self) -> None:
        """The checkpoint is over."""
        self._is_closing = False


epochs = Epochs()


class Window:
    """What has to be made again."""

    def __init__(self, win: Any, comm: Any, memory: Any, unit: int, hints: dict[str, str], flavor: int) -> None:
        self.comm = comm  # ours, of the window alone: by it all members agree on an order
        self._win = _Win(win)  # the program may have lost its own
        self.memory, self.unit, self.hints, self.flavor = memory, unit, hints, flavor
        self.attributes = Attributes()
        self.is_fenced = False  # an epoch that a fence has begun is open
        self.all_locked: int | None = None  # with this assertion
        self.shared: dict[int, int] = {}  # target → assertion
        self.active = ActiveTarget(comm, self.shared)
        self.seats = [weakref.ref(win)]  # the program's objects that stand for it
        self._name = ""
        self._on_error: Any = None

    def take_down(self) -> None:
        """Complete everything, and free it. All members come to it."""
        win = _Win(self._win)
        self._name, self._on_error = _Win.Get_name(win), _Win.Get_errhandler(win)
        if self.all_locked is not None:
            _Win.Unlock_all(win)
        for target in self.shared:
            _Win.Unlock(win, target)
        if self.is_fenced:
            _Win.Fence(win, MPI.MODE_NOSUCCEED)
        _Win.Free(win)

    def put_up(self) -> None:
        """Make it again, as far as it was; nobody goes on before all members have it."""
        info = MPI.Info.Create(self.hints)
        new = _Win.Create(self.memory, self.unit, info, self.comm)
        info.Free()
        _Win.Set_errhandler(new, self._on_error)
        if self._name:
            _Win.Set_name(new, self._name)
        if self.is_fenced:
            _Win.Fence(new, MPI.MODE_NOPRECEDE)
        if self.all_locked is not None:
            _Win.Lock_all(new, self.all_locked)
        for target, assertion in self.shared.items():
            _Win.Lock(new, target, MPI.LOCK_SHARED, assertion)
        Comm.Barrier(self.comm)
        for reference in self.seats:
            if (seat := reference()) is not None:
                reseat(seat, _Win(new), MPI.WIN_NULL)
        reseat(self._win, new, MPI.WIN_NULL)


live: list[Window] = []


def _in_order() -> list[Window]:
    return sorted(live, key=lambda window: str(window.comm._key))


def take_down() -> None:
    """Free all windows; communicators are there still. For the thread that has closed the gate."""
    for window in _in_order():
        window.take_down()


def put_up() -> None:
    """… and make them again, when communicators are."""
    for window in _in_order():
        window.put_up()


# --- what the program calls -------------------------------------------------------------------------------------------


def _operation(name: str) -> Any:
    """Put and its like: on its way when it returns."""
    base = getattr(_Win, name)

    @gate.passes
    def operate(self: Any, *args: Any, **named: Any) -> Any:
        if gate.closed:
            gate.stay_out()
        return base(self, *args, **named)

    return operate


def _requested(name: str) -> Any:
    """Rput and its like."""
    base = getattr(_Win, name)

    @gate.passes
    def operate(self: Any, *args: Any, **named: Any) -> Any:
        if gate.closed:
            gate.stay_out()
        return outstanding.add(GatedRequest(base(self, *args, **named), self._window and self._window.comm))

    return operate


class GatedWin(_Win):
    """The program's window."""

    _window: Window | None = None

    def __new__(cls, win: Any = None) -> GatedWin:
        self: GatedWin = _Win.__new__(cls, win)
        if isinstance(win, GatedWin) and win._window is not None:
            self._window = win._window
            self._window.seats.append(weakref.ref(self))
        return self

    Put, Get, Accumulate, Get_accumulate, Fetch_and_op, Compare_and_swap = map(
        _operation, ("Put", "Get", "Accumulate", "Get_accumulate", "Fetch_and_op", "Compare_and_swap")
    )
    Flush, Flush_all, Flush_local, Flush_local_all, Sync = map(
        _operation, ("Flush", "Flush_all", "Flush_local", "Flush_local_all", "Sync")
    )
    Rput, Rget, Raccumulate, Rget_accumulate = map(_requested, ("Rput", "Rget", "Raccumulate", "Rget_accumulate"))

    @classmethod
    def Create(cls, memory: Any, disp_unit: int = 1, info: Any = MPI.INFO_NULL, comm: Any = None) -> Any:
        return cls._made(memory, disp_unit, info, comm, MPI.WIN_FLAVOR_CREATE)

    @classmethod
    def Allocate(cls, size: int, disp_unit: int = 1, info: Any = MPI.INFO_NULL, comm: Any = None) -> Any:
        """In memory of ours, which stays where it is. MPICH's own would be reached by other ranks without our help."""
        win = cls._made(MPI.buffer.allocate(size, True), disp_unit, info, comm, MPI.WIN_FLAVOR_ALLOCATE)
        helping.begin()
        return win

    @classmethod
    def _made(cls, memory: Any, unit: int, info: Any, comm: Any, flavor: int) -> Any:
        mine, hints = _own(comm), dict(info.items()) if info else {}

        def make() -> Any:  # and note, before the gate can close
            win = _Win.__dict__["Create"].__get__(None, cls)(memory, unit, info, mine)
            win._window = Window(win, mine, memory, unit, hints, flavor)
            live.append(win._window)
            return win

        return _call_all(mine, make)

    @classmethod
    def Allocate_shared(cls, size: int, disp_unit: int = 1, info: Any = MPI.INFO_NULL, comm: Any = None) -> Any:
        make = _Win.__dict__["Allocate_shared"].__get__(None, cls)
        return note_window(make_window(make, size, disp_unit, info, comm or _myself()))

    @classmethod
    def Create_dynamic(cls, info: Any = MPI.INFO_NULL, comm: Any = None) -> Any:
        make = _Win.__dict__["Create_dynamic"].__get__(None, cls)
        return note_window(make_window(make, info, comm or _myself()))

    @gate.passes
    def Free(self) -> None:
        window = self._window
        if window is None:
            guarded_call(_Win.Free, self)
            return
        window.attributes.clear(self)
        _call_all(window.comm, lambda: _Win.Free(self))
        live.remove(window)
        self._window = None
        window.comm.Free()

    def free(self) -> None:
        """Free it, unless it is null."""
        if self:
            self.Free()

    # Epochs. Windows that no checkpoint can hold have MPI's own, and so have those that have been freed: an error

    def Start(self, group: Any, assertion: int = 0) -> None:
        if self._window is None:
            _natively(_Win.Start, self, group, assertion)
            return
        if self._window.all_locked is not None:
            raise MPI.Exception(MPI.ERR_RMA_SYNC)
        self._window.active.start(self, group, assertion)

    def Complete(self) -> None:
        if self._window is None:
            _natively(_Win.Complete, self)
            return
        self._window.active.complete(self)

    def Post(self, group: Any, assertion: int = 0) -> None:
        if self._window is None:
            _natively(_Win.Post, self, group, assertion)
            return
        self._window.active.post(group, assertion)

    def Wait(self) -> bool:
        if self._window is None:
            _natively(_Win.Wait, self)
        else:
            self._window.active.wait()
        return True

    def Test(self) -> bool:
        return bool(_natively(_Win.Test, self)) if self._window is None else self._window.active.test()

    def Fence(self, assertion: int = 0) -> None:
        if self._window is None:
            guarded_call(_Win.Fence, self, assertion)
            return
        _call_all(self._window.comm, lambda: self._fence(assertion))

    def _fence(self, assertion: int) -> None:
        assert self._window is not None
        _Win.Fence(self, assertion)
        self._window.is_fenced = not assertion & MPI.MODE_NOSUCCEED

    @gate.passes
    def Lock(self, rank: int, lock_type: int = MPI.LOCK_EXCLUSIVE, assertion: int = 0) -> None:
        window, shared = self._window, lock_type == MPI.LOCK_SHARED
        if window is not None:
            window.active.ensure_none()
            epochs.begin(window, rank, shared=shared)
        elif gate.closed:
            gate.stay_out()
        try:
            _Win.Lock(self, rank, lock_type, assertion)
        except BaseException:
            if window is not None:
                epochs.end(window, rank)
            raise
        if window is not None and shared:
            window.shared[rank] = assertion

    @gate.passes
    def Unlock(self, rank: int) -> None:
        if gate.closed:
            gate.stay_out()
        _Win.Unlock(self, rank)
        if self._window is not None:
            self._window.shared.pop(rank, None)
            epochs.end(self._window, rank)

    @gate.passes
    def Lock_all(self, assertion: int = 0) -> None:
        if gate.closed:
            gate.stay_out()
        if self._window is not None:
            self._window.active.ensure_none()
        _Win.Lock_all(self, assertion)
        if self._window is not None:
            self._window.all_locked = assertion

    @gate.passes
    def Unlock_all(self) -> None:
        if gate.closed:
            gate.stay_out()
        _Win.Unlock_all(self)
        if self._window is not None:
            self._window.all_locked = None

    # What it is

    @property
    def flavor(self) -> int:
        return int(guarded_call(_Win.flavor.__get__, self)) if self._window is None else self._window.flavor

    def Get_group(self) -> Any:
        return GuardedGroup(guarded_call(_Win.Get_group, self))

    group = property(Get_group)

    def Get_info(self) -> Any:
        return GuardedInfo(guarded_call(_Win.Get_info, self))

    def Set_info(self, info: Any) -> None:
        if self._window is None:
            guarded_call(_Win.Set_info, self, info)
            return
        hints = dict(info.items()) if info else {}
        _call_all(self._window.comm, lambda: _Win.Set_info(self, info))
        self._window.hints.update(hints)

    info = property(Get_info, Set_info)

    def Get_errhandler(self) -> Any:
        return GuardedErrhandler(guarded_call(_Win.Get_errhandler, self))

    def Get_attr(self, keyval: int) -> Any:
        if keyval == MPI.WIN_CREATE_FLAVOR:
            return self.flavor
        if keyval in _PREDEFINED or self._window is None:
            return guarded_call(_Win.Get_attr, self, keyval)
        return self._window.attributes.get(keyval)

    def Set_attr(self, keyval: int, attrval: Any) -> None:
        self._attributes.set(self, keyval, attrval)

    def Delete_attr(self, keyval: int) -> None:
        self._attributes.delete(self, keyval)

    @property
    def _attributes(self) -> Attributes:
        if self._window is None:
            raise MPI.Exception(MPI.ERR_WIN)
        return self._window.attributes

    Create_keyval = staticmethod(create_keyval)
    Free_keyval = staticmethod(free_keyval)


for _name, _descriptor in _Win.__dict__.items():
    if not _name.startswith("_") and _name not in GatedWin.__dict__:
        _noted = _name in ("handle", "fromhandle", "toint", "fromint", "py2f", "f2py", "Create_errhandler")
        setattr(GatedWin, _name, unsupported(f"Win.{_name}", _descriptor) if _noted else guarded(_descriptor))


def _myself() -> Any:
    """The program's MPI_COMM_SELF."""
    return communicators.live[f"s/{world.rank}"]


def _own(comm: Any) -> Any:
    """A communicator of the same ranks for the window alone. Split, for Dup would copy the program's attributes."""
    comm = _myself() if comm is None else comm
    return comm.Split(0, comm.rank)


@gate.passes
def _natively(call: Any, *args: Any) -> Any:
    """A call that waits for other ranks, on a window that is not among ours."""
    if gate.closed:
        gate.stay_out()
    return call(*args)


@gate.passes
def _call_all(comm: Any, call: Callable[[], Any]) -> Any:
    """A call that all members of a window's communicator make."""
    collectives.begin(comm)
    return call()


# --- others reach this rank's memory with its help --------------------------------------------------------------------


class _Help:
    """A thread that calls MPI now and then, while there are windows whose memory MPI would have given.

    A program may calculate for long, or look at its memory until something comes; MPI moves on when it is called only.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()
        self._is_over = False

    def begin(self) -> None:
        """From the first such window on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="nbcr-mpi-windows", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """MPI is about to be finalised for good."""
        with self._turn:
            self._is_over = True

    def _run(self) -> None:
        while not self._is_over:
            time.sleep(_PROGRESS_S)
            if any(window.flavor == MPI.WIN_FLAVOR_ALLOCATE for window in live):
                with self._turn:
                    self._move_on()

    @gate.matches
    def _move_on(self) -> None:
        if not gate.closed and not self._is_over:
            Comm.Iprobe(world.own, ANY_SOURCE, ANY_TAG)


helping = _Help()
