"""Errors by what the caller can do about them.

`str(error)` is one line that says what happened, to what and why. `hint` says what to do. Facts stand in attributes;
`exit_code` is the status of the command line that meets the error.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of everything the engine raises on purpose."""

    exit_code = 1
    default_hint = ""

    def __init__(self, message: str, *, hint: str = "", **facts: object) -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)


class TargetNotFound(EngineError):
    """No such process (any more)."""

    exit_code = 3
    default_hint = "check the pid; the process may have ended"


class TargetDenied(EngineError):
    """The OS kernel does not let this user trace the process."""

    exit_code = 4
    default_hint = "run as the user who owns the process, or as root"


class TargetBusy(EngineError):
    """Somebody else traces the process already (a debugger, another checkpoint), or this machine is too busy."""

    exit_code = 5
    default_hint = "detach the debugger, or wait for the other checkpoint to end"


class TargetUnsupported(EngineError):
    """A process of a sort we cannot checkpoint at all (32-bit, exiting, mid-vfork)."""

    exit_code = 6


class ResourceUnsupported(EngineError):
    """The process holds something that cannot be captured; the message names it and who holds it."""

    exit_code = 7
    default_hint = "close it (or end its user) and checkpoint again"


class ImageMissing(EngineError):
    """There is no complete image at the path."""

    exit_code = 8
    default_hint = "check the path; an image is complete only when it holds an inventory"


class ImageCorrupt(EngineError):
    """The image's bytes are not the ones that were written."""

    exit_code = 9
    default_hint = "restore from another checkpoint; this one cannot be trusted"


class ImageVersion(EngineError):
    """The image is of a format or architecture that this program does not read."""

    exit_code = 10
    default_hint = "use the version of nbcr that wrote it"


class FileChanged(EngineError):
    """A file that the image's memory depends on is gone or is not the same any more."""

    exit_code = 11
    default_hint = "bring the original file back, then restart"


class HostUnsupported(EngineError):
    """This host lacks a feature that the image (or the operation) needs."""

    exit_code = 12


class NoRoom(EngineError):
    """Disk or memory is too small for the operation."""

    exit_code = 13
    default_hint = "free some space and try again"


class ImageExists(EngineError):
    """The folder to write the image to is in use."""

    exit_code = 14
    default_hint = "choose another folder, or remove this one first"


class RestoreFailed(EngineError):
    """A restore could not be finished. `stage` says where; `past_no_return` whether the present was touched."""

    exit_code = 15
    stage: str = ""
    past_no_return: bool = False


class ImageDenied(EngineError):
    """The image belongs to somebody else, or others may change it: it is a program that we were not asked to trust."""

    exit_code = 18
    default_hint = "restore it as its owner, or make it your own (chown -R, chmod -R go=) if you trust whoever wrote it"


class DumpFailed(EngineError):
    """A dump could not be finished; the processes go on. `stage` says where."""

    exit_code = 17
    default_hint = "the processes go on unharmed; try again"
    stage: str = ""


class HelperLost(EngineError):
    """The process that does the tracing ended before it answered."""

    exit_code = 16
    default_hint = "try again; the checkpointed process itself goes on"
