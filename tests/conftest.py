"""Fixtures and rules for every test: ordinary user, tracked processes, named skips, a share of long sweeps."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import workers
from tests.support import (
    CHECKOUT,
    PROCESSOR,
    SKIP_PREFIX,
    ProcessTracker,
    User,
    needs,
    open_view,
    tracked_processes,
)

TEST_USER = "nbcr-test"
NO_SKIPS = os.environ.get("NBCR_CI_NO_SKIPS") == "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nbcr")
    group.addoption("--long", action="store_true", help="run every long sweep as well")
    group.addoption("--long-share", type=float, default=0.0, help="run this share (0-1) of the long sweeps")
    group.addoption("--long-budget-s", type=float, default=1e9, help="start no long sweep after this time")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(workers, "nbcr-workers")
    settings.register_profile("nbcr", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # no test is timed
    settings.load_profile("nbcr")
    # Keys and trust of the tests' own; and nobody packs behind the back of a test that does not ask for it.
    config.stash[_OWN_CONFIG] = tempfile.TemporaryDirectory(prefix="nbcr-config-")
    os.environ.update(NBCR_CONFIG=config.stash[_OWN_CONFIG].name, NBCR_PACK="never")
    signal.signal(signal.SIGTERM, _terminated)  # a run that is cut short ends what it started all the same
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_OWN_CONFIG].cleanup()


def _terminated(number: int, _frame: object) -> None:
    pytest.exit(f"ended by signal {number}", returncode=128 + number)


_OWN_CONFIG = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
_LONG_SINCE = pytest.StashKey[float]()


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {workers.seed(config)} (NBCR_SEED={workers.seed(config)} repeats its random choices)"


# --- long sweeps ---------------------------------------------------------------------------------------


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long sweeps out, or take all, or a random share of them; those come last."""
    _draw_variants(items, workers.seed(config))
    long = [item for item in items if item.get_closest_marker("long")]
    chosen = long
    if not config.getoption("--long"):
        chooser = random.Random(workers.seed(config))
        drawn = [item for item in long if not item.get_closest_marker("exhaustive")]
        chosen = chooser.sample(drawn, round(len(drawn) * config.getoption("--long-share")))
    left_out = set(map(id, long)) - set(map(id, chosen))
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
    items[:] = [item for item in items if not item.get_closest_marker("long")] + chosen


def _draw_variants(items: list[pytest.Item], seed: int) -> None:
    """Of variants that are alike but for one parameter (`either`), one drawn at random stays; the others are long."""
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        mark, callspec = item.get_closest_marker("either"), getattr(item, "callspec", None)
        if mark is None or callspec is None or item.get_closest_marker("long") or mark.args[0] not in callspec.params:
            continue
        test, _, variant = item.nodeid.partition("[")  # the name of a file may have the variant's in it
        family = f"{test}[{variant.replace(str(callspec.params[mark.args[0]]), '*')}"
        families.setdefault(family, []).append(item)
    for family, variants in families.items():
        stays = random.Random(f"{seed}/{family}").choice(variants)
        for item in variants:
            if item is not stays:
                item.add_marker(pytest.mark.long)


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Start no further long sweep when their time is used up."""
    if not item.get_closest_marker("long"):
        return None
    since = item.config.stash.setdefault(_LONG_SINCE, time.monotonic())
    if time.monotonic() - since < item.config.getoption("--long-budget-s"):
        return None
    workers.left_out(item.config).append(item.nodeid)
    return True


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if left_out := workers.left_out(config):
        terminalreporter.write_line(f"{len(left_out)} chosen long sweeps not started: their time was used up")
    if config.getoption("--long") or config.getoption("--long-share"):
        terminalreporter.write_line(f"repeat these random choices with NBCR_SEED={workers.seed(config)}")


# --- skips ---------------------------------------------------------------------------------------------


def _judge_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A skip has to name a missing capability; where nothing may be missing but processors' it is a failure."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(SKIP_PREFIX):
        report.outcome = "failed"
        report.longrepr = f"skipped without naming the missing capability (use tests.support.needs): {reason}"
    elif NO_SKIPS and not reason.startswith(SKIP_PREFIX + PROCESSOR):
        report.outcome = "failed"
        report.longrepr = f"a skip is a failure here (NBCR_CI_NO_SKIPS=1): {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge_skip(report)
    return report


# --- fixtures ------------------------------------------------------------------------------------------


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random choices that NBCR_SEED repeats, different for every test."""
    return random.Random(f"{workers.seed(request.config)}/{request.node.nodeid}")


@pytest.fixture
def processes() -> Iterator[ProcessTracker]:
    """Starts processes, and ends after the test whatever of them is left."""
    with tracked_processes() as tracker:
        yield tracker


@pytest.fixture(scope="session")
def ourselves() -> User:
    """Whoever runs the tests, who need not have an account: in containers, users often have none."""
    name = str(os.geteuid())
    with suppress(KeyError):
        name = pwd.getpwuid(os.geteuid()).pw_name
    return User(name, os.geteuid(), os.getegid(), Path.home())


@pytest.fixture(scope="session")
def as_user(ourselves: User, pytestconfig: pytest.Config) -> Iterator[User]:
    """An ordinary user without any capability: made by us when root runs the tests, else ourselves."""
    if os.geteuid() != 0:
        yield ourselves
        return
    with ExitStack() as stack:
        with workers.locked(pytestconfig, "account"):
            entry = _test_user()
        home = Path(tempfile.mkdtemp(prefix="nbcr-user-", dir="/tmp"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        (home / "run").mkdir(mode=0o700)
        needed = [CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)]
        view = stack.enter_context(open_view(needed))
        drop = "setpriv --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all"
        who = (f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--")
        user = User(entry.pw_name, entry.pw_uid, entry.pw_gid, home, (*view, *drop.split(), *who))
        user.give(home, home / "run")
        yield user


def _test_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(TEST_USER)
    except KeyError:
        pass
    if shutil.which("useradd") is None:
        needs("useradd", why="root needs an ordinary user to test as")
    made = subprocess.run(["useradd", "--system", "--no-create-home", TEST_USER], capture_output=True, text=True)
    if made.returncode != 0:
        needs("a user made by useradd", why=made.stderr.strip())
    return pwd.getpwnam(TEST_USER)


@pytest.fixture
def user_dir(as_user: User) -> Iterator[Path]:
    """A folder that belongs to the ordinary user."""
    folder = Path(tempfile.mkdtemp(prefix="nbcr-", dir="/tmp"))
    as_user.give(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
