"""Checkpoints of the own process, with a real helper and a small real component: all but the image itself."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbcr
from nbcr import session
from nbcr.errors import Busy, EngineFailed, HandlerFailed, HelperLost, NameTaken, NbcrError, NoRoomInStore
from nbcr.handlers import Handler, Request, registry
from nbcr.session import inprocess
from nbcr.store import Store
from tests.support import wait_for_end

WAIT_S = 20.0


class Noting(Handler):
    def __init__(self) -> None:
        self.log: list[str] = []
        self.refuses = False

    def checkpoint(self, request: Request) -> None:
        if self.refuses:
            raise ValueError("not now")
        request.facts.update(notebook="/n.ipynb", cell=5, jupyter={"key": "k"})
        request.warnings.append("from the handler")
        self.log.append("checkpoint")

    def continue_(self) -> None:
        self.log.append("continue")

    def aborted(self) -> None:
        self.log.append("aborted")

    def prepare_restart(self) -> dict[str, Any]:
        self.log.append("prepare")
        return {"handed": [b"x"], "environ": {"A": "b"}}


@pytest.fixture
def handler() -> Iterator[Noting]:
    noting = Noting()
    registry.register(noting)
    yield noting
    registry.remove(noting)


@pytest.fixture(autouse=True)
def _component(trees: pytest.MonkeyPatch) -> None:
    pass


def hidden(store: Store) -> list[str]:
    return [p.name for p in (store.root / "entries").iterdir() if p.name.startswith(".")]


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def until_quiet(store: Store) -> None:
    """Until no helper works on this process any more."""
    from nbcr import runtime

    with runtime.target_lock(os.getpid(), WAIT_S):
        pass


def test_a_checkpoint_continues_and_is_published_behind_our_back(store: Store, handler: Noting) -> None:
    result = nbcr.checkpoint("a", note="before it all")
    assert result.outcome is nbcr.Outcome.CONTINUE
    assert handler.log == ["checkpoint", "continue"]
    assert result.pause_ms > 0
    assert result.size_bytes == 4096  # what the component guesses
    entry = result.wait(WAIT_S)
    assert result.done
    assert store.entries() == [entry]
    assert (entry.id, entry.name, entry.pid) == (result.id, "a", os.getpid())
    assert (entry.notebook, entry.cell, entry.jupyter) == ("/n.ipynb", 5, {"key": "k"})
    assert entry.note == "before it all"
    assert entry.warnings == ("from the handler", "only /proc was kept")
    assert entry.component == {"name": "trees", "version": "1"}
    assert entry.host["python"] == sys.version.split()[0]
    assert result.duration_ms == entry.duration_ms > 0
    assert result.size_bytes == entry.size_bytes > 0
    assert list(nbcr.checkpoints()) == [entry]


def test_generations_know_their_parents(store: Store) -> None:
    first = nbcr.checkpoint("a").wait(WAIT_S)
    second = nbcr.checkpoint("b").wait(WAIT_S)
    assert second.parent == first.id


def test_a_failed_writing_is_nobodys_parent(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nbcr.checkpoint("a").wait(WAIT_S)
    monkeypatch.setenv("NBCR_TREES", "fail-late")
    with pytest.raises(EngineFailed):
        nbcr.checkpoint("b").wait(WAIT_S)
    monkeypatch.delenv("NBCR_TREES")
    assert nbcr.checkpoint("c").wait(WAIT_S).parent == first.id


# In a process of its own: this one adopts orphans (tests.support), and so has children that are not its program's.
CHILDLESS = """
import os, sys
import nbcr

def childless():
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False

before = childless()
result = nbcr.checkpoint("a")
meanwhile = childless()
result.wait(float(sys.argv[1]))
print(before, meanwhile, childless())
"""


def test_no_child_is_ever_visible(store: Store) -> None:
    environ = {**os.environ, "NBCR_STORE": str(store.root)}
    argv = [sys.executable, "-c", CHILDLESS, str(WAIT_S)]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["True", "True", "True"], done.stderr


def test_nothing_stays_open_and_no_thread_stays(store: Store) -> None:
    nbcr.checkpoint("warm").wait(WAIT_S)
    gc.collect()  # what other tests have left open
    before, threads = open_descriptors(), threading.active_count()
    for n in range(3):
        nbcr.checkpoint(f"n{n}").wait(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(open_descriptors()) == len(before)  # those of a waiting helper may have other numbers
    assert threading.active_count() == threads
    while list((store.root / "log").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert list((store.root / "log").iterdir()) == []


def test_the_helper_has_no_descriptor_of_ours(store: Store, tmp_path: Path, trees: pytest.MonkeyPatch) -> None:
    trees.setenv("NBCR_TREES", "slow=1")
    secret = (tmp_path / "open").open("w")
    os.set_inheritable(secret.fileno(), True)
    with secret:
        result = nbcr.checkpoint("a")
        helper = helper_pid(os.getpid())
        links = {os.readlink(f"/proc/{helper}/fd/{fd}") for fd in os.listdir(f"/proc/{helper}/fd")}
        assert not any(str(tmp_path / "open") in link for link in links)
        assert os.getsid(helper) == helper
        assert Path(f"/proc/{helper}/cwd").readlink() == Path("/")
        result.wait(WAIT_S)


class NoHelper(AssertionError):
    """Nobody works for this process."""


def helper_pid(target: int) -> int:
    """The helper that works on `target`: it holds a lock in the runtime folder."""
    me = os.getuid()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != target:
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                ours = os.environ["NBCR_STORE"].encode() in (folder / "environ").read_bytes()
            except OSError:
                continue
            if b"nbcr.helper" in words and ours and folder.stat().st_uid == me:
                return int(folder.name)
    raise NoHelper


def test_a_handler_that_refuses_stops_it(store: Store, handler: Noting) -> None:
    handler.refuses = True
    with pytest.raises(HandlerFailed, match="not now"):
        nbcr.checkpoint("a")
    assert handler.log == []  # what it had begun is its own to undo
    handler.refuses = False
    nbcr.checkpoint("a").wait(WAIT_S)


def test_a_taken_name_is_known_before_anything_happens(store: Store, handler: Noting) -> None:
    nbcr.checkpoint("a").wait(WAIT_S)
    handler.log.clear()
    with pytest.raises(NameTaken):
        nbcr.checkpoint("a")
    assert handler.log == ["checkpoint", "aborted"]
    nbcr.checkpoint("a", force=True).wait(WAIT_S)
    assert len(store.entries()) == 1


def test_a_component_that_refuses_is_quoted(store: Store, handler: Noting, trees: pytest.MonkeyPatch) -> None:
    trees.setenv("NBCR_TREES", "fail-early")
    with pytest.raises(EngineFailed, match="asked to fail early") as caught:
        nbcr.checkpoint("a")
    assert (caught.value.type_name, caught.value.exit_code) == ("ResourceUnsupported", 7)
    assert caught.value.hint == "do not ask"
    assert handler.log == ["checkpoint", "aborted"]
    assert store.entries() == []
    until_quiet(store)
    assert hidden(store) == []


@pytest.mark.parametrize(
    ("mood", "error"), [("fail-late", EngineFailed), ("full", NbcrError), ("die-late", HelperLost)]
)
def test_a_failure_behind_our_back_is_not_lost(
    store: Store, trees: pytest.MonkeyPatch, mood: str, error: type[NbcrError]
) -> None:
    trees.setenv("NBCR_TREES", mood)
    result = nbcr.checkpoint("a")
    told = threading.Event()
    result.when_done(lambda _: told.set())
    assert told.wait(WAIT_S)
    (report,) = session.reports()
    assert report is result
    assert isinstance(result.failure, error)
    assert session.reports() == []
    with pytest.raises(error):
        result.wait()
    assert store.entries() == []
    trees.delenv("NBCR_TREES")
    nbcr.checkpoint("a").wait(WAIT_S)  # also removes what the dead helper left
    assert hidden(store) == []


def test_what_wait_told_is_not_told_again(store: Store, trees: pytest.MonkeyPatch) -> None:
    trees.setenv("NBCR_TREES", "fail-late")
    with pytest.raises(EngineFailed):
        nbcr.checkpoint("a", wait=True)
    assert session.reports() == []


def test_a_helper_killed_before_the_image_is_an_error(store: Store, handler: Noting, trees: pytest.MonkeyPatch) -> None:
    trees.setenv("NBCR_TREES", "die-early")
    begun = time.monotonic()
    with pytest.raises(HelperLost, match="ended without an answer"):
        nbcr.checkpoint("a")
    assert time.monotonic() - begun < 10
    assert handler.log == ["checkpoint", "aborted"]


def test_a_helper_killed_at_any_moment_harms_nobody(store: Store, trees: pytest.MonkeyPatch) -> None:
    trees.setenv("NBCR_TREES", "slow=0.1")
    ended = 0

    def kill() -> None:
        with contextlib.suppress(NoHelper, ProcessLookupError):  # not there yet, or not any more
            helper = helper_pid(os.getpid())
            os.kill(helper, signal.SIGKILL)
            assert wait_for_end(helper, WAIT_S)  # its channel ends a moment before it does

    for n in range(6):
        killer = threading.Timer(0.02 * n, kill)
        killer.start()
        try:
            nbcr.checkpoint(f"n{n}").wait(WAIT_S)
            ended += 1
        except HelperLost:
            pass
        killer.join()
    session.reports()
    trees.delenv("NBCR_TREES")
    nbcr.checkpoint("after").wait(WAIT_S)
    assert len(store.entries()) == ended + 1
    assert hidden(store) == []


def test_a_second_one_waits_until_the_first_is_written(store: Store, trees: pytest.MonkeyPatch) -> None:
    trees.setenv("NBCR_TREES", "slow=0.3")
    first = nbcr.checkpoint("a")
    assert not first.done
    second = nbcr.checkpoint("b")
    assert first.done
    second.wait(WAIT_S)


def test_waiting_for_the_first_has_a_bound(store: Store, trees: pytest.MonkeyPatch) -> None:
    trees.setenv("NBCR_TREES", "slow=2")
    first = nbcr.checkpoint("a")
    with pytest.raises(Busy, match="'a' is still being written"):
        nbcr.checkpoint("b", deadline_s=0.1)
    with pytest.raises(TimeoutError):
        first.wait(0.01)
    first.wait(WAIT_S)


def test_threads_take_turns(store: Store) -> None:
    results: list[Any] = []

    def work(n: int) -> None:
        results.append(nbcr.checkpoint(f"n{n}").wait(WAIT_S))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {e.name for e in store.entries()} == {"n0", "n1", "n2", "n3"}


def test_an_interrupt_while_waiting_aborts(store: Store, handler: Noting, trees: pytest.MonkeyPatch) -> None:
    """The first checkpoint's writing holds the target's lock in another helper, so that the second must wait there."""
    from nbcr import runtime

    with runtime.target_lock(os.getpid(), 1):
        timer = threading.Timer(0.4, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            nbcr.checkpoint("a")
        timer.join()
    assert handler.log == ["checkpoint", "aborted"]
    until_quiet(store)
    assert store.entries() == []


def test_the_targets_lock_is_waited_for_with_a_bound(store: Store) -> None:
    from nbcr import runtime

    with runtime.target_lock(os.getpid(), 1), pytest.raises(Busy, match=r"did not end within 0\.2 s"):
        nbcr.checkpoint("a", deadline_s=0.2)


def test_a_refused_restart_leaves_the_present(store: Store, handler: Noting) -> None:
    nbcr.checkpoint("a").wait(WAIT_S)
    handler.log.clear()
    with pytest.raises(EngineFailed, match="cannot replace a living process"):
        nbcr.restart("a")
    assert handler.log == ["prepare", "aborted"]
    with pytest.raises(NbcrError, match="no checkpoint named 'aa'") as caught:
        nbcr.restart("aa")
    assert "did you mean 'a'" in caught.value.hint
    assert handler.log == ["prepare", "aborted"]
    nbcr.checkpoint("b").wait(WAIT_S)


def test_a_store_that_cannot_be_written_is_an_error(store: Store, handler: Noting) -> None:
    store.root.parent.mkdir(exist_ok=True)
    store.root.write_text("a file")
    with pytest.raises(NbcrError, match="store"):
        nbcr.checkpoint("a")
    assert handler.log == ["checkpoint", "aborted"]


def test_a_forked_child_starts_anew(store: Store, trees: pytest.MonkeyPatch) -> None:
    trees.setenv("NBCR_TREES", "slow=1")
    code = """
import os, nbcr
from nbcr import session
parent = nbcr.checkpoint("parent")
child = os.fork()
if child == 0:
    status = 1
    try:
        assert session.writing() == []
        nbcr.checkpoint("child").wait(20)
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(child, 0)[1] == 0
parent.wait(20)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert {e.name for e in store.entries()} == {"parent", "child"}


def test_a_program_that_ends_at_once_still_has_its_checkpoint(store: Store, trees: pytest.MonkeyPatch) -> None:
    trees.setenv("NBCR_TREES", "slow=0.3")
    code = "import os, nbcr; r = nbcr.checkpoint('last'); print(os.getpid(), flush=True); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    deadline = time.monotonic() + WAIT_S
    while not store.entries() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [e.pid for e in store.entries()] == [int(done.stdout)]


def test_a_user_module_beside_the_program_does_not_break_the_helper(store: Store, tmp_path: Path) -> None:
    (tmp_path / "select.py").write_text("raise SystemError('the wrong select')")
    (tmp_path / "json.py").write_text("raise SystemError('the wrong json')")
    code = (
        "import sys, json, select; sys.path.insert(0, ''); sys.path.insert(0, sys.argv[1])\n"
        "import nbcr; nbcr.checkpoint('a').wait(20)"
    )
    subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path)], cwd=tmp_path, check=True, timeout=60)
    assert len(store.entries()) == 1


def test_ids_look_as_documented(store: Store) -> None:
    assert re.fullmatch(r"\d{8}T\d{6}-[a-z2-7]{6}", nbcr.checkpoint().wait(WAIT_S).id)


def test_a_full_disk_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert NoRoomInStore("x").exit_code == 24
    assert inprocess.writing() == []
