"""The child that saves: nobody notices it, and whatever happens to it costs one name at most."""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from nbcr.errors import SnapshotFailed
from nbcr.objects import Report, Saving, forking, load, save, saving
from tests.support import ProcessTracker
from tests.unit.nbcr.objects.conftest import session

Saved = Callable[..., Report]
FOREVER_S = 60


class Crash:
    """Ends whoever pickles it, as a fault in a C library does."""

    def __reduce__(self) -> Any:
        return ctypes.string_at(0), ()


class Wild:
    """Of a type that runs code of its own when it is pickled."""

    def __init__(self, value: object = None) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return Wild, (self.value,)


class Waits:
    """Stands still in a forked child until an event that only another thread of the parent can set."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __reduce__(self) -> Any:
        self.event.wait()
        return str, ("waited",)


class Calculates:
    """Never comes to an end."""

    def __reduce__(self) -> Any:
        while True:
            pass


class Imports:
    """Imports a module when it is pickled."""

    def __reduce__(self) -> Any:
        import slowly_imported  # type: ignore[import-not-found]

        return str, (slowly_imported.__name__,)


class Reads:
    """Takes as long as the other end of a pipe wants."""

    def __init__(self) -> None:
        self.page = __import__("mmap").mmap(-1, 1)

    def __reduce__(self) -> Any:
        while not self.page[0]:
            pass
        return str, ("read",)

    def let_go(self) -> None:
        self.page[0] = 1


@pytest.fixture
def slow() -> Iterator[Reads]:
    """Keeps a child busy until it is let go."""
    reads = Reads()
    yield reads
    reads.let_go()


def namespace(**values: Any) -> dict[str, Any]:
    return {"__name__": "__main__", **values}


def kinds(report: Report) -> dict[str, str]:
    return {name: verdict.fate.value for name, verdict in report.verdicts.items()}


# --- crashes and standstills --------------------------------------------------------------------------------


def test_a_crash_costs_the_name_that_crashed_and_nothing_else(saved: Saved, place: Path) -> None:
    values = namespace(first=Wild(1), crash=Crash(), second=[Wild(2)], large=bytes(3 << 20), number=5)
    report = saved(values)
    assert [verdict.name for verdict in report.lost] == ["crash"]
    assert "ended the process that did so" in report.verdicts["crash"].reason
    back = namespace()
    assert kinds(load(place, back)) == {**dict.fromkeys(values.keys() - {"__name__"}, "restored"), "crash": "lost"}
    assert (back["first"].value, back["second"][0].value, back["large"]) == (1, 2, bytes(3 << 20))
    assert sorted(path.suffix for path in place.iterdir()) == ["", ".blob", ".pack"]


def test_of_names_that_share_the_one_that_crashes_is_found(saved: Saved, place: Path) -> None:
    common = [1]
    report = saved(namespace(a=Wild(common), b=[Crash(), common], c=[common], d=Crash()))
    assert kinds(report) == {"a": "saved", "b": "lost", "c": "saved", "d": "lost"}
    back = namespace()
    load(place, back)
    assert back["a"].value is back["c"][0]


def test_a_crash_in_repr_costs_the_repr(saved: Saved) -> None:
    code = """
    import ctypes, time
    class Crash:
        def __repr__(self): return ctypes.string_at(0)
    class Slow:
        def __repr__(self): time.sleep(1000)
    x, y = Crash(), Slow()
    """
    assert saved(session(code)).lost == []


def test_the_snapshot_is_of_the_moment_it_was_asked_for(place: Path) -> None:
    """Also after a crash: what is saved then comes from a process that was forked before."""
    values = namespace(before=[Wild(1)], crash=Crash(), state=[Wild("then")])
    saving = save(values, place, hidden=())
    values["state"][0].value = "now"
    saving.wait(FOREVER_S)
    back = namespace()
    load(place, back)
    assert back["state"][0].value == "then"


def test_what_stands_still_in_the_child_is_saved_in_the_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a lock that some thread held at the fork: in the child nobody will ever let go of it."""
    monkeypatch.setattr(forking, "STALL_S", 0.3)
    event = threading.Event()
    saving = save(namespace(waits=Waits(event), other=Wild(2)), place, hidden=())
    event.set()
    report = saving.wait(FOREVER_S)
    assert kinds(report) == {"waits": "saved", "other": "saved"}
    assert "saved in the process itself" in report.verdicts["waits"].remark
    assert sum("saved in the process itself" in line for line in report.lines()) == 1
    back = namespace()
    load(place, back)
    assert (back["waits"], back["other"].value) == ("waited", 2)


def test_a_module_that_another_thread_is_importing_holds_nobody_up(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, begun = threading.Event(), threading.Event()
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "slowly_imported.py").write_text(
        "import meanwhile\nmeanwhile.begun.set()\nmeanwhile.event.wait()\n"
    )
    meanwhile = types.ModuleType("meanwhile")
    vars(meanwhile).update(event=event, begun=begun)
    monkeypatch.setitem(sys.modules, "meanwhile", meanwhile)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    importing = threading.Thread(target=importlib.import_module, args=("slowly_imported",))
    importing.start()
    try:
        assert begun.wait(FOREVER_S)
        report = save(namespace(imports=Imports(), other=Wild(2)), place, hidden=()).wait(FOREVER_S)
    finally:
        event.set()
        importing.join()
        sys.modules.pop("slowly_imported")
    assert (report.how, kinds(report), report.lines()) == ("forked", {"imports": "saved", "other": "saved"}, [])


def test_what_calculates_for_ever_is_lost_and_nothing_else(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "SPIN_S", 0.5)
    report = saved(namespace(endless=Calculates(), other=Wild(2)))
    assert kinds(report) == {"endless": "lost", "other": "saved"}
    assert "processor time and wrote nothing" in report.verdicts["endless"].reason


def test_what_stands_still_there_too_is_lost(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "STALL_S", 0.3)
    monkeypatch.setattr(saving, "LATE_S", 0.3)
    event = threading.Event()
    report = save(namespace(waits=Waits(event), other=Wild(2)), place, hidden=()).wait(FOREVER_S)
    event.set()
    assert kinds(report) == {"waits": "lost", "other": "saved"}
    assert "a lock that another thread holds" in report.verdicts["waits"].reason
    assert not (place / "late").exists()


def test_a_deadline_ends_it(place: Path, slow: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "GRACE_S", 0.1)
    with pytest.raises(SnapshotFailed, match=r"not complete within 0\.2 s"):
        save(namespace(slow=slow, data=[bytes(2 << 20)]), place, hidden=(), deadline_s=0.2).wait(FOREVER_S)
    assert not place.exists()


# --- the processes ------------------------------------------------------------------------------------------


def worker_of(saving: Saving) -> int:
    """The worker, once it is at the name `slow`."""
    until = time.monotonic() + FOREVER_S
    while saving._board.read().names != ["slow"] and time.monotonic() < until:
        time.sleep(0.001)
    return saving._board.worker


def test_a_worker_that_is_killed_is_replaced(place: Path, slow: Reads, processes: ProcessTracker) -> None:
    saving = save(namespace(slow=[slow], kept=[Wild(1)]), place, hidden=())
    os.kill(worker_of(saving), signal.SIGKILL)
    report = saving.wait(FOREVER_S)
    assert kinds(report) == {"slow": "lost", "kept": "saved"}
    assert saving.done
    for pid in processes.strays():  # spares that took over are nobody's children
        processes.reap(pid)
    assert processes.strays() == []


def test_signals_for_the_whole_process_group_do_not_disturb_it(place: Path, slow: Reads) -> None:
    saving = save(namespace(slow=slow), place, hidden=())
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(worker_of(saving), number)
    slow.let_go()
    assert kinds(saving.wait(FOREVER_S)) == {"slow": "saved"}


def test_cancelling_leaves_nothing(place: Path, slow: Reads, processes: ProcessTracker) -> None:
    saving = save(namespace(slow=slow), place, hidden=())
    worker_of(saving)
    saving.cancel()
    with pytest.raises(SnapshotFailed, match="was cancelled"):
        saving.wait()
    assert not place.exists()
    for pid in processes.strays():
        processes.reap(pid)
    assert processes.strays() == []


def test_somebody_else_may_reap_the_child(place: Path, slow: Reads) -> None:
    saving = save(namespace(slow=slow), place, hidden=())
    slow.let_go()
    os.waitpid(saving._child, 0)
    assert kinds(saving.wait(FOREVER_S)) == {"slow": "saved"}


def test_progress_is_told(place: Path, slow: Reads) -> None:
    told = []

    def on_progress(progress: Any) -> None:
        told.append(progress)
        slow.let_go()

    save(namespace(a=Wild(1), slow=slow), place, hidden=(), on_progress=on_progress).wait(FOREVER_S)
    assert told[0].names_total == 2
    assert told[0].current in ("a", "slow", "")


def test_waiting_may_have_a_bound(place: Path, slow: Reads) -> None:
    saving = save(namespace(slow=slow), place, hidden=())
    with pytest.raises(TimeoutError):
        saving.wait(0.05)
    assert not saving.done
    slow.let_go()
    assert saving.wait(FOREVER_S).lost == []
    assert saving.done


def test_pipes_that_the_user_closes_are_closed(place: Path, slow: Reads) -> None:
    """The child holds no end of them open while it works."""
    reader, writer = os.pipe()
    saving = save(namespace(slow=slow), place, hidden=())
    worker_of(saving)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    slow.let_go()
    saving.wait(FOREVER_S)


def test_locks_that_threads_hold_do_not_matter(saved: Saved, tmp_path: Path) -> None:
    """malloc, logging, imports: threads are in the midst of all of them while the process is forked."""
    stop = threading.Event()
    logger = logging.getLogger("nbcr.test")
    logger.addHandler(logging.NullHandler())

    def busy() -> None:
        while not stop.is_set():
            logger.warning("%s", bytearray(100_000))
            __import__("importlib").import_module("json.tool")

    threads = [threading.Thread(target=busy, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(8):
            code = "class Wild:\n    def __reduce__(self): return Wild, ()\nw, data = [Wild()], [bytes(99)] * 9"
            assert saved(session(code), tmp_path / str(turn)).how == "forked"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


SCRIPT = """
import atexit, os, sys, threading
from pathlib import Path
from nbcr.objects import save
class Wild:
    def __reduce__(self):
        print("from the child")
        return Wild, ()
place = Path(sys.argv[1])
file = open(place.with_name("file"), "w")
file.write("pending ")
print("once ", end="")
atexit.register(print, "at exit")
values = {"__name__": "__main__", "w": [Wild()], "file": file}
report = save(values, place, hidden=()).wait()
assert report.how == "forked" and not report.lost, report.lines()
file.write("more")
file.close()
print(Path(file.name).read_text())
"""


def test_nothing_is_flushed_or_run_twice(place: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, place], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("once pending more\nat exit\n", "")


ORPHAN = """
import os, sys
from nbcr.objects import save
class Endless:
    def __reduce__(self):
        open(sys.argv[2], "w").close()
        while True: pass
saving = save({"__name__": "__main__", "e": Endless()}, sys.argv[1], hidden=())
os.open(sys.argv[2], os.O_RDONLY)
os._exit(0)
"""


CALCULATING = """
import os, sys, threading, time
import numpy as np
from nbcr.objects import forking

def calculate():
    while True:
        matrix @ matrix

matrix = np.random.rand(300, 300)
for _ in range(2):
    threading.Thread(target=calculate, daemon=True).start()
interval, made, refused, end = sys.getswitchinterval(), 0, 0, time.monotonic() + 6
while time.monotonic() < end:
    try:
        os.waitpid(forking.fork(lambda: None), 0)
        made += 1
    except OSError:
        refused += 1
assert sys.getswitchinterval() == interval
print(made, refused, flush=True)
os._exit(0)  # the usual way out waits for ever for OpenBLAS 1 time of 15, with us or without
"""


def test_a_fork_never_meets_a_calculation() -> None:
    """OpenBLAS would wait for ever, with the interpreter's lock in its hands: here within seconds, most of the time."""
    done = subprocess.run([sys.executable, "-c", CALCULATING], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    made, refused = map(int, done.stdout.split())
    assert made > 10 * refused, "calculations come to an end, and are waited for"


def test_a_process_that_ends_takes_its_children_with_it(place: Path, processes: ProcessTracker) -> None:
    fifo = place.with_name("fifo")
    os.mkfifo(fifo)
    popen = processes.start([sys.executable, "-c", dedent(ORPHAN), place, fifo])
    assert popen.wait(FOREVER_S) == 0
    until = time.monotonic() + FOREVER_S
    while processes.strays() and time.monotonic() < until:
        processes.reap(processes.strays()[0], 1.0)
    assert processes.strays() == []
    assert not (place / "index").exists()


# --- when forking is not possible ---------------------------------------------------------------------------


def test_accelerators_in_use_are_no_reason_to_lose_anything(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = types.SimpleNamespace(is_initialized=lambda: True)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]
    report = saved(namespace(x=Wild(1)))
    assert (report.how, kinds(report)) == ("in-process", {"x": "saved"})
    assert report.lines() == ["taken in-process: CUDA is in use, which a forked process cannot read from"]


def test_an_open_accelerator_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert forking.why_not() == ""
    monkeypatch.setattr(forking, "_ACCELERATORS", (str(tmp_path / "accelerator"),))
    with (tmp_path / "accelerator0").open("w"):
        assert "accelerator0 is open" in forking.why_not()


def test_where_there_is_no_room_for_a_child(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_fork)
    report = saved(namespace(x=Wild(1)))
    assert kinds(report) == {"x": "saved"}
    assert report.lines() == ["taken in-process: this process cannot be forked (Resource temporarily unavailable)"]


def test_a_few_small_values_are_saved_at_once(saved: Saved, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(session("def f(): return 1"), place.with_name("first"))  # what is loaded on first use takes longer
    monkeypatch.setattr(os, "fork", None)
    report = saved(session("a, b = 1, [2, {'x': 'y'}]\ndef f(): return a"))
    assert (report.how, kinds(report)) == ("at once", dict.fromkeys("abf", "saved"))
    assert report.lines() == []


@pytest.mark.parametrize("what", ["[[]] * 60_000", "'x' * 10**6", "[['x' * 10**6]]", "threading.Lock()"])
def test_larger_or_other_values_are_not_saved_at_once(what: str, saved: Saved) -> None:
    report = saved(session(f"import threading; data = {what}"))
    assert (report.how, report.lost) == ("forked", [])


class Lazy:
    """Reads its file when it is pickled, as an image that Pillow has opened and not loaded yet."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb", buffering=0)

    def __reduce__(self) -> Any:
        return bytes, (self.file.read(),)


def test_what_reads_its_file_to_be_pickled_leaves_the_parents_offset(saved: Saved, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    lazy = Lazy(tmp_path / "file")
    with lazy.file:
        lazy.file.seek(4)
        report = saved(session(lazy=lazy), at_once=False)
        assert report.how == "forked"
        assert lazy.file.read() == b"456789"
