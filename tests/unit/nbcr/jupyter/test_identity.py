"""The parent that may be anybody, and what of the environment belongs to the surroundings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nbcr.jupyter import identity
from nbcr.jupyter.identity import AnyParent, Parent


def changed(poller: Any, ppid: int) -> bool:
    """ipykernel's own judgement (ParentPollerUnix.run)."""
    parent_is_init = not poller.parent_pid and ppid == 1
    return bool(parent_is_init or (poller.parent_pid and ppid != poller.parent_pid))


@pytest.mark.parametrize("armed", [0, 1, 77])
def test_a_disarmed_poller_accepts_every_parent_until_it_is_armed_again(armed: int) -> None:
    poller = SimpleNamespace(parent_pid=armed)
    parent = Parent(SimpleNamespace(poller=poller))
    parent.disarm()
    parent.disarm()
    assert not any(changed(poller, ppid) for ppid in (1, 2, 77, 4_000_000))
    parent.rearm()
    parent.rearm()
    assert type(poller.parent_pid) is int
    assert poller.parent_pid == armed


@pytest.mark.parametrize(("adopted", "dies_with_it"), [(55, True), (None, False)])
def test_a_restored_life_watches_its_supervisor_or_nobody(adopted: int | None, dies_with_it: bool) -> None:
    poller = SimpleNamespace(parent_pid=77)
    parent = Parent(SimpleNamespace(poller=poller))
    parent.disarm()
    parent.adopt(adopted)
    assert not changed(poller, 55)
    assert changed(poller, 1) is dies_with_it
    parent.disarm()
    assert not changed(poller, 1)


def test_no_poller_is_no_trouble() -> None:
    parent = Parent(SimpleNamespace(poller=None))
    parent.disarm()
    parent.rearm()
    parent.adopt(3)


def test_any_parent_is_an_int_like_every_other() -> None:
    assert AnyParent(3) == 9
    assert not AnyParent(3) != 9  # noqa: SIM202 - it is `!=` that ipykernel asks
    assert bool(AnyParent(0))
    assert f"{AnyParent(3):d}" == "3"
    assert AnyParent(3) != "3"


def test_the_users_own_variables_stay_and_those_of_the_surroundings_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [n for n in identity.os.environ if identity._is_surrounding(n)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MY_SETTING", "mine")
    monkeypatch.setenv("JPY_SESSION_NAME", "/old.ipynb")
    monkeypatch.setenv("DISPLAY", ":0")
    shell = SimpleNamespace(user_ns={"__session__": "/old.ipynb"})
    living: Any = SimpleNamespace(kernel=SimpleNamespace(shell=shell))
    present = {"JPY_SESSION_NAME": "/new.ipynb", "MY_SETTING": "theirs", "SSH_AUTH_SOCK": "/s", "OTHER": "x"}
    identity.adopt_environment(present, living)
    environ = identity.os.environ
    try:
        assert environ["MY_SETTING"] == "mine"
        assert environ["JPY_SESSION_NAME"] == "/new.ipynb"
        assert environ["SSH_AUTH_SOCK"] == "/s"
        assert "DISPLAY" not in environ
        assert "OTHER" not in environ
        assert shell.user_ns["__session__"] == "/new.ipynb"
    finally:
        del environ["SSH_AUTH_SOCK"]
