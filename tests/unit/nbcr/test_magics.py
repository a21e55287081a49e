"""The magics in a real IPython shell: results, help, completion, settings, errors, and going away again."""

from __future__ import annotations

import atexit
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import nbcr
from nbcr import rendering, session
from nbcr.jupyter import magics
from nbcr.jupyter.parsing import parsed
from nbcr.session import CheckpointResult, EntryList
from nbcr.store import Store
from tests.support import CHECKOUT

WAIT_S = 20.0


@pytest.fixture(autouse=True)
def _component(trees: pytest.MonkeyPatch) -> None:
    pass


@pytest.fixture
def ip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(user_ns={})
    shell.history_manager.enabled = False
    loaded = magics.load(shell)
    yield shell
    magics.unload(shell, loaded)
    shell.atexit_operations()
    atexit.unregister(shell.atexit_operations)
    InteractiveShell.clear_instance()


def run(ip: Any, code: str) -> Any:
    outcome = ip.run_cell(code)
    return outcome.result if outcome.success else outcome.error_in_exec


def completions(ip: Any, text: str) -> set[str]:
    with provisionalcompleter():
        return {c.text for c in ip.Completer.completions(text, len(text))}


def test_a_checkpoint_and_the_list(ip: Any, store: Store) -> None:
    result = run(ip, "%checkpoint one --wait --note two words")
    assert isinstance(result, CheckpointResult)
    assert result.outcome is nbcr.Outcome.CONTINUE
    assert result.done
    (entry,) = run(ip, "%checkpoints")
    assert (entry.name, entry.note, entry.pid) == ("one", "two words", os.getpid())
    assert run(ip, "r = %checkpoint two\nr.wait(20)").name == "two"
    assert run(ip, '%checkpoint "with blanks" -w').name == "with blanks"
    assert run(ip, "%checkpoint -w").name == run(ip, "%checkpoints")[-1].id


def test_comments_behind_magics_are_no_arguments(ip: Any) -> None:
    """As in the README, from which people copy them; a name may hold the sign."""
    assert run(ip, "%checkpoint a#b -w  # as it was").name == "a#b"
    result = run(ip, r"""%checkpoint -w --note "one # \" two" 'three # four' # five""")
    assert result.entry.note == 'one # " two three # four'
    assert len(run(ip, "%checkpoints # all")) == 2


def test_every_magic_of_the_pages_is_understood_as_it_stands(ip: Any) -> None:
    found = []
    for page in (CHECKOUT / "README.md", *(CHECKOUT / "docs").glob("*.md")):
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
            found += re.findall(r"^%(checkpoint|restart|checkpoints|undo|nbcr)\b(.*)$", block, re.M)
    assert len(found) > 5
    for name, words in found:
        parsed(ip.find_line_magic(name), words)


def test_errors_are_one_line_and_the_cell_fails(ip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(ip, "%checkpoint one -w")
    capsys.readouterr()
    assert isinstance(run(ip, "%checkpoint one"), nbcr.NbcrError)
    shown = "".join(capsys.readouterr())
    assert re.fullmatch(r"NameTaken: .*'one' exists already.*--force.*\n", shown)
    assert isinstance(run(ip, "%restart oen"), nbcr.NbcrError)
    assert "did you mean 'one'" in "".join(capsys.readouterr())
    assert run(ip, "%checkpoint one --force -w").name == "one"


def test_wrong_usage_is_a_usage_error(ip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for code in ("%restart", "%checkpoint a b", "%checkpoint --nonsense", "%checkpoints x"):
        assert type(run(ip, code)).__name__ == "UsageError"


@pytest.mark.parametrize("name", ["checkpoint", "restart", "checkpoints"])
def test_help_is_given_where_asked_for(ip: Any, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("-h", "--help"):
        assert run(ip, f"%{name} {flag}") is None
        assert f"%{name}" in capsys.readouterr().out
    assert f"%{name}" in ip.magics_manager.magics["line"][name].__doc__


def test_names_are_completed_and_nothing_else(ip: Any) -> None:
    for name in ("before-fit", "before-plot", "with blanks"):
        run(ip, f'%checkpoint "{name}" -w')
    ip.user_ns["before_this"] = 1
    assert completions(ip, "%restart bef") == {"before-fit", "before-plot"}
    assert completions(ip, "%restart before-p") == {"before-plot"}
    assert completions(ip, "%restart ") == {"before-fit", "before-plot", "'with blanks'"}
    assert "before-fit" in completions(ip, "%checkpoint bef")
    assert "before_this" in completions(ip, "before")
    assert "before-fit" not in completions(ip, "x = bef")
    assert "%restart" in completions(ip, "%rest")


def test_completion_survives_a_refused_store(ip: Any, store: Store) -> None:
    run(ip, "%checkpoint one -w")
    store.root.chmod(0o777)
    assert "one" not in completions(ip, "%restart o")


def test_settings(ip: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(ip, "%config NbcrMagics")
    shown = capsys.readouterr().out
    assert "NbcrMagics.store" in shown
    assert "NbcrMagics.deadline_s" in shown
    run(ip, f"%config NbcrMagics.store = {str(tmp_path / 'other')!r}")
    run(ip, "%checkpoint there -w")
    assert [e.name for e in Store(tmp_path / "other").entries()] == ["there"]
    assert [e.name for e in run(ip, "%checkpoints")] == ["there"]


def test_a_failure_behind_the_back_is_told_after_the_next_cell(
    ip: Any, trees: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trees.setenv("NBCR_TREES", "fail-late slow=0.2")
    result = run(ip, "r = %checkpoint one --image\nr")
    assert "fail" not in capsys.readouterr().err
    with pytest.raises(TimeoutError):
        result.wait(0.01)
    told = threading.Event()
    result.when_done(lambda _: told.set())
    assert told.wait(WAIT_S)
    run(ip, "1 + 1")
    assert "nbcr: checkpoint 'one' was not written: asked to fail late" in capsys.readouterr().err
    run(ip, "1 + 1")
    assert capsys.readouterr().err == ""
    assert run(ip, "%checkpoints") == []
    for mood in ("fail-early", "fail-late"):  # the variables are not lost with the image
        trees.setenv("NBCR_TREES", mood)
        result = run(ip, f"x = 5\nr = %checkpoint {mood}\nr")
        told.clear()
        result.when_done(lambda _: told.set())
        assert told.wait(WAIT_S)
        assert result.wait().kinds == ("objects",)
        assert f"no process image was taken, the objects alone were saved: asked to {mood.replace('-', ' ')}" in str(
            result
        )
        assert nbcr.get(mood, "x") == 5


def test_unloading_takes_everything_away(ip: Any) -> None:
    loaded = magics.load(ip)
    magics.unload(ip, loaded)
    for name in ("checkpoint", "restart", "checkpoints"):
        assert name not in ip.magics_manager.magics["line"]
    assert loaded not in ip.configurables
    assert loaded.names not in ip.Completer.custom_matchers
    assert loaded.tell not in ip.events.callbacks["post_run_cell"]
    ip_again = magics.load(ip)
    assert run(ip, "%checkpoint again -w").name == "again"
    magics.unload(ip, ip_again)


# --- how results look


def test_a_result_shows_what_is_known(ip: Any, trees: pytest.MonkeyPatch) -> None:
    trees.setenv("NBCR_TREES", "slow=0.3")
    result = nbcr.checkpoint("<one>")
    bundle = result._repr_mimebundle_()
    assert "size about 4 KiB" in bundle["text/plain"]
    assert "&lt;one&gt;" in bundle["text/html"]
    assert "<one>" not in bundle["text/html"]
    result.wait(WAIT_S)
    text = repr(result)
    assert re.match(
        rf"CONTINUE  <one>  id {result.id}, size [\d.]+ KiB, pause .* ms, duration .* ms, objects: no names\n", text
    )
    assert "only /proc was kept" in text


def test_a_table_shows_all_columns(store: Store) -> None:
    first = nbcr.checkpoint("a<b").wait(WAIT_S)
    nbcr.checkpoint("second").wait(WAIT_S)
    table = nbcr.checkpoints()
    text, html = repr(table), table._repr_mimebundle_()["text/html"]
    for column in ("id", "name", "when", "parent", "kinds", "size", "notebook", "pid"):
        assert column in text.splitlines()[0]
        assert f"<th>{column}</th>" in html
    assert first.id in text
    assert "a&lt;b" in html
    assert re.search(r"second .* a<b +image", text)
    assert repr(EntryList()) == "no checkpoints"


def test_the_variables_are_kept_beside_the_image_or_alone(ip: Any, store: Store) -> None:
    run(ip, "a = [1]; b = a; g = (n for n in a)")
    both = run(ip, "%checkpoint both --wait")
    assert both.entry.kinds == ("image", "objects")
    assert (both.entry.objects["saved"], both.entry.objects["lost"]) == (2, 1)
    assert "g: lost: a running generator cannot be copied" in repr(both)
    assert run(ip, "%checkpoint image --image -w").entry.kinds == ("image",)
    assert run(ip, "%checkpoint objects --objects -w").entry.kinds == ("objects",)
    assert {path.name for path in both.entry.path.iterdir()} == {"image", "objects", "manifest.json", "signature.json"}


def test_names_that_are_lost_in_a_child_are_told_after_the_next_cell(
    ip: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(ip, "large = bytes(range(256)) * 8192; g = (n for n in large)")  # too much to be saved while the user waits
    result = run(ip, "r = %checkpoint one\nr")
    told = threading.Event()
    result.when_done(lambda _: told.set())
    assert told.wait(WAIT_S)
    assert result.objects.how == "forked"
    capsys.readouterr()
    run(ip, "1 + 1")
    assert "nbcr: checkpoint 'one': g: lost: a running generator cannot be copied" in capsys.readouterr().err
    run(ip, "1 + 1")
    assert capsys.readouterr().err == ""


def test_a_rollback_tells_every_name(ip: Any) -> None:
    run(ip, "a = [1]; b = a; html = '<b>'")
    run(ip, "%checkpoint then --objects -w")
    loaded = run(ip, "a = 0; del b; new = 1\nr = %restart then\nr")
    assert (ip.user_ns["a"], ip.user_ns["a"] is ip.user_ns["b"], "new" in ip.user_ns) == ([1], True, False)
    text, shown = repr(loaded), loaded._repr_mimebundle_()["text/html"]
    assert re.match(r"RESTART  then  id \S+, taken .*, the objects only: 3 restored, this process goes on", text)
    assert "its process image was not used: it holds none" in text
    assert "removed, because they came later: new" in text
    assert "<code>then</code>" in shown
    # one that has an image, which this host (this component) cannot put in the place of a living process
    run(ip, "a.append(2)")
    run(ip, "%checkpoint both -w")
    run(ip, "a = 0; c = [n for n in (1, 2)]; g = (n for n in c)")
    assert isinstance(run(ip, "%restart both"), nbcr.NbcrError)
    assert ip.user_ns["a"] == 0
    run(ip, "%restart both --objects")
    assert ip.user_ns["b"] == [1, 2]
    run(ip, "%checkpoint image --image -w")
    assert "holds no objects" in str(run(ip, "%restart image --objects"))


def test_where_there_can_be_no_image_the_present_is_kept_as_variables(ip: Any, trees: pytest.MonkeyPatch) -> None:
    trees.setattr("nbcr.session.auto.others_at_work", lambda: False)  # the tests' own processes are no session's
    run(ip, "a = 1")
    run(ip, "%checkpoint one --objects -w")
    trees.setenv("NBCR_TREES", "fail-early")
    run(ip, "a = 2")
    run(ip, "%restart one --objects")
    assert ip.user_ns["a"] == 1
    (kept,) = [entry for entry in session.checkpoints() if entry.automatic]
    assert (kept.automatic, kept.kinds, nbcr.get(kept.id, "a")) == ("restart", ("objects",), 2)
    run(ip, "a = 3; g = (n for n in (1, 2))")  # which variables cannot hold
    refused = run(ip, "%restart one --objects")
    assert "could not be kept, so nothing was done: asked to fail early" in str(refused)
    assert "`%restart one --objects --discard`" in refused.hint
    assert ip.user_ns["a"] == 3
    assert len([entry for entry in session.checkpoints() if entry.automatic]) == 1
    run(ip, "%restart one --objects --discard")
    assert ip.user_ns["a"] == 1


def test_looking_in_and_comparing(ip: Any) -> None:
    run(ip, "a = 1; text = '<b>'; gone = 0; gen = (n for n in ())")
    run(ip, "%checkpoint one --objects -w")
    run(ip, "a = 2; del gone; new = 5")
    run(ip, "%checkpoint two --objects -w --max-size 1M")
    changes = run(ip, "%checkpoint --diff one two")
    assert [(change.kind, change.name) for change in changes] == [
        ("changed", "a"),
        ("removed", "gone"),
        ("added", "new"),
    ]
    assert re.search(r"changed +a +1 +2$", repr(changes), re.MULTILINE)
    assert "<td" in changes._repr_mimebundle_()["text/html"]
    assert repr(run(ip, "%checkpoint --diff two two")) == "no differences"
    assert (nbcr.get("one", "a"), nbcr.get("two", "a"), ip.user_ns["a"]) == (1, 2, 2)
    variables = session.variables("one")
    assert re.search(r"^text +str .* saved +'<b>'$", repr(variables), re.MULTILINE)
    assert "a running generator cannot be copied" in repr(variables)
    assert "&lt;b&gt;" in variables._repr_mimebundle_()["text/html"]
    assert run(ip, "%checkpoint --diff one").__class__.__name__ == "UsageError"


def test_how_far_a_long_save_is_can_be_followed(ip: Any) -> None:
    run(ip, "import time\nclass Slow:\n    def __reduce__(self): time.sleep(0.7); return Slow, ()")
    run(ip, "one, two, three = Slow(), Slow(), Slow()")
    result = run(ip, "%checkpoint slow --objects")
    seen: list[str] = []
    result.follow(lambda writing: seen.append(repr(writing)))
    result.wait(WAIT_S)
    assert any(re.search(r"objects: \d of \d saved, now (one|two|three), \S+ B written", text) for text in seen), seen
    assert "saved, now" not in repr(result)


def test_what_is_too_large_is_named_and_history_is_kept_when_asked(ip: Any) -> None:
    run(ip, "big = bytes(3 << 20); small = 1")
    result = run(ip, "%checkpoint one --objects --max-size 1M --history -w")
    assert re.search(r"^big: lost: .*1,048,576 bytes", repr(result), re.MULTILINE), repr(result)
    assert {"In", "Out", "small"} <= {variable.name for variable in session.variables("one")}
    assert "no size" in str(run(ip, "%checkpoint two --max-size lots"))
    result = run(ip, "%checkpoint all --objects --max-total 1M -w")
    assert re.search(r"^big: lost: .*left of the limit for all", repr(result), re.MULTILINE), repr(result)
    assert result.objects.verdicts["small"].fate == "saved"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (512, "512 B"), (4096, "4 KiB"), (53_687_091, "51.2 MiB"), (1127428915, "1.05 GiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert rendering.size_text(size) == text


@pytest.mark.parametrize(("ms", "text"), [(0.25, "0.2 ms"), (38.26, "38.3 ms"), (712, "712 ms"), (12_345, "12.3 s")])
def test_times(ms: float, text: str) -> None:
    assert rendering.time_text(ms) == text


@pytest.mark.parametrize(
    "line",
    [
        *("off --each-cell", "--each-cell --no-each-cell", "--always", "--before-restart --no-before-restart"),
        *("--every 10m --no-each-cell --always", "off --every 1m"),
    ],
)
def test_flags_that_contradict_each_other_switch_nothing(
    ip: Any, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(ip, "%nbcr auto")
    before = capsys.readouterr().out
    assert not ip.run_cell(f"%nbcr auto {line}").success
    assert capsys.readouterr().err.startswith("UsageError: ")
    run(ip, "%nbcr auto")
    assert capsys.readouterr().out == before


@pytest.mark.parametrize("name", ["KILL", "STOP", "SEGV", "BUS", "FPE", "ILL", "ABRT"])
def test_a_signal_that_cannot_ask_for_checkpoints_is_refused_by_name(ip: Any, name: str) -> None:
    handler = signal.getsignal(signal.Signals[f"SIG{name}"])
    error = run(ip, f"%nbcr auto --on-signal {name}")
    assert isinstance(error, nbcr.NbcrError)
    assert f"SIG{name} cannot ask for checkpoints" in str(error)
    assert signal.getsignal(signal.Signals[f"SIG{name}"]) is handler


@pytest.mark.parametrize("nonsense", ["-1", "nan", "soon"])
def test_how_long_to_wait_is_a_number_from_0(ip: Any, nonsense: str) -> None:
    assert not ip.run_cell(f"%checkpoint one --deadline {nonsense}").success


def test_a_name_is_a_string(ip: Any, store: Store) -> None:
    with pytest.raises(nbcr.NbcrError, match="a string, not 3"):
        nbcr.checkpoint(3)  # type: ignore[arg-type]
    assert store.entries() == []
