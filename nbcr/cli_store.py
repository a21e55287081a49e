"""The commands that keep a store: ``nbcr pack``, ``gc``, ``verify``, ``trust``. Part of the face `nbcr.cli`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nbcr.cli import JsonOption, StoreOption, app, complain, errors, print_json, warn

if TYPE_CHECKING:
    from nbcr.store.verifying import Proof

_DAMAGED_STATUS = 23


@app.command()
def pack(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Pack what was not packed behind your back yet, now and at full speed."""
    with errors():
        from nbcr.session import upkeep

        failures = upkeep.pack(store)
        if as_json:
            print_json({"failures": [failure.line() for failure in failures]})
        for failure in failures:
            warn(failure.line())
    if failures:
        raise typer.Exit(_DAMAGED_STATUS)


@app.command()
def gc(
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for what other hosts may not have seen yet (NFS).")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give back the space that no checkpoint needs any more. Safe while checkpoints are being taken."""
    with errors():
        from nbcr.rendering import size_text
        from nbcr.session import upkeep

        done = upkeep.collect_garbage(store, now=now)
        if as_json:
            print_json(asdict(done))
            return
        typer.echo(f"{size_text(done.freed_bytes)} given back, {size_text(done.kept_bytes)} in packs are needed")
        if done.condemned:
            who = f"{len(done.waits_for)} writers are through" if done.waits_for else "other hosts have seen it"
            typer.echo(f"{done.condemned} packs more will be deleted when {who}")


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Checkpoints.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All checkpoints, and every pack.")] = False,
    mend: Annotated[bool, typer.Option("--mend", help="Drop a bad copy where there is a good one.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read and prove every byte of checkpoints. What is bad is named; the rest can be used."""
    with errors():
        from nbcr.session import upkeep

        upkeep.check_names_or_all(names or [], every)
        found = upkeep.verify(names or [], store=store, mend=mend)
        if as_json:
            packs = None if found.packs is None else asdict(found.packs)
            document = {"entries": [_document(p) for p in found.proofs], "packs": packs, "damaged": found.damaged}
            print_json({"whole": found.whole, **document})
        else:
            for proof in found.proofs:
                _tell(proof)
            for problem in (*found.damaged, *(found.packs.problems if found.packs else ())):
                complain(problem)
    if not found.whole:
        raise typer.Exit(_DAMAGED_STATUS)


def _document(proof: Proof) -> dict[str, Any]:
    told = {"origin": proof.origin, "problems": proof.problems, "lost": proof.lost, "mended": proof.mended}
    return {"id": proof.entry.id, "name": proof.entry.name, "whole": proof.whole, "usable": proof.usable, **told}


def _tell(proof: Proof) -> None:
    state = "whole" if proof.whole else f"{' and '.join(proof.lost)} lost" if proof.lost else "damaged, but usable"
    typer.echo(f"{proof.entry.name}: {state}" + ("" if proof.origin == "own" else f" ({proof.origin})"))
    for problem in proof.problems:
        complain(f"{proof.entry.name}: {problem}")
    for mended in proof.mended:
        typer.echo(f"{proof.entry.name}: {mended}")


@app.command()
def trust(
    name: Annotated[str | None, typer.Argument(help="Name or id of a checkpoint.")] = None,
    signer: Annotated[bool, typer.Option("--signer", help="Whatever its signer signed, now and later.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Take trust in it, and in its signer, back.")] = False,
    key: Annotated[str | None, typer.Option("--key", metavar="HEX", help="Trust what this public key signed.")] = None,
    own: Annotated[bool, typer.Option("--own", help="Print your own public key, for others to trust.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a checkpoint that you did not take be restarted and loaded: that runs its maker's code as you."""
    with errors():
        from nbcr.errors import UsageProblem
        from nbcr.session import upkeep

        if [name is not None, key is not None, own].count(True) != 1:
            raise UsageProblem("name a checkpoint, or say --key or --own")
        if own:
            document, line = {"key": upkeep.own_key()}, upkeep.own_key()
        elif key is not None:
            upkeep.trust_signer(key)
            document, line = {"key": key}, f"what {key[:16]}… signed is trusted"
        elif name is not None and forget:
            line = f"{name}: " + ("no longer trusted" if upkeep.distrust(name, store=store) else "was not trusted")
            document = {"name": name}
        else:
            origin = upkeep.trust(str(name), store=store, signer=signer)
            document = {"name": str(name), "origin": origin.state, "signer": origin.signer}
            line = f"{name}: {origin.state}" + (f", signed by {origin.signer[:16]}…" if origin.signer else "")
        if as_json:
            print_json(document)
        else:
            typer.echo(line)
