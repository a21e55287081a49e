"""The app that all commands join, what they have in common, and how the command begins and ends."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from nbcr.cli import completing

EXIT_CODES = """Exit status: 0 done · 1 unexpected · 2 wrong usage · 3-18 the engine could not (no such
process, not permitted, unsupported resource, image missing or damaged, file changed, no room …) · 20 unknown
name · 21 name taken · 22 store refused · 23 entry damaged · 24 store full · 25 busy · 26 unknown target ·
27 helper lost · 28 restart failed · 29 connection in use · 30 handler failed · 31 not possible here ·
32 critical section held · 33 asked for within one · 34 no objects · 35 not trusted · 36 store locked ·
37 remote failed · 130 interrupted"""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)

app = typer.Typer(
    name="nbcr",
    help="Checkpoint, list and restart living Jupyter sessions and other processes.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="DIR", help="The store (else NBCR_STORE, else your data folder)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def _a_number(seconds: float) -> float:
    """Refuse nan, which is not below any minimum."""
    if math.isnan(seconds):
        raise typer.BadParameter("nan is not a number")
    return seconds


DeadlineOption = Annotated[
    float,
    typer.Option(
        "--deadline", metavar="SECONDS", min=0, callback=_a_number, help="How long to wait for handlers and sections."
    ),
]
NameArgument = Annotated[str, typer.Argument(help="Name or id of a checkpoint.", autocompletion=completing.names)]
DEADLINE_S = 30.0
_umask = 0o022  # that we were started with


def main() -> None:
    """Run the command that we were started with, and end with its exit status."""
    global _umask
    _umask = os.umask(0o077)  # what we write is the user's alone; what we start or restore has its own
    _open_streams()
    try:
        with errors():  # of options that print, as --help; commands have their own
            whole()()
    except typer.Exit as end:
        sys.exit(end.exit_code)


def whole() -> typer.Typer:
    """The app with all commands, in the order in which its help lists them."""
    from nbcr.cli import processes, entries, programs, store, remote, keys, live  # noqa: F401, I001

    return app


def _open_streams() -> None:
    """Whoever started us may have closed standard streams: no file of ours may become one, and nobody has to ask."""
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, stream) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, stream, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def _version(wanted: bool) -> None:
    if wanted:
        from nbcr import __version__

        typer.echo(f"nbcr {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Checkpoint, list and restart living Jupyter sessions and other processes."""


def started_umask() -> int:
    """The umask that we were started with, for what we start ourselves."""
    return _umask


def end_like(status: int) -> None:
    """End as the restored process ended: its exit status, or 128 + its signal as shells say it."""
    sys.stdout.flush()
    raise typer.Exit(128 - status if status < 0 else status)


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Failures as one line on stderr and an exit status."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        complain("interrupted")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        _give_up_stdout()
        raise typer.Exit(1) from None
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in _NO_ROOM:
            _give_up_stdout()
            complain(f"the output could not be written: {error.strerror}")
            raise typer.Exit(1) from None
        if os.environ.get("NBCR_DEBUG"):
            raise
        from nbcr.errors import to_wire

        document = to_wire(error)
        complain(": ".join(part for part in (document["message"], document["hint"]) if part))
        raise typer.Exit(document["exit_code"] or 1) from None


def _give_up_stdout() -> None:
    """Or Python would try once more at its end, and complain in its own words."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str) -> None:
    """One line on stderr."""
    typer.echo(f"nbcr: {text}", err=True)


def warn(text: str) -> None:
    """The same, of what does not keep the command from its end."""
    typer.echo(f"nbcr: warning: {text}", err=True)


def print_json(document: Any) -> None:
    """One document on stdout."""
    typer.echo(json.dumps(document, ensure_ascii=False))
