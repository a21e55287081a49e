"""Nobody forks while a thread of ours imports."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from nbcr.session import importing


def test_a_fork_waits_for_an_import_and_the_child_can_import() -> None:
    inside, leave, order = threading.Event(), threading.Event(), list[str]()

    def import_slowly() -> None:
        with importing.no_fork():
            inside.set()
            leave.wait(30)
            order.append("imported")

    thread = threading.Thread(target=import_slowly)
    thread.start()
    inside.wait(30)
    threading.Timer(0.2, leave.set).start()
    pid = os.fork()
    if pid == 0:
        with importing.no_fork():
            os._exit(0)
    order.append("forked")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    thread.join(30)
    assert order == ["imported", "forked"]
    with importing.no_fork():
        order.append("again")


def test_a_fork_in_the_middle_of_all_our_imports_says_nothing() -> None:
    """Of hooks that come in pairs, none may run alone: the import that registers them is not a thread's."""
    code = (
        "import os, threading, nbcr.session.namespaces as n\n"
        "thread = threading.Thread(target=n.preload); thread.start()\n"
        "while thread.is_alive():\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        import nbcr.objects; nbcr.objects.preload(); os._exit(0)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
