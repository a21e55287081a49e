"""A live Jupyter kernel is checkpointed, rewound in place, and brought back after its death."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from nbcr.jupyter.subscribers import NOBODY_S
from tests.integration.jupyter.faults import fails
from tests.integration.jupyter.lives import (
    WANTED,
    assert_usable,
    assert_whole,
    kill,
    kill_again,
    nbcr,
    revive,
    set_up,
    spoil,
)
from tests.integration.jupyter.nbclients import run_against
from tests.integration.jupyter.sessions import Client, Jupyter, Stage
from tests.support import needs

pytestmark = pytest.mark.either("any_stage")


def until(file: Path, when: str = "True") -> str:
    """Code of a cell that waits for `file`: a cell that lasts some seconds may be over before a checkpoint begins."""
    return f"while {when} and not os.path.exists({str(file)!r}): time.sleep(.01)"


def with_extension(stage: Stage) -> Jupyter:
    jupyter = stage.start()
    jupyter.client.run("%load_ext nbcr")
    return jupyter


def test_the_seven_survive_a_rewind_in_place(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    client = jupyter.client
    set_up(client)
    (cell,) = client.wait(client.send("%checkpoint before"), timeout_s=60)
    assert "CONTINUE" in str(cell.displays)
    spoil(client)
    (cell,) = client.wait(client.send("%restart before"), timeout_s=60)
    assert (cell.status, cell.replies, cell.idles) == ("ok", 1, 1), cell.error
    assert "RESTART" in str(cell.displays)
    assert_whole(client)
    assert client.value("os.getpid()") == jupyter.pid
    assert_usable(client)
    client.run("%checkpoint again")
    client.run("base[:] = 0")
    client.run("%restart again", 60)
    assert_whole(client)


def test_the_seven_survive_death_and_the_original_client_goes_on(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    client = jupyter.client
    set_up(client)
    entry = nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "outside")
    assert entry["pause_ms"] < entry["duration_ms"]
    spoil(client)
    kill(any_stage, jupyter)
    revive(any_stage, "outside")
    assert_whole(client)
    assert_usable(client)
    assert client.value("type(get_ipython().kernel.parent.poller.parent_pid).__name__") == "AnyParent"
    again = nbcr(any_stage, "checkpoint", jupyter.connection_file, "--name", "second")
    assert again["parent"] == entry["id"]


def test_one_that_never_loaded_the_extension_comes_back_too(any_stage: Stage) -> None:
    jupyter = any_stage.start()
    client = jupyter.client
    set_up(client)
    nbcr(any_stage, "checkpoint", jupyter.connection_file, "--name", "unloaded")
    spoil(client)
    kill(any_stage, jupyter)
    revive(any_stage, "unloaded")
    assert_whole(client)
    assert_usable(client)


def test_workers_that_were_left_behind_give_the_ports_back(any_stage: Stage) -> None:
    jupyter = any_stage.start()
    client = jupyter.client
    client.run("import multiprocessing; from concurrent.futures import ProcessPoolExecutor")
    client.run("pool = ProcessPoolExecutor(2, multiprocessing.get_context('fork')); list(pool.map(abs, [-1, -2]))")
    workers = client.value("list(pool._processes)")
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "pool")
    jupyter.kill(any_stage.processes)
    assert all(Path(f"/proc/{worker}").exists() for worker in workers), "they were to outlive it"
    kinds = [found["kind"] for found in nbcr(any_stage, "top", "--once")["living"]]
    assert "jupyter" not in kinds, "a worker is no Jupyter kernel"
    revive(any_stage, "pool")
    for worker in workers:
        any_stage.processes.reap(worker)
    assert client.value("list(pool.map(abs, [-3, -4]))") == [3, 4]


def test_workers_with_a_program_of_their_own_are_ended_too_and_nobody_else(any_stage: Stage) -> None:
    """They would share semaphores that have names with those that come back."""
    jupyter = any_stage.start()
    client = jupyter.client
    client.run("import multiprocessing, subprocess; from concurrent.futures import ProcessPoolExecutor")
    client.run("pool = ProcessPoolExecutor(2, multiprocessing.get_context('spawn')); list(pool.map(abs, [-1, -2]))")
    client.run("other = subprocess.Popen(['sleep', '600'])")
    workers, other = client.value("list(pool._processes)"), client.value("other.pid")
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "pool")
    client.run("later = subprocess.Popen(['sleep', '600'])")
    later = client.value("later.pid")
    jupyter.kill(any_stage.processes)
    revive(any_stage, "pool")
    for worker in workers:
        any_stage.processes.reap(worker)
    for pid in (other, later):
        os.kill(pid, signal.SIGKILL)
        any_stage.processes.reap(pid)
    assert client.value("list(pool.map(abs, [-3, -4]))") == [3, 4]
    assert client.value("other.poll()") is None


COMPUTE = """
import hashlib, threading, time
import numpy as np
def run(steps):
    state, total = np.linspace(0, 1, 90000).reshape(300, 300), np.zeros((300, 300))
    shared, lock = [0], threading.Lock()
    def helper():
        for _ in range(steps):
            with lock:
                shared[0] += 1
    threads = [threading.Thread(target=helper) for _ in range(3)]
    for t in threads: t.start()
    for step in range(steps):
        state = np.tanh(state @ state.T * 0.01 + step * 1e-3)
        total += state
        if step % 20 == 0: print(step)
    for t in threads: t.join()
    return hashlib.sha256(total.tobytes()).hexdigest(), shared[0]
"""


def test_a_cell_in_the_middle_finishes_after_death_with_the_same_bits(any_stage: Stage) -> None:
    jupyter = any_stage.start()
    client = jupyter.client
    client.run(COMPUTE)
    undisturbed = client.run("print(run(400))", 120).splitlines()[-1]
    cell = client.send("print(run(400))")
    assert client.listen(lambda: "40\n" in client.cells[cell].text, 60)
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "middle")
    assert not client.cells[cell].ended, "the cell was to be caught in the middle"
    kill(any_stage, jupyter)
    revive(any_stage, "middle")
    (done,) = client.wait(cell, timeout_s=120)
    assert done.status == "ok"
    assert done.text.splitlines()[-1] == undisturbed
    assert (done.replies, done.idles) == (1, 1)
    assert client.value("1 + 1") == 2


def test_run_all_loses_no_cell_and_runs_none_twice(any_stage: Stage) -> None:
    client = with_extension(any_stage).client
    client.run("import os; ran = []; log = os.open('ran.txt', os.O_CREAT | os.O_WRONLY | os.O_APPEND)")
    client.run("def note(what):\n    ran.append(what); os.write(log, (what + '\\n').encode()); print(what)")
    cells = [
        "note('a')",
        "result = get_ipython().run_line_magic('checkpoint', 'all')\nnote(result.outcome.name)",
        "note('b')",
        "if not os.path.exists('once'):\n    open('once', 'w').close()\n    %restart all",
        "note('c')",
        "note('d')",
    ]  # fmt: skip
    sent = [client.send(code) for code in cells]
    done = client.wait(*sent, timeout_s=90)
    client.quiet()
    assert [c.status for c in done] == ["ok"] * 6, [c.error for c in done]
    assert [(c.replies, c.idles) for c in done] == [(1, 1)] * 6
    assert (any_stage.folder / "work" / "ran.txt").read_text().split() == [
        "a", "CONTINUE", "b", "RESTART", "c", "d",
    ]  # fmt: skip
    assert client.value("ran") == ["a", "RESTART", "c", "d"]
    assert [c.text for c in done] == ["a\n", "CONTINUE\n", "b\n", "RESTART\n", "c\n", "d\n"]


def test_a_fresh_jupyter_kernel_becomes_the_old_one(any_stage: Stage) -> None:
    old = with_extension(any_stage)
    set_up(old.client)
    old.client.run("%checkpoint --wait yesterday")
    nbcr(any_stage, "show", "yesterday")
    old.client.run("print(__import__('nbcr').session.writing())")
    spoil(old.client)
    kill(any_stage, old)
    fresh = with_extension(any_stage)
    client = fresh.client
    sent = [client.send(code) for code in ("%restart yesterday", "print(count > 0)", "print(os.getppid())")]
    asked, first, second = client.wait(*sent, timeout_s=60)
    assert (asked.status, asked.replies, asked.idles) == ("ok", 1, 1), asked.error
    assert first.text == "True\n"
    assert second.text == f"{os.getpid()}\n"
    assert_whole(client)
    assert_usable(client)
    assert client.control("usage_request", {})["pid"] == fresh.pid
    os.kill(fresh.pid, 0)
    client.client.hb_channel.unpause()
    assert client.listen(client.client.hb_channel.is_beating, 10)
    client.run("%checkpoint today")
    client.run("base[:] = 5")
    client.run("%restart today", 60)
    assert_whole(client)


WATCHFUL = """
import multiprocessing, os
def watch(pipe):
    ours.close()  # so that it ends with its killed parent
    parent = os.getppid()
    try:
        while pipe.recv() and os.getppid() == parent:
            pipe.send("here")
        pipe.send("orphaned")
    finally:
        os._exit(0)
ours, theirs = multiprocessing.get_context("fork").Pipe()
child = multiprocessing.get_context("fork").Process(target=watch, args=(theirs,), daemon=True)
child.start()
def ask():
    ours.send(True)
    return ours.recv() if ours.poll(10) else "nothing"
print(ask())
"""


def test_children_that_watch_their_parent_stay_when_it_has_another_pid(any_stage: Stage) -> None:
    old = with_extension(any_stage)
    assert old.client.run(WATCHFUL) == "here\n"
    old.client.run("%checkpoint --wait yesterday")
    kill(any_stage, old)
    for _ in range(2):
        client = with_extension(any_stage).client
        client.run("%restart yesterday --discard", 60)
        assert client.run("print(ask(), child.is_alive())") == "here True\n"


def test_a_living_jupyter_kernel_is_replaced_from_the_shell(any_stage: Stage) -> None:
    old = with_extension(any_stage)
    set_up(old.client)
    nbcr(any_stage, "checkpoint", old.pid, "--name", "moving")
    kill(any_stage, old)
    other = any_stage.start()
    nbcr(any_stage, "restart", "moving", "--into", other.connection_file)
    assert_whole(other.client)
    assert_usable(other.client)


def test_a_restart_that_cannot_be_leaves_the_present_and_its_queue(any_stage: Stage) -> None:
    client = with_extension(any_stage).client
    client.run("x = 1")
    client.run("%checkpoint good")
    client.run("import nbcr; nbcr.checkpoints(); x = 2")
    sent = [client.send("%restart god", stop_on_error=False), *(client.send(f"print({i})") for i in range(3))]
    failed, *rest = client.wait(*sent)
    assert failed.status == "error"
    assert "good" in failed.error
    assert [c.text for c in rest] == ["0\n", "1\n", "2\n"]
    assert client.value("x") == 2


def test_twenty_generations_in_a_row(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    client = jupyter.client
    set_up(client)
    client.run("generation = 0")
    for generation in range(1, 21):
        client.run(f"generation = {generation}")
        (cell,) = client.wait(client.send(f"%checkpoint g{generation}"), timeout_s=60)
        assert cell.status == "ok", cell.error
        client.run("base[:] = generation; generation = -1")
        (cell,) = client.wait(client.send(f"%restart g{generation}"), timeout_s=60)
        assert (cell.status, cell.replies, cell.idles) == ("ok", 1, 1), (generation, cell.error)
        assert client.value("generation") == generation
    assert_whole(client)
    assert_usable(client)


@pytest.mark.parametrize("moment", ["idle", "cell"])
def test_generations_of_deaths(any_stage: Stage, moment: str) -> None:
    jupyter = with_extension(any_stage)
    client = jupyter.client
    set_up(client)
    pid, connection = jupyter.pid, jupyter.connection_file
    for generation in range(3):
        go = any_stage.folder / f"go-{generation}"
        code = f"for i in range(150): time.sleep(.01)\n{until(go)}\nprint('done', i)"
        cell = client.send(code) if moment == "cell" else None
        nbcr(any_stage, "checkpoint", connection, "--name", f"d{generation}")
        kill_again(pid)
        go.touch()
        pid = revive(any_stage, f"d{generation}")
        if cell is not None:
            assert client.wait(cell)[0].text == "done 149\n"
        assert_whole(client)


def test_nbclient_goes_on_through_a_restart(any_stage: Stage) -> None:
    """nbclient waits for the reply and the idle status of each cell, strictly."""
    jupyter = any_stage.start()
    cells = [
        "%load_ext nbcr\nimport os\nx = 1",
        "r = get_ipython().run_line_magic('checkpoint', 'nb')\nprint(r.outcome.name)",
        "x += 1; print(x)",
        "if not os.path.exists('once'):\n    open('once', 'w').close()\n    %restart nb",
        "x += 10; print(x)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
    runner = NotebookClient(notebook, timeout=60)
    run_against(runner, jupyter.connection_file)
    texts = ["".join(o.get("text", "") for o in cell.outputs) for cell in notebook.cells]
    assert texts == ["", "CONTINUE\n", "2\n", "RESTART\n", "11\n"]


def test_a_new_client_finds_the_restored_one_by_its_connection_file(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    set_up(jupyter.client)
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "again")
    kill(any_stage, jupyter)
    jupyter.connection_file.unlink()
    revive(any_stage, "again")
    other = Client(jupyter.connection_file)
    try:
        other.ready()  # IPython's banner, asked for here, draws a tip with the session's own random numbers
        found = other.value("check()")
        assert {**found, "random": True} == WANTED
    finally:
        other.close()


TALK = """
import threading, time
kernel, quiet = get_ipython().kernel, threading.Event()
def talk(quiet):
    while not quiet.wait(.005):
        kernel.session.send(kernel.iopub_socket, "clear_output", {"wait": True})
def be_slow():
    time.sleep(.03)
    kernel.iopub_thread.io_loop.call_later(.001, be_slow)
kernel.iopub_thread.schedule(be_slow)
threading.Thread(target=talk, args=(quiet,)).start()
"""


def test_no_message_is_heard_of_two_lives(stage: Stage) -> None:
    """Not even one that was on its way to the IOPub thread: a client of Python's raises at one that it has seen."""
    client = with_extension(stage).client
    client.run(TALK)
    nbcr(stage, "checkpoint", stage.started[0].pid, "--name", "talking")
    client.run("time.sleep(.2)")
    client.wait(client.send("%restart talking"), timeout_s=60)
    client.run("quiet.set()")
    client.quiet()


def test_a_rewind_into_the_middle_of_a_cell_ends_the_cell_that_asked(any_stage: Stage) -> None:
    """The image was taken from outside while a cell ran; its rest now runs as the %restart cell."""
    client = with_extension(any_stage).client
    go = any_stage.folder / "go"
    client.run("import os, time; base = 1")
    code = f"for i in range(100):\n    print(i); time.sleep(.02)\n    {until(go, 'i == 80')}\nprint('base', base)"
    cell = client.send(code)
    assert client.listen(lambda: "\n20\n" in client.cells[cell].text, 20)
    nbcr(any_stage, "checkpoint", any_stage.started[0].pid, "--name", "middle")
    go.touch()
    client.wait(cell)
    client.run("base = 2")
    asked = client.send("%restart middle")
    follower = client.send("print('after', base)")
    done, after = client.wait(asked, follower, timeout_s=60)
    lines = done.text.splitlines()
    assert lines[-2:] == ["99", "base 1"]
    assert lines[0].isdecimal()
    assert [int(line) for line in lines[:-1]] == list(range(int(lines[0]), 100))
    assert after.text == "after 1\n"
    assert (done.replies, done.idles, after.replies, after.idles) == (1, 1, 1, 1)


def test_a_question_is_asked_again_in_a_restored_life(any_stage: Stage) -> None:
    """Of the user who waits for the cell now; and of one whose answer the life that ended has swallowed."""
    jupyter = with_extension(any_stage)
    client = jupyter.client
    cell = client.send("import getpass; print('hello', getpass.getpass('who? '))", allow_stdin=True)
    client.is_asked(cell, "who? ", timeout_s=20)
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "asking")
    client.client.input("first")
    assert client.wait(cell)[0].text == "hello first\n"
    asked = client.send("%restart asking", allow_stdin=True)
    client.is_asked(asked, "who? ")
    client.client.input("second")
    assert client.wait(asked)[0].text == "hello second\n"
    kill(any_stage, jupyter)
    revive(any_stage, "asking")
    client.is_asked(cell, "who? ", "who? ")
    client.client.input("third")
    assert client.listen(lambda: client.cells[cell].text == "hello first\nhello third\n", 20)


def test_a_rewind_to_an_idle_moment_ends_the_cell_that_asked(any_stage: Stage) -> None:
    client = with_extension(any_stage).client
    client.run("x = 1")
    nbcr(any_stage, "checkpoint", any_stage.started[0].pid, "--name", "idle")
    client.run("x = 2")
    asked = client.send("%restart idle")
    follower = client.send("print(x)")
    done, after = client.wait(asked, follower, timeout_s=60)
    assert (done.status, done.replies, done.idles) == ("ok", 1, 1)
    assert after.text == "1\n"


def test_requests_sent_while_a_restart_is_under_way_are_answered(any_stage: Stage) -> None:
    """From before it is asked for until it has ended: to the present, to nobody, and to the restored life."""
    client = with_extension(any_stage).client
    client.run("import time, numpy; ballast = numpy.random.rand(1 << 24)")
    client.run("result = get_ipython().run_line_magic('checkpoint', 'c'); time.sleep(.1)")
    asked = client.send("%restart c")
    sent: list[str] = []

    def send_one_more() -> bool:
        sent.append(client.send(f"print({len(sent)})"))
        return client.cells[asked].ended

    assert client.listen(send_one_more, 60)
    assert client.wait(asked)[0].status == "ok"
    assert [c.text for c in client.wait(*sent, timeout_s=60)] == [f"{n}\n" for n in range(len(sent))]


def test_text_that_was_printed_before_the_image_is_not_printed_again(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    client = jupyter.client
    go = any_stage.folder / "go"
    loop = f"for i in range(300):\n    print(i, flush=i % 3 == 0); time.sleep(.01)\n    {until(go, 'i == 200')}"
    cell = client.send(f"import os, time\n{loop}")
    assert client.listen(lambda: "\n50\n" in client.cells[cell].text, 20)
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "printing")
    kill(any_stage, jupyter)
    go.touch()
    client.quiet()
    before = client.cells[cell].text.splitlines()
    revive(any_stage, "printing")
    (done,) = client.wait(cell)
    after = [int(line) for line in done.text.splitlines()[len(before) :] if line]
    assert after == list(range(after[0], 300)), "the restored life goes on where the image was taken"
    assert after[0] > 50


def test_files_that_a_notebook_writes_are_rewound_with_it_when_asked(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    client = jupyter.client
    client.run("import os")
    file = Path(client.value("os.path.abspath('written.txt')"))
    client.run("written = open('written.txt', 'w'); _ = written.write('before'); written.flush()")
    client.run("%checkpoint --wait --files rewind magic")
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "shell", "--files", "save")
    for name in ("magic", "shell"):
        client.run("_ = written.write(', after'); written.flush()")
        assert file.read_text() == "before, after"
        client.run(f"%restart {name}", 60)
        assert file.read_text() == "before"
    client.run("_ = written.write(' and on'); written.flush()")
    assert file.read_text() == "before and on"
    assert "--files 'all' is not known" in fails(client, "%checkpoint --files all")


def test_what_is_stopped_with_its_checkpoint_goes_on_with_everything_that_waited(any_stage: Stage) -> None:
    """No reply is lost, no cell either: of those queued before, and of those sent while nobody lived to hear."""
    jupyter = with_extension(any_stage)
    client = jupyter.client
    go = any_stage.folder / "go"
    client.run("import os, time; ran = []")
    slow = client.send(f"for i in range(40): print(i); time.sleep(.05)\n{until(go)}\nran.append('slow')")
    queued = [client.send(f"ran.append({i}); print({i})") for i in range(3)]
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "stopped", "--image", "--stop")
    go.touch()
    meanwhile = client.send("ran.append('meanwhile'); print(ran)")
    revive(any_stage, "stopped")
    cells = client.wait(slow, *queued, meanwhile, timeout_s=60)
    assert [(c.status, c.replies, c.idles) for c in cells] == [("ok", 1, 1)] * 5
    assert cells[0].text == "".join(f"{i}\n" for i in range(40))
    assert [c.text for c in cells[1:4]] == ["0\n", "1\n", "2\n"]
    assert cells[4].text == "['slow', 0, 1, 2, 'meanwhile']\n"


def test_outputs_wait_for_a_client_that_does_not_read_just_now(any_stage: Stage) -> None:
    """Such a one is connected and not subscribed (libzmq does that when its program comes by): also across images."""
    jupyter = with_extension(any_stage)
    client = jupyter.client
    cell = client.send("import time\nfor i in range(50): print(i); time.sleep(.05)")
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "first", "--image", "--stop")
    pid = revive(any_stage, "first")
    time.sleep(NOBODY_S + 1)
    nbcr(any_stage, "checkpoint", pid, "--name", "second", "--image")
    nbcr(any_stage, "checkpoint", pid, "--name", "third", "--image", "--stop")
    revive(any_stage, "third")
    assert client.wait(cell, timeout_s=60)[0].text == "".join(f"{i}\n" for i in range(50))


def test_connections_of_cells_are_kept_and_clients_come_back_at_once(stage: Stage) -> None:
    needs("CAP_NET_ADMIN, to keep connections", available=os.geteuid() == 0)
    jupyter = with_extension(stage)
    client = jupyter.client
    with socket.create_server(("127.0.0.1", 0)) as server:
        client.run(f"import socket; line = socket.create_connection({server.getsockname()!r})")
        other, _ = server.accept()
        with other:
            other.sendall(b"before")
            client.run("line.sendall(b'sent')")
            go = stage.folder / "go"
            slow = client.send(f"import os, time\n{until(go)}\nprint('slow')")
            nbcr(stage, "checkpoint", jupyter.pid, "--name", "stopped", "--image", "--stop", "--tcp", "keep")
            revive(stage, "stopped")
            begun = time.monotonic()
            go.touch()
            (cell,) = client.wait(slow, timeout_s=60)
            assert (cell.status, cell.replies, cell.idles, cell.text) == ("ok", 1, 1, "slow\n")
            assert time.monotonic() - begun < 5, "a restart waits for clients that do not know they were away"
            client.run("line.sendall(b' and on')")
            assert other.recv(99) == b"sent and on"
            assert client.value("line.recv(99).decode()") == "before"
