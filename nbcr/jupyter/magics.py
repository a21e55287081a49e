"""%checkpoint, %restart, %checkpoints: they parse, call the session layer, and return what it returns."""

# IPython's decorators carry no types.
# mypy: disable-error-code="no-untyped-call,untyped-decorator"

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.display_functions import DisplayHandle, display
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments
from traitlets import Float, Unicode

from nbcr import session
from nbcr.errors import HandlersFailed, NbcrError
from nbcr.jupyter import magics_auto
from nbcr.jupyter.parsing import parsed, seconds
from nbcr.rendering import size_from
from nbcr.session import CheckpointResult, EntryList, LoadResult

_NAMED = ("checkpoint", "restart")  # magics whose argument is the name of a checkpoint


@magics_class
class NbcrMagics(Magics):
    """Checkpoint and restart this Jupyter kernel."""

    store = Unicode("", help="Folder of the store; empty: NBCR_STORE, or the platform's user data folder.").tag(
        config=True
    )
    auto: magics_auto.NbcrAuto  # given by `load`
    deadline_s = Float(
        session.DEFAULT_DEADLINE_S,
        help="How long, in seconds, to wait for handlers, critical sections and a checkpoint already under way.",
    ).tag(config=True)

    @magic_arguments()
    @argument("name", nargs="?", default=None, help="Name of the checkpoint; left out: its id.")
    @argument("--force", "-f", action="store_true", help="Replace a checkpoint of that name.")
    @argument("--wait", "-w", action="store_true", help="Wait until it is written to the disk.")
    @argument("--note", "-n", nargs="+", default=[], help="Words to keep with it.")
    @argument("--files", default="keep", help="What a restart does about files being written: keep, rewind or save.")
    @argument("--deadline", "-d", type=seconds, default=None, help="Seconds to wait for handlers and sections.")
    @argument("--image", action="store_true", help="The process image only, without the variables beside it.")
    @argument("--objects", action="store_true", help="The variables only, without a process image.")
    @argument("--history", action="store_true", help="Save In and Out with the variables.")
    @argument("--max-size", default=None, metavar="SIZE", help="Leave out variables larger than this, as 100M.")
    @argument("--max-total", default=None, metavar="SIZE", help="Save no more than this in all, small ones first.")
    @argument("--diff", nargs=2, default=None, metavar=("A", "B"), help="Only tell how the variables of two differ.")
    @argument("--panel", action="store_true", help="Only show the panel, to take, look at and go back to checkpoints.")
    @line_magic
    def checkpoint(self, line: str) -> Any:
        """Checkpoint this Jupyter kernel: the whole process, its threads and children; and its variables.

        The cell goes on after a pause of milliseconds; the checkpoint is written meanwhile. After a
        `%restart`, this cell returns once more, with the outcome RESTART.
        """
        args = parsed(self.checkpoint, line)
        if args is None:
            return None
        if args.panel:
            from nbcr.panels import panel

            return panel(store=self.store or None)
        if args.diff is not None:
            return session.diff(*args.diff, store=self.store or None)
        try:
            result = session.checkpoint(
                args.name,
                store=self.store or None,
                force=args.force,
                note=" ".join(args.note),
                files=args.files,
                wait=args.wait,
                deadline_s=self.deadline_s if args.deadline is None else args.deadline,
                origin="magic",
                on_wait=_tell_waiting,
                image=args.image,
                objects=args.objects,
                history=args.history,
                max_size_bytes=None if args.max_size is None else size_from(args.max_size),
                max_total_bytes=None if args.max_total is None else size_from(args.max_total),
            )
        except HandlersFailed as failures:  # the checkpoint is there, and so is what was to be shown of it
            result = failures.result
        if not args.objects:
            self.auto.points.noted(result)
        return result

    @magic_arguments()
    @argument("name", help="Name or id of the checkpoint.")
    @argument("--objects", action="store_true", help="Roll back the variables only; the process stays as it is.")
    @argument("--discard", action="store_true", help="Do not keep the present.")
    @line_magic
    def restart(self, line: str) -> LoadResult | CheckpointResult | None:
        """Go back to a checkpoint: this process becomes what it was then. The present is kept as a checkpoint first.

        Works in a fresh Jupyter kernel too, which then becomes the checkpointed one. Where the checkpoint has no
        process image, or this host cannot run it, the variables are loaded, as with --objects.
        """
        args = parsed(self.restart, line)
        if args is None:
            return None
        session.find(args.name, store=self.store or None)  # if there is none, say so before anything is kept
        again = f"%restart {_quoted(args.name)}{' --objects' * args.objects} --discard"
        back = self.auto.keep(f"%restart {args.name}", again, discard=args.discard)
        if back is not None:
            return back
        if args.objects and self.auto.kept:
            print(f"the present is kept: `%restart {self.auto.kept}` goes forward again", flush=True)
        return session.restart(args.name, store=self.store or None, objects=args.objects, deadline_s=self.deadline_s)

    @magic_arguments()
    @line_magic
    def checkpoints(self, line: str) -> EntryList | None:
        """List all checkpoints of the store, oldest first."""
        args = parsed(self.checkpoints, line)
        if args is None:
            return None
        return session.checkpoints(self.store or None)

    @context_matcher(identifier="nbcr.names")
    def names(self, context: CompletionContext) -> SimpleMatcherResult:
        """Completions: the store's names after %restart and %checkpoint, and nothing else there."""
        words = context.line_with_cursor[: context.cursor_position].split()
        magic = words[0].lstrip("%") if words else ""
        if not words or not words[0].startswith("%") or magic not in _NAMED or words[0] == context.token:
            return SimpleMatcherResult(completions=[], suppress=False)
        if context.token.startswith("-"):
            return SimpleMatcherResult(completions=[], suppress=False)
        try:
            entries = session.checkpoints(self.store or None)
        except NbcrError:
            entries = EntryList()
        fitting = dict.fromkeys(e.name for e in entries if e.name.startswith(context.token))
        found = [SimpleCompletion(text=_quoted(name), type="checkpoint") for name in fitting]
        return SimpleMatcherResult(completions=found, suppress=True)

    def tell(self, *_: Any) -> None:
        """After each cell: what went wrong in the background since the one before."""
        for result in session.reports():
            for line in result.shortfalls:
                print(f"nbcr: {line}", file=sys.stderr)
            if getattr(self.shell, "kernel", None) is None:  # a notebook shows them in the result's own place
                for line in result.names_late:
                    print(f"nbcr: checkpoint {result.name!r}: {line}", file=sys.stderr)


def _tell_waiting(holders: Sequence[object]) -> None:
    print(f"nbcr: waiting for {'; '.join(str(holder) for holder in holders)}", file=sys.stderr, flush=True)


def _show(result: CheckpointResult) -> None:
    """Show a checkpoint in a notebook, and again in the same place when it has been written."""
    handle = display(result._repr_mimebundle_(), raw=True, display_id=True)
    if handle is not None and not result.done:
        result.follow(lambda writing: _show_again(handle, writing))
        result.when_done(lambda written: _show_again(handle, written))


def _show_again(handle: DisplayHandle, result: CheckpointResult) -> None:
    with contextlib.suppress(Exception):  # the checkpoint is written, whatever becomes of its line on the screen
        handle.update(result._repr_mimebundle_(), raw=True)


def _quoted(name: str) -> str:
    return shlex.quote(name)


def load(ip: Any) -> NbcrMagics:
    """Give `ip` the magics, their completions and settings; what `unload` takes away again."""
    magics = NbcrMagics(shell=ip, parent=ip)
    ip.register_magics(magics)
    ip.configurables.append(magics)
    ip.Completer.custom_matchers.append(magics.names)
    ip.events.register("post_run_cell", magics.tell)
    magics.auto = magics_auto.load(ip, magics)  # last: after a cell, its point holds that all others were told
    if getattr(ip, "kernel", None) is not None:  # a terminal cannot change what it has shown
        ip.display_formatter.ipython_display_formatter.for_type(CheckpointResult, _show)
    return magics


def unload(ip: Any, magics: NbcrMagics) -> None:
    """Take away what `load` brought."""
    magics_auto.unload(ip, magics.auto)
    ip.events.unregister("post_run_cell", magics.tell)
    ip.display_formatter.ipython_display_formatter.type_printers.pop(CheckpointResult, None)
    ip.Completer.custom_matchers[:] = [m for m in ip.Completer.custom_matchers if m != magics.names]
    ip.configurables[:] = [c for c in ip.configurables if c is not magics]
    for name in ("checkpoint", "restart", "checkpoints"):
        ip.magics_manager.magics["line"].pop(name, None)
    ip.magics_manager.registry.pop(NbcrMagics.__name__, None)
