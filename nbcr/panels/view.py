"""The panel's widgets. Each has a role, and an id by which frontends know it: so it can be made again with that id."""

from __future__ import annotations

import contextlib
import html
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import comm
import ipywidgets as w
from IPython.core.getipython import get_ipython

from nbcr import session
from nbcr.errors import NbcrError, NotPossible, UsageProblem
from nbcr.panels import model
from nbcr.session import Entry, Store, upkeep

THREAD_NAME = "nbcr-panel"
LOOK_S = 0.7  # two panels on one store agree after at most twice as long
_LEAST_ROWS, _MOST_ROWS = 4, 12
_ALL = ""
W = TypeVar("W", bound=w.Widget)


class Panel:
    """One panel. `ids` of an earlier life's: frontends go on with that one's views."""

    def __init__(self, store: str | None, ids: Mapping[str, str] | None = None) -> None:
        self._store_root = store
        self._known = dict(ids or {})
        self.ids: dict[str, str] = {}
        self._made: list[w.Widget] = []
        self._entries: list[Entry] = []
        self._seen: Any = None
        self._shown_position: str | None = None
        self._offering = False
        self._if_sure: Callable[[], None] = self._keep
        self._lock = threading.RLock()
        self._build()

    @property
    def store(self) -> Store:
        """The store that is shown."""
        return Store(self._store_root)

    def document(self) -> dict[str, Any]:
        """What another life needs to make this panel again."""
        return {"store": self._store_root, "ids": self.ids}

    # Widgets

    def _make(self, role: str, kind: type[W], **values: Any) -> W:
        if role in self._known:
            values["comm"] = _adopted(self._known[role])
        made: W = kind(**values)
        made._nbcr = True
        self.ids[role] = made.model_id
        self._made.append(made)
        return made

    def _build(self) -> None:
        wide = w.Layout(width="100%")
        self._head = self._make("head", w.HTML)
        self._filter = self._make(
            "filter", w.Dropdown, options=[("all notebooks", _ALL)], description="Notebook", tooltip="Whose checkpoints"
        )
        self._tree = self._make(
            "tree",
            w.Select,
            description="Checkpoints",
            tooltip="▶ is where this session is",
            layout=wide,
            rows=_LEAST_ROWS,
        )
        self._details = self._make("details", w.HTML)
        self._name = self._make(
            "name", w.Text, description="Name", placeholder="of the next checkpoint", tooltip="Empty: its id",
            continuous_update=False,
        )  # fmt: skip
        self._progress = self._make("progress", w.FloatProgress, max=1.0, description="Writing", layout=_hidden())
        self._disk = self._make(
            "disk", w.FloatProgress, max=1.0, description="Disk", tooltip="Of the budget, or the disk"
        )
        self._disk_text = self._make("disk_text", w.HTML)
        self._tag = self._make(
            "tag", w.Text, description="Tag", placeholder="a word", tooltip="For the selected checkpoint",
            continuous_update=False,
        )  # fmt: skip
        self._pin = self._make(
            "pin",
            w.Checkbox,
            description="pinned",
            tooltip="This tag keeps it from pruning",
            indent=False,
            layout=w.Layout(width="auto"),
        )
        self._last = self._make(
            "last", w.BoundedIntText, value=10, min=1, max=1_000_000, description="Keep last",
            tooltip="Of each notebook; only where neither the store nor your settings have rules",
        )  # fmt: skip
        self._message = self._make("message", w.HTML)
        self._question = self._make("question", w.HTML)
        buttons = {
            "take": ("Checkpoint", "Take a checkpoint of this session now", "primary", self._take),
            "restart": ("Restart here", "This session becomes the selected checkpoint", "warning", self._restart),
            "branch": (
                "Open beside…",
                "The selected checkpoint in a new Jupyter kernel, with a copy of this notebook; this session goes on",
                "",
                self._branch,
            ),
            "delete": ("Delete…", "Delete the selected checkpoint; asks first", "", self._ask),
            "add_tag": ("Add tag", "Give the selected checkpoint this tag", "", self._add_tag),
            "remove_tag": ("Remove tag", "Take this tag from the selected checkpoint", "", self._remove_tag),
            "prune": ("Prune…", "Remove the checkpoints that no rule keeps; asks first", "", self._ask_prune),
            "yes": ("Delete it", "Do it, for good", "danger", lambda: self._if_sure()),
            "no": ("Keep it", "Remove nothing", "", self._keep),
        }
        made = {role: self._button(role, *facts) for role, facts in buttons.items()}
        self._yes, self._no = made["yes"], made["no"]
        self._sure = self._make("sure", w.HBox, children=[self._question, made["yes"], made["no"]], layout=_hidden())
        first = self._make("first", w.HBox, children=[self._name, made["take"], self._progress])
        second = self._make("second", w.HBox, children=[made["restart"], made["branch"], made["delete"]])
        tagging = [self._tag, self._pin, made["add_tag"], made["remove_tag"]]
        third = self._make("third", w.HBox, children=tagging)
        fourth = self._make("fourth", w.HBox, children=[self._disk, self._disk_text])
        fifth = self._make("fifth", w.HBox, children=[self._last, made["prune"]])
        rows = [self._head, self._filter, self._tree, first, second, self._sure, self._message, self._details]
        rows += [third, fifth, fourth]
        self.root = self._make("root", w.VBox, children=rows, layout=wide)
        self._tree.observe(lambda change: self._chose(self._show_details), names="value")
        self._filter.observe(lambda change: self._chose(self.refresh), names="value")

    def _button(self, role: str, text: str, tooltip: str, style: str, act: Callable[[], None]) -> w.Button:
        made = self._make(role, w.Button, description=text, tooltip=tooltip, button_style=style)
        made.on_click(lambda button: self._do(act))
        return made

    # What is shown

    def start(self) -> None:
        """Show what there is, and from now on whatever changes."""
        if self._known:  # views of an earlier life's widgets show that one's state
            for made in self._made:
                made.send_state()
        self.refresh()
        threading.Thread(target=self._watch, name=THREAD_NAME, daemon=True).start()

    def _watch(self) -> None:
        ended = threading.Event()  # nobody sets it: a wait that every life takes up again
        while not ended.wait(LOOK_S):
            with contextlib.suppress(Exception):  # the next look may see more
                self._show_progress()
                if self._signature() != self._seen:
                    self.refresh()

    def _signature(self) -> Any:
        try:
            changed = (self.store.root / "entries").stat().st_mtime_ns
        except OSError:
            changed = 0
        inside = 0  # tags, and what packers do
        for entry in self._entries:
            with contextlib.suppress(OSError):
                inside = max(inside, entry.path.stat().st_mtime_ns)
        return changed, inside, session.position(), len(session.writing())

    def refresh(self) -> None:
        """Read the store and show it, with the same entry selected."""
        with self._lock:
            position = session.position()
            try:
                entries = list(self.store.entries())
            except NbcrError as error:
                self._say(error.line(), wrong=True)
                return
            self._entries = entries
            seen = self._signature()
            moved = self._shown_position != position
            self._seen = seen
            if any(entry.id == position for entry in entries):  # one that is still being written is chosen later
                self._shown_position = position
            known = [("all notebooks", _ALL), *((Path(name).name, name) for name in model.notebooks(entries))]
            chosen = self._offer(self._filter, known, self._filter.value)
            shown = [entry for entry in entries if chosen in (_ALL, None) or entry.notebook == chosen]
            lines = model.tree(shown, position)
            selected = position if moved or self._tree.value is None else self._tree.value
            ids = [line.entry_id for line in lines]
            selected = selected if selected in ids else (ids[-1] if ids else None)
            self._tree.rows = max(_LEAST_ROWS, min(len(lines), _MOST_ROWS))
            self._offer(self._tree, [(line.text, line.entry_id) for line in lines], selected)
            self._head.value = model.head(entries, position)
            self._show_disk()
            self._show_details()
            if moved:
                self._keep()

    def _offer(self, choice: Any, options: list[tuple[str, str]], value: str | None) -> str | None:
        """Give a widget other options, of which one is chosen; nobody is told of what it chooses in between."""
        self._offering = True
        try:
            if list(choice.options) != options:
                choice.options = options
            choice.value = value if value in [option for _, option in options] else (options[0][1] if options else None)
        finally:
            self._offering = False
        return choice.value  # type: ignore[no-any-return]

    def _chose(self, show: Callable[[], None]) -> None:
        if not self._offering:
            show()

    def _selected(self) -> Entry | None:
        return next((entry for entry in self._entries if entry.id == self._tree.value), None)

    def _show_details(self) -> None:
        with self._lock:
            entry = self._selected()
            self._details.value = model.details(entry, self._entries, self.store) if entry is not None else ""

    def _show_disk(self) -> None:
        disk = model.disk(self.store)
        self._disk.value, self._disk_text.value = disk.share, html.escape(disk.text)
        self._disk.bar_style = "danger" if disk.share > 0.9 else ""

    def _show_progress(self) -> None:
        shares = session.progress(self.store)
        self._progress.layout.display = "flex" if shares else "none"
        self._progress.value = min(shares, default=0.0)

    def _say(self, text: str, *, wrong: bool = False) -> None:
        role, color = ("alert", "var(--jp-error-color1, #b00)") if wrong else ("status", "inherit")
        self._message.value = f'<div role="{role}" style="color: {color}">{html.escape(text)}</div>'

    # Buttons; in the main thread

    def _do(self, act: Callable[[], None]) -> None:
        self._say("")
        try:
            act()
        except NbcrError as error:
            self._say(error.line(), wrong=True)
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}", wrong=True)

    def _take(self) -> None:
        name, self._name.value = self._name.value, ""  # empty in the image, too
        try:
            result = session.checkpoint(name.strip() or None, store=self.store, origin="panel")
        except NbcrError:
            self._name.value = name
            raise
        self._automatic().points.noted(result)
        if result.outcome is session.Outcome.CONTINUE:
            self._say(f"checkpoint {result.name} is being written")
            result.when_done(lambda written: self._say("; ".join(written.shortfalls) or f"{written.name} is written"))
        self.refresh()

    def _restart(self) -> None:
        entry = self._chosen()
        self._say(f"going back to {model.title(entry)} …")
        back = self._automatic().keep(f"going back to {model.title(entry)}", f"%restart {entry.id} --discard")
        if back is None:
            session.restart(entry.id, store=self.store)
        self.refresh()

    def _branch(self) -> None:
        from nbcr.jupyter.branching import branch
        from nbcr.jupyter.living import living

        entry, here = self._chosen(), living()
        if here is None:
            raise NotPossible("this is no Jupyter kernel")
        notebook = os.environ.get("JPY_SESSION_NAME")
        made = branch(entry.id, here.kernel_id, notebook, store=self.store, say=self._say)
        self._message.value = model.branched(made.notebook, made.kernel_id, made.page, made.warnings)

    def _ask(self) -> None:
        title = html.escape(model.title(self._chosen()))
        self._question_of(f'<span role="alert">Delete <b>{title}</b> for good?</span>', "Delete it", self._delete)

    def _delete(self) -> None:
        entry = self._chosen()
        self._keep()
        session.remove(entry.id, store=self.store)
        self._say(f"{model.title(entry)} is deleted")
        self.refresh()

    def _ask_prune(self) -> None:
        pruning = model.pruning(self.store, self._last.value)
        if not pruning.removes:
            self._keep()
            self._say("there is nothing to prune: all checkpoints are kept by a rule")
            return
        self._question_of(pruning.question, "Prune them", lambda: self._prune(pruning))

    def _prune(self, pruning: model.Pruning) -> None:
        self._keep()
        done, _ = upkeep.prune(pruning.policy, store=self.store)
        self._say(f"{len(done.removed)} removed, {len(done.kept)} kept")
        self.refresh()

    def _question_of(self, question: str, yes: str, act: Callable[[], None]) -> None:
        self._question.value, self._yes.description, self._if_sure = question, yes, act
        self._sure.layout.display = "flex"
        self._no.focus()

    def _keep(self) -> None:
        self._sure.layout.display = "none"

    def _add_tag(self) -> None:
        upkeep.tag(self._chosen().id, [self._word()], pin=self._pin.value, store=self.store)
        self._tag.value = ""
        self.refresh()

    def _remove_tag(self) -> None:
        entry, word = self._chosen(), self._word()
        if word not in entry.tags:
            raise UsageProblem(f"{model.title(entry)} has no tag {word!r}")
        upkeep.tag(entry.id, remove=[word], store=self.store)
        self._tag.value = ""
        self.refresh()

    def _word(self) -> str:
        word = str(self._tag.value).strip()
        if not word:
            raise UsageProblem("no tag is given", hint="type a word beside the button")
        return word

    def _chosen(self) -> Entry:
        entry = self._selected()
        if entry is None:
            raise UsageProblem("no checkpoint is selected")
        return entry

    def _automatic(self) -> Any:
        shell: Any = get_ipython()
        return shell.magics_manager.registry["NbcrAuto"]


def _hidden() -> w.Layout:
    return w.Layout(display="none")


def _adopted(comm_id: str) -> Any:
    """A comm that a frontend has open already: nothing is sent."""
    made: Any = comm.create_comm(target_name="jupyter.widget", comm_id=comm_id, primary=False)
    shell: Any = get_ipython()
    made.kernel = shell.kernel  # which opening it would have told it
    comm.get_comm_manager().register_comm(made)
    return made
