"""The commands that carry checkpoints elsewhere: ``nbcr push``, ``pull``, ``export``, ``import``. Part of the face."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nbcr.cli.app import JsonOption, StoreOption, app, errors, print_json, warn

if TYPE_CHECKING:
    from nbcr.store import Store
    from nbcr.store.fetching import Fetched
    from nbcr.store.sending import Sent

UrlArgument = Annotated[str, typer.Argument(metavar="URL", help="A folder, or what fsspec knows, as s3://bucket/path.")]
NamesArgument = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Checkpoints; none: all.")]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Replace checkpoints of the same names.")]


@app.command()
def push(url: UrlArgument, names: NamesArgument = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Send checkpoints to another place. Only what is missing there travels; begin again where it was broken off."""
    with errors():
        from nbcr.session import upkeep

        _tell_sent(upkeep.push(url, names or [], store=store), as_json)


@app.command()
def pull(
    url: UrlArgument,
    names: NamesArgument = None,
    force: ForceOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch checkpoints from another place. Those that others signed have to be trusted before they can be used."""
    with errors():
        from nbcr.session import upkeep
        from nbcr.store import Store

        place = Store(store)
        _tell_fetched(upkeep.pull(url, names or [], store=place, force=force), place, as_json)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="Name or id of a checkpoint.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint, and all it needs, into one file."""
    with errors():
        from nbcr.session import upkeep

        _tell_sent(upkeep.export([name], file, store=store, force=force), as_json)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive that `nbcr export` wrote.")],
    force: ForceOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the checkpoints in an archive into the store."""
    with errors():
        from nbcr.session import upkeep
        from nbcr.store import Store

        place = Store(store)
        _tell_fetched(upkeep.import_file(file, store=place, force=force), place, as_json)


def _tell_sent(sent: Sent, as_json: bool) -> None:
    from dataclasses import asdict

    from nbcr.rendering import size_text

    if as_json:
        print_json(asdict(sent))
        return
    for name in sent.entries:
        typer.echo(f"sent     {name}")
    for name in sent.already:
        typer.echo(f"is there {name}")
    typer.echo(f"{sent.chunks} chunks, {size_text(sent.size_bytes)} in all")


def _tell_fetched(fetched: Fetched, store: Store, as_json: bool) -> None:
    from nbcr.rendering import size_text
    from nbcr.session import upkeep

    origins = {entry.id: upkeep.origin_of(entry) for entry in fetched.entries}
    if as_json:
        entries = [{**entry.listed(), "origin": origins[entry.id]} for entry in fetched.entries]
        counts = {"chunks": fetched.chunks, "size_bytes": fetched.size_bytes}
        print_json({"entries": entries, "already": fetched.already, **counts})
    else:
        for entry in fetched.entries:
            typer.echo(f"fetched  {entry.name} ({entry.id})")
        for name in fetched.already:
            typer.echo(f"is here  {name}")
        typer.echo(f"{fetched.chunks} chunks, {size_text(fetched.size_bytes)} in all")
    for entry in fetched.entries:
        if origins[entry.id] not in ("own", "trusted"):
            warn(f"{entry.name} is {origins[entry.id]}: `nbcr trust {entry.name}` before it can be used")
