"""The handler in a live Jupyter kernel: what is held, parked, aborted, handed over. No image is taken."""

from __future__ import annotations

import base64

import pytest

from tests.integration.jupyter.sessions import Cell, Client, Jupyter

ARRIVE = """
import os, time, threading
from nbcr.handlers import Request, RestartEvent
from nbcr.jupyter.handler import current
handler = current()
def restored(**more):
    here = dict(pid=os.getpid(), pids={}, ppid=os.getppid(), in_place=True)
    handler.restart(RestartEvent(**{**here, **more}))
"""
# No image is taken, and no connection breaks: of the clients that a restored life waits for, one comes back at once.
COMES_BACK = """
import zmq
from ipykernel.kernelapp import IPKernelApp
client = zmq.Context.instance().socket(zmq.SUB)
client.subscribe(b"")
alone = restored
def restored(**more):
    client.connect(f"tcp://127.0.0.1:{IPKernelApp.instance().iopub_port}")
    alone(**more)
"""


def arrive(jupyter: Jupyter) -> Client:
    jupyter.client.run(ARRIVE + COMES_BACK)
    return jupyter.client


def test_what_is_printed_between_checkpoint_and_continue_leaves_once_and_in_order(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    text = client.run(
        "print('a'); handler.checkpoint(Request()); print('b'); time.sleep(.2); print('c'); "
        "handler.continue_(); print('d')"
    )
    assert text == "a\nb\nc\nd\n"


def test_nothing_leaves_while_the_gates_are_closed(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    cell = client.send("handler.checkpoint(Request()); print('held'); time.sleep(1); handler.continue_()")
    assert not client.listen(lambda: bool(client.cells[cell].text), 0.8)
    assert client.wait(cell)[0].text == "held\n"


def test_requests_that_arrive_meanwhile_are_served_in_order_in_the_life_that_goes_on(
    jupyter: Jupyter,
) -> None:
    client = arrive(jupyter)
    first = client.send("handler.checkpoint(Request()); time.sleep(.5); handler.continue_()")
    rest = [client.send(f"print({i})") for i in range(10)]
    cells = client.wait(first, *rest)
    assert [c.status for c in cells] == ["ok"] * 11
    assert [c.text for c in cells[1:]] == [f"{i}\n" for i in range(10)]
    counts = client.value("[h.strip() for h in In[-12:-1]][1:]")
    assert counts == [f"print({i})" for i in range(10)]


def test_requests_of_the_image_are_aborted_and_new_ones_served_in_a_restored_life(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    first = client.send(
        "time.sleep(.3); handler.checkpoint(Request()); time.sleep(.5); print('r'); restored(in_place=False)",
        allow_stdin=False,
    )
    before = [client.send(f"ran.append({i})") for i in range(5)]
    cells = client.wait(first, *before)
    assert cells[0].text == "r\n"
    assert [c.status for c in cells] == ["ok"] + ["aborted"] * 5
    after = client.wait(client.send("print('after')"))[0]
    assert (after.text, after.status) == ("after\n", "ok")


def test_requests_of_an_async_cell_are_aborted_too(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    first = client.send(
        "import asyncio; await asyncio.sleep(.3); handler.checkpoint(Request()); restored(in_place=False); "
        "await asyncio.sleep(0)"
    )
    before = [client.send("print('never')") for _ in range(3)]
    cells = client.wait(first, *before)
    assert [c.status for c in cells] == ["ok", "aborted", "aborted", "aborted"]


def test_a_restart_that_fails_gives_the_queue_back_in_order(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    first = client.send(
        "time.sleep(.3); p = handler.prepare_restart(); time.sleep(.3); late = handler.late_requests(); "
        "handler.aborted(); print(len(p['handed']), len(late)); raise RuntimeError('no image')",
        stop_on_error=False,
    )
    rest = [client.send(f"print({i})") for i in range(4)]
    client.listen(lambda: False, 0.45)
    rest += [client.send(f"print({i})") for i in range(4, 6)]
    cells = client.wait(first, *rest)
    assert cells[0].status == "error"
    assert [c.text for c in cells[1:]] == [f"{i}\n" for i in range(6)]
    assert cells[0].text == "4 2\n"


def test_a_restart_that_fails_when_its_clients_were_sent_away_answers_them_all(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    first = client.send(
        "p = handler.prepare_restart(); time.sleep(.2); late = handler.late_requests(); time.sleep(.2); "
        "handler.aborted(); raise RuntimeError('no image')",
        stop_on_error=False,
    )
    sent: list[str] = []

    def send_one_more() -> bool:
        sent.append(client.send(f"print({len(sent)})"))
        return client.cells[first].ended

    assert client.listen(send_one_more, 30)
    assert client.cells[first].status == "error"
    assert [c.text for c in client.wait(*sent)] == [f"{n}\n" for n in range(len(sent))]
    assert client.value("[line for line in In if line.startswith('print(')]") == [
        f"print({n})" for n in range(len(sent))
    ]


def test_a_restart_that_fails_in_an_async_cell_gives_the_queue_back_in_order(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    first = client.send(
        "import asyncio; await asyncio.sleep(.3); p = handler.prepare_restart(); "
        "handler.aborted(); print(len(p['handed']))"
    )
    rest = [client.send(f"print({i})") for i in range(5)]
    cells = client.wait(first, *rest)
    assert [c.text for c in cells] == ["5\n", *(f"{i}\n" for i in range(5))]


def test_requests_both_in_the_image_and_handed_over_run_once_in_order(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    client.run("ran = []")
    first = client.send(
        "time.sleep(.3); p = handler.prepare_restart(); handler.aborted(); "
        "handler.checkpoint(Request()); restored(cell=p['cell'], handed=p['handed'])"
    )
    # The queue is both handed over and, put back, part of the "image", as in a "Run All" that holds
    # %checkpoint and %restart: each request must run, and be answered, exactly once.
    rest = [client.send(f"ran.append({i})") for i in range(5)]
    client.wait(first, *rest)
    client.quiet()
    assert client.value("ran") == [0, 1, 2, 3, 4]
    assert [(c.status, c.replies, c.idles) for c in client.cells.values()][2:] == [("ok", 1, 1)] * 7


def test_a_cell_running_in_the_main_thread_goes_on_when_another_thread_restores(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    client.run(
        "def from_outside():\n"
        "    time.sleep(.3); handler.checkpoint(Request()); time.sleep(.3); restored(in_place=False); on.set()\n"
        "t, on = threading.Thread(target=from_outside), threading.Event()"
    )
    cell = client.send("t.start(); on.wait()\nfor i in range(10): print(i); time.sleep(.02)\n'end'")
    (done,) = client.wait(cell)
    assert done.text == "".join(f"{i}\n" for i in range(10))
    assert (done.replies, done.idles) == (1, 1)


def test_a_restart_of_an_idle_image_answers_the_cell_that_asked(jupyter: Jupyter) -> None:
    """Nothing runs in the image; the asking cell belongs to the present, which is gone."""
    client = arrive(jupyter)
    asked = client.client.session.msg("execute_request", {})
    cell = {
        "parent_header": {**asked["header"], "date": asked["header"]["date"].isoformat()},
        "idents": [base64.b64encode(client.client.session.bsession).decode()],
    }
    client.cells[asked["header"]["msg_id"]] = Cell()
    client.run(
        "def idle_image():\n"
        "    time.sleep(.5); handler.checkpoint(Request())\n"
        f"    restored(cell={cell!r})\n"
        "threading.Thread(target=idle_image).start()"
    )
    (done,) = client.wait(asked["header"]["msg_id"])
    assert done.status == "ok"


def test_history_goes_on_in_a_session_of_its_own_and_shows_no_error(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    before = client.value("get_ipython().history_manager.session_number")
    client.run("handler.checkpoint(Request()); restored()")
    assert client.value("get_ipython().history_manager.session_number") > before
    for _ in range(3):
        client.run("1")
    text = client.run("get_ipython().history_manager.writeout_cache()\n%history -n")
    assert "ERROR" not in text
    assert "handler = current()" in text
    assert "not unique" not in client.run("%history -g 1")


def test_an_interrupt_in_a_restored_life_stops_the_cell(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    client.run("handler.checkpoint(Request()); restored()")
    cell = client.send("print('on'); time.sleep(60)")
    client.listen(lambda: bool(client.cells[cell].text), 10)
    assert client.control("interrupt_request", {})["status"] == "ok"
    (done,) = client.wait(cell)
    assert "KeyboardInterrupt" in done.error


def test_children_forked_while_the_gates_are_closed_still_print(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    text = client.run(
        "import sys\nhandler.checkpoint(Request())\npid = os.fork()\n"
        "if pid == 0:\n    print('child', flush=True); os._exit(0)\n"
        "os.waitpid(pid, 0); time.sleep(.2); handler.continue_(); print('parent')"
    )
    assert sorted(text.split()) == ["child", "parent"]


def test_widgets_send_their_state_to_the_frontend(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    client.run("import ipywidgets; w = ipywidgets.IntSlider(value=3)")
    cell = client.send("handler.checkpoint(Request()); restored()")
    (done,) = client.wait(cell)
    updates = [d["data"] for d in done.displays if d.get("data", {}).get("method") == "update"]
    assert any(u["state"].get("value") == 3 for u in updates)


def test_message_ids_and_session_are_new_in_a_restored_life(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    before = client.value("get_ipython().kernel.session.session")
    client.run("handler.checkpoint(Request()); restored()")
    assert client.value("get_ipython().kernel.session.session") != before


def test_the_parents_death_is_not_watched_while_an_image_is_taken(jupyter: Jupyter) -> None:
    client = arrive(jupyter)
    pids = client.value(
        "[type(get_ipython().kernel.parent.poller.parent_pid).__name__, handler.checkpoint(Request()), "
        "type(get_ipython().kernel.parent.poller.parent_pid).__name__, handler.continue_(), "
        "type(get_ipython().kernel.parent.poller.parent_pid).__name__]"
    )
    assert pids == ["int", None, "AnyParent", None, "int"]


@pytest.mark.parametrize("end", ["aborted", "continue_"])
def test_clients_that_were_parted_with_for_nothing_come_back_and_lose_nothing(jupyter: Jupyter, end: str) -> None:
    """The process was to end with its image, and lives on after all: a full disk, say."""
    client = arrive(jupyter)
    first = client.send(
        "time.sleep(.3); handler.checkpoint(Request(leave='killed')); handler.part(); print('held'); "
        f"time.sleep(.3); handler.{end}()"
    )
    queued = [client.send(f"print({i})") for i in range(3)]
    cells = client.wait(first, *queued)
    late = client.wait(client.send("print('late')"))[0]
    assert [(c.text, c.status, c.replies) for c in [*cells, late]] == [
        (f"{text}\n", "ok", 1) for text in ("held", 0, 1, 2, "late")
    ]
