"""Many writers, collectors and pruners in one store at once: nothing that should be there is lost."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbcr.session import upkeep
from nbcr.store import Store, collecting, retention, settings, verifying
from nbcr.store.retention import Policy
from nbcr.store.settings import Settings
from tests.integration.store.programs import cli, environ, wait_until
from tests.support import CHECKOUT, ProcessTracker

PROCESSES = 4
LONG = (pytest.mark.long, pytest.mark.timeout(1800))

# Takes, packs, drops, reads again, prunes its own, collects: each without asking anybody. All share some contents.
WRITER = """
import random, sys
from nbcr.store import Store, collecting, housekeeping, opening, packing, retention
from nbcr.store.retention import Policy
from tests.unit.nbcr.store.making import Memory, contents, layout, put

who, rounds, store = int(sys.argv[1]), int(sys.argv[2]), Store(sys.argv[3])
real = packing.PackWriter
packing.PackWriter = lambda packs, index, writer: real(packs, index, writer, pack_bytes=300_000)
memory = Memory(random.Random(7), 300)  # the same in all, at first
chance = random.Random(who)
memory._rng = chance
kept = {}
for number in range(rounds):
    memory.touch(0.05)
    name = f"w{who}-{number}"
    kept[name] = memory.files()
    entry = put(store, name, kept[name], pid=who, parent=None)
    housekeeping.pack_entry(store, entry, layout=layout)
    opening.cool(entry, "image")
    if number % 3 == who % 3:
        collecting.collect(store, grace_s=0)
    if number % 4 == who % 4:
        retention.prune(store, Policy(last=2, each_notebook=True))
    name = chance.choice(list(kept)[-2:])
    with opening.opened(store.find(name)) as folder:
        assert {f"image/{path}": data for path, data in contents(folder).items()} == kept[name], name
    opening.cool(store.find(name), "image")
print("done", *list(kept)[-2:])
"""

# Checkpoints itself for good, as notebooks do; what packs is started by that, and runs in the background.
SESSION = """
import hashlib, os, random, sys
import nbcr
who, rounds = int(sys.argv[1]), int(sys.argv[2])
chance = random.Random(who)
memory = bytearray(chance.randbytes(1 << 20))
for number in range(rounds):
    memory[chance.randrange(len(memory))] ^= 1
    digest = hashlib.sha256(memory).digest()
    result = nbcr.checkpoint(f"s{who}-{number}", wait=True)
    if result.outcome is nbcr.Outcome.RESTART:
        os._exit(77 if hashlib.sha256(memory).digest() == digest else 1)
print("done", *(f"s{who}-{number}" for number in range(max(0, rounds - 2), rounds)))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "store")
    found.log_folder()
    settings.write(found.root, Settings(hot_entries=0))
    return found


def started(program: str, store: Store, rounds: int, **extra: str) -> list[subprocess.Popen[str]]:
    words = [sys.executable, "-c", program]
    return [
        subprocess.Popen(
            [*words, str(who), str(rounds), str(store.root)],
            cwd=CHECKOUT, env=environ(store, extra), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for who in range(PROCESSES)
    ]  # fmt: skip


def meanwhile(store: Store, programs: list[subprocess.Popen[str]], chance: random.Random) -> Iterator[None]:
    """Collect, prune and prove until all have ended; should we fail, they are ended."""
    with contextlib.ExitStack() as stack:
        for program in programs:
            stack.enter_context(program)
            stack.callback(program.kill)
        yield from _tidying(store, programs, chance)
        stack.pop_all()


def _tidying(store: Store, programs: list[subprocess.Popen[str]], chance: random.Random) -> Iterator[None]:
    while any(program.poll() is None for program in programs):
        collecting.collect(store, grace_s=0)
        retention.prune(store, Policy(last=2, each_notebook=True))
        entries = store.entries()
        for entry in chance.sample(entries, min(1, len(entries))):
            proof = verifying.verify(store, entry)
            assert proof.whole or not entry.path.exists(), proof.problems  # what was pruned meanwhile proves nothing
        yield


def names_of(programs: list[subprocess.Popen[str]]) -> list[str]:
    """What must be there, as they said when they were through."""
    found = []
    for program in programs:
        out, err = program.communicate()
        assert program.returncode == 0, err[-3000:]
        word, *names = out.split()
        assert word == "done"
        found += names
    return found


@pytest.mark.parametrize("rounds", [6, pytest.param(125, marks=LONG)])
def test_four_write_pack_prune_and_collect(
    store: Store, processes: ProcessTracker, rng: random.Random, rounds: int
) -> None:
    programs = started(WRITER, store, rounds)
    for _ in meanwhile(store, programs, rng):
        pass
    names = names_of(programs)
    assert set(names) <= {entry.name for entry in store.entries()}
    assert upkeep.verify(store=store).whole
    retention.prune(store, Policy(last=1))
    for _ in range(3):
        collected = collecting.collect(store, grace_s=0)
    assert (collected.condemned, collected.waits_for) == (0, [])
    assert upkeep.verify(store=store).whole


@pytest.mark.parametrize("rounds", [4, pytest.param(125, marks=LONG)])
def test_four_sessions_take_checkpoints_while_others_tidy_up(
    store: Store, processes: ProcessTracker, rng: random.Random, rounds: int
) -> None:
    programs = started(SESSION, store, rounds)
    for _ in meanwhile(store, programs, rng):
        pass
    names = names_of(programs)
    assert set(names) <= {entry.name for entry in store.entries()}
    wait_until(lambda: not list((store.root / "entries").glob("*/image")), "packing")
    assert upkeep.verify(store=store).whole
    cli(store, "restart", rng.choice(names), status=77)
