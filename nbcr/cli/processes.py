"""The commands that act on processes: ``nbcr checkpoint`` and ``restart``.

``nbcr restart`` without --detach ends as the restored process ends.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nbcr.cli import completing
from nbcr.cli.app import (
    DEADLINE_S,
    EXIT_CODES,
    DeadlineOption,
    JsonOption,
    NameArgument,
    StoreOption,
    app,
    end_like,
    errors,
    print_json,
    started_umask,
    warn,
)

if TYPE_CHECKING:
    from nbcr.session import RestartResult, Terms
    from nbcr.store import Entry


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
    tcp: Annotated[
        str,
        typer.Option(
            "--tcp", metavar="reset|keep", help="What becomes of TCP connections to outside; keep needs --stop."
        ),
    ] = "reset",
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
    automatic: Annotated[str | None, typer.Option("--automatic", hidden=True)] = None,  # nbcr.launcher.keeping asks
    store: StoreOption = None,
    deadline: DeadlineOption = DEADLINE_S,
    as_json: JsonOption = False,
) -> None:
    """Checkpoint a living process, also in the middle of a cell.

    Of a Jupyter kernel, and whatever else runs IPython, the variables are saved too, beside the process image.
    """
    with errors():
        from nbcr import session
        from nbcr.rendering import size_from

        terms = session.Terms(
            name=name,
            replace=force,
            leave="killed" if stop else leave,
            kinds=session.kinds_of(image=image, objects=objects),
            limits=session.Limits(
                history,
                None if max_size is None else size_from(max_size),
                None if max_total is None else size_from(max_total),
            ),
            files=files,
            tcp=tcp,
            note=note,
            automatic=automatic,
        )
        entry = _take(target, terms, store, deadline)
        if as_json:
            print_json(entry.taken())
        else:
            _print_taken(entry)


def _take(target: str, terms: Terms, store: str | None, deadline_s: float) -> Entry:
    """Of a job by its launcher, which asks all ranks (or sends us to its only process); of all else by the process."""
    from nbcr import following, session
    from nbcr.jupyter.attach import ensure_loaded
    from nbcr.jupyter.finding import find_target
    from nbcr.launcher import jobs
    from nbcr.store import Store

    def of_process(process: str, of_terms: Terms) -> Entry:
        return session.checkpoint_other(
            find_target(process), of_terms, store=store, deadline_s=deadline_s, load=ensure_loaded, on_warning=warn
        )

    job = jobs.connect(target)
    if job is None:
        with following.shown(Store(store)):
            return of_process(target, terms)
    return jobs.checkpoint(
        target, job, terms, store=Store(store), deadline_s=deadline_s,
        on_plain=lambda pid, of_job: of_process(str(pid), replace(terms, job=of_job)),
    )  # fmt: skip


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
    deadline: DeadlineOption = DEADLINE_S,
    as_json: JsonOption = False,
) -> None:
    """Bring a checkpoint back: as a fresh process tree, or --into a living process.

    A dead Jupyter kernel comes back on its old connection file. Without --detach the command waits for the
    process and ends as it does.
    """
    with errors():
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
            end_like(returning.restart(entry, umask=started_umask(), mpiexec=mpiexec))
        if mpiexec is not None:
            raise UsageProblem(f"{entry.name!r} is not of an MPI job", hint="leave out --mpiexec")
        if into is not None:
            result = _restart_into(name, into, store, deadline, files)
        else:
            result = _restart_fresh(name, store, files, detach=detach, as_json=as_json)
        _print_brought_back(result, as_json=as_json)
        if not detach and result.wait is not None:
            end_like(result.wait())


def _restart_fresh(name: str, store: str | None, files: str | None, *, detach: bool, as_json: bool) -> RestartResult:
    from nbcr import session

    # A detached process that held our streams would keep whoever reads them waiting.
    stdio = (-1, -1, -1) if detach else (0, 2, 2) if as_json else (0, 1, 2)
    return session.restart_fresh(name, store=store, stdio=stdio, parting=detach, files=files)


def _print_brought_back(result: RestartResult, *, as_json: bool) -> None:
    for warning in result.warnings:
        warn(warning)
    if as_json:
        print_json(result.document())
    else:
        where = f", on {result.connection_file}" if result.connection_file else ""
        typer.echo(f"RESTART  {result.entry.name}  pid {result.pid}{where}")
    sys.stdout.flush()


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
