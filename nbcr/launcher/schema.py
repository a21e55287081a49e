"""The restart schema: what a job was started by, and what is needed to start it again. Kept in the launcher's
memory."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nbcr.errors import EntryDamaged, NotPossible
from nbcr.mpi import modes

FORMAT = 1
FILE = "schema.json"
FOLDER = "job"
MPIEXECS = ("mpiexec", "mpirun", "mpiexec.hydra")


@dataclass(frozen=True)
class Schema:
    """A job."""

    name: str
    argv: tuple[str, ...]
    cwd: str
    environ: Mapping[str, str]
    mpiexec: str = ""  # its path; empty: the program is no MPI job
    ranks: int = 0  # once they have said so
    library: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)  # of each rank, by its number
    mode: str = modes.IMAGES

    @classmethod
    def of(cls, name: str, argv: Sequence[str]) -> Schema:
        """What we are about to start. Raises NotPossible when there is no such program."""
        program = shutil.which(argv[0]) or shutil.which(argv[0], path=str(Path(sys.executable).parent))
        if program is None:
            raise NotPossible(f"there is no program {argv[0]!r}", hint="`nbcr run -- COMMAND ARGUMENTS…`")
        mpiexec = os.path.abspath(program) if Path(program).name in MPIEXECS else ""  # noqa: PTH100 (no links resolved)
        return cls(name, (mpiexec or program, *argv[1:]), str(Path.cwd()), dict(os.environ), mpiexec)

    def with_ranks(self, ranks: int, library: str, facts: Mapping[str, Any]) -> Schema:
        """With what the ranks have said."""
        return replace(self, ranks=ranks, library=library, facts=dict(facts))

    def write(self, folder: Path) -> None:
        """Put it beside the images."""
        document = {"format": FORMAT, **self.__dict__}
        (folder / FILE).write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Schema:
        """The schema of an entry. Raises EntryDamaged."""
        try:
            document = json.loads((folder / FILE).read_text(encoding="utf-8"))
            version = document.pop("format")
            if version != FORMAT:
                raise EntryDamaged(
                    f"the job in {folder} has format {version}, this nbcr reads {FORMAT}", hint="update nbcr"
                )
            return cls(**{**document, "argv": tuple(document["argv"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise EntryDamaged(
                f"the schema of the job in {folder} cannot be read: {error}", hint="take another checkpoint"
            ) from error


def image_of(folder: Path, rank: int) -> Path:
    """Where a rank's image is."""
    return folder / "ranks" / str(rank)
