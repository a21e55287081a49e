"""Whoever writes to a store is killed at each call that changes it, or finds the disk full: nothing listed is lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.store.sweeping import JOBS, MODES
from tests.support import CHECKOUT

SHORT_STRIDE = 9


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def sweep(shim: Path, tmp_path: Path, job: str, mode: str, stride: int, first: int) -> None:
    words = [
        sys.executable,
        "-m",
        "tests.integration.store.sweeping",
        job,
        mode,
        str(stride),
        str(first),
        str(tmp_path),
    ]
    done = subprocess.run(
        words, cwd=CHECKOUT, env={**os.environ, "LD_PRELOAD": str(shim)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    steps, tried = map(int, done.stdout.split())
    assert steps > 10
    assert tried == (steps - first) // stride + 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("job", JOBS)
def test_some_steps(shim: Path, tmp_path: Path, rng: random.Random, job: str, mode: str) -> None:
    sweep(shim, tmp_path, job, mode, SHORT_STRIDE, rng.randrange(SHORT_STRIDE))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("job", JOBS)
def test_every_step(shim: Path, tmp_path: Path, job: str, mode: str) -> None:
    sweep(shim, tmp_path, job, mode, 1, 0)


# --- a remote


def sweep_remote(shim: Path, tmp_path: Path, job: str, stride: int, first: int) -> None:
    words = [
        sys.executable,
        "-m",
        "tests.integration.store.remote_sweeping",
        job,
        str(stride),
        str(first),
        str(tmp_path),
    ]
    environ = {**os.environ, "LD_PRELOAD": str(shim)}
    done = subprocess.run(words, cwd=CHECKOUT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    steps, tried = map(int, done.stdout.split())
    assert steps > 10
    assert tried == (steps - first) // stride + 1


@pytest.mark.parametrize("job", ["push", "pull"])
def test_some_steps_to_and_from_a_remote(shim: Path, tmp_path: Path, rng: random.Random, job: str) -> None:
    sweep_remote(shim, tmp_path, job, SHORT_STRIDE, rng.randrange(SHORT_STRIDE))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("job", ["push", "pull"])
def test_every_step_to_and_from_a_remote(shim: Path, tmp_path: Path, job: str) -> None:
    sweep_remote(shim, tmp_path, job, 1, 0)
