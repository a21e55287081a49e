"""A live Jupyter kernel moves to another connection: every channel works there, none on the old one."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.integration.jupyter.sessions import Cell, Client, Jupyter, Stage
from tests.integration.jupyter.test_handler import ARRIVE

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


def curve_keys() -> dict[str, str]:
    public, secret = zmq.curve_keypair()
    return {"curve_publickey": public.decode(), "curve_secretkey": secret.decode()}


def prepared_cell(client: Client, code: str) -> tuple[str, dict[str, Any], list[str]]:
    """A cell this client believes to have sent: its id, what `cell` says of it, and its raw frames."""
    session = client.client.session
    content = {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": True,
        "stop_on_error": True,
    }
    message = session.msg("execute_request", content)
    ident = session.bsession
    header = {**message["header"], "date": message["header"]["date"].isoformat()}
    cell = {"parent_header": header, "metadata": {}, "idents": [base64.b64encode(ident).decode()]}
    frames = [base64.b64encode(frame).decode() for frame in session.serialize(message, ident=ident)]
    client.cells[message["header"]["msg_id"]] = Cell()
    return message["header"]["msg_id"], cell, frames


def move(jupyter: Jupyter, file: Path, client: Client) -> tuple[str, list[str]]:
    """Restart, as far as the handler can tell, on the connection of `file`; the ids of what `client` waits for."""
    asked, cell, _ = prepared_cell(client, "%restart")
    handed = [prepared_cell(client, f"print('handed', {i})") for i in range(3)]
    jupyter.client.run(ARRIVE)
    jupyter.client.send(
        "import json\nhandler.checkpoint(Request())\n"
        f"connection = {{**json.load(open({str(file)!r})), 'connection_file': {str(file)!r}}}\n"
        f"restored(connection=connection, cell={cell!r}, handed={[frames for _, _, frames in handed]!r})\n"
        "print('moved')"
    )
    return asked, [msg_id for msg_id, _, _ in handed]


@pytest.mark.parametrize("kind", ["tcp", "ipc", "curve", "from-curve"])
def test_every_channel_works_on_the_new_connection(stage: Stage, kind: str) -> None:
    old = stage.connection_file(more=curve_keys() if kind == "from-curve" else None)
    new = stage.connection_file(
        transport="ipc" if kind == "ipc" else "tcp", more=curve_keys() if kind == "curve" else None
    )
    jupyter = stage.start(old)
    client = Client(new)
    try:
        jupyter.client.run("import ctypes; libc = ctypes.CDLL(None); libc.srand(5)")
        asked, handed = move(jupyter, new, client)
        first, *rest = client.wait(asked, *handed)
        assert (first.text, first.status, first.replies, first.idles) == ("moved\n", "ok", 1, 1)
        assert [c.text for c in rest] == [f"handed {i}\n" for i in range(3)]
        drawn, _, *those = client.value("[libc.rand(), libc.srand(5), *(libc.rand() for _ in range(20))]")
        assert drawn in those  # ZeroMQ seeds it for each context, and draws a few
        check_channels(client, jupyter.pid)
        told = json.loads(client.run("%connect_info").partition("Paste")[0])
        wanted = json.loads(new.read_text())
        assert {name: told[name] for name in PORTS} == {name: wanted[name] for name in PORTS}
        check_dead(old)
    finally:
        client.close()


def check_channels(client: Client, pid: int) -> None:
    assert client.value("os.getpid()") == pid
    assert client.control("usage_request", {})["pid"] == pid
    check_stdin(client)
    check_interrupt(client)
    check_comm(client)
    check_debugger(client)
    client.client.hb_channel.unpause()
    assert client.listen(client.client.hb_channel.is_beating, 10)
    assert client.run("import subprocess; print(subprocess.check_output(['echo', 'child']))") == "b'child\\n'\n"


def check_stdin(client: Client) -> None:
    cell = client.send("print(input('name? ') * 2)", allow_stdin=True)
    client.is_asked(cell, "name? ", timeout_s=10)
    client.client.input("ab")
    assert client.wait(cell)[0].text == "abab\n"


def check_interrupt(client: Client) -> None:
    cell = client.send("print('on'); time.sleep(60)")
    assert client.listen(lambda: bool(client.cells[cell].text), 10)
    client.control("interrupt_request", {})
    assert "KeyboardInterrupt" in client.wait(cell)[0].error


def check_comm(client: Client) -> None:
    client.run(
        "get_ipython().kernel.comm_manager.register_target('echo', lambda comm, m: comm.send(m['content']['data']))"
    )
    opened = client.client.session.msg("comm_open", {"comm_id": "c1", "target_name": "echo", "data": {"n": 41}})
    client.cells[opened["header"]["msg_id"]] = cell = Cell()
    client.client.shell_channel.send(opened)
    assert client.listen(lambda: any(d.get("data") == {"n": 41} for d in cell.displays), 10)


def check_debugger(client: Client) -> None:
    """The debugger speaks to the shell channel from inside: its socket must have moved too."""
    arguments = {"clientID": "t", "adapterID": "t", "linesStartAt1": True, "columnsStartAt1": True, "locale": "en"}
    for seq, command in enumerate(("initialize", "attach", "disconnect")):
        reply = client.control(
            "debug_request", {"type": "request", "seq": seq, "command": command, "arguments": arguments}, 20
        )
        assert reply.get("success"), reply


def check_dead(file: Path) -> None:
    connection = json.loads(file.read_text())
    for name in PORTS:
        with socket.socket() as probe:
            assert probe.connect_ex((connection["ip"], connection[name])) != 0, f"{name} still answers"


def test_the_same_connection_is_left_alone(jupyter: Jupyter) -> None:
    client = jupyter.client
    client.run(ARRIVE)
    client.run(
        "from nbcr.jupyter.rekey import Connection\nhandler.checkpoint(Request())\n"
        "restored(connection=Connection.of(get_ipython().kernel.parent).as_dict())"
    )
    check_channels(client, jupyter.pid)


def test_moving_back_and_forth(stage: Stage) -> None:
    files = [stage.connection_file() for _ in range(3)]
    jupyter = stage.start(files[0])
    clients = [jupyter.client, Client(files[1]), Client(files[2])]
    try:
        client = clients[0]
        for step in (1, 2, 0, 1):
            here = Jupyter(jupyter.pid, files[step], client, jupyter.user, jupyter.environ)
            asked, handed = move(here, files[step], clients[step])
            client = clients[step]
            assert [c.status for c in client.wait(asked, *handed)] == ["ok"] * 4
        check_channels(client, jupyter.pid)
    finally:
        for other in clients[1:]:
            other.close()


def test_a_question_waits_for_its_client_to_be_back(stage: Stage) -> None:
    """Each channel of a client comes back by itself; stdin may be the last, and the question is asked only once."""
    jupyter, new = stage.start(), stage.connection_file()
    client = Client(new)
    try:
        stdin = client.client.stdin_channel.socket
        endpoint = stdin.last_endpoint
        stdin.disconnect(endpoint)
        asked, handed = move(jupyter, new, client)
        client.wait(asked, *handed)
        cell = client.send("print('on'); print(input('name? ') * 2)", allow_stdin=True)
        assert client.listen(lambda: bool(client.cells[cell].text), 10)
        client.quiet()
        assert client.cells[cell].asked == []
        stdin.connect(endpoint)
        client.is_asked(cell, "name? ", timeout_s=10)
        client.client.input("ab")
        assert client.wait(cell)[0].text == "on\nabab\n"
    finally:
        client.close()
