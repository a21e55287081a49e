"""What a cell had asked its user when the image was taken is asked again in a restored life.

`input()`, `getpass()` and debuggers ask once and wait for the answer. The answer went to the life that went on, or the
frontend in which it would be typed is not the one that listens now: nobody would ever answer, and the cell never end.

A frontend whose cell this was all along may still show the question, and its answer may be on its way: it is given
a moment. Two answers to one question would otherwise be one too many, which the next question might get.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType

from nbcr.errors import NbcrError
from nbcr.handlers.deadline import Deadline
from nbcr.handlers.main_thread import Loan
from nbcr.handlers.places import Job, LateError
from nbcr.jupyter.living import Living
from nbcr.jupyter.running import running_in_main

GRACE_S = 1.0
_TRY_AGAIN_S = 0.1
_AT_MOST_S = 2.0  # between one try and the next
_LOAN_S = 5.0

_asking: threading.Event | None = None  # set: another life asks


def ask_again(living: Living, *, at_once: bool, may_ask: Callable[[], bool]) -> None:
    """Ask again what the main thread waits to be told, if anything, as soon as `may_ask` and its client is there."""
    global _asking
    if _asking is not None:
        _asking.set()
    question = _question()
    if question is None:
        return
    _asking = over = threading.Event()

    def ask() -> None:
        while not may_ask():
            if over.wait(_TRY_AGAIN_S):
                return
        wait_s = _TRY_AGAIN_S if at_once else GRACE_S
        while not over.wait(wait_s) and _question() is question and not _asked_in_main(living):
            wait_s = _TRY_AGAIN_S if wait_s == GRACE_S else min(2 * wait_s, _AT_MOST_S)

    threading.Thread(target=ask, name="nbcr-question", daemon=True).start()


def _asked_in_main(living: Living) -> bool:
    """Borrow the main thread, to which the socket for questions belongs, and ask. False: nobody is there to hear it."""
    done: list[bool] = []
    try:
        with Loan() as loan:
            loan.claim(Deadline(_LOAN_S))
            loan.run(Job(lambda: done.append(_send(living)), lambda: None), Deadline(_LOAN_S))
    except (LateError, NbcrError):
        return False
    return done == [True]


def _send(living: Living) -> bool:
    import zmq

    question, running = _question(), running_in_main(living)
    if question is None or running is None:
        return True  # it was answered meanwhile
    names = question.f_locals
    content = {"prompt": str(names.get("prompt", "")), "password": bool(names.get("password", False))}
    session, router = living.session, living.kernel.stdin_socket
    message = session.msg("input_request", content, parent=running.parent)
    frames = session.serialize(message, running.idents)
    router.router_mandatory = True
    try:
        type(router).send_multipart(router, frames)  # what `ask_when_routable` has put before it would wait here
    except zmq.ZMQError:
        return False
    finally:
        router.router_mandatory = False
    return True


def _question() -> FrameType | None:
    """The frame in which the main thread waits for an answer."""
    from ipykernel.kernelbase import Kernel

    main = threading.main_thread().ident
    frame: FrameType | None
    frame = sys._getframe() if main == threading.get_ident() else sys._current_frames().get(main or 0)
    while frame is not None and frame.f_code is not Kernel._input_request.__code__:
        frame = frame.f_back
    return frame
