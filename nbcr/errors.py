"""Errors by what the caller can do about them.

``str(error)`` is one line: what happened, to what, why. ``hint`` says what to do. ``exit_code`` is what the
command line ends with: 1 to 16 are the engine's (kernel_backend.errors), from 20 on ours. Errors travel over
the channel as plain documents (`to_wire`, `from_wire`): the helper sees the engine fail, the user's process
raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "Busy",
    "ConnectionInUse",
    "EngineFailed",
    "EntryDamaged",
    "HandlerFailed",
    "HandlersFailed",
    "Held",
    "HelperLost",
    "InCriticalSection",
    "NameTaken",
    "NbcrError",
    "NoRoomInStore",
    "NotPossible",
    "RemoteFailed",
    "RestartFailed",
    "SnapshotFailed",
    "StoreLocked",
    "StoreRefused",
    "TargetUnknown",
    "UnknownName",
    "Untrusted",
    "UsageProblem",
    "from_wire",
    "to_wire",
]


class NbcrError(Exception):
    """Anything nbcr raises on purpose."""

    exit_code: int = 1
    carries: tuple[str, ...] = ()  # names of further attributes that travel over the channel

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.hint = " ".join(hint.split())

    @property
    def type_name(self) -> str:
        """Name of the error's kind as scripts see it (``--json``, the channel)."""
        return type(self).__name__

    def line(self) -> str:
        """Message and hint on one line, as people read it."""
        return f"{self}: {self.hint}" if self.hint else str(self)

    def _render_traceback_(self) -> list[str]:
        """How IPython shows it: what happened and what to do, not the way through our code."""
        return [f"{self.type_name}: {self.line()}"]


DAMAGED = frozenset("EntryDamaged ImageMissing ImageCorrupt".split())  # types that say that an entry is not whole


def is_damage(error: BaseException) -> bool:
    """Whether an entry that is not whole is why something failed."""
    return any(getattr(e, "type_name", type(e).__name__) in DAMAGED for e in (error, error.__cause__))


class UsageProblem(NbcrError):
    """The request itself makes no sense (an impossible name, flags that exclude each other)."""

    exit_code = 2


class UnknownName(NbcrError):
    """No entry of that name. ``near`` holds names that look like it."""

    exit_code = 20

    def __init__(self, message: str, *, hint: str = "", near: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.near = list(near)


class NameTaken(NbcrError):
    """Another entry has that name, or is being written under it."""

    exit_code = 21


class StoreRefused(NbcrError):
    """The store cannot be trusted: others own it or can write to it."""

    exit_code = 22


class EntryDamaged(NbcrError):
    """An entry's manifest or files cannot be read, or were written by a newer nbcr."""

    exit_code = 23


class NoRoomInStore(NbcrError):
    """The disk that holds the store is full (or its quota is)."""

    exit_code = 24


class Busy(NbcrError):
    """Another checkpoint or restart of the same process has not ended in time."""

    exit_code = 25


class TargetUnknown(NbcrError):
    """No such process or Jupyter kernel, or it is not ours to touch."""

    exit_code = 26


class HelperLost(NbcrError):
    """The helper ended without an answer; the program goes on."""

    exit_code = 27


class RestartFailed(NbcrError):
    """A restart did not succeed; whether the present survived is in the message."""

    exit_code = 28


class ConnectionInUse(NbcrError):
    """A living Jupyter kernel holds the ports on which a checkpointed one would come back."""

    exit_code = 29


class HandlerFailed(NbcrError):
    """A handler raised or was late before the image was taken; nothing was checkpointed.

    ``handler`` is its name, ``place`` the file and line where it failed or hangs, ``phase`` what it was told,
    ``elapsed_s`` how many seconds it took.
    """

    exit_code = 30
    carries = ("handler", "place", "phase", "elapsed_s")
    handler: str = ""
    place: str = ""
    phase: str = ""
    elapsed_s: float = 0.0

    @classmethod
    def by(cls, handler: str, place: str, phase: str, elapsed_s: float, error: BaseException) -> HandlerFailed:
        """`handler` raised `error`."""
        failure = cls(
            f"handler {handler} ({place}) failed in {phase} after {elapsed_s:.1f} s: {type(error).__name__}: {error}",
            hint="nothing was changed and the program goes on; mend or remove the handler",
        )
        return failure._of(handler, place, phase, elapsed_s)

    @classmethod
    def late(cls, handler: str, place: str, phase: str, elapsed_s: float, why: str = "") -> HandlerFailed:
        """`handler` did not come to an end."""
        failure = cls(
            f"handler {handler} ({place}) is late: its {phase} had not ended after {elapsed_s:.1f} s"
            + (f": {why}" if why else ""),
            hint="nothing was changed and the program goes on; a longer deadline may do",
        )
        return failure._of(handler, place, phase, elapsed_s)

    def _of(self, handler: str, place: str, phase: str, elapsed_s: float) -> HandlerFailed:
        self.handler, self.place, self.phase, self.elapsed_s = handler, place, phase, elapsed_s
        return self


class HandlersFailed(ExceptionGroup[Exception]):
    """Handlers failed in CONTINUE or RESTART: all their errors together. The checkpoint itself is there: ``result``."""

    exit_code = 30
    result: Any = None

    def derive(self, excs: Sequence[Exception]) -> HandlersFailed:  # type: ignore[override]
        """As `ExceptionGroup.derive`."""
        group = HandlersFailed(self.message, excs)
        group.result = self.result
        return group


class NotPossible(NbcrError):
    """This host, or this process, cannot do what was asked."""

    exit_code = 31


class Held(NbcrError):
    """A critical section, or `disable_checkpoint`, was held until the deadline. ``holders`` says by whom."""

    exit_code = 32
    carries = ("holders",)
    holders: Sequence[str] = ()

    @classmethod
    def by(cls, holders: Sequence[str], bound_s: float) -> Held:
        """`holders` in words."""
        failure = cls(
            f"no checkpoint can be taken: after {bound_s:g} s there still is {'; '.join(holders)}",
            hint="nothing was changed and the program goes on; ask again when it is done, or with a longer deadline",
        )
        failure.holders = list(holders)
        return failure


class InCriticalSection(NbcrError):
    """A checkpoint was asked for by the very thread that holds it up."""

    exit_code = 33


class SnapshotFailed(NbcrError):
    """No snapshot of the objects came about, or nothing could be read from one; the session is as it was."""

    exit_code = 34


class Untrusted(NbcrError):
    """An entry that is not signed by the user or anybody the user trusts; running it would run its maker's code."""

    exit_code = 35


class StoreLocked(NbcrError):
    """The store is encrypted, and its key is not at hand."""

    exit_code = 36


class RemoteFailed(NbcrError):
    """A remote store or an archive cannot be read or written."""

    exit_code = 37


class EngineFailed(NbcrError):
    """What a CRS component refused or failed to do; ``kind`` is the component's own error class."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", kind: str = "EngineError", exit_code: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.exit_code = exit_code

    @property
    def type_name(self) -> str:
        """The component's own name for what went wrong."""
        return self.kind


def to_wire(error: BaseException) -> dict[str, Any]:
    """Any error as a JSON-ready document: type, message, hint, exit_code."""
    kind = error.type_name if isinstance(error, NbcrError) else type(error).__name__
    message = " ".join(str(error).split()) or kind
    if not isinstance(error, NbcrError) and not hasattr(error, "hint"):
        message = f"{kind}: {message}" if message != kind else kind
    return {
        "type": kind,
        "message": message,
        "hint": str(getattr(error, "hint", "")),
        "exit_code": int(getattr(error, "exit_code", 1)),
        "near": list(getattr(error, "near", ())),
        "facts": {name: getattr(error, name) for name in getattr(error, "carries", ())},
    }


def from_wire(document: Mapping[str, Any]) -> NbcrError:
    """The error that `to_wire` described; a component's own errors come back as `EngineFailed`."""
    kind = str(document.get("type", "NbcrError"))
    message = str(document.get("message", "unknown failure"))
    hint = str(document.get("hint", ""))
    if kind == "UnknownName":
        return UnknownName(message, hint=hint, near=[str(n) for n in document.get("near", ())])
    known = {c.__name__: c for c in NbcrError.__subclasses__()}.get(kind)
    if known is not None and known is not EngineFailed:
        error = known(message, hint=hint)
        for name, value in dict(document.get("facts") or {}).items():
            if name in known.carries:
                setattr(error, name, value)
        return error
    return EngineFailed(message, hint=hint, kind=kind, exit_code=int(document.get("exit_code", 1)))
