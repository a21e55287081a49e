"""Programs that call mpiexec themselves: taken as a tree with their ranks, brought back in the middle."""

from __future__ import annotations

import random
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.mpi.conftest import END_S, Stage, program

_FIRST = shlex.join(program("ring", 2, 90, 0.02))
_SECOND = shlex.join(program("ring", 2, 10))
_DRIVER = f"""
import subprocess
first = subprocess.run({_FIRST!r}.split(), capture_output=True, text=True)
print(first.returncode, first.stdout, first.stderr, flush=True)
second = subprocess.Popen({_SECOND!r}.split(), stdout=subprocess.PIPE, text=True)
for line in second.stdout:
    print("second", line, end="", flush=True)
"""
PROGRAMS = {
    "shell": ["sh", "script.sh"],
    "make": ["make", "-f", "makefile"],
    "driver": [sys.executable, "driver.py"],
    "one line": ["sh", "-c", f"{_FIRST} && {_SECOND}"],
}


def write_programs(folder: Path) -> None:
    (folder / "script.sh").write_text(f"{_FIRST} | tee out\necho next\n{_SECOND}\n")
    (folder / "makefile").write_text(f"all:\n\t@{_FIRST}\n\t@{_SECOND}\n")
    (folder / "driver.py").write_text(_DRIVER)


def without_ours(out: str) -> str:
    """What a program has printed, without the line of the restart's own, which may come within a line, too."""
    return re.sub(r"RESTART  .*\n", "", out)


@pytest.mark.either("how")
@pytest.mark.parametrize("how", PROGRAMS)
def test_a_program_that_calls_mpiexec_comes_back_in_the_middle(
    stage: Stage, rng: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):  # a make inside `make test` would tell its folders, too
        monkeypatch.delenv(name, raising=False)
    write_programs(tmp_path)
    expected = subprocess.run(PROGRAMS[how], capture_output=True, text=True, timeout=END_S, check=True).stdout
    launcher = stage.nbcr("run", "--name", "job", "--", *PROGRAMS[how])
    time.sleep(1 + rng.random())
    ends = rng.random() < 0.5
    taken = stage.nbcr("checkpoint", "job", "--name", "half", *(["--stop"] if ends else []))
    assert taken.communicate(timeout=END_S)[0].startswith("CONTINUE  half")
    before, err = launcher.communicate(timeout=END_S)
    assert ends or (launcher.returncode, before) == (0, expected), err
    returned = stage.nbcr("restart", "half")
    out, err = returned.communicate(timeout=END_S)
    out = without_ours(out)
    assert returned.returncode == 0, err
    assert expected == before + out if ends else expected.endswith(out), (expected, out, err)
    assert out.endswith("done\n")


_SCRATCH = """
import sys, tempfile, time
from pathlib import Path
with tempfile.NamedTemporaryFile() as scratch:
    scratch.write(b"kept"); scratch.flush()
    print("ready", flush=True)
    while not Path("go").exists():
        time.sleep(0.02)
    print(Path(scratch.name).read_text(), flush=True)
"""


@pytest.mark.either("files")
@pytest.mark.parametrize("files", ["keep", "save"])
def test_a_scratch_file_that_its_program_has_removed_is_made_again(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: str
) -> None:
    monkeypatch.chdir(tmp_path)
    launcher = stage.run("job", [sys.executable, "-c", _SCRATCH])
    taken = stage.nbcr("checkpoint", "job", "--name", "half", "--files", files)
    assert taken.communicate(timeout=END_S)[0].startswith("CONTINUE  half")
    (tmp_path / "go").touch()
    assert launcher.communicate(timeout=END_S)[0] == "kept\n"
    returned = stage.nbcr("restart", "half")
    out, err = returned.communicate(timeout=END_S)
    assert (returned.returncode, without_ours(out)) == (0, "kept\n"), err
