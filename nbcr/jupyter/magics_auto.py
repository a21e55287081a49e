"""%nbcr auto, %undo, %%checkpoint: checkpoints that nobody asks for one by one, and the way back."""

# IPython's decorators carry no types.
# mypy: disable-error-code="no-untyped-call,untyped-decorator"

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments
from traitlets import Bool, Float, Integer, Unicode

from nbcr import session
from nbcr.errors import NameTaken, NbcrError, NotPossible
from nbcr.jupyter.living import living
from nbcr.jupyter.parsing import parsed
from nbcr.jupyter.running import running_in_main
from nbcr.session import CheckpointResult, auto
from nbcr.session.auto import Settings
from nbcr.session.auto_points import Points
from nbcr.session.auto_present import Kept, forget_present, keep_present
from nbcr.session.auto_present import start as start_handover
from nbcr.session.auto_present import stop as stop_handover
from nbcr.session.auto_triggers import OnSignal, Ticker, share_from, span_from, span_text
from nbcr.states import Outcome

if TYPE_CHECKING:
    from nbcr.jupyter.magics import NbcrMagics


@magics_class
class NbcrAuto(Magics):
    """Automatic checkpoints of this Jupyter kernel, and undoing cells."""

    before_restart = Bool(True, help="Keep the present as a checkpoint before %restart or %undo replaces it.").tag(
        config=True
    )
    begin_with = Unicode("", help="Flags of %nbcr auto that are on from the start.").tag(config=True)
    keep_cells = Integer(5, min=1, help="How many points between cells are kept (%nbcr auto --each-cell).").tag(
        config=True
    )
    keep_timed = Integer(3, min=1, help="How many checkpoints taken every so often are kept.").tag(config=True)
    keep_presents = Integer(3, min=1, help="How many presents kept before a restart stay.").tag(config=True)
    keep_alarms = Integer(2, min=1, help="How many checkpoints on a signal or for want of memory are kept.").tag(
        config=True
    )
    share = Float(
        0.05,
        min=0.0,
        max=1.0,
        help="How much of your time points between cells may take.",
    ).tag(config=True)

    def __init__(self, magics: NbcrMagics, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._magics = magics
        self.kept: str | None = None  # id of the entry that holds the present, of which the user is yet to hear
        self._untold: list[str] = []
        self.points = Points(self.settings, later=self._later, idle=self._idle, say=self._say)
        self._ticker = Ticker(self.points, self.settings, self._untold.append)
        self._signal = OnSignal(self.points, self.settings, self._untold.append)

    def settings(self) -> Settings:
        """What automatic checkpoints have to know, as the user has set it now."""
        keep = {"cell": self.keep_cells, "timer": self.keep_timed, "restart": self.keep_presents}
        keep |= {"memory": self.keep_alarms, "signal": self.keep_alarms}
        return Settings(session.Store(self._magics.store or None), self._magics.deadline_s, keep, self.share)

    # Magics

    @magic_arguments()
    @argument("what", nargs="?", choices=["auto"], default="auto", help="auto: checkpoints that nobody asks for.")
    @argument("off", nargs="?", choices=["off"], default=None, help="Switch all of them off.")
    @argument("--each-cell", action="store_true", help="Keep a point after each cell, to which %%undo goes back.")
    @argument("--always", action="store_true", help="With --each-cell: at its very end, whatever it costs.")
    @argument("--no-each-cell", action="store_true", help="Keep no more points.")
    @argument("--every", default=None, metavar="SPAN", help="Take a checkpoint every 10m, 90s, 1h; 'never' ends it.")
    @argument("--on-memory", default=None, metavar="SHARE", help="Take one when so much memory is in use, as 90%%.")
    @argument(
        "--on-signal", default=None, metavar="NAME", help="Take one when a signal comes; TERM then ends the process."
    )
    @argument("--before-restart", action="store_true", help="Keep the present before %%restart replaces it (usual).")
    @argument("--no-before-restart", action="store_true", help="Do not.")
    @line_magic
    def nbcr(self, line: str) -> None:
        """`%nbcr auto` with flags switches automatic checkpoints on and off; it shows what is on, without flags too."""
        args = parsed(self.nbcr, line)
        if args is None:
            return
        _check(args)
        if args.off:
            self._all_off()
        else:
            self._switch(args)
        print(self.status())

    @magic_arguments()
    @argument("cells", nargs="?", type=int, default=1, help="How many; left out: the last one.")
    @argument("--discard", action="store_true", help="Do not keep the present.")
    @line_magic
    def undo(self, line: str) -> CheckpointResult | None:
        """Go back before the last cells: the process is exactly as it was. The notebook stays as it is.

        Needs a point there: `%nbcr auto --each-cell` keeps them. Cells that hold only nbcr's own commands do not count.
        """
        args = parsed(self.undo, line)
        if args is None:
            return None
        point = self.points.point_before(args.cells)
        self.points.entry_of(point)  # if there is none, say so before anything is kept, or told
        back = self.keep(f"%undo {args.cells}", f"%undo {args.cells} --discard", discard=args.discard)
        if back is not None:
            return back
        # Told by the life that ends: the other one may be between two cells, where nobody hears it.
        forward = f"; `%restart {self.kept}` goes forward again" if self.kept else ""
        print(f"the session goes back to what it was {point.where}{forward}", flush=True)
        return self.points.undo(point)

    @magic_arguments()
    @argument("name", help="Name of the checkpoint.")
    @argument("--force", "-f", action="store_true", help="Replace a checkpoint of that name.")
    @argument("--every", default=None, metavar="SPAN", help="Take it also every 10m, 90s, 1h while the cell runs.")
    @cell_magic("checkpoint")  # type: ignore[arg-type]
    def checkpoint_cell(self, line: str, cell: str) -> CheckpointResult | None:
        """Run the cell, and take a checkpoint when it has ended well."""
        magic: Any = self.checkpoint_cell
        args = parsed(magic, line)
        if args is None:
            return None
        store, shell = self._magics.store or None, self.shell
        assert shell is not None
        if not args.force and args.name in [entry.name for entry in session.checkpoints(store)]:
            raise NameTaken(f"a checkpoint named {args.name!r} exists already", hint="--force replaces it")
        every_s = None if args.every is None else span_from(args.every)
        take = functools.partial(session.checkpoint, args.name, store=store, deadline_s=self._magics.deadline_s)
        with (
            _repeated(every_s, functools.partial(take, force=True), self._untold.append) as taken,
            self.points.within(),
        ):
            outcome = shell.run_cell(cell)
        if not outcome.success:
            kept = f"; {args.name!r} is what the last one while it ran holds" if taken else ""
            raise NotPossible(f"the cell failed, so no checkpoint was taken after it{kept}")
        return take(force=args.force or bool(taken), origin="magic")

    # For %restart too

    def keep(self, purpose: str, again: str, *, discard: bool = False) -> CheckpointResult | None:
        """Keep the present, where that is wanted. Returns a result in a life that went back to what was kept."""
        forget_present()
        self.kept = None
        if discard or not self.before_restart:
            return None
        kept: Kept = keep_present(self.points, purpose, self.settings(), again=again)
        if kept.back is not None:
            return kept.back
        self.kept = kept.entry_id
        return None

    # What is on

    def status(self) -> str:
        """What is switched on, one line each."""
        ticker, every = self._ticker, self._ticker.every_s
        lines = [
            f"each cell        {f'yes, the last {self.keep_cells} points are kept' if self.points.on else 'no'}",
            f"every            {'no' if every is None else span_text(every)}",
            f"on memory        {'no' if ticker.memory_share is None else f'{ticker.memory_share:.0%} in use'}",
            f"on signal        {'no' if self._signal.number is None else self._signal.name}",
            f"before restart   {_yes(self.before_restart)}",
        ]
        return "\n".join(lines)

    def _switch(self, args: Any) -> None:
        every_s, share = self._ticker.every_s, self._ticker.memory_share
        if args.every is not None:
            every_s = None if args.every == "never" else span_from(args.every)
        if args.on_memory is not None:
            share = share_from(args.on_memory)
        if args.on_signal is not None:
            self._signal.set(args.on_signal)
        if (every_s, share) != (self._ticker.every_s, self._ticker.memory_share):
            self._ticker.set(every_s=every_s, memory_share=share)
        if args.each_cell or args.no_each_cell:
            self.points.switch(not args.no_each_cell, always=args.always)
        if args.before_restart or args.no_before_restart:
            self.before_restart = not args.no_before_restart

    def _all_off(self) -> None:
        self.end()
        self.before_restart = False

    def begin(self) -> None:
        """Switch on what the settings say."""
        if self.begin_with.strip():
            magic: Any = self.nbcr
            self._switch(parsed(magic, f"auto {self.begin_with}"))

    def end(self) -> None:
        """No more automatic checkpoints, but for those before a restart."""
        self.points.switch(False)
        self._ticker.set(every_s=None, memory_share=None)
        self._signal.set(None)

    # Events of the shell

    def begins(self, info: Any) -> None:
        """Before each cell."""
        self._tell(auto.news)  # not after one: that which ran in the image ends too, and nobody looks at it any more
        self.points.begins(info.raw_cell or "")

    def ended(self, result: Any) -> None:
        """After each cell."""
        self._tell(self._untold)
        came_back = self.points.ended(None if result is None else result.execution_count)
        if came_back and result is not None:  # what is answered now is the cell that went back; that one has not failed
            result.error_before_exec = result.error_in_exec = None

    def _tell(self, untold: list[str]) -> None:
        texts = untold[:]
        del untold[: len(texts)]
        for text in texts:
            self._say(text)

    def _say(self, text: str) -> None:
        print(f"nbcr: {text}", file=sys.stderr, flush=True)

    def _later(self, after_s: float, call: Callable[[], None]) -> None:
        kernel = getattr(self.shell, "kernel", None)
        if kernel is not None:  # a terminal has no idle time of ours
            loop = kernel.io_loop
            loop.add_callback(lambda: loop.call_later(after_s, call))

    def _idle(self) -> bool:
        here = living()
        return here is not None and running_in_main(here) is None


@contextlib.contextmanager
def _repeated(
    every_s: float | None, take: Callable[[], CheckpointResult], fail: Callable[[str], None]
) -> Iterator[list[str]]:
    """While the block runs, a thread takes a checkpoint every so often. Gives the ids of those taken."""
    taken: list[str] = []
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(every_s):
            try:
                result = take()
                if result.outcome is Outcome.CONTINUE:
                    result.wait()
                taken.append(result.id)
            except (NbcrError, OSError) as error:
                fail(f"a checkpoint while the cell ran was not taken: {error}")

    if every_s is None:
        yield taken
        return
    thread = threading.Thread(target=run, name="nbcr-auto-cell", daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        ended.set()
        thread.join()


def _check(args: Any) -> None:
    """Raise UsageError where one flag would undo, or have no use for, another."""
    flags = {
        "--each-cell": args.each_cell,
        "--always": args.always,
        "--no-each-cell": args.no_each_cell,
        "--every": args.every is not None,
        "--on-memory": args.on_memory is not None,
        "--on-signal": args.on_signal is not None,
        "--before-restart": args.before_restart,
        "--no-before-restart": args.no_before_restart,
    }
    given = [flag for flag, is_there in flags.items() if is_there]
    if args.off and given:
        raise UsageError(f"off ends all of them: leave out {' '.join(given)}, or off")
    for flag in ("--each-cell", "--before-restart"):
        if {flag, f"--no-{flag[2:]}"} <= set(given):
            raise UsageError(f"{flag} and --no-{flag[2:]} contradict each other")
    if args.always and not args.each_cell:
        raise UsageError("--always goes with --each-cell")


def _yes(on: bool) -> str:
    return "yes" if on else "no"


def load(ip: Any, magics: NbcrMagics) -> NbcrAuto:
    """Give `ip` these magics and their settings; what `unload` takes away again."""
    loaded = NbcrAuto(magics, shell=ip, parent=ip)
    ip.register_magics(loaded)
    loaded.begin()
    ip.configurables.append(loaded)
    start_handover()
    ip.events.register("pre_run_cell", loaded.begins)
    ip.events.register("post_run_cell", loaded.ended)
    return loaded


def unload(ip: Any, loaded: NbcrAuto) -> None:
    """Take away what `load` brought."""
    loaded.end()
    stop_handover()
    ip.events.unregister("pre_run_cell", loaded.begins)
    ip.events.unregister("post_run_cell", loaded.ended)
    ip.configurables[:] = [c for c in ip.configurables if c is not loaded]
    for name in ("nbcr", "undo"):
        ip.magics_manager.magics["line"].pop(name, None)
    ip.magics_manager.magics["cell"].pop("checkpoint", None)
    ip.magics_manager.registry.pop(NbcrAuto.__name__, None)
