"""Write docs/resources.md from the tests' catalogue of subjects (a test compares them)."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.subjects.catalogue import CATALOGUE, Subject  # noqa: E402
from tests.subjects.notes import NOTES, PROGRAMS, Note  # noqa: E402

DOCUMENT = CHECKOUT / "docs" / "resources.md"
HEAD = """\
# Resources

What a process may have, and what becomes of it. Each row is shown by little programs (`tests/subjects/`) that are
dumped, killed, restored and then ask themselves whether everything is as it was, as root and as an ordinary user. This
page is written by `scripts/resources.py` from the catalogue of these programs, and a test sees to it that they agree.

*Captured*: it comes back. *Partly*: with the exception that is named. *Refused*: nothing is touched, and the message
names it and who holds it. How to add a kind is in [CONTRIBUTING.md](../CONTRIBUTING.md); [engine.md](engine.md)
is about the commands.

| kind | | without privileges | shown by |
|---|---|---|---|
"""
FOOT = """
## Programs

Whole programs that know nothing of nbcr, by `tests/integration/engine/test_foreign.py`:

| | |
|---|---|
"""


def table() -> str:
    """The whole document."""
    kinds: dict[str, list[Subject]] = {}
    for subject in CATALOGUE:
        kinds.setdefault(subject.kind, []).append(subject)
    rows = "".join(_row(kind, subjects, NOTES.get(kind, Note())) for kind, subjects in kinds.items())
    return HEAD + rows + FOOT + "".join(f"| {name} | {what} |\n" for name, what in PROGRAMS.items())


def _row(kind: str, subjects: list[Subject], note: Note) -> str:
    refused = [subject.name for subject in subjects if subject.refused]
    if len(refused) == len(subjects):
        state = "**refused**"
    else:
        parts = [note.partly, *(f"refused: `{name}`" for name in refused)]
        parts += sorted(
            {f"where it runs on after the dump, a warning: *{s.running_loses}*" for s in subjects if s.running_loses}
        )
        state = f"partly: {'; '.join(filter(None, parts))}" if any(parts) else "captured"
    names = ", ".join(f"`{subject.name}`" for subject in subjects)
    return f"| {kind} | {state} | {_users(subjects, note, refused)} | {names} |\n"


def _users(subjects: list[Subject], note: Note, refused: list[str]) -> str:
    """What an ordinary user loses, and what it takes to have the thing at all."""
    needs = dict.fromkeys(subject.privilege for subject in subjects if subject.privilege)
    had = [f"to have it takes {privilege}" for privilege in needs]
    if len(had) == 1 and not all(subject.privilege for subject in subjects):
        had = [f"some of it takes {privilege} to have" for privilege in needs]
    same = [] if len(refused) == len(subjects) or note.user else ["the same"] if not had else []
    return "; ".join(filter(None, [note.user, *same, *had]))


if __name__ == "__main__":
    DOCUMENT.write_text(table())
