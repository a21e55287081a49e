"""The words shared by handlers, CRS components and the session layer."""

from __future__ import annotations

from enum import Enum, IntEnum


class State(Enum):
    """Where a process is on its way through a checkpoint or a restart (Open MPI's CRS states)."""

    RUNNING = "RUNNING"
    CHECKPOINT = "CHECKPOINT"
    CONTINUE = "CONTINUE"
    RESTART_PRE = "RESTART_PRE"
    RESTART = "RESTART"
    TERM = "TERM"
    ERROR = "ERROR"


class Outcome(Enum):
    """Which life a returning ``checkpoint()`` finds itself in: the one that went on, or a restored one.

    ABORTED is told to handlers only: no image was taken after all (``checkpoint()`` then raises).
    """

    CONTINUE = "CONTINUE"
    RESTART = "RESTART"
    ABORTED = "ABORTED"


class Layer(IntEnum):
    """Who depends on whom: a higher layer is told first on the way down and last on the way up."""

    TRANSPORT = 10
    JUPYTER = 20
    MPI = 30
    APPLICATION = 40
