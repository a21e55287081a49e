"""The documents say what is there: links lead somewhere, names of the architecture exist in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
