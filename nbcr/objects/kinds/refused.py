"""What does not come back alive, whatever its pickle looks like: refused by name, with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import CannotSave, Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey


class Refused(Kind):
    """Objects that are bound to this process, or to something outside it."""

    refuses = True

    def __init__(self, types: str, reason: str) -> None:
        self.types = tuple(types.split())
        self.reason = reason

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return ()

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        raise CannotSave(self.reason)


KINDS: tuple[Kind, ...] = (
    Refused("builtins.generator builtins.async_generator", "a running generator cannot be copied"),
    Refused("builtins.coroutine", "a coroutine cannot be copied"),
    Refused("builtins.frame builtins.traceback", "frames cannot be copied"),
    Refused(
        "subprocess.Popen multiprocessing.process.BaseProcess asyncio.subprocess.Process psutil.Popen",
        "a process does not come back: start it again",
    ),
    Refused(
        "multiprocessing.pool.Pool multiprocessing.managers.BaseManager concurrent.futures._base.Executor",
        "a pool of workers does not come back: start it again",
    ),
    Refused(
        "concurrent.futures._base.Future _asyncio.Future _asyncio.Task asyncio.futures.Future",
        "whoever would complete it does not come back",
    ),
    Refused("asyncio.events.AbstractEventLoop", "an event loop belongs to its process"),
    Refused(
        "multiprocessing.shared_memory.SharedMemory multiprocessing.queues.Queue multiprocessing.queues.SimpleQueue "
        "multiprocessing.synchronize.SemLock multiprocessing.connection._ConnectionBase",
        "it is shared with other processes",
    ),
    Refused(
        "_socket.socket select.epoll select.poll selectors.BaseSelector zmq.sugar.socket.Socket "
        "zmq.sugar.context.Context",
        "a connection does not come back: open it again",
    ),
    Refused(
        "tempfile.TemporaryDirectory tempfile._TemporaryFileWrapper tempfile.SpooledTemporaryFile",
        "what is temporary is deleted with the session that made it",
    ),
    Refused("mmap.mmap", "a memory mapping belongs to its process"),
    Refused("sqlite3.Cursor sqlite3.Blob", "it is in the middle of a database: make it again from its connection"),
    Refused("weakref.finalize _contextvars.Context _contextvars.Token", "it belongs to the running session"),
    Refused("ipywidgets.widgets.widget.Widget comm.base_comm.BaseComm", "its other half is in the browser"),
    Refused(
        "numba.experimental.jitclass._box.Box numba.experimental.jitclass.base.JitClassType",
        "numba has compiled its class: the class statement has to run again",
    ),
    Refused("os.ScandirIterator posix.ScandirIterator", "it is in the middle of a folder"),
)
