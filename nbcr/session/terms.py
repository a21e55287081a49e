"""What is asked of a checkpoint: the same words whoever asks, whoever takes it, and on every channel between them.

A new option of `%checkpoint` or `nbcr checkpoint` is a field here, and what it means belongs to whoever acts on it.
Loaded by helpers while a user waits: the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from nbcr.errors import UsageProblem

LEAVES = ("running", "stopped", "killed")
FILES = ("keep", "rewind", "save")
TCP = ("reset", "keep")


@dataclass(frozen=True)
class Limits:
    """What of the namespace is saved beside the user's names, and what is not because it is too large."""

    history: bool = False  # with In and Out
    max_size_bytes: int | None = None  # of one name
    max_total_bytes: int | None = None  # of all


NO_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Terms:
    """One checkpoint, as it is asked for."""

    name: str | None = None  # None: its id
    replace: bool = False  # an entry of that name
    leave: str = "running"  # what becomes of the process: LEAVES
    kinds: tuple[str, ...] = ()  # "image", "objects"; empty: what is usual in that process
    limits: Limits = NO_LIMITS  # of its objects
    files: str = "keep"  # what a restart does about files that are being written: FILES
    tcp: str = "reset"  # "keep": connections to outside go on in the restored life; with `leave` "killed" only
    note: str = ""
    automatic: str | None = None  # why it is taken without anybody asking for it; see nbcr.session.auto
    job: Mapping[str, Any] | None = None  # of `nbcr run`, of which the process is the command

    def check(self) -> None:
        """Raise UsageProblem when it cannot be had, whatever the process."""
        check_files(self.files)
        for option, value, known in (("leave", self.leave, LEAVES), ("tcp", self.tcp, TCP)):
            _check(option, value, known)
        if self.tcp == "keep" and self.leave != "killed":
            raise UsageProblem(
                "--tcp keep needs --stop: a process that goes on needs its connections itself",
                hint="add --stop, or leave out --tcp keep",
            )

    def document(self) -> dict[str, Any]:
        """As a channel carries it; see `of_document`."""
        words = {name: getattr(self, name) for name in Terms.__dataclass_fields__ if name != "limits"}
        return {**words, **vars(self.limits)}

    @classmethod
    def of_document(cls, document: Mapping[str, Any], **more: Any) -> Self:
        """The terms in a message, checked; keys that are no terms are ignored. `more`: fields of a subclass's own."""
        known = {name: document[name] for name in Terms.__dataclass_fields__ if name in document}
        if "kinds" in known:
            known["kinds"] = tuple(known["kinds"])
        limits = {name: document[name] for name in Limits.__dataclass_fields__ if name in document}
        terms = cls(**known, limits=Limits(**limits), **more)
        terms.check()
        return terms


def check_files(files: str) -> None:
    """Raise UsageProblem unless `files` is one of FILES."""
    _check("files", files, FILES)


def _check(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageProblem(f"--{option} {value!r} is not known", hint=f"use {', '.join(known[:-1])} or {known[-1]}")
