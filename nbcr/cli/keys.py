"""The commands about an encrypted store's key: ``nbcr encrypt``, ``unlock``, ``lock``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from nbcr.cli.app import JsonOption, StoreOption, app, errors, print_json


@app.command()
def encrypt(
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="FILE", help="Use this file instead of a passphrase; made if missing."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encrypt what is packed from now on; of an encrypted store, give one more passphrase or key file.

    Without --key-file the passphrase is NBCR_PASSPHRASE, else it is asked for.
    """
    with errors():
        from nbcr.session import upkeep

        phrase = None if key_file is not None else _passphrase(new=True)
        plain = upkeep.encrypt(store=store, passphrase=phrase, key_file=key_file)
        if as_json:
            print_json({"encrypted": True, "plain_entries": plain})
            return
        typer.echo("what is packed from now on is encrypted")
        if plain:
            typer.echo(f"{len(plain)} checkpoints that are there are not: {', '.join(plain)}")
        typer.echo("whoever loses the passphrase or the key file loses the checkpoints")


@app.command()
def unlock(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Keep the key of an encrypted store in memory until the host is shut down, for helpers and packers."""
    with errors():
        from nbcr.session import upkeep

        known = any(name in os.environ for name in ("NBCR_PASSPHRASE", "NBCR_PASSPHRASE_FILE", "NBCR_KEY_FILE"))
        where = upkeep.unlock(store=store, passphrase=None if known else _passphrase(new=False))
        if as_json:
            print_json({"key": None if where is None else str(where)})
        else:
            typer.echo("the store is not encrypted" if where is None else f"unlocked; the key is in memory, at {where}")


@app.command()
def lock(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Forget the key that `nbcr unlock` keeps."""
    with errors():
        from nbcr.session import upkeep

        had = upkeep.lock(store=store)
        if as_json:
            print_json({"forgotten": had})
        else:
            typer.echo("locked" if had else "there was no key to forget")


def _passphrase(*, new: bool) -> str:
    from nbcr.errors import UsageProblem

    said = os.environ.get("NBCR_PASSPHRASE")
    if said is not None:
        return said
    if not sys.stdin.isatty():
        raise UsageProblem("there is no terminal to ask for the passphrase", hint="set NBCR_PASSPHRASE")
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True))
