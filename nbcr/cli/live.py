"""The commands that watch: ``nbcr top``, ``nbcr logs``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nbcr.cli import completing
from nbcr.cli.app import JsonOption, StoreOption, app, complain, errors, print_json

if TYPE_CHECKING:
    from nbcr.session.overview import Overview


@app.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="Show it once, as plain lines, and end.")] = False,
    every: Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.2, help="How often to look.")] = 2.0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Watch living sessions and jobs, and checkpoints that are being written. Ctrl-C ends it.

    Into a pipe or a file: once, as plain lines.
    """
    with errors():
        from nbcr.rendering import overview_text

        if as_json:
            print_json(_look(store).document())
        elif once or not sys.stdout.isatty():
            typer.echo(overview_text(_look(store)))
        else:
            _watch(store, every)


def _look(store: str | None) -> Overview:
    from nbcr.jupyter.finding import living_kernels, with_notebooks
    from nbcr.launcher import jobs
    from nbcr.session import overview

    return overview.look(with_notebooks(living_kernels()), jobs.running(), store=store)


def _watch(store: str | None, every_s: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from nbcr.rendering import LIVING_COLUMNS, living_rows, overview_lines

    def shown() -> Group:
        seen = _look(store)
        table = Table(box=None, header_style="bold")
        for column in LIVING_COLUMNS:
            table.add_column(column, justify="right" if column in ("pid", "memory") else "left", overflow="fold")
        for row in living_rows(seen.living):
            table.add_row(*map(Text, row))
        return Group(table, *map(Text, ["", *overview_lines(seen)]))

    with Live(shown(), auto_refresh=False, screen=True) as live:
        try:
            while True:
                time.sleep(every_s)
                live.update(shown(), refresh=True)
        except KeyboardInterrupt:
            return


@app.command()
def logs(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|JOB]", help="A checkpoint or a job; left out: all.", autocompletion=completing.jobs_and_names
        ),
    ] = None,
    last: Annotated[int, typer.Option("--last", "-n", metavar="N", min=1, help="The last N lines.")] = 50,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what was done with checkpoints in this store, and what failed and why."""
    with errors():
        from nbcr.rendering import journal_lines
        from nbcr.session import overview

        told = overview.story(name, store=store)[-last:]
        said: list[dict[str, Any]] = [] if name is not None else overview.left_logs(store=store)
        if as_json:
            print_json({"journal": told, "logs": said})
            return
        for line in journal_lines(told) or ["nothing was done in this store yet"]:
            typer.echo(line)
        for log in said:
            complain(f"{log['path']}: {log['text']}")


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
