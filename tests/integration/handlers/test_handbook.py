"""Every block of docs/handlers.md is a program that prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.integration.handlers.conftest import Stage
from tests.support import CHECKOUT

pytestmark = pytest.mark.either("stage")

BLOCK = re.compile(r"^## (?P<title>.*?)\n|^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks() -> list[pytest.param]:  # type: ignore[valid-type]
    """Each Python block, under the title of its section."""
    title, found = "", []
    for match in BLOCK.finditer((CHECKOUT / "docs" / "handlers.md").read_text()):
        title = match["title"] or title
        if match["code"]:
            found.append(pytest.param(match["code"], id=title.lower().replace(" ", "-")))
    return found


@pytest.mark.parametrize("code", blocks())
def test_it_prints_what_it_says(stage: Stage, code: str) -> None:
    lines = code.splitlines()
    says = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    assert says
    program, out, err = (stage.folder / name for name in ("example.py", "out", "err"))
    program.write_text(code)
    for file in (out, err):
        file.touch()
    stage.user.give(program, out, err)
    with out.open("ab") as stdout, err.open("ab") as stderr:
        process = stage.processes.start(
            stage.user.command([sys.executable, "-u", program], cwd=stage.folder), env=stage.environ,
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
        )  # fmt: skip
    assert process.wait(90) == 0, err.read_text()
    assert stage.output().splitlines() == says, err.read_text()
