"""Targets by pid, connection file, id, beginning of an id, notebook; dead files told from living ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbcr.errors import TargetUnknown
from nbcr.jupyter import finding
from tests.integration.jupyter.sessions import Jupyter, Stage
from tests.support import ProcessTracker


@pytest.fixture(autouse=True)
def _runtime_folder(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", stage.environ["JUPYTER_RUNTIME_DIR"])


def test_every_way_to_name_a_jupyter_kernel_finds_it(jupyter: Jupyter) -> None:
    file = jupyter.connection_file
    kernel_id = file.stem.removeprefix("kernel-")
    wanted = finding.Target(jupyter.pid, file, kernel_id, None)
    for text in (str(jupyter.pid), str(file), file.name, kernel_id, kernel_id[:6], f" {kernel_id} "):
        assert finding.find_target(text) == wanted, text
    assert finding.living_kernels() == [wanted]


def test_dead_connection_files_are_told_from_living_ones_quickly(stage: Stage, jupyter: Jupyter) -> None:
    dead = [stage.connection_file() for _ in range(20)]
    begun = time.monotonic()
    assert [k.pid for k in finding.living_kernels()] == [jupyter.pid]
    assert time.monotonic() - begun < 3
    with pytest.raises(TargetUnknown, match="nothing answers on connection file") as caught:
        finding.find_target(str(dead[0]))
    assert caught.value.hint


def test_damaged_connection_files_are_passed_over(stage: Stage, jupyter: Jupyter) -> None:
    runtime = stage.folder / "runtime"
    for number, text in enumerate(("", "[]", "{}", '{"shell_port": "x"}', json.dumps({"key": 1}))):
        (runtime / f"kernel-broken{number}.json").write_text(text)
    assert [k.pid for k in finding.living_kernels()] == [jupyter.pid]
    with pytest.raises(TargetUnknown, match="no Jupyter connection file"):
        finding.find_target(str(runtime / "kernel-broken1.json"))


def test_a_near_miss_is_offered(jupyter: Jupyter) -> None:
    kernel_id = jupyter.connection_file.stem.removeprefix("kernel-")
    wrong = "0" + kernel_id[1:] if kernel_id[0] != "0" else "1" + kernel_id[1:]
    with pytest.raises(TargetUnknown) as caught:
        finding.find_target(wrong)
    assert kernel_id in caught.value.hint


def test_an_ambiguous_beginning_lists_the_candidates(stage: Stage) -> None:
    kernels = []
    for ending in ("one", "two"):
        file = stage.connection_file().rename(stage.folder / "runtime" / f"kernel-same-{ending}.json")
        kernels.append(stage.start(file))
    with pytest.raises(TargetUnknown, match="fits 2 living Jupyter kernels") as caught:
        finding.find_target("same")
    assert all(str(k.pid) in str(caught.value) for k in kernels)
    assert finding.find_target("same-two").pid == kernels[1].pid


def test_a_jupyter_kernel_too_busy_to_answer_is_found_by_its_sockets(jupyter: Jupyter) -> None:
    os.kill(jupyter.pid, signal.SIGSTOP)
    try:
        assert [k.pid for k in finding.living_kernels(answer_s=0.2)] == [jupyter.pid]
        assert finding.find_target(str(jupyter.connection_file)).pid == jupyter.pid
    finally:
        os.kill(jupyter.pid, signal.SIGCONT)


def test_forked_children_that_hold_its_sockets_are_not_taken_for_it(jupyter: Jupyter) -> None:
    jupyter.client.run("import multiprocessing; pool = multiprocessing.get_context('fork').Pool(2)")
    os.kill(jupyter.pid, signal.SIGSTOP)
    try:
        assert [k.pid for k in finding.living_kernels(answer_s=0.2)] == [jupyter.pid]
    finally:
        os.kill(jupyter.pid, signal.SIGCONT)
    child = jupyter.client.value("pool._pool[0].pid")
    assert finding.find_target(str(jupyter.pid)).is_jupyter
    assert not finding.find_target(str(child)).is_jupyter
    jupyter.client.run("pool.terminate(); pool.join()")


def test_any_other_process_is_found_by_its_pid(processes: ProcessTracker) -> None:
    process = processes.start([sys.executable, "-c", "import time; time.sleep(60)"])
    target = finding.find_target(str(process.pid))
    assert (target.pid, target.is_jupyter) == (process.pid, False)
    process.kill()
    process.wait()
    with pytest.raises(TargetUnknown, match="no process"):
        finding.find_target(str(process.pid))


def test_a_process_that_ended_and_was_not_reaped_is_none(processes: ProcessTracker) -> None:
    process = processes.start([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(TargetUnknown, match="no process"):
        finding.find_target(str(process.pid))


def test_the_notebook_a_server_started_it_for_names_it(stage: Stage) -> None:
    notebook = stage.folder / "work" / "analysis.ipynb"
    stage.environ["JPY_SESSION_NAME"] = str(notebook)
    jupyter = stage.start()
    assert finding.find_target("analysis.ipynb").pid == jupyter.pid
    assert finding.find_target(str(notebook)).notebook == str(notebook)


@pytest.mark.parametrize("text", ["", "nothing-like-it", "/nowhere/kernel-x.json", "-1", "999999999", "a b\tc"])
def test_what_does_not_exist_is_refused_on_one_line(text: str) -> None:
    with pytest.raises(TargetUnknown) as caught:
        finding.find_target(text)
    assert "\n" not in caught.value.line()
    assert caught.value.hint


def test_servers_are_asked_for_notebooks(stage: Stage, processes: ProcessTracker) -> None:
    """A stand-in for a Jupyter server's /api/sessions, wired up as jupyter_server does it."""
    answer = [{"path": "sub/t.ipynb", "kernel": {"id": "k-1"}}, {"path": None, "kernel": None}]
    code = (
        "import http.server, json, sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        f"        good = self.headers['Authorization'] == 'token T' and self.path == '/base/api/sessions'\n"
        "        self.send_response(200 if good else 403); self.end_headers()\n"
        f"        self.wfile.write(json.dumps({answer!r}).encode() if good else b'[]')\n"
        "    def log_message(self, *a): pass\n"
        "s = http.server.HTTPServer(('127.0.0.1', 0), H); print(s.server_port, flush=True); s.serve_forever()\n"
    )
    server = processes.start([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    with server.stdout:
        port = int(server.stdout.readline())
    runtime = stage.folder / "runtime"
    facts = {"pid": server.pid, "url": f"http://127.0.0.1:{port}/base/", "token": "T", "root_dir": "/root"}
    (runtime / f"jpserver-{server.pid}.json").write_text(json.dumps(facts))
    (runtime / "jpserver-1000000000.json").write_text(json.dumps({**facts, "pid": 1000000000}))
    (runtime / "jpserver-2.json").write_text("not json")
    from nbcr.jupyter.servers import notebooks_by_kernel

    assert notebooks_by_kernel([Path(runtime)]) == {"k-1": "/root/sub/t.ipynb"}
