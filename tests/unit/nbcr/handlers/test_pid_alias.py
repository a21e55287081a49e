"""libzmq, pyzmq and asyncio are told a remembered pid; everybody else, and forked children, the true one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.support import needs

PROLOGUE = """
import asyncio, ctypes, os, re
import zmq
from nbcr.handlers import pid_alias
assert pid_alias.install()
alias = pid_alias._alias
told = ctypes.CFUNCTYPE(ctypes.c_int)(alias._code)
paths = alias.cover()
"""


@pytest.fixture(autouse=True)
def _machine() -> None:
    needs("an x86-64 processor", platform.machine() == "x86_64")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", PROLOGUE + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_libzmq_and_pyzmq_are_covered() -> None:
    names = run("print(*(p.rpartition('/')[2] for p in paths))").split()
    assert any(name.startswith("_zmq.") for name in names)
    assert any("zmq" in name for name in names)


def test_the_libraries_are_told_the_remembered_pid_and_the_process_the_true_one() -> None:
    run("alias._pid.value = 4242; assert told() == 4242; assert os.getpid() != 4242")


def test_a_forked_child_forgets_it_and_the_parent_does_not() -> None:
    run(
        "alias._pid.value = 4242\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if told() == os.getpid() else 1)\n"
        "assert os.waitpid(pid, 0)[1] == 0; assert told() == 4242"
    )


def test_sockets_keep_working_when_the_remembered_pid_is_another() -> None:
    """As in a life restored under another pid: what libzmq and asyncio recorded agrees with what they are told."""
    run(
        "alias._pid.value = 4242\n"
        "c = zmq.Context(); a = c.socket(zmq.PAIR); b = c.socket(zmq.PAIR)\n"
        "port = a.bind_to_random_port('tcp://127.0.0.1'); b.connect(f'tcp://127.0.0.1:{port}')\n"
        "a.send(b'x'); assert b.poll(5000); assert b.recv() == b'x'\n"
        "async def main():\n"
        "    await asyncio.sleep(0); return asyncio.get_running_loop().is_running()\n"
        "assert asyncio.run(main())\n"
        "a.close(); b.close(); c.term(); assert a.closed and c.closed"
    )


def test_without_the_alias_they_would_not() -> None:
    """What the alias is for: the recorded pid and the one they are told differ, and a socket goes deaf."""
    run(
        "c = zmq.Context(); a = c.socket(zmq.PAIR); b = c.socket(zmq.PAIR)\n"
        "a.bind('inproc://x'); b.connect('inproc://x')\n"
        "alias._pid.value = 4242\n"
        "try:\n    a.send(b'x', zmq.NOBLOCK); heard = b.poll(300)\nexcept zmq.ZMQError: heard = 0\n"
        "assert not heard\nos._exit(0)"
    )


def test_a_forked_child_knows_that_it_is_one() -> None:
    run(
        "r, w = os.pipe()\npid = os.fork()\n"
        "if pid == 0:\n    os.write(w, b'%d' % (told() == os.getpid())); os._exit(0)\n"
        "os.waitpid(pid, 0); assert os.read(r, 9) == b'1'; assert told() == os.getpid()"
    )


def test_children_of_every_kind_work_and_end() -> None:
    run(
        "import multiprocessing as mp, subprocess\n"
        "c = zmq.Context.instance(); s = c.socket(zmq.PUB); s.bind_to_random_port('tcp://127.0.0.1')\n"
        "with mp.get_context('fork').Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]\n"
        "assert subprocess.check_output(['echo', 'x']) == b'x\\n'\n"
        "s.close(); c.term()"
    )


def test_installing_twice_changes_nothing() -> None:
    run("before = told(); assert pid_alias.install(); assert pid_alias._alias is alias; assert told() == before")
