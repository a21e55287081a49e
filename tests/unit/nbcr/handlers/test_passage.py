"""Handlers: the order of layers and registrations, failures on the way down and on the way up."""

from __future__ import annotations

from typing import Any

import pytest

from nbcr.errors import HandlerFailed
from nbcr.handlers import Handler, Layer, Registry, Request, RestartEvent

EVENT = RestartEvent(pid=1, pids={1: 1}, ppid=0)


class Recorder(Handler):
    def __init__(self, name: str, layer: Layer, log: list[str], *, fails_in: str = "") -> None:
        self.name, self.layer, self.log, self.fails_in = name, layer, log, fails_in

    def _note(self, state: str) -> None:
        self.log.append(f"{self.name}.{state}")
        if state == self.fails_in:
            raise ValueError(f"{self.name} cannot {state}")

    def checkpoint(self, request: Request) -> None:
        self._note("checkpoint")

    def continue_(self) -> None:
        self._note("continue")

    def restart_pre(self, event: RestartEvent) -> None:
        self._note("restart_pre")

    def restart(self, event: RestartEvent) -> None:
        self._note("restart")

    def aborted(self) -> None:
        self._note("aborted")

    def prepare_restart(self) -> dict[str, Any]:
        self._note("prepare")
        return {self.name: self.layer.name}

    def late_requests(self) -> list[Any]:
        return [self.name]


def some(log: list[str], **fails_in: str) -> Registry:
    registry = Registry()
    for name, layer in [
        ("wire", Layer.TRANSPORT),
        ("app1", Layer.APPLICATION),
        ("jup", Layer.JUPYTER),
        ("app2", Layer.APPLICATION),
    ]:
        registry.register(Recorder(name, layer, log, fails_in=fails_in.get(name, "")))
    return registry


def test_down_is_top_first_and_up_is_bottom_first() -> None:
    log: list[str] = []
    passage = some(log).enter(Request())
    assert log == ["app2.checkpoint", "app1.checkpoint", "jup.checkpoint", "wire.checkpoint"]
    log.clear()
    assert passage.continue_() == []
    assert log == ["wire.continue", "jup.continue", "app1.continue", "app2.continue"]


def test_every_restart_pre_is_done_before_the_first_restart() -> None:
    log: list[str] = []
    passage = some(log).enter(Request())
    log.clear()
    assert passage.restart(EVENT) == []
    names = ["app2", "app1", "jup", "wire"]
    assert log == [f"{n}.restart_pre" for n in names] + [f"{n}.restart" for n in reversed(names)]


def test_a_failure_on_the_way_down_tells_those_entered_in_reverse() -> None:
    log: list[str] = []
    with pytest.raises(HandlerFailed) as caught:
        some(log, jup="checkpoint").enter(Request())
    assert log == ["app2.checkpoint", "app1.checkpoint", "jup.checkpoint", "app1.aborted", "app2.aborted"]
    assert caught.value.handler == "Recorder"
    assert caught.value.phase == "CHECKPOINT"
    text = str(caught.value)
    assert "Recorder" in text
    assert "test_passage.py:" in text
    assert "CHECKPOINT" in text
    assert "jup cannot checkpoint" in text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_a_handler_that_would_end_the_thread_it_happens_to_be_in_only_fails(error: BaseException) -> None:
    log: list[str] = []
    registry = some(log)

    class Exits(Handler):
        layer = Layer.JUPYTER

        def checkpoint(self, request: Request) -> None:
            self._exit("checkpoint")

        def continue_(self) -> None:
            self._exit("continue")

        def _exit(self, when: str) -> None:
            if fails_in == when:
                raise error

    fails_in = "checkpoint"
    registry.register(Exits())
    with pytest.raises(HandlerFailed, match=rf"Exits \({__file__}:\d+\).*raised {type(error).__name__}"):
        registry.enter(Request())
    assert log == ["app2.checkpoint", "app1.checkpoint", "app1.aborted", "app2.aborted"]
    fails_in = "continue"
    (problem,) = registry.enter(Request()).continue_()
    assert type(error).__name__ in str(problem)
    assert log[-4:] == ["wire.continue", "jup.continue", "app1.continue", "app2.continue"]


@pytest.mark.parametrize("state", ["continue", "restart_pre", "restart"])
def test_a_failure_on_the_way_up_stops_nobody_and_is_reported(state: str) -> None:
    log: list[str] = []
    passage = some(log, jup=state).enter(Request())
    problems = passage.continue_() if state == "continue" else passage.restart(EVENT)
    assert len([entry for entry in log if entry.endswith(f".{state}")]) == 4
    (problem,) = problems
    assert "jup cannot" in str(problem)


def test_whoever_went_down_comes_up_whatever_is_registered_meanwhile() -> None:
    log: list[str] = []
    registry = some(log)
    passage = registry.enter(Request())
    for handler in registry.top_down():
        registry.remove(handler)
    registry.register(Recorder("new", Layer.APPLICATION, log))
    log.clear()
    passage.continue_()
    assert [entry.partition(".")[0] for entry in log] == ["wire", "jup", "app1", "app2"]


def test_handlers_register_and_remove_from_within_a_handler() -> None:
    log: list[str] = []
    registry = Registry()

    class Mover(Handler):
        def checkpoint(self, request: Request) -> None:
            registry.remove(self)
            registry.register(Recorder("late", Layer.TRANSPORT, log))

    registry.register(Mover())
    registry.enter(Request()).continue_()
    assert log == []
    registry.enter(Request())
    assert log == ["late.checkpoint"]


def test_registering_twice_is_once() -> None:
    log: list[str] = []
    registry, handler = Registry(), Recorder("a", Layer.MPI, log)
    registry.register(handler)
    registry.register(handler)
    registry.enter(Request())
    assert log == ["a.checkpoint"]


def test_the_present_is_gathered_from_all() -> None:
    log: list[str] = []
    present, passage = some(log).prepare_restart()
    assert present == {"wire": "TRANSPORT", "app1": "APPLICATION", "jup": "JUPYTER", "app2": "APPLICATION"}
    assert sorted(passage.late_requests()) == ["app1", "app2", "jup", "wire"]


def test_a_present_that_cannot_be_prepared_is_undone() -> None:
    log: list[str] = []
    with pytest.raises(HandlerFailed):
        some(log, app1="prepare").prepare_restart()
    assert log == ["app2.prepare", "app1.prepare", "app1.aborted", "app2.aborted"]


def test_the_event_is_built_from_the_message() -> None:
    message = {
        "state": "RESTART",
        "pids": {"10": 20},
        "in_place": True,
        "connection": {"ip": "x"},
        "cell": None,
        "environ": {},
        "handed": [["a"]],
        "entry": {"name": "n"},
        "something": "later versions say",
    }
    event = RestartEvent.from_message(message, pid=20, ppid=1)
    assert event.pids == {10: 20}
    assert event.handed == (["a"],)
    assert event.environ is None
    assert event.in_place
