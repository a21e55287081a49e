"""The way back: name by name, into fresh and into living namespaces."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import io
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nbcr.errors import EntryDamaged, SnapshotFailed, StoreRefused, UnknownName, UsageProblem
from nbcr.objects import Fate, Report, fingerprint, get, load, loading, look, save, settings, verify
from nbcr.objects import index as indexes
from tests.unit.nbcr.objects.conftest import Namespace, session

Saved = Callable[..., Report]


def fresh() -> Namespace:
    return {"__name__": "__main__"}


def test_some_names_only(saved: Saved, place: Path) -> None:
    saved(session("a, b, c = 1, [2], 3"))
    back = fresh()
    report = load(place, back, names=["a", "b"])
    assert (back["a"], back["b"], "c" in back) == (1, [2], False)
    assert set(report.verdicts) == {"a", "b"}


def test_a_widget_that_interact_has_hung_on_a_function_costs_no_function(saved: Saved, place: Path) -> None:
    cell = "import ipywidgets\ndef f(x): return x + 1\nf.kept, f.widget = [f], ipywidgets.interactive(f, x=(0, 4))"
    report = saved(session(cell))
    assert report.lines() == ["f: saved, its attribute widget is not there: its other half is in the browser"]
    back = fresh()
    load(place, back)
    assert (back["f"](1), back["f"].kept, hasattr(back["f"], "widget")) == (2, [back["f"]], False)


def test_an_unknown_name_is_told_with_names_like_it(saved: Saved, place: Path) -> None:
    saved(session("weights, bias = 1, 2"))
    with pytest.raises(UnknownName, match="no variable 'weigths'") as caught:
        load(place, fresh(), names=["weigths"])
    assert caught.value.hint == "did you mean 'weights'?"
    with pytest.raises(UsageProblem, match="no snapshot of objects at"):
        load(place.with_name("elsewhere"), fresh())


def test_rolling_back_a_living_namespace(saved: Saved, place: Path) -> None:
    living = session("import math\nx = [1]\nclass C:\n    n = 1\nc = C()\nc.x = x\ndef f(): return x")
    saved(living)
    cls, function = living["C"], living["f"]
    exec("x.append(2); new = 5; C.n = 7; C.extra = 1; import json; del c", living)
    report = load(place, living, remove_new=True, hidden=())
    assert living["f"]() == living["x"] == [1]
    assert function() == [1], "what holds on to the old function sees the old state as well"
    assert living["C"] is cls, "classes keep their identity"
    assert (cls.n, hasattr(cls, "extra")) == (1, False)
    assert isinstance(living["c"], cls)
    assert report.removed == ("new",)
    assert living["json"].__name__ == "json", "modules do no harm and stay"


def test_a_variable_of_the_environment_that_was_set_since_is_undone_in_the_same_session(
    saved: Saved, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_BEFORE", "1")
    saved(session())
    monkeypatch.setenv("TEST_BEFORE", "2")
    monkeypatch.setenv("TEST_SINCE", "1")
    monkeypatch.setattr(settings, "_LIFE", b"another")
    load(place, fresh())
    assert (os.environ["TEST_BEFORE"], os.environ["TEST_SINCE"]) == ("1", "1"), "of another session it is no business"
    monkeypatch.undo()
    monkeypatch.setenv("TEST_SINCE", "1")
    load(place, fresh())
    assert "TEST_SINCE" not in os.environ
    del os.environ["TEST_BEFORE"]


@pytest.mark.parametrize("lock", ["flock", "lockf"])
def test_a_lock_on_a_file_is_told(lock: str, saved: Saved, place: Path, tmp_path: Path) -> None:
    namespace = session("import fcntl; f = open(path, 'w')", path=str(tmp_path / "locked"))
    assert saved(namespace).verdicts["f"].remark == ""
    getattr(fcntl, lock)(namespace["f"], fcntl.LOCK_EX)
    assert saved(namespace, place.with_name("again")).verdicts["f"].remark == "the lock on its file is not taken again"
    namespace["f"].close()


def test_another_thread_does_not_pass_off_its_own_values_as_the_sessions(saved: Saved, place: Path) -> None:
    namespace = session("import threading; local = threading.local(); local.x = 5; y = 1")
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(saved(namespace)))
    thread.start()
    thread.join()
    (report,) = reports
    assert report.verdicts["y"].fate is Fate.SAVED
    assert "local to the main thread" in report.verdicts["local"].reason
    load(place, namespace)
    assert namespace["local"].x == 5


def test_names_stay_unless_they_are_to_be_removed(saved: Saved, place: Path) -> None:
    saved(session("a = 1"))
    living = session("a = 2; b = 3")
    load(place, living)
    assert (living["a"], living["b"]) == (1, 3)


def test_lost_names_keep_the_value_they_have(saved: Saved, place: Path) -> None:
    living = session("g = (i for i in [1]); a = 1")
    saved(living)
    generator, living["a"] = living["g"], 2
    report = load(place, living, remove_new=True, hidden=())
    assert (living["g"] is generator, living["a"]) == (True, 1)
    assert report.verdicts["g"].fate is Fate.LOST


def test_what_one_unit_needs_of_another_is_there_in_time(saved: Saved, place: Path) -> None:
    """Unpickling runs methods of the notebook, which use its functions and modules."""
    code = """
    data = None
    import math as m
    SCALE = 2.0
    def round_up(x): return m.ceil(x * SCALE)
    class Measured:
        def __init__(self, x): self.x = x
        def __setstate__(self, state): self.x = round_up(state["x"])
        def __hash__(self): return round_up(self.x)
        def __eq__(self, other): return self.x == other.x
    data = {Measured(1.5): [1]}
    """
    values = session(code)
    saved(values)
    back = fresh()
    report = load(place, back)
    assert report.lost == []
    assert next(iter(back["data"])).x == 3


def test_a_package_that_is_missing_costs_only_what_needs_it(
    saved: Saved, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "passing.py").write_text("class Thing:\n    def __init__(self, x): self.x = x\ndef f(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    shared = "common = [1]; a = {'x': Thing(common)}; b = [common]; c = Thing(2); g = f; import passing; k = 3"
    saved(session("from passing import Thing, f\n" + shared))
    monkeypatch.undo()
    sys.modules.pop("passing")
    back = fresh()
    report = load(place, back, with_surroundings=False)
    assert {verdict.name for verdict in report.lost} == {"Thing", "f", "a", "c", "g", "passing"}
    assert report.verdicts["a"].reason == "passing.Thing cannot be imported: No module named 'passing'"
    assert back["b"][0] is back["common"]
    assert [drift.now for drift in report.drift if drift.what == "passing"] == [""]


@pytest.mark.parametrize("fork", [True, False])
def test_what_is_deleted_after_a_save_ends_at_once(saved: Saved, fork: bool) -> None:
    cell = "class T: pass\nt = T(); t.large = b'x' * 5_000_000; t.me = [t.large]; g = (i for i in 'ab'); l = [T(), g]"
    values = session(cell)
    ended = weakref.ref(values["t"])
    gc.disable()
    try:
        saved(values, fork=fork)
        del values["t"]
        assert ended() is None
    finally:
        gc.enable()


def test_drift_is_told(saved: Saved, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(session("import numpy as np; a = np.zeros(2)"))
    monkeypatch.setattr(np, "__version__", "99.0")
    drift = load(place, fresh()).drift
    assert [(found.what, found.now) for found in drift] == [("numpy", "99.0")]


def test_names_of_a_class_of_their_own(saved: Saved, place: Path) -> None:
    values = session("import numpy as np\nfor name in np.array(['a', 'b']): globals()[name] = 5\nglobals()[7] = 6")
    assert saved(values).lost == []
    back = fresh()
    load(place, back)
    assert (back["a"], back["b"], type(next(name for name in back if name == "a"))) == (5, 5, str)


def test_versions_may_be_of_a_class_of_their_own(saved: Saved, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Version(str):
        def __str__(self) -> str:
            return "not this"

    monkeypatch.setattr(np, "__version__", Version("1.5+cpu"))  # as torch's
    saved(session("import numpy as np; a = np.zeros(2)"))
    assert load(place, fresh()).drift == ()
    monkeypatch.undo()
    assert [found.then for found in load(place, fresh()).drift] == ["1.5+cpu"]


def test_a_setting_that_cannot_be_saved_is_told(saved: Saved) -> None:
    numbers = (number for number in range(3))
    with np.printoptions(formatter={"int": lambda value: f"{value} {next(numbers)}"}):
        told = saved(session("import numpy as np; a = 1")).remarks
    assert len(told) == 1
    assert told[0].startswith("the session's numpy print options: not saved (")
    assert "generator" in told[0]


def test_redirected_output_is_told(saved: Saved, place: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        saved(session("a = 1"))
        here = load(place, fresh()).remarks
    there = load(place, fresh()).remarks
    assert (here, there) == (
        (),
        ("redirected output could not all be set: run the cell again that redirected sys.stdout (StringIO)",),
    )


def test_figures_that_are_open_stay_open_and_are_not_shown(saved: Saved, place: Path) -> None:
    import matplotlib
    from matplotlib import pyplot

    before = matplotlib.get_backend()
    pyplot.switch_backend("module://matplotlib_inline.backend_inline")
    show = sys.modules["matplotlib_inline.backend_inline"].show
    try:
        saved(session("import matplotlib.pyplot as plt\nplt.ioff()\nfig = plt.figure()\nplt.figure(7)"))
        pyplot.close("all")
        pyplot.ion()
        back = fresh()
        report = load(place, back)
        assert pyplot.gcf() is back["fig"]
        assert not show._draw_called
        assert "1 of pyplot's 2 open figures belonged to no variable" in str(report.remarks)
    finally:
        pyplot.close("all")
        pyplot.switch_backend(before)
        pyplot.ion()


def test_figures_keep_their_numbers(saved: Saved, place: Path) -> None:
    import matplotlib
    from matplotlib import pyplot

    before = matplotlib.get_backend()
    pyplot.close("all")
    pyplot.switch_backend("agg")
    try:
        values = session("import matplotlib.pyplot as plt\nfirst = plt.figure()\nfifth = plt.figure(5)\nplt.figure(1)")
        saved(values)
        for opened in (2, 6):  # of the present: gone, as nothing is called so; the second time in a rolled back one
            pyplot.figure(opened)
            load(place, values)
            assert (pyplot.get_fignums(), values["first"].number, values["fifth"].number) == ([1, 5], 1, 5)
            assert pyplot.gcf() is values["first"]
            assert pyplot.figure(5) is values["fifth"]
        assert get(place, "first").number > 5  # it replaces nothing
        assert pyplot.figure(1) is values["first"]
    finally:
        pyplot.close("all")
        pyplot.switch_backend(before)


def test_what_sympy_has_one_of_is_its_own(saved: Saved, place: Path) -> None:
    import sympy

    saved(session("from sympy import Q, doctest"))
    report = load(place, back := fresh())
    assert (back["Q"] is sympy.Q, back["doctest"] is sympy.doctest, report.lines()) == (True, True, [])


def test_large_arrays_are_mapped_and_belong_to_the_session(saved: Saved, place: Path) -> None:
    values = session("import numpy as np; a = np.arange(300_000.0); s = np.arange(10)")
    saved(values)
    back = fresh()
    load(place, back)
    back["a"][:] = 0
    again = fresh()
    load(place, again)
    assert np.array_equal(again["a"], values["a"])
    assert back["s"].flags.owndata
    verify(place)


# --- get ----------------------------------------------------------------------------------------------------


def read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_one_variable_without_reading_the_others(saved: Saved, place: Path) -> None:
    saved(session("large = ['%d' % i for i in range(300_000)]; small = {'a': [1]}; medium = ['x' * 200_000]"))
    assert sum(path.stat().st_size for path in place.iterdir()) > 2_500_000
    get(place, "small")
    before = read_bytes()
    assert get(place, "small") == {"a": [1]}
    assert read_bytes() - before < 20_000
    before = read_bytes()
    assert get(place, "medium") == ["x" * 200_000]
    assert 200_000 < read_bytes() - before < 220_000


def test_a_function_that_is_got_sees_the_session_it_comes_to(saved: Saved, place: Path) -> None:
    saved(session("n = 1\ndef f(): return n"))
    assert get(place, "f", namespace={"n": 5})() == 5


def test_what_was_lost_cannot_be_got(saved: Saved, place: Path) -> None:
    saved(session("g = (i for i in [])"))
    with pytest.raises(SnapshotFailed, match=r"g cannot be taken out of .*: a running generator cannot be copied"):
        get(place, "g")


# --- origin and damage --------------------------------------------------------------------------------------


def test_nothing_is_unpickled_that_others_could_have_written(saved: Saved, place: Path) -> None:
    saved(session("a = [1] * 9000"))
    pack = next(place.glob("*.pack"))
    pack.chmod(0o666)
    with pytest.raises(StoreRefused, match=r"is not loaded: .*\.pack belongs to another user"):
        load(place, fresh())
    with pytest.raises(StoreRefused):
        get(place, "a")


def test_who_trusts_is_asked_with_the_fingerprint_first(
    saved: Saved, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(session("a = [1]"))
    monkeypatch.setattr(loading, "unpickled", None)
    asked = []

    def refuse(where: Path, mark: str) -> None:
        asked.append((where, mark))
        raise StoreRefused("not signed")

    with pytest.raises(StoreRefused, match="not signed"):
        load(place, fresh(), trust=refuse)
    assert asked == [(place, fingerprint(place))]


def test_looking_unpickles_nothing(saved: Saved, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(session("a = [1]; import math; g = (i for i in [])"))
    monkeypatch.setattr("pickle.Unpickler", None)
    found = {info.name: (info.type, info.shape, info.repr, info.reason) for info in look(place)}
    assert found == {
        "a": ("list", "1 item", "[1]", ""),
        "math": ("module", "", "import math", ""),
        "g": ("generator", "", "", "a running generator cannot be copied"),
    }


@pytest.mark.parametrize("suffix", ["pack", "blob", "index"])
def test_a_flipped_bit_is_found(suffix: str, saved: Saved, place: Path) -> None:
    code = "import numpy as np; a = [['x' * 60_000]]; b = [str(i) for i in range(200_000)]; n = np.ones(2**18)"
    saved(session(code))
    for path in [place / "index"] if suffix == "index" else list(place.glob(f"*.{suffix}")):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    with pytest.raises(EntryDamaged):
        verify(place)
    if suffix == "index":
        with pytest.raises(EntryDamaged, match="is damaged: its digest is another"):
            load(place, fresh())
        return
    report = load(place, fresh())
    (damaged,) = [verdict.name for verdict in report.lost]
    assert damaged == {"pack": "a", "blob": "b"}[suffix]
    assert "its contents have another digest" in report.lost[0].reason


def test_a_file_that_is_cut_off_or_missing_costs_what_is_in_it(saved: Saved, place: Path) -> None:
    saved(session("import numpy as np; a = np.ones(200_000); b = np.zeros(300_000); c = 1"))
    first, second = place.glob("*.blob")
    os.truncate(first, 8192)
    second.unlink()
    report = load(place, fresh())
    assert {verdict.name: verdict.fate for verdict in report.verdicts.values() if verdict.name != "np"} == {
        "a": Fate.LOST, "b": Fate.LOST, "c": Fate.RESTORED,
    }  # fmt: skip


@pytest.mark.parametrize("length", [0, 7, 51, 52, 200])
def test_an_index_that_is_cut_off_is_refused(length: int, saved: Saved, place: Path) -> None:
    saved(session("a = [1]"))
    os.truncate(place / "index", length)
    with pytest.raises(EntryDamaged):
        look(place)


def test_a_later_format_is_refused_by_number(saved: Saved, place: Path) -> None:
    saved(session("a = [1]"))
    data = bytearray((place / "index").read_bytes())
    data[8] = indexes.VERSION + 1
    (place / "index").write_bytes(data)
    with pytest.raises(EntryDamaged, match="has format 2, this nbcr reads 1"):
        look(place)


def test_an_index_cannot_lead_out_of_the_folder(saved: Saved, place: Path) -> None:
    saved(session("a = ['x' * 5000]"))
    index = indexes.read(place)
    outside = place.parent / ("0" * 64 + ".blob")
    outside.write_bytes(b"x")
    from msgspec.structs import replace

    indexes.publish(replace(index, blobs=tuple(replace(b, file=f"../{outside.name}") for b in index.blobs)), place)
    assert "names a file '../000" in load(place, fresh()).verdicts["a"].reason


def test_a_folder_that_is_in_use_is_not_written_into(saved: Saved, place: Path) -> None:
    saved(session("a = [1]"))
    with pytest.raises(UsageProblem, match="is not empty"):
        save(session("a = 2"), place, hidden=())
    assert get(place, "a") == [1]


# --- which names --------------------------------------------------------------------------------------------


def test_what_the_shell_hides_is_not_saved_unless_it_was_rebound(place: Path) -> None:
    own = object()
    values = session("a = 1; exit = 5", quit=own, In=["", "a = 1"], Out={}, _1=3, _i1="a", _=4, __=5, _mine=6)
    report = save(values, place, hidden={"quit": own, "exit": own}).wait()
    assert set(report.verdicts) == {"a", "exit", "_mine"}


def test_history_when_asked_for(saved: Saved, place: Path) -> None:
    saved(session("x = [1]", In=["", "x = [1]", "x"], Out={}), history=False)
    values = session("x = [1]", In=["", "x = [1]", "x"])
    values["Out"] = {2: values["x"]}
    other = place.with_name("other")
    saved(values, other, history=True)
    living = session("", In=["", "load()"], Out={1: 5})
    out, inputs = living["Out"], living["In"]
    load(other, living)
    assert living["Out"] is out
    assert out[2] is living["x"]
    assert living["In"] is inputs
    assert inputs == ["", "x = [1]", "x"]


def test_what_is_loaded_keeps_no_file_open_and_is_saved_again_as_what_it_is(tmp_path: Path) -> None:
    """An image of this session would hold such a file, and could not be brought back without it."""
    names: Namespace = {"large": np.arange(1 << 18), "a": np.arange(20_000), "b": np.arange(20_000.0)}
    names["view"] = names["large"][10:20]
    save(names, tmp_path / "one").wait(60)
    before = set(os.listdir("/proc/self/fd"))
    back: Namespace = {}
    load(tmp_path / "one", back)
    assert set(os.listdir("/proc/self/fd")) == before
    back["large"][10] = -1
    assert back["view"][0] == -1
    report = save(back, tmp_path / "two").wait(60)
    assert report.lines() == []
    again: Namespace = {}
    load(tmp_path / "two", again)
    again["large"][11] = -2
    assert again["view"].tolist()[:3] == [-1, -2, 12]
    assert [other.shares_with for other in look(tmp_path / "two") if other.name in ("a", "b")] == [(), ()]
    mapped = Path("/proc/self/maps").read_text().count(str(tmp_path))
    del back, again
    gc.collect()
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) < mapped


def test_a_global_that_a_package_imports_from_its_module_stays_one(
    saved: Saved, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "of_one_state"
    package.mkdir()
    (package / "core.py").write_text("STATE = {'runs': 0}\nclass Engine:\n    pass\n")
    (package / "__init__.py").write_text("from .core import STATE, Engine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    values = session(
        "import of_one_state, of_one_state.core; of_one_state.STATE['runs'] = 1; e = of_one_state.Engine()"
    )
    saved(values)
    values["of_one_state"].STATE["runs"] = 2
    load(place, values)
    state = values["of_one_state"].core.STATE
    assert state == {"runs": 1}
    assert values["of_one_state"].STATE is state
    for name in ("of_one_state", "of_one_state.core"):
        sys.modules.pop(name)


def test_items_that_are_attributes_still_are(there_and_back: Callable[..., Namespace]) -> None:
    """`self.__dict__ = self`: pickle makes two dictionaries of one, and later attributes are no items."""
    code = """
    class Record(dict):
        def __init__(self, **items):
            super().__init__(items)
            self.__dict__ = self
    full, empty = Record(x=1, rows=[2]), Record()
    rows = full.rows
    """
    back = there_and_back(session(code))
    for record in (back["full"], back["empty"]):
        record.later = 3
        assert (record["later"], vars(record) is record) == (3, True)
    assert (back["full"].x, back["full"].rows is back["rows"]) == (1, True)
