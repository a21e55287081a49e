"""Limits per name and in all; full disks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nbcr.errors import NoRoomInStore
from nbcr.objects import Fate, Report, load
from tests.unit.nbcr.objects.conftest import session

Saved = Callable[..., Report]


def test_names_beyond_the_limit_are_told_and_the_others_saved(saved: Saved) -> None:
    report = saved(session("import numpy as np; a = np.zeros(10**6); b = ['x' * 10**5]; c = 1"), max_size=500_000)
    assert [verdict.line() for verdict in report.lost] == ["a: lost: it is larger than the limit of 500,000 bytes"]
    assert report.size_bytes < 200_000


def test_what_shares_with_a_name_beyond_the_limit_stays_together(saved: Saved, place: Path) -> None:
    code = "import numpy as np; c = [1]; a = [c, np.zeros(10**6)]; b = [c]; d = [c, b]"
    report = saved(session(code), max_size=500_000)
    assert [verdict.name for verdict in report.lost] == ["a"]
    back = {"__name__": "__main__"}
    load(place, back)
    assert back["d"][0] is back["b"][0] is back["c"]


def test_a_limit_for_all_keeps_the_small_ones(saved: Saved) -> None:
    code = "import numpy as np; large = np.zeros(10**6); small = [np.zeros(100)]; other = np.zeros(3 * 10**5); n = 5"
    report = saved(session(code), max_total=3_000_000)
    assert {verdict.name for verdict in report.kept} == {"np", "small", "other", "n"}
    assert report.verdicts["large"].reason == "it is larger than what is left of the limit for all"
    assert report.verdicts["large"].fate is Fate.LOST


def test_a_very_large_container_does_not_take_it_all(saved: Saved) -> None:
    report = saved(session("data = [[i] for i in range(100_000)]; other = ['x' * 200_000]"), max_total=400_000)
    assert [verdict.line() for verdict in report.lost] == [
        "data: lost: it is larger than what is left of the limit for all"
    ]


@pytest.mark.parametrize("after", [0, 100_000, 5_000_000])
def test_a_full_disk_leaves_nothing(after: int, saved: Saved, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child inherits a disk that fills up."""
    write, left = os.write, [after]

    def filling(descriptor: int, data: bytes) -> int:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", filling)
    code = "import numpy as np; a = np.zeros(10**6); b = ['x' * 10**6]; c = [['y' * 70_000]]"
    with pytest.raises(NoRoomInStore, match=r"no snapshot of the objects at .*: No space left on device"):
        saved(session(code))
    assert not place.exists()


DEEP = "deep = []\nfor _ in range(3000): deep = [deep]\nshared = [1]; deep = [deep, shared]\n"


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        ("other = [bytearray(3_000_000), shared]", "it is larger than the limit of 1,000,000 bytes"),
        ("other = [(x for x in ()), shared]", "a running generator cannot be copied"),
    ],
)
def test_a_deep_name_stays_where_one_beside_it_cannot(saved: Saved, beside: str, reason: str) -> None:
    report = saved(session(DEEP + beside), max_size=1_000_000)
    assert [(verdict.name, verdict.reason) for verdict in report.lost] == [("other", reason)]
