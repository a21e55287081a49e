"""What names share is shared afterwards; names that share nothing are saved apart."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nbcr.objects import Report, look
from tests.unit.nbcr.objects.conftest import Namespace, session

Saved = Callable[..., Report]
ThereAndBack = Callable[..., Namespace]


def companions(place: Path) -> dict[str, tuple[str, ...]]:
    return {info.name: info.shares_with for info in look(place) if info.shares_with}


def test_names_that_share_a_list_are_one_unit_and_others_are_not(saved: Saved, place: Path) -> None:
    saved(session("a = [1]; b = {'x': a}; c = [1]; d = (1, 'x'); e = d"))
    assert companions(place) == {"a": ("b",), "b": ("a",)}


def test_a_class_without_state_ties_nobody(saved: Saved, place: Path) -> None:
    code = """
    class Plain:
        LIMIT = 3
        def __init__(self, x):
            self.x = super().__init__() or x
    class Counting:
        made = []
    p, q, r = Plain(1), Plain([2]), Counting()
    """
    saved(session(code))
    assert companions(place) == {"Counting": ("r",), "r": ("Counting",)}


def test_classes_are_one_class_though_saved_in_several_pieces(there_and_back: ThereAndBack) -> None:
    back = there_and_back(session("class P:\n    def f(self): return 1\np, q = P(), [P()]"))
    assert type(back["p"]) is back["P"]
    assert type(back["q"][0]) is back["P"]


@pytest.mark.parametrize(
    "expression", ["base[2:5]", "base[::-1]", "base.reshape(2, 5).T[1:]", "base.view('uint8')[3:]"]
)
def test_views_look_into_their_base(expression: str, either_way: ThereAndBack) -> None:
    back = either_way(session(f"import numpy as np; base = np.arange(10); view = {expression}"))
    base, view = back["base"], back["view"]
    expected = eval(expression, {"base": base.copy()})
    assert np.array_equal(view, expected)
    assert view.strides == expected.strides
    base[:] = base[::-1].copy()
    assert np.array_equal(view, eval(expression, {"base": base}))


def test_views_of_memory_that_nobody_else_has_are_saved_alone(saved: Saved) -> None:
    report = saved(session("import numpy as np; few = np.zeros(10**6)[:3]"))
    assert report.size_bytes < 30_000  # and what belongs to no name


def test_read_only_views_stay_so(there_and_back: ThereAndBack) -> None:
    back = there_and_back(
        session("import numpy as np; base = np.arange(4); view = base[1:]; view.flags.writeable = False")
    )
    assert not back["view"].flags.writeable
    assert back["base"].flags.writeable


@pytest.mark.parametrize("owner", ["bytearray(80)", "array.array('d', range(10))", "(ctypes.c_double * 10)()"])
def test_arrays_over_other_memory(owner: str, there_and_back: ThereAndBack) -> None:
    back = there_and_back(session(f"import array, ctypes, numpy as np; owner = {owner}; a = np.frombuffer(owner, 'd')"))
    back["a"][3] = 7.0
    assert memoryview(back["owner"]).cast("B").cast("d")[3] == 7.0


def test_frames_of_pandas_do_not_write_into_each_other(there_and_back: ThereAndBack) -> None:
    """They share memory and copy on write, which pandas forgets when it is pickled."""
    frame = pd.DataFrame({"a": np.arange(20_000.0), "b": np.arange(20_000.0)})
    back = there_and_back({"__name__": "__main__", "frame": frame, "column": frame["a"], "rows": frame[5:10]})
    back["column"].iloc[0] = -1
    back["frame"].iloc[6, 1] = -2
    assert back["frame"]["a"].iloc[0] == 0
    assert back["rows"]["b"].iloc[1] == 6


@pytest.mark.parametrize("dtype", ["float64", "Int64", "category"])
@pytest.mark.parametrize("size", [6, 20_000])
def test_what_was_taken_from_a_frame_keeps_its_values(dtype: str, size: int, there_and_back: ThereAndBack) -> None:
    """Whoever wrote to the frame had it copied, as somebody else had the same memory."""
    frame = pd.DataFrame({"a": np.arange(size) % 5}).astype(dtype)
    index = pd.Index(frame["a"], copy=False)
    names = {"frame": frame, "column": frame["a"], "index": index, "renamed": frame.rename(index=int)}
    if dtype == "float64":
        names["array"] = frame["a"].to_numpy()
    back = there_and_back({"__name__": "__main__", **names})
    back["frame"].loc[0, "a"] = 4
    assert back["frame"]["a"].iloc[0] == 4
    assert [back[name][0] for name in names if name not in ("frame", "renamed")] == [0] * (len(names) - 2)
    assert back["renamed"]["a"].iloc[0] == 0


def test_a_frame_alone_is_written_to_in_place(there_and_back: ThereAndBack) -> None:
    frame = pd.DataFrame({"a": np.arange(20_000.0)})
    column = frame["a"]
    back = there_and_back({"__name__": "__main__", "frame": frame, "column": column})
    del back["column"]
    address = back["frame"]["a"].to_numpy().__array_interface__["data"]
    back["frame"].loc[0, "a"] = -1
    assert back["frame"]["a"].to_numpy().__array_interface__["data"] == address


def test_memory_that_is_shared_in_an_unknown_way_is_told(saved: Saved) -> None:
    class Exporter:
        """Makes arrays over the same memory, that know nothing of each other."""

        def __init__(self, memory: np.ndarray) -> None:
            self.__array_interface__ = memory.__array_interface__

    memory = np.arange(20_000.0)
    report = saved({"__name__": "__main__", "one": np.asarray(Exporter(memory)), "two": memory})
    assert "no longer shares memory with two" in report.verdicts["one"].remark
    assert "no longer shares memory with one" in report.verdicts["two"].remark


# --- the heaviest container is pickled before anybody looks into it ----------------------------------------


@pytest.mark.parametrize("other", ["data[70_000]", "{'x': [data[5]]}", "[row for row in data[::7000]]"])
def test_sharing_with_a_very_large_container_is_kept(other: str, there_and_back: ThereAndBack) -> None:
    back = there_and_back(session(f"data = [[i] for i in range(100_000)]; other = {other}"))
    shared = {id(row) for row in back["data"]}
    reached = [obj for obj in gc.get_referents(back["other"]) if isinstance(obj, list)]
    reached += [inner for obj in reached for inner in obj if isinstance(inner, list)] + [back["other"]]
    assert any(id(obj) in shared for obj in reached)


def test_a_very_large_container_alone_stays_alone(saved: Saved, place: Path) -> None:
    saved(
        session("data = [[i] for i in range(100_000)]; other = [1]; empty = []; d = {}; loop = []; loop.append(loop)")
    )
    assert companions(place) == {}


def test_a_very_large_container_beside_functions_and_classes_is_pickled_once(saved: Saved, place: Path) -> None:
    code = """
    pickled = []
    class Counted:
        def __reduce__(self):
            pickled.append(id(self))
            return Counted, ()
    def deep(n):
        return n and deep(n - 1)
    other = Counted()
    data = [[i] for i in range(60_000)] + [Counted()]
    """
    namespace = session(code)
    assert not saved(namespace, fork=False).lost
    assert namespace["pickled"].count(id(namespace["data"][-1])) == 1
    assert "data" not in companions(place)


def test_views_inside_a_very_large_container(there_and_back: ThereAndBack) -> None:
    back = there_and_back(
        session("import numpy as np; base = np.arange(9); data = [*range(60_000), base[1:], base]; out = base[2:]")
    )
    back["data"][-1][2] = 50
    assert back["data"][-2][1] == back["out"][0] == 50


def test_a_culprit_in_a_very_large_container_is_found(saved: Saved) -> None:
    report = saved(session("data = [[i] for i in range(60_000)]; data[51_234].append((i for i in [])); kept = [1]"))
    assert [verdict.culprit for verdict in report.lost] == ["data[51234][1]"]
    assert [verdict.name for verdict in report.kept] == ["kept"]


@pytest.mark.parametrize("made", ["np.zeros(9)", "object()"])
def test_what_the_collector_does_not_look_at_is_shared_all_the_same(there_and_back: ThereAndBack, made: str) -> None:
    """Tuples and dicts of such objects are nothing to the collector either, once it has run."""
    code = f"""
    import gc, numpy as np
    x = {made}
    tuple_, nested, dict_, deeper = (x,), ("a", (1, x)), {{"a": x}}, {{"k": {{"j": (x, 1)}}}}
    keys, pairs = {{(1, id): x for id in range(3)}}, [(n, x) for n in range(5)] + [(n, "plain") for n in range(5)]
    gc.collect()
    """
    back = there_and_back(session(code))
    found = [back["tuple_"][0], back["nested"][1][1], back["dict_"]["a"], back["deeper"]["k"]["j"][0]]
    found += [*back["keys"].values(), *(second for _, second in back["pairs"][:5])]
    assert all(each is back["x"] for each in found)


def test_what_was_taken_out_of_a_document_keeps_its_own(there_and_back: ThereAndBack) -> None:
    code = (
        "from bs4 import BeautifulSoup; soup = BeautifulSoup('<p>a<b>x</b></p><i>z</i>', 'html.parser'); i = soup.i; "
    )
    back = there_and_back(session(code + "taken = soup.p.extract(); inside = taken.b"))
    assert back["taken"].b is back["inside"]
    assert back["i"].parent is back["soup"]


def test_structs_with_a_dictionary(there_and_back: ThereAndBack) -> None:
    code = "import msgspec\nclass S(msgspec.Struct, dict=True):\n    n: int\nx = S(1); x.extra = [2]; y = x.extra"
    back = there_and_back(session(code))
    assert (back["x"].n, back["x"].extra) == (1, [2])
    assert back["x"].extra is back["y"]
