"""The headless face: ``nbcr``. Parses, calls the session layer, prints.

Exit status: see EXIT_CODES. ``nbcr restart`` without --detach ends as the restored process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nbcr import completing

if TYPE_CHECKING:
    from nbcr.session import RestartResult
    from nbcr.store import Entry

EXIT_CODES = """Exit status: 0 done · 1 unexpected · 2 wrong usage · 3-18 the engine could not (no such
process, not permitted, unsupported resource, image missing or damaged, file changed, no room …) · 20 unknown
name · 21 name taken · 22 store refused · 23 entry damaged · 24 store full · 25 busy · 26 unknown target ·
27 helper lost · 28 restart failed · 29 connection in use · 30 handler failed · 31 not possible here ·
32 critical section held · 33 asked for within one · 34 no objects · 35 not trusted · 36 store locked ·
37 remote failed · 130 interrupted"""

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
DeadlineOption = Annotated[
    float,
    typer.Option("--deadline", metavar="SECONDS", min=0, help="How long to wait for handlers and sections."),
]
NameArgument = Annotated[str, typer.Argument(help="Name or id of a checkpoint.", autocompletion=completing.names)]
_DEADLINE_S = 30.0
started_umask = 0o022  # that we were started with


def main() -> None:
    """Entry point of the command ``nbcr``."""
    global started_umask
    started_umask = os.umask(0o077)  # what we write is the user's alone; what we start or restore has its own
    _open_streams()
    from nbcr import cli_keys, cli_live, cli_programs, cli_remote, cli_store  # noqa: F401  (their commands join ours)

    app()


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


@app.command(epilog=EXIT_CODES)
def checkpoint(
    target: Annotated[
        str,
        typer.Argument(
            help="A pid, a job's name, a connection file, or a Jupyter kernel's id or its unique beginning.",
            autocompletion=completing.targets,
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", "-n", help="Name; left out: the id.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="End it once it is saved, as --leave killed.")] = False,
    leave: Annotated[str, typer.Option("--leave", metavar="running|stopped|killed")] = "running",
    files: Annotated[
        str,
        typer.Option("--files", metavar="keep|rewind|save", help="What a restart does about files being written."),
    ] = "keep",
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a checkpoint of that name.")] = False,
    note: Annotated[str, typer.Option("--note", help="Words to keep with it.")] = "",
    image: Annotated[bool, typer.Option("--image", help="The process image only.")] = False,
    objects: Annotated[bool, typer.Option("--objects", help="The variables only.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Save In and Out with the variables.")] = False,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Leave out variables larger than this, as 100M.")
    ] = None,
    max_total: Annotated[
        str | None, typer.Option("--max-total", metavar="SIZE", help="Save no more than this of all, small ones first.")
    ] = None,
    store: StoreOption = None,
    deadline: DeadlineOption = _DEADLINE_S,
    as_json: JsonOption = False,
) -> None:
    """Checkpoint a living process, also in the middle of a cell.

    Of a Jupyter kernel, and whatever else runs IPython, the variables are saved too, beside the process image.
    """
    with errors():
        from nbcr import following, session
        from nbcr.jupyter.attach import ensure_loaded
        from nbcr.jupyter.finding import find_target
        from nbcr.launcher import jobs
        from nbcr.rendering import size_from
        from nbcr.store import Store

        leave = "killed" if stop else leave

        def of_process(process: str) -> Entry:
            return session.checkpoint_other(
                find_target(process),
                name,
                store=store,
                force=force,
                leave=leave,
                files=files,
                note=note,
                kinds=session.kinds_of(image=image, objects=objects),
                limits=session.Limits(
                    history,
                    None if max_size is None else size_from(max_size),
                    None if max_total is None else size_from(max_total),
                ),
                deadline_s=deadline,
                load=ensure_loaded,
                on_warning=warn,
            )

        job = jobs.connect(target)
        if job is None:
            with following.shown(Store(store)):
                entry = of_process(target)
        else:
            wish = {"name": name, "replace": force, "note": note, "leave": leave, "files": files}
            place = Store(store)
            entry = jobs.checkpoint(
                target, job, store=place, deadline_s=deadline, on_plain=lambda pid: of_process(str(pid)), **wish
            )
        if as_json:
            print_json(entry.taken())
        else:
            _print_taken(entry)


@app.command("list")
def list_(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List all checkpoints, oldest first."""
    with errors():
        from nbcr.store import Store

        place = Store(store)
        entries = place.entries()
        for problem in place.damaged():
            warn(problem.line())
        if as_json:
            print_json([e.listed() for e in entries])
        else:
            _print_table(entries)


@app.command()
def show(
    name: NameArgument,
    variables: Annotated[bool, typer.Option("--vars", help="The variables: types, shapes, sizes, values.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything known of a checkpoint, without starting it or unpickling anything."""
    with errors():
        from dataclasses import asdict

        from nbcr import session

        if variables:
            found = session.variables(name, store=store)
            if as_json:
                print_json([asdict(variable) for variable in found])
            else:
                typer.echo(repr(found))
            return
        details = session.show(name, store=store)
        image = None if details.image is None else asdict(details.image)
        document = {**details.entry.details(), "image": image}
        if as_json:
            print_json(document)
        else:
            _print_details(document)
        if details.problem:
            warn(f"the image cannot be looked into: {details.problem}")


@app.command()
def get(
    name: NameArgument,
    variable: Annotated[str, typer.Argument(help="Name of a variable.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print one variable of a checkpoint. Only its own bytes are read; `nbcr.get` gives the object itself."""
    with errors():
        from nbcr import session

        value = session.get(name, variable, store=store, namespace={"__name__": "__main__"})
        if as_json:
            kind = type(value)
            print_json(
                {
                    "name": variable,
                    "type": f"{kind.__module__}.{kind.__qualname__}",
                    "repr": repr(value),
                    "value": _as_json(value),
                }
            )
        else:
            typer.echo(repr(value))


@app.command()
def diff(
    before: Annotated[
        str, typer.Argument(metavar="A", help="Name or id of a checkpoint.", autocompletion=completing.names)
    ],
    after: Annotated[
        str, typer.Argument(metavar="B", help="Name or id of a later one.", autocompletion=completing.names)
    ],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which variables were added, removed or changed between two checkpoints."""
    with errors():
        from dataclasses import asdict

        from nbcr import session

        changes = session.diff(before, after, store=store)
        if as_json:
            print_json([{"change": change.kind, **asdict(change)} for change in changes])
        else:
            typer.echo(repr(changes))


@app.command()
def remove(name: NameArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Remove a checkpoint and give its space back."""
    with errors():
        from nbcr import session

        entry = session.remove(name, store=store)
        if as_json:
            print_json({"removed": entry.listed()})
        else:
            typer.echo(f"removed {entry.name} ({entry.id})")


@app.command(epilog=EXIT_CODES)
def restart(
    name: NameArgument,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave the process running and return.")] = False,
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            metavar="TARGET",
            help="Replace this living process; its pid stays.",
            autocompletion=completing.targets,
        ),
    ] = None,
    objects: Annotated[
        bool, typer.Option("--objects", help="With --into: roll back the variables only; the process stays as it is.")
    ] = False,
    files: Annotated[
        str | None,
        typer.Option(
            "--files",
            metavar="keep|rewind|save",
            help="About files that were being written, instead of what the checkpoint said.",
        ),
    ] = None,
    mpiexec: Annotated[
        str | None,
        typer.Option("--mpiexec", metavar="OPTIONS", help="Of an MPI job: where its ranks go, as '-hosts a,b -ppn 2'."),
    ] = None,
    store: StoreOption = None,
    deadline: DeadlineOption = _DEADLINE_S,
    as_json: JsonOption = False,
) -> None:
    """Bring a checkpoint back: as a fresh process tree, or --into a living process.

    A dead Jupyter kernel comes back on its old connection file. Without --detach the command waits for the
    process and ends as it does.
    """
    with errors():
        from nbcr import session
        from nbcr.errors import UsageProblem
        from nbcr.launcher import returning
        from nbcr.store import Store

        entry = Store(store).find(name)
        if objects:
            told = _roll_back(entry, into, store, deadline)
            print_json(told["report"]) if as_json else typer.echo(told["text"])
            return
        if returning.is_job(entry) and into is None:
            if detach or as_json or files:
                raise UsageProblem(
                    "a job comes back in the foreground, with its output, and as its checkpoint said",
                    hint="leave out --detach, --json, --files",
                )
            end_like(returning.restart(entry, umask=started_umask, mpiexec=mpiexec))
        if mpiexec is not None:
            raise UsageProblem(f"{entry.name!r} is not of an MPI job", hint="leave out --mpiexec")
        if into is not None:
            result = _restart_into(name, into, store, deadline, files)
        else:
            # A detached process that held our streams would keep whoever reads them waiting.
            stdio = (-1, -1, -1) if detach else (0, 2, 2) if as_json else (0, 1, 2)
            result = session.restart_fresh(name, store=store, stdio=stdio, parting=detach, files=files)
        for warning in result.warnings:
            warn(warning)
        if as_json:
            print_json(result.document())
        else:
            where = f", on {result.connection_file}" if result.connection_file else ""
            typer.echo(f"RESTART  {result.entry.name}  pid {result.pid}{where}")
        sys.stdout.flush()
        if not detach and result.wait is not None:
            end_like(result.wait())


@app.command()
def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Say what this host allows, and what follows from it."""
    with errors():
        from nbcr.doctor import examine
        from nbcr.store import Store

        diagnosis = examine(Store(store))
        if as_json:
            print_json(diagnosis.document())
        else:
            for finding in diagnosis.findings:
                typer.echo(f"{'yes' if finding.ok else 'NO ':3}  {finding.name}: {finding.detail}")
            typer.echo("\nthis host can take and restart checkpoints" if diagnosis.ok else "\nnbcr cannot work here")
    if not diagnosis.ok:
        raise typer.Exit(1)


def _roll_back(entry: Entry, target: str | None, store: str | None, deadline_s: float) -> dict[str, Any]:
    from nbcr.errors import UsageProblem
    from nbcr.jupyter.finding import find_target
    from nbcr.jupyter.rolling import roll_back
    from nbcr.store import Store

    if target is None:
        raise UsageProblem("--objects needs a living session to load them into", hint="add --into TARGET")
    return roll_back(find_target(target), entry.id, store=Store(store).root, deadline_s=deadline_s)


def _restart_into(name: str, target: str, store: str | None, deadline_s: float, files: str | None) -> RestartResult:
    from nbcr import session
    from nbcr.jupyter.attach import ensure_loaded
    from nbcr.jupyter.finding import find_target

    living = find_target(target)
    return session.restart_into(
        name, living, store=store, deadline_s=deadline_s, load=ensure_loaded, on_warning=warn, files=files
    )


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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:
        if os.environ.get("NBCR_DEBUG"):
            raise
        from nbcr.errors import to_wire

        document = to_wire(error)
        complain(": ".join(part for part in (document["message"], document["hint"]) if part))
        raise typer.Exit(document["exit_code"] or 1) from None


def complain(text: str) -> None:
    """One line on stderr."""
    typer.echo(f"nbcr: {text}", err=True)


def warn(text: str) -> None:
    """The same, of what does not keep the command from its end."""
    typer.echo(f"nbcr: warning: {text}", err=True)


def print_json(document: Any) -> None:
    """One document on stdout."""
    typer.echo(json.dumps(document, ensure_ascii=False))


def _as_json(value: Any) -> Any:
    """The value itself where JSON can hold it, else None."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None


def _print_taken(entry: Entry) -> None:
    from nbcr.rendering import size_text, time_text
    from nbcr.session import report_of

    typer.echo(
        f"CONTINUE  {entry.name}  id {entry.id}, size {size_text(entry.size_bytes)}, "
        f"pause {time_text(entry.pause_ms)}, duration {time_text(entry.duration_ms)}"
    )
    report = report_of(entry)
    for warning in [*entry.warnings, *(report.lines() if report is not None else ())]:
        warn(warning)


def _print_table(entries: list[Entry]) -> None:
    from nbcr.rendering import columns_of, entries_text, table_rows

    if not sys.stdout.isatty():
        typer.echo(entries_text(entries))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for column in columns_of(entries):
        justify: Literal["right", "left"] = "right" if column in ("size", "pid") else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column == "id")  # to be copied
    for row in table_rows(entries):
        table.add_row(*map(Text, row))
    Console().print(table if entries else "no checkpoints")


def _print_details(document: dict[str, Any]) -> None:
    image = document.pop("image")
    for key, value in document.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        typer.echo(f"{key:12} {text}")
    for process in image["processes"] if image else ():
        command = " ".join(process["argv"]) or process["exe"]
        facts = f"{process['pid']} (parent {process['ppid']}, {process['threads']} threads)"
        typer.echo(f"{'process':12} {facts} {command}")


if __name__ == "__main__":
    from nbcr.cli import main as the_only_one  # not the module that is called __main__: commands join one app

    the_only_one()
