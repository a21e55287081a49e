"""Buffered sends: the message is copied and sent at once. The buffer that the program attaches only counts how much may
be on its way; the copies lie in our memory, until MPI has let go of them.
"""

from __future__ import annotations

from typing import Any

from nbcr.mpi.guarding import guarded_call
from nbcr.mpi.messages import contents
from nbcr.mpi.requests import GatedRequest
from nbcr.mpi.world import BYTE, MPI, Status

_JOB = ""  # whose buffer MPI.Attach_buffer attaches

_attached: dict[str, Any] = {}  # buffers, by a communicator's key
_going: dict[str, list[tuple[Any, int]]] = {}  # sends under way, and how large they are


def Bsend(self: Any, buf: Any, dest: int, tag: int = 0) -> None:
    _send(self, guarded_call(contents, buf), dest, tag)


def bsend(self: Any, obj: Any, dest: int, tag: int = 0) -> None:
    _send(self, MPI.pickle.dumps(obj), dest, tag)


def Ibsend(self: Any, buf: Any, dest: int, tag: int = 0) -> GatedRequest:
    Bsend(self, buf, dest, tag)
    return GatedRequest.of_result(Status(), None)


def ibsend(self: Any, obj: Any, dest: int, tag: int = 0) -> GatedRequest:
    bsend(self, obj, dest, tag)
    return GatedRequest.of_result(Status(), None)


def _send(comm: Any, data: Any, dest: int, tag: int) -> None:
    key = comm._key if comm._key in _attached else _JOB
    going = _going.setdefault(key, [])
    going[:] = [each for each in going if not each[0].Test()]
    size_bytes = len(data) + MPI.BSEND_OVERHEAD
    if not _has_room(key, size_bytes + sum(size for _, size in going)):
        raise MPI.Exception(MPI.ERR_BUFFER)
    going.append((comm.Isend([data, BYTE], dest, tag), size_bytes))


def _has_room(key: str, size_bytes: int) -> bool:
    buf = _attached.get(key)
    return buf is not None and (_is_automatic(buf) or buf.nbytes >= size_bytes)


def _is_automatic(buf: Any) -> bool:
    return buf is getattr(MPI, "BUFFER_AUTOMATIC", MPI)


def _attach(key: str, buf: Any) -> None:
    if key in _attached:
        raise MPI.Exception(MPI.ERR_BUFFER)
    if buf is not None and not _is_automatic(buf):
        buf = MPI.buffer(buf)
        if buf.readonly:
            raise BufferError("Object is not writable")
    _attached[key] = buf


def _flush(key: str) -> None:
    for request, _ in _going.pop(key, ()):
        request.Wait()


def _detach(key: str) -> Any:
    _flush(key)
    return _attached.pop(key, None)


def Attach_buffer(self: Any, buf: Any) -> None:
    _attach(self._key, buf)


def Detach_buffer(self: Any) -> Any:
    return _detach(self._key)


def Flush_buffer(self: Any) -> None:
    _flush(self._key)


def Iflush_buffer(self: Any) -> GatedRequest:
    _flush(self._key)
    return GatedRequest.of_result(Status(), None)


def flush_all() -> None:
    """At the program's end: what is on its way arrives."""
    for key in list(_going):
        _flush(key)


def _iflush_job() -> GatedRequest:
    _flush(_JOB)
    return GatedRequest.of_result(Status(), None)


MODULE = {
    "Attach_buffer": lambda buf: _attach(_JOB, buf),
    "Detach_buffer": lambda: _detach(_JOB),
    "Flush_buffer": lambda: _flush(_JOB),
    "Iflush_buffer": _iflush_job,
}
