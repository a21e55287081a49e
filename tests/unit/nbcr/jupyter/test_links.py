"""Connections of clients, found among this process's descriptors: real ones of other processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack
from types import SimpleNamespace

from nbcr.jupyter import links
from tests.support import ProcessTracker

_CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    print(connection.recv(9).decode() or "cut", flush=True)
"""


def test_only_connections_that_an_image_has_brought_along_are_cut(processes: ProcessTracker) -> None:
    """Who is back before the restored life has come to that has perhaps asked something already."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        app = SimpleNamespace(ip="127.0.0.1", **{f"{channel}_port": -1 for channel in links.ALL_CHANNELS})
        app.shell_port = server.getsockname()[1]
        command = [sys.executable, "-c", _CLIENT, str(app.shell_port)]
        with ExitStack() as stack:
            clients, ends = [], []
            for _ in range(2):
                clients.append(processes.start(command, stdout=subprocess.PIPE, text=True))
                ends.append(stack.enter_context(server.accept()[0]))
                if len(ends) == 1:
                    brought = {wire.name for wire in links.of_clients(app, *links.ALL_CHANNELS)}
            assert len(brought) == 1
            links.cut(app, brought)
            ends[1].send(b"served")
            assert [client.communicate(timeout=30)[0] for client in clients] == ["cut\n", "served\n"]


def test_who_was_asked_is_not_back_before_its_connection_for_questions_is(processes: ProcessTracker) -> None:
    """A question that is sent into the connection that is going is lost: nobody would ever answer."""
    with socket.create_server(("127.0.0.1", 0)) as shell, socket.create_server(("127.0.0.1", 0)) as stdin:
        app = SimpleNamespace(ip="127.0.0.1", **{f"{channel}_port": -1 for channel in links.ALL_CHANNELS})
        app.shell_port, app.stdin_port = shell.getsockname()[1], stdin.getsockname()[1]

        def connected(server: socket.socket) -> socket.socket:
            port = str(server.getsockname()[1])
            processes.start([sys.executable, "-c", _CLIENT, port], stdout=subprocess.DEVNULL)
            return server.accept()[0]

        with connected(shell):
            with connected(stdin):
                before = links.counts(app)
                assert links.are_back(app, before)
            assert not links.are_back(app, before)
            with connected(stdin):
                assert links.are_back(app, before)
