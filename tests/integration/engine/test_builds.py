"""A file that memory depends on must still be the one that was mapped: told by what is loaded of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel_backend.errors import FileChanged, ResourceUnsupported
from kernel_backend.host import elf
from tests.integration.engine.harness import Engine, Life, one_line
from tests.subjects.build import build
from tests.subjects.catalogue import BY_NAME, FOLDER
from tests.support import ProcessTracker, User, wait_for_end

PROGRAM = """
#include "SUBJECT"
#include <sys/mman.h>

int answer(void);

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(open(argv[2], O_RDONLY));
    const char *data = MUST_MAP(mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fd, 0));
    MUST(close(fd));
    EXPECT(answer() == ANSWER, "the library's answer before");
    subject_wait(NULL);
    EXPECT(answer() == ANSWER, "the library's answer");
    EXPECT(data[0] == 'd' && data[8191] == 'd', "the mapped data");
    subject_pass();
}
"""
LIBRARY = "const char padding[8192] = {1}; int answer(void) { return ANSWER + OTHER * (int)sizeof padding; }"


@dataclass(frozen=True)
class Files:
    """A program, its library, and data that it maps; and how they are made."""

    folder: Path
    options: tuple[str, ...]

    @property
    def program(self) -> Path:
        return self.folder / "program"

    @property
    def library(self) -> Path:
        return self.folder / "libanswer.so"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def compile(self, path: Path, source: str, *options: str, other: int = 0) -> None:
        """Where `path` is, a new file by rename: whoever runs the old one keeps it."""
        argv = ["cc", "-g", "-O1", "-D_GNU_SOURCE", "-DANSWER=41", f"-DOTHER={other}", *self.options]
        argv += ["-x", "c", "-", "-o", "made", *options]
        subprocess.run(argv, input=source, text=True, check=True, cwd=self.folder)
        (self.folder / "made").rename(path)

    def make_library(self, other: int = 0) -> None:
        self.compile(self.library, LIBRARY, "-shared", "-fPIC", other=other)

    def make_program(self, other: int = 0) -> None:
        source = PROGRAM.replace("SUBJECT", f"{FOLDER}/c/subject.h") + f"int unused_{other};"
        self.compile(self.program, source, "-x", "none", "libanswer.so", "-Wl,-rpath,$ORIGIN", f"-O{1 + other}")

    def make(self) -> Files:
        self.make_library()
        self.make_program()
        self.data.write_bytes(b"d" * 8192)
        return self


Begun = tuple[Engine, Life, Files]


@pytest.fixture
def begin(
    ourselves: User, folder: Path, processes: ProcessTracker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[object]:
    """Start the program as it is built with these options."""
    lives: list[Life] = []

    def start(*options: str) -> Begun:
        files = Files(folder, options).make()
        argv = [str(files.program)]
        monkeypatch.setattr("tests.integration.engine.harness.command", lambda _, base: [*argv, str(base)])
        life = Life(BY_NAME["memory/anonymous"], ourselves, folder, processes, [str(files.data)])
        lives.append(life)
        return Engine(ourselves, folder, processes), life.start(), files

    yield start
    for life in lives:
        life.close()


# --- what is another file, and what is not ----------------------------------------------------------------------------


def copied(path: Path) -> None:
    shutil.copyfile(path, path.with_name("copy"))
    path.with_name("copy").chmod(0o755)
    path.with_name("copy").rename(path)


def patch(path: Path, at: int) -> None:
    """One byte changed in place, and the date set back: only the ctime tells."""
    before = path.stat()
    with path.open("r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), at)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def patch_library(files: Files) -> None:
    patch(files.library, files.library.read_bytes().index(b"\x01" + bytes(4096)) + 100)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SAME: dict[str, Callable[[Files], object]] = {
    "touched": lambda files: [os.utime(path) for path in (files.program, files.library, files.data)],
    "copied": lambda files: [copied(path) for path in (files.program, files.library, files.data)],
    "built again": lambda files: (files.make_library(), files.make_program()),
    "stripped": lambda files: subprocess.run(["strip", files.program, files.library], check=True),
}
OTHERS: dict[str, tuple[str, Callable[[Files], object]]] = {
    "library of other code": ("library", lambda files: files.make_library(other=1)),
    "program of other code": ("program", lambda files: files.make_program(other=1)),
    "library patched": ("library", patch_library),
    "library truncated": ("library", lambda files: os.truncate(files.library, 4096)),
    "library gone": ("library", lambda files: files.library.unlink()),
    "program gone": ("program", lambda files: files.program.unlink()),
    "library a FIFO": ("library", lambda files: fifo(files.library)),
    "program not to be run": ("program", lambda files: files.program.chmod(0o644)),
    "data of other bytes": ("data", lambda files: patch(files.data, 5000)),
    "data cut": ("data", lambda files: os.truncate(files.data, 8191)),
}


def keep(files: Files, to: Path) -> None:
    for path in (files.program, files.library, files.data):
        shutil.copy2(path, to)


def bring_back(files: Files, kept: Path) -> None:
    for path in (files.program, files.library, files.data):
        shutil.copy2(kept / path.name, files.folder / "back")
        (files.folder / "back").rename(path)


@pytest.mark.parametrize("options", [(), ("-Wl,--build-id=none",)], ids=["build id", "no build id"])
def test_files_that_changed_since_the_dump(options: tuple[str, ...], begin: Callable[..., Begun], folder: Path) -> None:
    engine, life, files = begin(*options)
    assert bool(elf.build_of(str(files.library)).build_id) == (options == ())
    engine.dump(life.pid, folder / "image")
    life.expect_killed()
    (folder / "kept").mkdir()
    keep(files, folder / "kept")
    for change in SAME.values():
        change(files)
        life.continue_as(engine.restore(folder / "image"))
        life.expect_pass()
        life.again()
    bring_back(files, folder / "kept")
    present = life.processes.start(["sleep", "600"])
    for name, (which, change) in OTHERS.items():
        change(files)
        done = engine.run("restore", folder / "image", "--into", present.pid, "--detach")
        assert done.status == FileChanged.exit_code, f"{name}: {done}"
        assert str(getattr(files, which)) in one_line(done), name
        assert not wait_for_end(present.pid, 0), f"{name}: the present is gone"
        assert life.processes.strays() == []
        bring_back(files, folder / "kept")
    assert Path(f"/proc/{present.pid}/comm").read_text() == "sleep\n"
    life.continue_as(engine.restore(folder / "image"))
    life.expect_pass()


# --- what changed while the program ran -------------------------------------------------------------------------------


def test_a_library_replaced_while_the_program_runs(begin: Callable[..., Begun], folder: Path) -> None:
    """Its memory is in the image to the last page: neither the old file is needed nor the new one."""
    engine, life, files = begin()
    files.make_library(other=1)
    files.data.unlink()
    engine.dump(life.pid, folder / "image")
    life.expect_killed()
    life.continue_as(engine.restore(folder / "image"))
    engine.dump(life.pid, folder / "again")
    assert wait_for_end(life.pid, 10)
    life.processes.reap(life.pid)
    files.library.unlink()
    life.continue_as(engine.restore(folder / "again"))
    life.expect_pass()


def test_a_program_replaced_while_it_runs(begin: Callable[..., Begun], folder: Path) -> None:
    engine, life, files = begin()
    files.make_program(other=1)
    done = engine.run("dump", life.pid, folder / "image", "--leave", "killed")
    assert done.status == ResourceUnsupported.exit_code
    assert str(files.program) in one_line(done)
    assert not (folder / "image").exists()
    life.expect_pass()


def test_names_that_are_no_text(
    ourselves: User, folder: Path, processes: ProcessTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Program, working folder, arguments and thread name in Latin 1, which JSON cannot hold."""
    place = folder / os.fsdecode(b"caf\xe9")
    place.mkdir()
    shutil.copy(build(BY_NAME["memory/anonymous"].source), place / os.fsdecode(b"na\xefve"))
    argv = ["env", f"--chdir={place}", str(place / os.fsdecode(b"na\xefve"))]
    monkeypatch.setattr("tests.integration.engine.harness.command", lambda _, base: [*argv, str(base)])
    more = [os.fsdecode(b"\xfcber")]
    engine = Engine(ourselves, folder, processes)
    life = Life(BY_NAME["memory/anonymous"], ourselves, folder, processes, more).start()
    engine.dump(life.pid, folder / "image")
    life.continue_as(engine.restore(folder / "image"))
    assert os.fsencode(os.readlink(f"/proc/{life.pid}/cwd")).endswith(b"caf\xe9")
    assert Path(f"/proc/{life.pid}/cmdline").read_bytes().endswith(b"\xfcber\0")
    assert Path(f"/proc/{life.pid}/comm").read_bytes() == b"na\xefve\n"
    life.expect_pass()
    life.close()
