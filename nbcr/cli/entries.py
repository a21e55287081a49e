"""The commands that tell of checkpoints, and remove one: ``nbcr list``, ``show``, ``get``, ``diff``, ``remove``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nbcr.cli import completing
from nbcr.cli.app import JsonOption, NameArgument, StoreOption, app, errors, print_json, warn

if TYPE_CHECKING:
    from nbcr.store import Entry


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
        elif entries:
            _print_table(entries)
        else:
            typer.echo(f"no checkpoints in {place.root}")


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
    Console().print(table)


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


def _print_details(document: dict[str, Any]) -> None:
    image = document.pop("image")
    for key, value in document.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        typer.echo(f"{key:12} {text}")
    for process in image["processes"] if image else ():
        command = " ".join(process["argv"]) or process["exe"]
        facts = f"{process['pid']} (parent {process['ppid']}, {process['threads']} threads)"
        typer.echo(f"{'process':12} {facts} {command}")


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


def _as_json(value: Any) -> Any:
    """The value itself where JSON can hold it, else None."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None


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
