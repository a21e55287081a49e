"""`make bench`: measure, print one table, and say which of the bounds in the docs were reached.

A bound that is not reached fails nothing: hosts differ and are noisy. Numbers are medians over repetitions in which
the contestants alternate.
"""

from __future__ import annotations

import argparse
import compileall
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import commands, handlers, host, mpi, peers, sessions, trees, undo
from benchmarks.commands import CommandFailed
from benchmarks.jupyter import CellFailed
from benchmarks.states import GIB, MIB, array, small_objects
from benchmarks.table import Report

PARTS = ("commands", "trees", "handlers", "mpi", "undo", "sessions", "peers")


def main() -> int:
    """Run what was asked for; 1 when something could not be measured because it failed."""
    args = _parser().parse_args()
    for package in ("nbcr", "kernel_backend"):  # as an installed one is; some hosts forbid Python to do it by the way
        compileall.compile_dir(Path(__file__).parents[1] / package, quiet=1)
    begun = time.monotonic()
    base = args.folder or Path(tempfile.gettempdir())
    base.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="nbcr-bench-", dir=base))
    report = Report(host.facts(folder))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("benchmarks: terminated"))  # and so cleans up behind itself
    try:
        for work in _plan(args, folder, report):
            if time.monotonic() - begun > args.budget:
                report.remarks.append(f"{args.budget:g} s were over: the rest was not measured (--budget)")
                break
            try:
                work()
            except (CellFailed, CommandFailed, TimeoutError) as error:
                report.failures.append(str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.facts["run took"] = f"{time.monotonic() - begun:.0f} s"
    print(report.text())
    if args.json:
        args.json.write_text(json.dumps(report.document(), indent=2) + "\n")
    return 1 if report.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small states, few repetitions: a minute at most")
    parser.add_argument("--budget", type=float, default=600, metavar="S", help="begin no state later than this")
    parser.add_argument("--only", choices=PARTS, help="one part of the run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there as well")
    parser.add_argument(
        "--folder", type=Path, help="where images and dd's files go: the disk that is measured (default: %(default)s)"
    )
    return parser


def _plan(args: argparse.Namespace, folder: Path, report: Report) -> list[Callable[[], None]]:
    plan: list[Callable[[], None]] = []
    if args.only in (None, "commands"):
        plan.append(partial(commands.measure, folder, report, repetitions=5 if args.quick else 15))
    if args.only in (None, "trees"):
        plan.append(partial(trees.measure, folder, report, repetitions=1 if args.quick else 5, small=args.quick))
    if args.only in (None, "handlers"):
        plan.append(partial(handlers.measure, folder, report, repetitions=1 if args.quick else 7))
    if args.only in (None, "mpi"):
        plan.append(partial(mpi.measure, folder, report, repetitions=1 if args.quick else 7))
    if args.only in (None, "undo"):
        plan.append(partial(undo.measure, folder, report, repetitions=1 if args.quick else 3, large=not args.quick))
    if args.only in (None, "sessions"):
        if args.quick:
            states = [array(64 * MIB, huge=False), small_objects(20_000)]
            repetitions = 1
        else:
            states = [array(GIB, huge=False), array(GIB, huge=True), small_objects(2_000_000)]
            states.append(array(4 * GIB, huge=False, repetitions=1))
            repetitions = 3
        for state in states:
            plan.append(partial(sessions.measure, state, folder, report, repetitions))
    if args.only in (None, "peers"):
        repetitions = 1 if args.quick else 5
        for state in peers.columns(small=args.quick):
            plan.append(partial(peers.measure, state, folder, report, repetitions, with_kishu=not args.quick))
    return plan


if __name__ == "__main__":
    sys.exit(main())
