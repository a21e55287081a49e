"""Snapshots of objects beside cloudpickle, dill and Kishu: the same states, in turns, in one run.

nbcr, cloudpickle and dill save the same names of the same Jupyter kernel. Kishu minds every cell of a session, so it
has one of its own, in an environment of its own (`benchmarks.kishu`), where the same cells run; what it takes is what
the cell takes longer than its code does. Total is until the bytes are on the disk: nbcr's entry is published then, for
the pickles a fsync follows, Kishu leaves it to sqlite.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import disk, host, kishu
from benchmarks.jupyter import CellFailed, JupyterKernel
from benchmarks.states import GIB, MIB, State, array, frame, many_then_one, small_objects, small_variables
from benchmarks.table import Report, Row, Verdict, median

_NAMESPACE = "{k: v for k, v in globals().items() if k[0] != '_' and k not in _hidden}"
_PICKLERS = ("cloudpickle", "dill")
_ABOUT = "_cpu = lambda: sum(sum(resource.getrusage(w)[:2]) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))"
_BLOCKED_S, _BLOCKED_S_PER_GIB = 0.015, 0.010
_SLOWER = 1.2


def columns(*, small: bool) -> tuple[State, ...]:
    """The states, one a column of the table."""
    scale = 16 if small else 1
    return (
        small_variables(200),
        array(GIB // scale, huge=False),
        small_objects(2_000_000 // scale),
        frame(5_000_000 // scale),
        many_then_one(GIB // scale, 5_000_000 // scale),
    )


def measure(state: State, folder: Path, report: Report, repetitions: int, *, with_kishu: bool) -> None:
    """One column. The slow peers run once, ours and cloudpickle in turns."""
    if host.available_memory() < state.memory_bytes or host.free_disk(folder) < 4 * state.needs_bytes + 256 * MIB:
        report.rows.append(Row(_title(state), "not measured", note="too little memory or disk is free here"))
        return
    place = folder / f"objects-{len(report.rows)}"
    place.mkdir()
    with JupyterKernel(place) as session:
        _Column(state, session, place, report, repetitions).run()
    if with_kishu:
        try:
            report.rows.append(_kishu(state, kishu.python(), place))
        except kishu.NotInstalled as error:
            report.rows.append(Row(_title(state), f"Kishu {kishu.VERSION}: not measured", note=str(error)[:100]))


def _title(state: State) -> str:
    return f"objects: {state.name}"


@dataclass
class _Times:
    """What one contestant needed, run by run."""

    blocked: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    bytes: int = 0

    def row(self, state: State, who: str, note: str = "") -> Row:
        samples = {"blocked": self.blocked, "total": self.total, "back": self.back, "cpu": self.cpu}
        return Row(
            _title(state), who, blocked=median(self.blocked), total=median(self.total), bytes=self.bytes,
            back=median(self.back), note=note or _cpu_note(self.cpu), samples=samples,
        )  # fmt: skip


def _cpu_note(samples: list[float]) -> str:
    used = median(samples)
    return "" if used is None else f"processor time {used:.2f} s"


class _Column:
    """One state, and those that save it in the same Jupyter kernel."""

    def __init__(self, state: State, session: JupyterKernel, folder: Path, report: Report, repetitions: int) -> None:
        self.state, self.session, self.folder, self.report = state, session, folder, report
        self.repetitions = repetitions
        self.file = folder / "peer.out"

    def run(self) -> None:
        self.session.run(f"import cloudpickle, dill, os, resource\n_hidden = set(globals())\n{_ABOUT}")
        self.session.run(self.state.build)
        self.session.run("%checkpoint warm --objects")
        self.session.run("_entry = _.wait(); from nbcr.session import remove as _remove; _remove('warm')")
        self.right = self.session.value(self.state.check)
        ours, cloudpickle, dill, nothing = _Times(), _Times(), _Times(), _Times()
        again: _Times | None = _Times() if self.state.change else None
        for turn in range(self.repetitions):
            for first in (True, False):  # whoever is first, it hits both
                if first == bool(turn % 2):
                    self._pickled("cloudpickle", cloudpickle, self.state.change)
                else:
                    self._ours(ours, again)
            nothing.blocked.append(self.session.run("pass"))
        self._pickled("dill", dill, self.state.change)
        self._add_rows(ours, again, cloudpickle, dill)
        empty = Row(_title(self.state), "an empty cell", blocked=median(nothing.blocked), note="is in each of these")
        self.report.rows.append(empty)

    # --- contestants

    def _ours(self, times: _Times, again: _Times | None) -> None:
        times.bytes = self._save("first", times)
        if again is not None:
            self.session.run(self.state.change)
            again.bytes = self._save("second", again, added=True)
        self.session.run(self.state.spoil)
        back = self.session.run("%restart first --objects --discard")
        (again or times).back.append(back)
        self._prove()
        self.session.run("_remove('first')" + ("; _remove('second')" if again is not None else ""))

    def _save(self, name: str, times: _Times, *, added: bool = False) -> int:
        """What was saved, or added, in bytes."""
        self.session.settle()
        disk.settle()
        self.session.run("_used = _cpu()")
        begun = time.perf_counter()
        times.blocked.append(self.session.run(f"%checkpoint {name} --objects\n"))
        self.session.run("_entry = _.wait(); _used = _cpu() - _used")
        times.total.append(time.perf_counter() - begun)
        times.cpu.append(self.session.value("_used"))
        counted = "_entry.objects['added_bytes']" if added else "_entry.size_bytes"
        return int(self.session.value(counted))

    def _pickled(self, name: str, times: _Times, change: str) -> None:
        """With a `change` the second save is what is measured, and going back to the first."""
        path = repr(str(self.file))
        dump = f"with open({path}, 'wb') as _f: {name}.dump({_NAMESPACE}, _f)"
        load = f"with open({path}, 'rb') as _f: globals().update({name}.load(_f))"
        try:
            if change:
                self.session.run(dump)
                self.file.rename(first := self.folder / "first.out")
                self.session.run(change)
            disk.settle()
            self.session.run("_used = _cpu()")
            times.blocked.append(self.session.run(dump))
            synced = self.session.run(f"with open({path}, 'rb') as _f: os.fsync(_f.fileno())\n_used = _cpu() - _used")
            times.total.append(times.blocked[-1] + synced)
            times.cpu.append(self.session.value("_used"))
            times.bytes = self.file.stat().st_size
            if change:
                first.rename(self.file)
            self.session.run(self.state.spoil)
            times.back.append(self.session.run(load))
            self._prove()
        finally:
            self.file.unlink(missing_ok=True)

    def _prove(self) -> None:
        if self.session.value(self.state.check) != self.right:
            raise CellFailed(f"{self.state.name} did not come back as it was")

    # --- what came of it

    def _add_rows(self, ours: _Times, again: _Times | None, cloudpickle: _Times, dill: _Times) -> None:
        rows = [ours.row(self.state, "nbcr %checkpoint --objects, %restart --objects")]
        if again is not None:
            rows.append(again.row(self.state, "nbcr, again after the change; back to before it"))
        for name, times in zip(_PICKLERS, (cloudpickle, dill), strict=True):
            rows.append(times.row(self.state, f"{name}, with fsync"))
        self.report.rows += rows
        self._judge(rows[0], ours, cloudpickle)
        if again is not None:
            self._judge_change(rows[1], again)

    def _judge(self, row: Row, ours: _Times, cloudpickle: _Times) -> None:
        bounds, name = self.report.verdicts, self.state.name
        most = _BLOCKED_S + _BLOCKED_S_PER_GIB * self.state.needs_bytes / GIB
        bounds.append(Verdict(f"objects, user blocked, {name}", most, row.blocked, best=min(ours.blocked)))
        # Neighbours are compared, so that whatever else the host does disturbs both.
        ratios = [a / b for a, b in zip(ours.total, cloudpickle.total, strict=True)]
        bounds.append(
            Verdict(f"objects, total of cloudpickle's, {name}", _SLOWER, median(ratios), "%", best=min(ratios))
        )

    def _judge_change(self, row: Row, again: _Times) -> None:
        bounds, name = self.report.verdicts, self.state.name
        bounds.append(Verdict(f"objects, KiB added, {name}", 64, row.bytes and row.bytes / 1024, "KiB"))
        bounds.append(Verdict(f"objects, second save blocks, {name}", 0.025, row.blocked, best=min(again.blocked)))
        bounds.append(Verdict(f"objects, second save in all, {name}", 0.5, row.total, best=min(again.total)))
        bounds.append(Verdict(f"objects, going back, {name}", 0.3, row.back, best=min(again.back)))


# --- Kishu ----------------------------------------------------------------------------------------------------------


def _kishu(state: State, python: Path, folder: Path) -> Row:
    """Once: most of it takes a minute."""
    row = Row(_title(state), f"Kishu {kishu.VERSION}, after each cell")
    notebook = folder / "session.ipynb"
    notebook.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    # Its test mode leaves out nothing but the notebook's front end, which is not there.
    environ = {"ENV_KISHU_TEST_MODE": "1", "TEST_NOTEBOOK_PATH": str(notebook), "KISHU_PATH_ROOT": str(folder)}
    try:
        with JupyterKernel(folder, python, environ) as session:
            session.run("import os, time")
            session.run(f"from kishu import init_kishu; init_kishu({str(notebook)!r})")
            session.run("warm = 1")
            before = _size(folder)
            row.blocked = _cost(session, state.build)
            row.bytes = _size(folder) - before
            right, there = session.value(state.check), session.value("_kishu._kishu_branch.get_head().commit_id")
            if state.change:
                before = _size(folder)
                row.blocked = _cost(session, state.change)
                row.bytes = _size(folder) - before
                row.note = "what the cell with the change takes"
            row.total = row.blocked
            session.run(state.spoil)
            row.back = session.run(f"_ = _kishu.checkout({there!r}, skip_notebook=True)")
            if session.value(state.check) != right:
                row.note = "did not come back as it was"
    except (CellFailed, TimeoutError) as error:
        row.note = f"{type(error).__name__}: {error}"[:100]
    return row


def _cost(session: JupyterKernel, code: str) -> float:
    """How much longer a cell takes than its code does."""
    took = session.run(f"_begun = time.perf_counter()\n{code}\n_took = time.perf_counter() - _begun")
    return took - float(session.value("_took"))


def _size(folder: Path) -> int:
    return sum(os.stat(path).st_size for path in folder.glob("*.kishudb*"))
