"""%checkpoint and %restart of a real Jupyter kernel, beside dd, cloudpickle and dill on the same state."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import disk, host
from benchmarks.jupyter import CellFailed, JupyterKernel
from benchmarks.states import State
from benchmarks.table import Report, Row, Verdict, median

_NAMESPACE = "{k: v for k, v in globals().items() if k[0] != '_' and k not in _hidden}"
_PEERS = {
    "cloudpickle": (
        f"import cloudpickle\nwith open(_path, 'wb') as _f: cloudpickle.dump({_NAMESPACE}, _f)",
        "with open(_path, 'rb') as _f: globals().update(cloudpickle.load(_f))",
    ),
    "dill": (
        f"import dill\nwith open(_path, 'wb') as _f: dill.dump({_NAMESPACE}, _f)",
        "with open(_path, 'rb') as _f: globals().update(dill.load(_f))",
    ),
}
_SYNC = "with open(_path, 'rb') as _f: os.fsync(_f.fileno())"


def measure(state: State, folder: Path, report: Report, repetitions: int) -> None:
    """All rows of one state; what cannot be measured here is said instead."""
    wanted = 3 * state.needs_bytes + (256 << 20)
    if host.available_memory() < state.memory_bytes or host.free_disk(folder) < wanted:
        report.rows.append(Row(state.name, "not measured", note="too little memory or disk is free here"))
        return
    folder = folder / "".join(letter if letter.isalnum() else "-" for letter in state.name)
    folder.mkdir()
    with JupyterKernel(folder) as session:
        session.run(f"import os\n_hidden = set(globals())\n_path = {str(folder / 'peer.out')!r}")
        session.run(state.build)
        _Measurement(state, session, folder, report, state.repetitions or repetitions).run()


class _Measurement:
    def __init__(self, state: State, session: JupyterKernel, folder: Path, report: Report, repetitions: int) -> None:
        self.state, self.session, self.folder, self.report = state, session, folder, report
        self.repetitions = repetitions
        self.last = ""  # the checkpoint that is there
        self.right = session.value(state.check)

    def run(self) -> None:
        """Everything, in the order that disturbs the least: peers last, they leave their traces in memory."""
        ours = Row(self.state.name, "nbcr %checkpoint --image, %restart in place")
        disks = self._checkpoints_beside_dd(ours)
        self._restarts(ours)
        self.report.rows.append(ours)
        both = Row(self.state.name, "nbcr %checkpoint: image and objects")
        alone = Row(self.state.name, "nbcr %checkpoint --objects, %restart --objects")
        self._with_objects(both, alone)
        self.report.rows += [both, alone, self._fresh()]
        self.report.rows += disks
        for name in _PEERS:
            self.report.rows.append(self._peer(name))
        self._judge(ours, both, disks)

    # --- there

    def _checkpoints_beside_dd(self, ours: Row) -> list[Row]:
        """Checkpoint, dd, dd, checkpoint, …: whatever the disk goes through, and whoever is first, it hits both."""
        zeros = Row(self.state.name, "dd /dev/zero, fsync")
        copies = Row(self.state.name, "dd of the image's pages, fsync")
        cached = Row(self.state.name, "dd of the image's pages, no fsync")
        for row in (ours, zeros, copies, cached):
            row.samples = {"total": []}
        ours.samples |= {"pause": [], "blocked": [], "writing": []}
        image = self._checkpoint("bench-0", ours)
        for turn in range(self.repetitions):
            if turn % 2:
                image = self._next(turn, ours)
            pages = max(image.iterdir(), key=lambda path: path.stat().st_size)
            size = sum(path.stat().st_size for path in image.iterdir())
            ours.bytes, zeros.bytes = size, size
            copies.bytes = cached.bytes = pages.stat().st_size
            copies.samples["total"].append(disk.copy(self.folder, pages, sync=True))
            if turn and not turn % 2:
                image = self._next(turn, ours)
            zeros.samples["total"].append(disk.zeros(self.folder, size, sync=True))
            cached.samples["total"].append(disk.copy(self.folder, image / pages.name, sync=False))
        for row in (ours, zeros, copies, cached):
            for column, values in row.samples.items():
                if column != "writing":
                    setattr(row, column, median(values))
        return [zeros, copies, cached]

    def _next(self, turn: int, row: Row) -> Path:
        image = self._checkpoint(f"bench-{turn}", row)
        self.session.run(f"from nbcr.session import remove; remove('bench-{turn - 1}')")
        return image

    def _checkpoint(self, name: str, row: Row) -> Path:
        disk.settle()
        self.last = name
        begun = time.perf_counter()
        blocked = self.session.run(f"%checkpoint {name} --image\n")
        self.session.run("_entry = _.wait()")
        row.samples["total"].append(time.perf_counter() - begun)
        row.samples["blocked"].append(blocked)
        pause_ms, duration_ms, image = self.session.value("(_entry.pause_ms, _entry.duration_ms, str(_entry.image))")
        row.samples["pause"].append(pause_ms / 1e3)
        row.samples["writing"].append((duration_ms - pause_ms) / 1e3)
        return Path(image)

    def _with_objects(self, both: Row, alone: Row) -> None:
        """The objects beside an image, and alone. From the second on, what is unchanged is linked: the note tells."""
        both.samples = {"blocked": [], "total": []}
        alone.samples = {"blocked": [], "total": [], "back": []}
        for _ in range(self.repetitions):
            for row, flags in ((alone, "--objects"), (both, "")):
                disk.settle()
                begun = time.perf_counter()
                row.samples["blocked"].append(self.session.run(f"%checkpoint objects {flags} --force\n"))
                self.session.run("_entry = _.wait()")
                row.samples["total"].append(time.perf_counter() - begun)
                row.bytes = row.bytes or self.session.value("_entry.size_bytes")
            self.session.run(self.state.spoil)
            alone.samples["back"].append(self.session.run("%restart objects --objects --discard"))
            self._prove()
        for row in (both, alone):
            row.note = f"the first in {row.samples['total'][0]:.2f} s"
            for column, values in row.samples.items():
                setattr(row, column, median(values))
        self.session.run("from nbcr.session import remove; remove('objects')")

    # --- and back

    def _restarts(self, row: Row) -> None:
        row.samples["back"] = []
        for _ in range(self.repetitions):
            self.session.run(self.state.spoil)
            begun = time.perf_counter()
            self.session.run(f"%restart {self.last} --discard")
            self.session.value("1")
            row.samples["back"].append(time.perf_counter() - begun)
            self._prove()
        row.back = median(row.samples["back"])

    def _fresh(self) -> Row:
        row = Row(self.state.name, "nbcr restart --detach, after SIGKILL")
        self.session.kill()
        row.back = self.session.bring_back(self.last)
        self._prove()
        return row

    def _prove(self) -> None:
        if self.session.value(self.state.check) != self.right:
            raise CellFailed(f"{self.state.name} did not come back as it was")

    # --- the others

    def _peer(self, name: str) -> Row:
        """A peer saving the same names in the same Jupyter kernel, once: blocked without, total with fsync."""
        dump, load = _PEERS[name]
        row = Row(self.state.name, name)
        target = self.folder / "peer.out"
        disk.settle()
        try:
            self.session.run(f"import {name}")
            row.blocked = self.session.run(dump)
            row.total = row.blocked + self.session.run(_SYNC)
            row.bytes = target.stat().st_size
            self.session.run(self.state.spoil)
            row.back = self.session.run(load)
            self._prove()
        except CellFailed as error:
            row.note = str(error)[:100]
        target.unlink(missing_ok=True)
        return row

    # --- verdicts

    def _judge(self, ours: Row, both: Row, disks: list[Row]) -> None:
        name, bounds = self.state.name, self.report.verdicts
        pause_bound = {"4k": 0.040, "huge": 0.010, "4gib": 0.120}.get(self.state.gib_bound)
        if pause_bound is None:
            return
        bounds.append(Verdict(f"pause, {name}", pause_bound, ours.pause, best=min(ours.samples["pause"])))
        _, copies, _ = disks
        writing = median(ours.samples["writing"])
        assert writing is not None
        assert copies.total is not None
        assert ours.blocked is not None
        speed = (ours.bytes or 0) / writing / ((copies.bytes or 0) / copies.total)
        bounds.append(Verdict(f"image written, of what dd reaches, {name}", 0.8, speed, "%", at_least=True))
        bounds.append(Verdict(f"user blocked, of what dd takes, {name}", 0.1, ours.blocked / copies.total, "%"))
        if both.blocked is not None:
            bounds.append(Verdict(f"the same with objects, {name}", 0.1, both.blocked / copies.total, "%"))
        if self.state.gib_bound != "4gib":
            best = min(ours.samples["back"])
            bounds.append(Verdict(f"%restart in place until it answers, {name}", 0.5, ours.back, best=best))
