"""Who is there, who is chosen, and what becomes of those who are broken."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nbcr import crs
from nbcr.crs import SnapshotReference
from nbcr.crs.ptrace import PtraceComponent
from nbcr.crs.registry import BUILT_IN
from nbcr.errors import EntryDamaged, NotPossible
from nbcr.session import usecases
from nbcr.session.bringing import RestartOrder, bring
from nbcr.store import Store
from nbcr.store.manifest import ComponentMark
from tests.support import CHECKOUT
from tests.unit.nbcr.crs.conftest import Install, working
from tests.unit.nbcr.store.making import manifest_for

SNAPSHOT = SnapshotReference("objects", "s", Path("/nowhere"))


@pytest.fixture(autouse=True)
def _nobody_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBCR_CRS", raising=False)


def loaded_by(code: str) -> set[str]:
    script = f"import sys; {code}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


# --- listing and choosing ---------------------------------------------------------------------------------------------


def test_the_built_in_ones_are_listed_by_falling_priority() -> None:
    listed = [component for component in crs.components() if component.name in BUILT_IN]
    assert [component.name for component in listed] == list(BUILT_IN)
    priorities = [component.priority for component in listed]
    assert priorities == sorted(priorities, reverse=True)


def test_nobody_is_imported_before_it_is_needed() -> None:
    components = {module for module, _ in BUILT_IN.values()}
    assert not loaded_by("import nbcr.crs, nbcr.session.inprocess, nbcr.session.usecases") & components
    assert loaded_by("from nbcr import crs; crs.select()") & components == {"nbcr.crs.ptrace"}


def test_the_available_one_with_the_highest_priority_is_chosen(install: Install) -> None:
    assert crs.select().name == "ptrace"
    install("low", working("low", priority=49))
    assert crs.select().name == "ptrace"
    install("high", working("high", priority=51))
    assert crs.select().name == "high"
    install("absent", working("absent", priority=99, available=False))
    assert crs.select().name == "high"


def test_where_ours_cannot_serve_the_next_one_does(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    unavailable = crs.Availability(False, "tracing is forbidden here")
    monkeypatch.setattr(PtraceComponent, "availability", lambda self: unavailable)
    install("low", working("low", priority=1))
    assert crs.select().name == "low"


def test_where_nobody_can_serve_ours_says_what_it_misses(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    unavailable = crs.Availability(False, "tracing is forbidden here")
    monkeypatch.setattr(PtraceComponent, "availability", lambda self: unavailable)
    monkeypatch.setenv("NBCR_CRIU", "/nowhere/criu")
    install("absent", working("absent", available=False))
    assert crs.select().name == "ptrace"


def test_the_user_chooses_by_name(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("low", working("low", priority=-1))
    for name in ("low", "criu", "ptrace"):
        monkeypatch.setenv("NBCR_CRS", name)
        assert crs.select().name == name
    monkeypatch.setenv("NBCR_CRS", "lwo")
    with pytest.raises(NotPossible, match="no CRS component named 'lwo'"):
        crs.select()


def test_each_is_initialised_once_and_finalized_at_the_end(install: Install) -> None:
    source = working("noting", init="print('init')") + "    def finalize(self): print('finalize')\n"
    site = install("noting", source)
    code = f"import sys; sys.path.insert(0, {str(site)!r})\nfrom nbcr import crs\n"
    code += "crs.components(); print('listed'); crs.select(); crs.by_name('noting'); crs.select(); print('end')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["listed", "init", "end", "finalize"]


def test_the_example_in_the_documentation_is_a_component(install: Install) -> None:
    text = (CHECKOUT / "docs" / "crs.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    [(name, _, kind)] = re.findall(r'\[project.entry-points."nbcr.crs"\]\n(\w+) = "(\w+):(\w+)"', text)
    install(name, example, kind)
    assert name in {component.name for component in crs.components()}
    assert crs.broken() == []
    assert not crs.availability(crs.by_name(name)).available


# --- broken ones ------------------------------------------------------------------------------------------------------

FAULTS = {
    "it cannot be imported": ("import there_is_no_such_module", "ModuleNotFoundError: No module named"),
    "it ends the program": ("raise SystemExit('bye')", "SystemExit: bye"),
    "it has no such class": ("", "AttributeError"),
    "it is something else": ("class Crs: pass", "does not implement the interface (it is no subclass"),
    "it is no class": ("Crs = 1", "does not implement the interface (it is no subclass"),
    "it lacks methods": (
        "from nbcr.crs import Component\nclass Crs(Component):\n    def verify(self, snapshot): pass",
        "does not implement the interface (availability, checkpoint, inspect, restart missing)",
    ),
    "it has no name": (working("acme").replace("name, version", "_name, version"), "its name is no str"),
    "its priority fails": (
        working("acme") + "    @property\n    def priority(self): return 1 / 0\n",
        "ZeroDivisionError: division by zero",
    ),
    "it cannot be made": (working("acme") + "    def __init__(self): raise OSError('no licence')\n", "no licence"),
    "it has another name": (working("other"), "calls itself 'other'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_one_breaks_nothing_but_itself(install: Install, fault: str) -> None:
    source, reason = FAULTS[fault]
    install("acme", source)
    assert crs.select().name == "ptrace"
    assert "acme" not in {component.name for component in crs.components()}
    [problem] = [problem for problem in crs.broken() if problem.name == "acme"]
    assert reason in problem.why
    assert "acme1.5" not in problem.why
    assert " in package acme" in problem.why
    assert "\n" not in problem.why
    with pytest.raises(NotPossible) as caught:
        crs.by_name("acme")
    assert str(caught.value) == problem.why


def test_a_name_that_is_taken_is_not_taken_over(install: Install) -> None:
    install("ptrace", working("ptrace", priority=99))
    assert type(crs.select()) is PtraceComponent
    assert type(crs.by_name("ptrace")) is PtraceComponent
    assert ["another component has that name" in problem.why for problem in crs.broken()] == [True]


def test_one_whose_probe_fails_cannot_serve(install: Install) -> None:
    install("acme", working("acme").replace("return Availability", "raise ValueError"))
    assert crs.select().name == "ptrace"
    [acme] = [component for component in crs.components() if component.name == "acme"]
    state = crs.availability(acme)
    assert not state.available
    assert "ValueError" in state.detail


def test_one_that_cannot_be_prepared_is_passed_over(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme", working("acme", init="raise OSError('no licence server')"))
    assert crs.select().name == "ptrace"
    monkeypatch.setenv("NBCR_CRS", "acme")
    with pytest.raises(NotPossible, match="'acme' cannot be prepared: OSError: no licence server"):
        crs.select()


# --- restarts ---------------------------------------------------------------------------------------------------------


def entry_of(component: str, store: Store) -> None:
    draft = store.draft("theirs")
    draft.image.mkdir()
    manifest = manifest_for(draft)
    manifest.component = ComponentMark(component, "1")
    store.publish(draft, manifest)


def test_a_snapshot_whose_component_is_not_here_says_so(store: Store) -> None:
    entry_of("acme", store)
    told = (
        "'theirs' was taken by CRS component 'acme', which is needed to bring it back: there is no CRS component named"
    )
    with pytest.raises(NotPossible, match=told) as caught:
        bring(RestartOrder(store.find("theirs")))
    assert "install what brings that component" in caught.value.hint
    assert told in usecases.show("theirs", store=store).problem


def test_a_snapshot_whose_component_is_broken_says_why(store: Store, install: Install) -> None:
    install("acme", "import there_is_no_such_module")
    entry_of("acme", store)
    with pytest.raises(NotPossible, match=r"needed to bring it back: .*No module named 'there_is_no_such_module'"):
        bring(RestartOrder(store.find("theirs")))


def test_a_snapshot_of_nobody_is_damaged() -> None:
    with pytest.raises(EntryDamaged, match="'theirs' does not say which CRS component"):
        crs.maker_of("theirs", None)


# --- the objects tier -------------------------------------------------------------------------------------------------


def test_what_saves_variables_is_never_asked_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crs.by_name("objects").availability().available
    monkeypatch.setenv("NBCR_CRS", "objects")
    with pytest.raises(NotPossible, match="'objects' takes no process images"):
        crs.select()
