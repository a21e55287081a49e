"""The installed program criu: where it is, whether it works here, running it, and what its log says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nbcr.errors import NotPossible

OLDEST = (4, 0)
_VARIABLE = "NBCR_CRIU"
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # often in root's PATH only
_ANSWER_TIMEOUT_S = 10.0
_HINT = f"install CRIU {OLDEST[0]}.{OLDEST[1]} or newer, or name its program by {_VARIABLE}"
_SHIELDED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGTSTP, signal.SIGTTOU)
_LOG = "criu.log"
_LINES_TOLD = 5  # the cause is often followed by what it caused
# What every failure ends with, and what containers always get: neither is ever the reason.
_NOISE = re.compile(r"(Dumping|Restoring) FAILED|RLIMIT_NOFILE|Killing processes because of failure")
_LOG_LINE = re.compile(r"^(?:\(\d+\.\d+\)\s+)?(?:pie: )?(?:\s*\d+: )?Error \([^)]*\):\s*(.*)$")


class CriuFailed(Exception):
    """criu ended with an error; the message is what it had to say, on one line."""


@dataclass(frozen=True)
class Program:
    """A criu that is new enough."""

    path: str
    version: str

    @property
    def command(self) -> list[str]:
        """How it is called by this user: criu insists on hearing that an ordinary user knows the limits."""
        return [self.path] if os.geteuid() == 0 else [self.path, "--unprivileged"]

    def check(self) -> None:
        """Ask whether it can work on this host. Raises NotPossible with its own reason."""
        _answer([*self.command, "check"], self.path)

    def run(self, action: str, arguments: Sequence[str], work: Path, descriptors: Iterable[int] = ()) -> None:
        """Run ``criu ACTION``, with its log in folder `work`, and wait until it has ended. Raises CriuFailed.

        There is no bound: a criu that is killed midway spoils the processes it works on. For the same reason an
        interrupt (Ctrl-C in a terminal reaches all of its foreground) only counts when criu is done.
        """
        command = [*self.command, action, "--work-dir", str(work), "--log-file", _LOG, *arguments]
        with (work / "said").open("w+b") as said:
            with _shielded():
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, umask=0o077,
                    pass_fds=tuple(descriptors),
                )  # fmt: skip
            status = _outlast(process)
            if status:
                said.seek(0)
                raise CriuFailed(_reason(work / _LOG, said.read().decode(errors="replace"), status))


def find() -> Program:
    """The criu of this host. Raises NotPossible: there is none, it is too old, or it does not say how old it is."""
    path = _path()
    words = _answer([path, "--version"], path)
    match = re.search(r"^Version:\s*v?((\d+)\.(\d+)\S*)", words, re.MULTILINE)
    if match is None:
        raise NotPossible(f"{path} does not say which version of CRIU it is", hint=_HINT)
    if (int(match[2]), int(match[3])) < OLDEST:
        raise NotPossible(
            f"CRIU {match[1]} ({path}) is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed", hint=_HINT
        )
    return Program(path, match[1])


def _path() -> str:
    named = os.environ.get(_VARIABLE)
    if named:
        if shutil.which(named) is None:
            raise NotPossible(f"{_VARIABLE} names {named}, which is no program that we may run", hint=_HINT)
        return named
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS])
    found = shutil.which("criu", path=folders)
    if found is None:
        raise NotPossible("CRIU is not installed here (there is no command `criu`)", hint=_HINT)
    return found


def _answer(command: list[str], path: str) -> str:
    """What a question that changes nothing is answered. Raises NotPossible."""
    question = " ".join(["criu", *command[1:]])
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=_ANSWER_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotPossible(f"`{question}` ({path}) did not answer within {_ANSWER_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise NotPossible(f"{path} cannot be run: {error.strerror}", hint=_HINT) from None
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        raise NotPossible(f"`{question}` ({path}) says: {_last_words(said) or _how_it_ended(done.returncode)}")
    return said


@contextmanager
def _shielded() -> Iterator[None]:
    """What is started here does not hear a terminal's signals. What it restores has masks of its own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SHIELDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outlast(process: subprocess.Popen[bytes]) -> int:
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            status = process.wait()
        except KeyboardInterrupt as error:
            interrupt = error
            continue
        if interrupt is not None:
            raise interrupt
        return status


def _reason(log: Path, said: str, status: int) -> str:
    """Why criu failed, on one line: the last errors in its log, else what it printed, else how it ended."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    errors = [match[1].strip() for match in map(_LOG_LINE.match, lines) if match and not _NOISE.search(match[1])]
    return "; ".join(errors[-_LINES_TOLD:]) or _last_words(said) or _how_it_ended(status)


def _last_words(said: str) -> str:
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    return "; ".join(lines[-_LINES_TOLD:]).replace(":;", ":")


def _how_it_ended(status: int) -> str:
    return f"criu was ended by signal {-status}" if status < 0 else f"criu ended with status {status}"
