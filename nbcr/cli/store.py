"""The commands that keep a store: ``nbcr pack``, ``gc``, ``prune``, ``verify`` …"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nbcr.cli.app import JsonOption, NameArgument, StoreOption, app, complain, errors, print_json, warn

if TYPE_CHECKING:
    from nbcr.store.retention import Policy
    from nbcr.store.verifying import Proof

_DAMAGED_STATUS = 23


@app.command()
def pack(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Pack now, and at full speed, what was not packed in the background yet."""
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
    remote: Annotated[
        str | None,
        typer.Option("--remote", metavar="URL", help="That of a remote: condemned now, deleted by a gc a day later."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give back the space that no checkpoint needs any more. Safe while checkpoints are being taken."""
    with errors():
        from nbcr.rendering import size_text
        from nbcr.session import upkeep

        if remote is not None:
            _collect_remote(remote, now=now, as_json=as_json)
            return
        done = upkeep.collect_garbage(store, now=now)
        if as_json:
            print_json(asdict(done))
            return
        typer.echo(f"{size_text(done.freed_bytes)} given back, {size_text(done.kept_bytes)} in packs are needed")
        if done.condemned:
            who = f"{len(done.waits_for)} writers are through" if done.waits_for else "other hosts have seen it"
            typer.echo(f"{done.condemned} packs more will be deleted when {who}")


def _collect_remote(url: str, *, now: bool, as_json: bool) -> None:
    from nbcr.errors import UsageProblem
    from nbcr.rendering import size_text
    from nbcr.session import upkeep

    if now:
        raise UsageProblem("--now is for the own store: nobody knows who sends to a remote", hint="leave out --now")
    done = upkeep.collect_remote(url)
    if as_json:
        print_json(asdict(done))
        return
    typer.echo(f"{done.removed} packs deleted, {size_text(done.freed_bytes)}; {size_text(done.kept_bytes)} are needed")
    if done.condemned:
        typer.echo(f"{done.condemned} packs more will be deleted by a gc in a day, if nobody needs them then")


LastOption = Annotated[int, typer.Option("--keep-last", metavar="N", min=0, help="The last N.")]
HourlyOption = Annotated[int, typer.Option("--keep-hourly", metavar="N", min=0, help="One an hour, of the last N.")]
DailyOption = Annotated[int, typer.Option("--keep-daily", metavar="N", min=0, help="One a day, of the last N.")]
WeeklyOption = Annotated[int, typer.Option("--keep-weekly", metavar="N", min=0, help="One a week, of the last N.")]
MonthlyOption = Annotated[int, typer.Option("--keep-monthly", metavar="N", min=0, help="One a month, of the last N.")]
TaggedOption = Annotated[list[str] | None, typer.Option("--keep-tag", metavar="TAG", help="Those that have this tag.")]
BudgetOption = Annotated[
    str | None, typer.Option("--max-bytes", metavar="SIZE", help="As many of the newest as fit, as 50G.")
]


@app.command()
def prune(
    last: LastOption = 0,
    hourly: HourlyOption = 0,
    daily: DailyOption = 0,
    weekly: WeeklyOption = 0,
    monthly: MonthlyOption = 0,
    tagged: TaggedOption = None,
    max_bytes: BudgetOption = None,
    each_notebook: Annotated[bool, typer.Option("--each-notebook", help="The rules count for each notebook.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be removed, and stop.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the checkpoints that no rule keeps. Pinned ones stay, and the newest one does."""
    with errors():
        from nbcr.rendering import size_text
        from nbcr.session import upkeep

        policy = _policy(last, hourly, daily, weekly, monthly, tagged, max_bytes, each_notebook)
        done, collected = upkeep.prune(policy, store=store, dry_run=dry_run)
        if as_json:
            document: dict[str, Any] = {"removed": [entry.listed() for entry in done.removed]}
            document["kept"] = [{**entry.listed(), "reason": reason} for entry, reason in done.kept]
            document |= {"needed_bytes": done.needed_bytes, "over_budget_bytes": done.over_budget_bytes}
            print_json({**document, "collected": None if collected is None else asdict(collected)})
        else:
            for entry, reason in done.kept:
                typer.echo(f"kept      {entry.name} ({entry.id}): {reason}")
            for entry in done.removed:
                typer.echo(f"{'would go ' if dry_run else 'removed  '} {entry.name} ({entry.id})")
            typer.echo(f"{size_text(done.needed_bytes)} are needed by what is kept")
        if done.over_budget_bytes:
            warn(f"{size_text(done.over_budget_bytes)} over the budget: what is left is pinned, in use or the newest")


def _policy(
    last: int, hourly: int, daily: int, weekly: int, monthly: int, tagged: list[str] | None, max_bytes: str | None,
    each: bool,
) -> Policy:  # fmt: skip
    from nbcr.rendering import size_from
    from nbcr.session import upkeep

    budget = None if max_bytes is None else size_from(max_bytes)
    return upkeep.policy(last, hourly, daily, weekly, monthly, tuple(tagged or ()), budget, each)


@app.command()
def tag(
    name: NameArgument,
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG]...", help="Tags to give it.")] = None,
    pin: Annotated[bool, typer.Option("--pin", help="These tags keep it from being pruned.")] = False,
    remove: Annotated[list[str] | None, typer.Option("--remove", metavar="TAG", help="Take this tag.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a checkpoint tags, or take them; without any, say which it has."""
    with errors():
        from nbcr.rendering import tags_text
        from nbcr.session import upkeep

        found = upkeep.tag(name, tags or [], remove=remove or [], pin=pin, store=store)
        if as_json:
            print_json({"name": name, "tags": found})
        else:
            typer.echo(f"{name}: {tags_text(found) or 'no tags'}")


@app.command()
def settings(
    hot_entries: Annotated[
        int | None, typer.Option("--hot-entries", metavar="N", min=0, help="Keep the last N ready to be mapped.")
    ] = None,
    hot_bytes: Annotated[str | None, typer.Option("--hot-bytes", metavar="SIZE", help="At most so much.")] = None,
    packing: Annotated[
        str | None, typer.Option("--pack", metavar="background|never", help="When checkpoints are packed.")
    ] = None,
    last: LastOption = 0,
    hourly: HourlyOption = 0,
    daily: DailyOption = 0,
    weekly: WeeklyOption = 0,
    monthly: MonthlyOption = 0,
    tagged: TaggedOption = None,
    max_bytes: BudgetOption = None,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Nothing is pruned by itself (default).")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or change how a store keeps its checkpoints. The rules are applied after each one, to each notebook."""
    with errors():
        from nbcr.rendering import size_from
        from nbcr.session import upkeep

        changes: dict[str, int | str | None] = {}
        if hot_entries is not None:
            changes["hot_entries"] = hot_entries
        if hot_bytes is not None:
            changes["hot_bytes"] = size_from(hot_bytes)
        if packing is not None:
            changes["pack"] = packing
        policy = _policy(last, hourly, daily, weekly, monthly, tagged, max_bytes, each=False)
        keep = policy if policy.says_something or keep_all else None
        found = asdict(upkeep.change_settings(store=store, keep=keep, **changes))
        if as_json:
            print_json(found)
        else:
            nothing = {"keep": "everything", "hot_bytes": "no limit"}
            for key, value in found.items():
                typer.echo(f"{key:12} {value if value or key not in nothing or value == 0 else nothing[key]}")


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
