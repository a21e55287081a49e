"""Variables beside the image, in real Jupyter kernels: rolled back, loaded elsewhere, looked into; lost by name."""

from __future__ import annotations

import json
import os
import signal
import time

from nbcr.store import Entry
from tests.integration.jupyter.faults import nbcr_fails
from tests.integration.jupyter.lives import nbcr
from tests.integration.jupyter.sessions import Client, Stage
from tests.integration.objects.cases import FIRST_PATH

LOST = {name: reason for case in FIRST_PATH for name, reason in case.lost.items()}
# Saving one stands still in the child as well as in the process itself, until somebody writes into its pipe.
STUCK = """
import os, time
class Stuck:
    def __reduce__(self):
        if os.getpid() != {pid}: time.sleep(60)
        return (int, (0,))
stuck = Stuck()
"""


def shown(client: Client, code: str) -> str:
    """All that a cell displays, as text; fails when the cell fails."""
    (cell,) = client.wait(client.send(code), timeout_s=60)
    assert cell.status == "ok", cell.error
    return "\n".join(display["data"]["text/plain"] for display in cell.displays)


def assert_lost_by_name(text: str) -> None:
    lines = text.splitlines()
    for name, reason in LOST.items():
        assert any(line.startswith(f"{name}: ") and reason in line for line in lines), text


def assert_right(client: Client) -> None:
    for case in FIRST_PATH:
        assert client.value(f"bool({case.check})"), case.name
    assert client.run("print(fact, both is shared)").strip() == "1 True"


def written(stage: Stage, name: str) -> Entry:
    """The entry called `name`, when it is there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for path in (stage.folder / "store" / "entries").glob("[0-9]*/manifest.json"):
            if json.loads(path.read_text())["name"] == name:
                return Entry.read(path.parent)
        time.sleep(0.02)
    raise AssertionError(f"no entry {name!r}")


def test_the_seven_are_rolled_back_and_come_back_elsewhere(any_stage: Stage) -> None:
    any_stage.environ["NBCR_TEST_FOLDER"] = str(any_stage.folder / "work")
    old = any_stage.start()
    client = old.client
    client.run("%load_ext nbcr\nfact = 1; both = shared = [1]")
    for case in FIRST_PATH:
        for cell in case.cells:
            client.run(cell)
    told = shown(client, "%checkpoint --wait then")
    assert "CONTINUE" in told
    assert_lost_by_name(told)
    entry = nbcr(any_stage, "show", "then")
    assert entry["kinds"] == ["image", "objects"]
    assert (entry["objects"]["lost"] + entry["objects"]["recomputable"], entry["warnings"]) == (len(LOST), [])
    assert [process["pid"] for process in entry["image"]["processes"]] == [old.pid]  # not the child that saved them
    assert entry["objects"]["how"] == "forked"

    # in the same process, which is not touched
    client.run("fact = 2; base = window = None; del both; came_later = 1; counting = 5")
    told = shown(client, "%restart then --objects")
    assert_lost_by_name(told)
    assert "removed, because they came later: came_later" in told
    assert_right(client)
    assert client.value("[os.getpid(), 'came_later' in globals(), counting]") == [old.pid, False, 5]
    # what is mapped from that checkpoint is, in later images, their own
    client.run("stop.set(); counting.join() if hasattr(counting, 'join') else None\n%checkpoint --wait later")

    # in a fresh Jupyter kernel; plain %restart takes them too where the image cannot be used
    fresh = any_stage.start().client
    fresh.run("%load_ext nbcr")
    assert_lost_by_name(shown(fresh, "%restart then --objects"))
    assert_right(fresh)
    fresh.run("fact = 3; stop.set()")
    manifest = any_stage.folder / "store" / "entries" / entry["id"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"ptrace"', '"elsewhere"'))
    assert "its manifest is not the one that was signed" in str(fresh.wait(fresh.send("%restart then"))[0].error)
    (manifest.parent / "signature.json").unlink()
    assert "it is not signed" in str(fresh.wait(fresh.send("%restart then"))[0].error)
    assert nbcr(any_stage, "trust", "then")["origin"] == "trusted"
    told = shown(fresh, "%restart then")
    assert "its process image was not used: 'then' was taken by CRS component 'elsewhere'" in told
    assert_right(fresh)

    nbcr(any_stage, "remove", "then")
    client.run("fact = 4; base[:] = 1")
    client.run("%restart later", 60)
    assert client.value("[fact, float(base.sum()), os.getpid()]") == [1, 5.0, old.pid]


def test_they_are_looked_into_and_asked_for_from_a_shell(user_stage: Stage) -> None:
    jupyter = user_stage.start()
    client = jupyter.client
    client.run("import numpy as np\nlarge = np.arange(1 << 20); n = 1; gone = {'<a>': 1}; text = '<b>'")
    one = nbcr(user_stage, "checkpoint", jupyter.pid, "--name", "one", "--objects")
    assert (one["kinds"], one["pause_ms"], client.value("n")) == (["objects"], 0.0, 1)
    client.run("n = 2; del gone; new = (i for i in ())")
    two = nbcr(user_stage, "checkpoint", jupyter.pid, "--name", "two", "--max-size", "1M")
    assert two["kinds"] == ["image", "objects"]
    nbcr(user_stage, "checkpoint", jupyter.pid, "--name", "image", "--image")
    nbcr(user_stage, "checkpoint", jupyter.pid, "--name", "total", "--objects", "--max-total", "1M")
    in_all = {found["name"]: found for found in nbcr(user_stage, "show", "total", "--vars")}
    assert ("limit for all" in in_all["large"]["reason"], in_all["n"]["fate"]) == (True, "saved")

    variables = {found["name"]: found for found in nbcr(user_stage, "show", "one", "--vars")}
    assert (variables["large"]["type"], variables["large"]["shape"]) == ("numpy.ndarray", "1048576")
    assert (variables["text"]["repr"], variables["np"]["fate"]) == ("'<b>'", "saved")
    limited = {found["name"]: found for found in nbcr(user_stage, "show", "two", "--vars")}
    assert "1,048,576" in limited["large"]["reason"]
    assert nbcr(user_stage, "get", "one", "gone")["value"] == {"<a>": 1}
    got = nbcr(user_stage, "get", "one", "large")
    assert (got["type"], got["value"]) == ("numpy.ndarray", None)
    changes = {found["name"]: found["change"] for found in nbcr(user_stage, "diff", "one", "two")}
    assert changes == {"n": "changed", "gone": "removed", "new": "added", "large": "changed", "_json": "added"}
    assert client.run("import nbcr; print(nbcr.get('one', 'n'), n)").split() == ["1", "2"]

    assert "holds no process image" in nbcr_fails(user_stage, 31, "restart", "one", "--detach")
    assert "holds no objects" in nbcr_fails(user_stage, 31, "get", "image", "n")
    assert "did you mean 'large'" in nbcr_fails(user_stage, 20, "get", "one", "larg")
    assert "needs a process image" in nbcr_fails(
        user_stage, 2, "checkpoint", jupyter.pid, "--objects", "--leave", "killed"
    )
    nbcr(user_stage, "checkpoint", jupyter.pid, "--name", "last", "--leave", "killed")
    assert nbcr(user_stage, "show", "last")["kinds"] == ["image", "objects"]
    assert nbcr(user_stage, "get", "last", "n")["value"] == 2


def test_neither_tier_is_lost_with_the_other(stage: Stage) -> None:
    jupyter = stage.start()
    client = jupyter.client
    client.run("%load_ext nbcr\nimport os, nbcr")
    # What fails is a name; and an object whose saving never ends costs that name only.
    client.run("class Bad:\n    def __reduce__(self): raise ValueError('<no>')\nbad = [Bad()]; good = 1\n")
    told = shown(client, "%checkpoint --wait named")
    assert "bad[0]: ValueError: <no>" in told
    # No folder can be made where the variables belong: the image is there all the same, and says so.
    client.run("from nbcr import objects\nreal, objects.save = objects.save, lambda *a, **k: 1 / 0")
    told = shown(client, "%checkpoint --wait broken")
    assert "the objects were not saved, only the process image: ZeroDivisionError" in told
    assert written(stage, "broken").kinds == ("image",)
    assert "ZeroDivisionError" in str(client.wait(client.send("%checkpoint none --objects --wait"))[0].error)
    client.run("objects.save = real")
    # The process dies while its child saves: the image is published, nothing of the rest is left.
    client.run(STUCK.format(pid=jupyter.pid))
    client.run("%checkpoint dying")
    os.kill(jupyter.pid, signal.SIGKILL)
    entry = written(stage, "dying")
    assert entry.kinds == ("image",)
    assert "the process ended before they were written" in entry.warnings[0]
    wanted = ["image", "manifest.json", "signature.json"]  # the draft's owner goes a moment after it is published
    assert client.listen(lambda: sorted(path.name for path in entry.path.iterdir()) == wanted, 10)


def test_packed_checkpoints_are_used_like_others(user_stage: Stage) -> None:
    place = user_stage.folder / "store"
    jupyter = user_stage.start()
    client = jupyter.client
    client.run("%load_ext nbcr\nimport os, numpy as np\nlarge = np.arange(1 << 20); small = list(range(9)); n = 1")
    client.run("%checkpoint --wait one")
    client.run("large[77] = n = 2\n%checkpoint --wait two", 60)
    (place / "settings.json").write_text('{"hot_entries": 0}')
    user_stage.user.give(place / "settings.json")
    assert nbcr(user_stage, "pack") == {"failures": []}
    one, two = written(user_stage, "one"), written(user_stage, "two")
    packed = ["image.recipe", "manifest.json", "objects.recipe", "signature.json"]
    assert [sorted(path.name for path in entry.path.iterdir()) for entry in (one, two)] == [packed, packed]
    assert nbcr(user_stage, "verify", "--all")["whole"]

    # what is looked into or asked for leaves no files, and no other variable's bytes are read
    assert nbcr(user_stage, "show", "one")["image"]["root_pid"] == jupyter.pid
    assert {found["name"] for found in nbcr(user_stage, "show", "one", "--vars")} >= {"large", "small", "n"}
    assert nbcr(user_stage, "get", "two", "small")["value"] == list(range(9))
    assert client.run("import nbcr; print(nbcr.get('one', 'large')[77], nbcr.get('two', 'large')[77])") == "77 2\n"
    assert {found["name"] for found in nbcr(user_stage, "diff", "one", "two")} >= {"large", "n"}
    assert sorted(path.name for path in one.path.iterdir()) == packed

    # both tiers come back; what is mapped stays when its files are dropped
    client.run("n = 3; large[77] = 3; small.clear()")
    shown(client, "%restart one --objects")
    assert client.value("[n, int(large[77]), len(small), os.getpid()]") == [1, 77, 9, jupyter.pid]
    assert nbcr(user_stage, "pack") == {"failures": []}
    client.run("large[1] = 5\n%checkpoint --wait three", 60)
    client.run("%restart two", 60)
    assert client.value("[n, int(large[77]), len(small), os.getpid()]") == [2, 2, 9, jupyter.pid]
    assert nbcr(user_stage, "pack") == {"failures": []}
    client.run("%restart three", 60)
    assert client.value("[n, int(large[77]), int(large[1]), os.getpid()]") == [1, 77, 5, jupyter.pid]
    assert nbcr(user_stage, "verify", "--all")["whole"]


def test_the_variables_of_another_jupyter_kernel_are_rolled_back_from_a_shell(user_stage: Stage) -> None:
    jupyter, other = user_stage.start(), user_stage.start()
    for each in (jupyter, other):
        each.client.run("a, gone = [1], 'there'; b = a; here = (i for i in ())")
    jupyter.client.run("import contextvars, decimal; var = contextvars.ContextVar('var', default=0); var.set(1)")
    jupyter.client.run("decimal.getcontext().prec = 7")
    nbcr(user_stage, "checkpoint", jupyter.pid, "--name", "then", "--objects")
    jupyter.client.run(
        "var.set(2); decimal.getcontext().prec = 9; a, later = None, 5; del gone; import os; pid = os.getpid()"
    )
    request = jupyter.client.send("import time; time.sleep(1); a = 'by the cell that ran'")
    report = nbcr(user_stage, "restart", "then", "--into", jupyter.pid, "--objects")
    jupyter.client.wait(request)
    assert report["verdicts"]["a"]["fate"] == "restored"
    assert report["verdicts"]["here"]["fate"] in ("lost", "recomputable")
    assert jupyter.client.value("[a, a is b, gone, 'later' in globals()]") == [[1], True, "there", False]
    assert jupyter.client.value("[var.get(), decimal.getcontext().prec]") == [1, 7], "what only cells see"
    nbcr(user_stage, "restart", "then", "--into", other.pid, "--objects")
    assert other.client.value("[a, a is b]") == [[1], True]

    other.client.run("a = 2")
    request = other.client.send("import os, time\nwhile not os.path.exists('over'): time.sleep(.02)")
    nbcr_fails(user_stage, 25, "restart", "then", "--into", other.pid, "--objects", "--deadline", "1")
    (user_stage.folder / "work" / "over").touch()
    other.client.wait(request)
    assert other.client.value("a") == 2, "whoever asked has gone: it is not rolled back later"
    assert "add --into" in nbcr_fails(user_stage, 2, "restart", "then", "--objects")
