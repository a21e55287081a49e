"""Every case of the table, in real Jupyter kernels: restored right, or reported lost by name.

None silently wrong.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.jupyter.sessions import Jupyter
from tests.integration.objects.cases import CASES, Case
from tests.integration.objects.harder_classes import CLASSES
from tests.integration.objects.harder_data import DATA
from tests.integration.objects.harder_language import LANGUAGE
from tests.integration.objects.harder_system import SYSTEM
from tests.integration.objects.hostile import HOSTILE
from tests.support import CHECKOUT

HARDER = (*LANGUAGE, *CLASSES, *DATA, *SYSTEM, *HOSTILE)
# Of the hostile ones; the others are in the long sweep.
_ALWAYS = ("exits", "interrupt", "prints", "segfaults", "iter infinite")


def _is_long(case: Case) -> bool:
    return case in HOSTILE and not any(word in case.name for word in _ALWAYS)


MARKED = [
    pytest.param(case, id=case.name, marks=[pytest.mark.long] if _is_long(case) else []) for case in (*CASES, *HARDER)
]
_CLEAN = """
import sys
if "matplotlib.pyplot" in sys.modules:
    sys.modules["matplotlib.pyplot"].close("all")  # an open figure that no variable holds is told
%reset -f
"""
_TELL = "\nimport json as _json; print('<<' + _json.dumps(_report.document()) + '>>')"
_SAVE = "from nbcr import objects as _o; _report = _o.save(globals(), {place!r}).wait()" + _TELL
_LOAD = "from nbcr import objects as _o; _report = _o.load({place!r}, globals(), remove_new=True)" + _TELL


def told(jupyter: Jupyter, code: str) -> dict[str, Any]:
    """The report that `code` prints; what else is printed does not matter."""
    text = jupyter.client.run(code)
    assert not text.partition("<<")[0].strip(), "nobody's code prints into the cell"
    return dict(json.loads(text[text.index("<<") + 2 : text.rindex(">>")]))


@pytest.mark.parametrize("case", MARKED)
def test_restored_right_or_lost_by_name(case: Case, kernels: tuple[Jupyter, Jupyter], tmp_path: Path) -> None:
    old, fresh = kernels
    place = str(tmp_path / "snapshot")
    old.client.run(_CLEAN)
    for cell in case.cells:
        old.client.run(cell)
    saved = told(old, _SAVE.format(place=place))
    assert_told(case, saved, "saved")
    try:
        fresh.client.run(_CLEAN)
        loaded = told(fresh, _LOAD.format(place=place))
        assert_told(case, loaded, "restored")
        assert fresh.client.run(f"print(bool({case.check}))").strip() == "True", "in a fresh Jupyter kernel"
        spoil(old, saved)
        assert_told(case, told(old, _LOAD.format(place=place)), "restored")
        assert old.client.run(f"print(bool({case.check}))").strip() == "True", "rolled back"
    finally:
        old.client.run("if 'stop' in globals(): stop.set()")


def spoil(jupyter: Jupyter, saved: dict[str, Any]) -> None:
    """Rebind every variable, and bind a new one."""
    names = [name for name in saved["verdicts"] if "." not in name]
    jupyter.client.run("\n".join([*(f"{name} = 'spoiled'" for name in names), "came_later = 1"]))


def assert_told(case: Case, report: dict[str, Any], kept: str) -> None:
    verdicts = report["verdicts"]
    lost = {**case.lost, **(case.later if kept == "restored" else {})}
    for name, reason in lost.items():
        verdict = verdicts[name]
        assert verdict["fate"] in ("lost", "recomputable"), verdict
        assert reason in f"{verdict['culprit']}: {verdict['reason']}", verdict
    for name, remark in case.remark.items():
        assert remark in verdicts[name]["remark"]
    for name, verdict in verdicts.items():
        if name not in lost:
            assert verdict["fate"] == kept, verdict
        if name not in case.remark:
            assert not verdict["remark"], verdict
    assert [remark for remark in report["remarks"] if remark] == []


def test_the_table_in_the_docs_is_this_one() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", (CHECKOUT / "docs/objects.md").read_text(), re.MULTILINE)
    table = {name: outcome for name, outcome in rows if outcome.startswith(("restored", "lost", "the address"))}
    assert table == {case.name: case.outcome for case in CASES + HARDER}
