"""Serve on another connection: other ports, other key, another connection file.

A session restored into a fresh Jupyter kernel must answer where that one was listening. Every socket is
unbound and bound again by the thread that owns it; the stdin ROUTER has no such thread (the main thread
uses it, perhaps at this moment, waiting for the user), so a new socket takes its place, which a waiting
`input()` picks up within 10 ms. The heartbeat thread sits inside libzmq for good: it gets a successor on a
context of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbcr.jupyter.living import Living

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
_SOCKET_S = 1.0


@dataclass(frozen=True)
class Connection:
    """What a connection file says."""

    transport: str
    ip: str
    ports: Mapping[str, int]
    key: str
    signature_scheme: str = "hmac-sha256"
    connection_file: str = ""
    curve_publickey: str | None = None
    curve_secretkey: str | None = None

    @classmethod
    def of(cls, app: Any) -> Connection:
        """The connection that a running IPKernelApp serves."""
        return cls(
            transport=str(app.transport),
            ip=str(app.ip),
            ports={name: int(getattr(app, f"{name}_port")) for name in CHANNELS},
            key=app.session.key.decode(),
            signature_scheme=str(app.session.signature_scheme),
            connection_file=str(Path(app.abs_connection_file).absolute()),
            curve_publickey=_text(getattr(app, "curve_publickey", None)),  # since ipykernel 7.3 and jupyter_client 8.9
            curve_secretkey=_text(getattr(app, "curve_secretkey", None)),
        )

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Connection:
        """From `as_dict`, or from the contents of a connection file."""
        ports = facts.get("ports") or {name: facts[f"{name}_port"] for name in CHANNELS}
        return cls(
            transport=str(facts.get("transport", "tcp")),
            ip=str(facts.get("ip", "127.0.0.1")),
            ports={name: int(ports[name]) for name in CHANNELS},
            key=_text(facts.get("key")) or "",
            signature_scheme=str(facts.get("signature_scheme") or "hmac-sha256"),
            connection_file=str(facts.get("connection_file") or ""),
            curve_publickey=_text(facts.get("curve_publickey")),
            curve_secretkey=_text(facts.get("curve_secretkey")),
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON; `kernel_id` is what Jupyter's servers call it."""
        return {**vars(self), "ports": dict(self.ports), "kernel_id": kernel_id(self.connection_file)}

    def address(self, channel: str) -> str:
        """ZeroMQ's address of one channel."""
        joint = ":" if self.transport == "tcp" else "-"
        return f"{self.transport}://{self.ip}{joint}{self.ports[channel]}"

    def same_wires(self, other: Connection) -> bool:
        """Whether a client of one reaches the other."""
        mine, theirs = vars(self) | {"connection_file": ""}, vars(other) | {"connection_file": ""}
        return mine == theirs


def kernel_id(connection_file: str) -> str | None:
    """The id in the name of a connection file: ``kernel-<id>.json``."""
    name = Path(connection_file).stem
    return name.removeprefix("kernel-") if name.startswith("kernel-") else (name or None)


def rekey(living: Living, to: Connection) -> bool:
    """Make the Jupyter kernel serve `to`. Returns whether the key has changed."""
    app = living.app
    now = Connection.of(app)
    if to.connection_file:
        app.connection_file = to.connection_file
    if now.same_wires(to):
        return False
    _adopt(app, to)
    with _rand_kept():
        living.on_shell(lambda: _rebind(living.shell_stream.socket, "shell", to))
        living.on_control(lambda: _rebind(living.control_stream.socket, "control", to))
        living.on_control(lambda: _reconnect(app.debug_shell_socket, to))
        living.on_iopub(lambda: _rebind(living.iopub.socket, "iopub", to))
        _replace_stdin(living, to)
        _replace_heartbeat(app, to)
    return now.key != to.key or now.signature_scheme != to.signature_scheme


@contextlib.contextmanager
def _rand_kept() -> Iterator[None]:
    """C's rand() goes on as in the image: ZeroMQ seeds it with the time for each new context, and draws from it."""
    libc = ctypes.CDLL(None)
    try:
        exchange, back = libc.initstate, libc.setstate
    except AttributeError:  # a C library without them
        yield
        return
    exchange.restype, exchange.argtypes = ctypes.c_void_p, (ctypes.c_uint, ctypes.c_void_p, ctypes.c_size_t)
    back.restype, back.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    meanwhile = ctypes.create_string_buffer(128)
    programs = exchange(1, meanwhile, len(meanwhile))
    try:
        yield
    finally:
        if programs:
            back(programs)


def put_right(living: Living, was: Connection, warnings: list[str]) -> None:
    """Take away warnings of ports that another life of this session holds, where we serve on others now."""
    ports = set() if was.same_wires(Connection.of(living.app)) else set(was.ports.values())
    pipe = getattr(living.iopub, "_pipe_port", None)  # by which forked children print
    if pipe is not None and any(text.startswith(_taken("127.0.0.1", pipe)) for text in warnings):
        living.on_iopub(lambda: _move_pipe(living.iopub))
        ports.add(pipe)
    told = tuple(_taken(ip, port) for port in ports for ip in {was.ip, "127.0.0.1"})
    warnings[:] = [text for text in warnings if not text.startswith(told)]


def _taken(ip: str, port: int) -> str:
    return f"TCP address {ip}:{port} is in use; "


def _move_pipe(iopub: Any) -> None:
    import zmq

    socket = iopub._pipe_in.socket
    socket.unbind(socket.getsockopt(zmq.LAST_ENDPOINT))
    iopub._pipe_port = socket.bind_to_random_port("tcp://127.0.0.1")


def _adopt(app: Any, to: Connection) -> None:
    app.transport, app.ip = to.transport, to.ip
    for name in CHANNELS:
        setattr(app, f"{name}_port", to.ports[name])
    app._ports = dict(to.ports)
    app.kernel.record_ports({f"{name}_port": port for name, port in to.ports.items()})
    for name, key in _curve_keys(to).items():
        if key is not None or getattr(app, name, None) is not None:
            setattr(app, name, key)
    session = app.session
    if session.signature_scheme != to.signature_scheme:
        session.signature_scheme = to.signature_scheme
    session.key = to.key.encode()


def _curve_keys(to: Connection) -> dict[str, bytes | None]:
    return {"curve_publickey": _bytes(to.curve_publickey), "curve_secretkey": _bytes(to.curve_secretkey)}


def _rebind(socket: Any, channel: str, to: Connection) -> None:
    import zmq

    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    if bound:
        try:
            socket.unbind(bound)
        except zmq.ZMQError as error:
            if error.errno != errno.ENOENT:  # it was not bound there any more
                raise
    _serve_curve(socket, to)
    socket.bind(to.address(channel))


def _serve_curve(socket: Any, to: Connection) -> None:
    if to.curve_secretkey is not None:
        socket.curve_secretkey = _bytes(to.curve_secretkey)
        socket.curve_publickey = _bytes(to.curve_publickey)
        socket.curve_server = True
    elif socket.mechanism != 0:
        socket.curve_server = False


def _reconnect(socket: Any, to: Connection) -> None:
    """The debugger's own way into the shell channel."""
    import zmq

    if socket is None or socket.closed:
        return
    connected = socket.getsockopt(zmq.LAST_ENDPOINT)
    if connected:
        try:
            socket.disconnect(connected)
        except zmq.ZMQError:
            pass  # it was never connected, or to something that is gone
    if to.curve_secretkey is not None:
        socket.curve_serverkey = _bytes(to.curve_publickey)
        socket.curve_secretkey = _bytes(to.curve_secretkey)
        socket.curve_publickey = _bytes(to.curve_publickey)
    elif socket.mechanism != 0:
        socket.plain_server = False
    socket.connect(to.address("shell"))


def _replace_stdin(living: Living, to: Connection) -> None:
    import zmq

    app, kernel = living.app, living.kernel
    old = kernel.stdin_socket
    new = old.context.socket(zmq.ROUTER)
    new.linger = 1000
    new.router_handover = 1
    _serve_curve(new, to)
    _unbind_later(living, old)
    new.bind(to.address("stdin"))
    kernel.stdin_socket = app.stdin_socket = new


def _unbind_later(living: Living, old: Any) -> None:
    """Close the old stdin socket: at once if we are its user, else when the main thread is in its loop."""
    if threading.current_thread() is threading.main_thread():
        old.close(linger=0)
    else:
        living.kernel.io_loop.add_callback(lambda: old.close(linger=0))


def _replace_heartbeat(app: Any, to: Connection) -> None:
    import zmq
    from ipykernel.heartbeat import Heartbeat

    old = app.heartbeat
    if old is not None:
        threading.Thread(target=old.context.term, name="nbcr-old-heartbeat", daemon=True).start()
        old.join(2.0)
    keys = _curve_keys(to) if to.curve_secretkey is not None else {}  # which ipykernel before 7.3 does not know
    app.heartbeat = Heartbeat(zmq.Context(), (to.transport, to.ip, to.ports["hb"]), **keys)  # type: ignore[no-untyped-call]
    app.heartbeat.start()
    until = time.monotonic() + _SOCKET_S  # it makes its socket itself, for which ZeroMQ draws from rand(): `_rand_kept`
    while getattr(app.heartbeat, "socket", None) is None and time.monotonic() < until:
        time.sleep(0.001)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.decode() if isinstance(value, bytes) else str(value)


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else value.encode()
