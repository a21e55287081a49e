"""The batch script of docs/mpi.md: it saves the job before its time is up, and goes on when it is run again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.mpi.conftest import BIN, END_S, SUBJECTS, Stage, undisturbed, until
from tests.support import CHECKOUT

SCRIPT = re.search(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", (CHECKOUT / "docs/mpi.md").read_text(), re.DOTALL)


def test_a_batch_script_goes_on_after_it_was_queued_again(stage: Stage, tmp_path: Path) -> None:
    assert SCRIPT is not None
    script, queued = tmp_path / "job.sh", tmp_path / "queued"
    program = f"mpiexec -n 2 {sys.executable} {SUBJECTS / 'ring.py'} 150 0.02"
    script.write_text(SCRIPT[1].replace("mpiexec python sim.py", program).replace("$HOME", str(tmp_path)))
    tools = tmp_path / "bin"
    tools.mkdir()
    commands = {"scontrol": f'echo "$@" >> {queued}', "nbcr": f'exec {sys.executable} -m nbcr.cli "$@"'}
    for name, line in commands.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    environ = {**stage.environ, "PATH": f"{tools}:{BIN}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}

    def submitted(output: Path) -> subprocess.Popen[bytes]:
        with output.open("wb") as out:
            return stage.processes.start(["bash", script], env=environ, stdout=out, stderr=subprocess.STDOUT)

    first = submitted(tmp_path / "first")
    until(lambda: b"ready" in (tmp_path / "first").read_bytes())
    os.kill(first.pid, signal.SIGUSR1)
    assert first.wait(END_S) == 0, (tmp_path / "first").read_text()
    assert queued.read_text() == "requeue 7\n"
    second = submitted(tmp_path / "second")
    assert second.wait(END_S) == 0
    assert (tmp_path / "second").read_text() == undisturbed("ring", 2, 150).removeprefix("ready\n")
