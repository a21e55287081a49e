"""What is loaded into a user's Jupyter kernel: little, quickly, and from the standard library only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nbcr

BUDGET_MS = 60.0
IN_PROCESS = [
    *("nbcr", "nbcr.session.inprocess", "nbcr.session.namespaces", "nbcr.session.service", "nbcr.session.usecases"),
    "nbcr.handlers",
]


def run(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("module", IN_PROCESS)
def test_only_the_standard_library_is_needed(module: str) -> None:
    root = Path(nbcr.__file__).parents[1]
    code = (
        f"import sys; sys.path.append({str(root)!r}); import {module}\n"
        "names = {n.partition('.')[0] for n in sys.modules}\n"
        "print(*sorted(n for n in names if n not in sys.stdlib_module_names))"
    )
    assert set(run(code, "-S", "-I").split()) <= {"nbcr", "__main__", "sitecustomize"}


def test_importing_is_quick() -> None:
    # Processor time: what else the machine is doing is not the import's fault.
    code = "import time; t = time.process_time(); import nbcr; print((time.process_time() - t) * 1000)"
    assert min(float(run(code)) for _ in range(3)) < BUDGET_MS
    # What %load_ext brings besides, to a Jupyter kernel, which has most of the standard library already.
    everything = "import ipykernel.kernelapp; " + code.replace("import nbcr;", f"import nbcr, {', '.join(IN_PROCESS)};")
    assert min(float(run(everything)) for _ in range(3)) < BUDGET_MS


def test_every_public_name_is_there() -> None:
    for name in nbcr.__all__:
        assert getattr(nbcr, name) is not None
    assert set(nbcr.__all__) <= set(dir(nbcr))
    with pytest.raises(AttributeError):
        _ = nbcr.nonsense


def test_every_public_name_of_the_session_layer_is_there() -> None:
    from nbcr import session

    for name in session.__all__:
        assert getattr(session, name) is not None
    with pytest.raises(AttributeError):
        _ = session.nonsense
