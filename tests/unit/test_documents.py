"""The documents say what is there: links lead somewhere, names of the architecture exist in the code."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from tests.subjects.catalogue import CATALOGUE
from tests.subjects.notes import NOTES
from tests.support import fail

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("[kn]*/*/FORMAT.md")]
SOURCES = [*CHECKOUT.glob("nbcr/**/*.py"), *CHECKOUT.glob("kernel_backend/**/*.py")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_architecture_names_what_exists() -> None:
    text = re.sub(r"```.*?```", "", (CHECKOUT / "ARCHITECTURE.md").read_text(), flags=re.DOTALL)
    named = {name.rpartition(".")[2] for name in re.findall(r"`([A-Za-z_.]+)(?:\([a-z]*\))?`", text)}
    words = {source.stem for source in SOURCES} | {source.parent.name for source in SOURCES}
    for source in SOURCES:
        words.update(re.findall(r"\w+", source.read_text()))
    known_to_others = {"md", "py"}
    assert named - words - known_to_others == set()


def test_the_architecture_says_where_they_are() -> None:
    """Of `room.name`, the name is in that module; of `Class.name`, in a module that has that class."""
    text = re.sub(r"```.*?```", "", (CHECKOUT / "ARCHITECTURE.md").read_text(), flags=re.DOTALL)
    sources = {source: source.read_text() for source in SOURCES}
    elsewhere = []
    for home, name in re.findall(r"`(?:\w+\.)*(\w+)\.(\w+)(?:\([a-z]*\))?`", text):
        homes = [words for path, words in sources.items() if path.stem == home or f"class {home}" in words]
        if name not in ("md", "py") and homes and not any(re.search(rf"\b{name}\b", words) for words in homes):
            elsewhere.append(f"{home}.{name}")
    assert elsewhere == []


@pytest.mark.parametrize("package", "cli handlers jupyter launcher mpi objects session".split())
def test_a_package_says_what_is_in_it(package: str) -> None:
    """Its docstring names every module, and so does ARCHITECTURE.md."""
    folder = CHECKOUT / "nbcr" / package
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    for text in (docstring or "", (CHECKOUT / "ARCHITECTURE.md").read_text()):
        assert modules - set(re.findall(r"\w+", text)) == set()


def test_the_table_of_resources_is_that_of_the_catalogue() -> None:
    spec = importlib.util.spec_from_file_location("resources", CHECKOUT / "scripts" / "resources.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    if (CHECKOUT / "docs" / "resources.md").read_text() != script.table():
        fail(
            "docs/resources.md is not what tests/subjects/catalogue.py and notes.py say: run scripts/resources.py "
            "and commit what it writes (a kind that changes, or loses something without privileges, gets a note)"
        )


def test_notes_are_about_kinds_of_the_catalogue() -> None:
    kinds = {subject.kind for subject in CATALOGUE}
    assert set(NOTES) - kinds == set(), "tests/subjects/notes.py has notes about kinds that no subject shows"
